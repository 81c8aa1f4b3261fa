"""The files of one boot: overlay, config drive, firmware, QEMU's words; and what it must show."""

from __future__ import annotations

import math
import secrets
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from imagefactory.boot import accel, firmware, instance, machine, seed
from imagefactory.boot.facts import WAIT_SECONDS, Expected, user_data, vendor_data
from imagefactory.boot.guest import new_key
from imagefactory.boot.machine import Accelerator, Files, Network
from imagefactory.boot.nova import NovaGuest
from imagefactory.boot.planned import Image, PlannedBoot
from imagefactory.boot.spec import CAPTURE, Budgets, SessionSpec
from imagefactory.run import run
from imagefactory.template import BootCase

GIB = 1 << 30
ROOM = GIB
"""The overlay is larger than the image by at least this much, so that growth shows."""

DEFAULT_USER = "cloud"


def prepare(
    plan: PlannedBoot, image: Image, accelerator: Accelerator, work: Path, budgets: Budgets
) -> SessionSpec:
    """Write all files of a boot, and return what its process has to know.

    Args:
        plan: The boot.
        image: The disk under test.
        accelerator: What runs the guest.
        work: Directory of what does not outlive the boot; the evidence lies around it.
        budgets: Its times.
    """
    case, guest = plan.case, plan.guest
    data, private_key, token = _new_instance(case)
    overlay_size = _overlay_size(image, plan.properties)
    _create_overlay(image, work / "disk.qcow2", overlay_size)
    seed_file = _write_seed(case, guest, data, work.parent)
    flash = firmware.prepare(plan.firmware, plan.machine, work) if plan.firmware else None
    files = Files(
        disk=work / "disk.qcow2",
        seed=seed_file,
        firmware=flash,
        capture=work.parent / CAPTURE,
        kernel=image.kernel,
        ramdisk=image.ramdisk,
    )
    network = Network(data.mac, data.address, instance.IPV6_PREFIX)
    command = machine.command(
        guest, plan.emulator, files, network, uuid=data.uuid, accelerator=accelerator
    )
    alone = replace(
        files, console="stdio,mux=on,signal=off", qmp=None, firmware_log="null", capture=None
    )
    by_hand = machine.command(
        guest, plan.emulator, alone, network, uuid=data.uuid, accelerator=accelerator
    )
    script = _script(by_hand, work, image, overlay_size, plan.firmware)
    (work.parent / "qemu.sh").write_text(script, encoding="utf-8")
    (work.parent / "qemu.sh").chmod(0o755)
    return SessionSpec(
        name=case.name,
        accelerator=accelerator,
        command=tuple(command),
        evidence=work.parent,
        budgets=budgets,
        user=None if case.datasource == "none" else guest.admin_user or DEFAULT_USER,
        private_key=private_key,
        expected=Expected(
            uname=guest.architecture,
            instance=data,
            token=token,
            metadata_service=_serves_metadata(case),
            memory=guest.memory,
            image_bytes=image.virtual_size,
            overlay_bytes=overlay_size,
            datasources=offered(case, guest),
            secure_boot=plan.firmware is not None and plan.firmware.secure,
        ),
        display=guest.video_model != "none",
        serve_metadata=_serves_metadata(case),
        guest_agent=guest.guest_agent,
        reboot=case.reboot,
    )


def allot(
    guest: NovaGuest,
    accelerator: Accelerator,
    *,
    boot: float | None = None,
    patience: float = 1.0,
    trial: bool = False,
) -> Budgets:
    """Allot the times of a boot, in seconds.

    Args:
        guest: Its architecture's budget is for emulation.
        accelerator: KVM gets a share of it.
        boot: From power-on to SSH, instead of the architecture's own.
        patience: How much more than the architecture's budget this image gets.
        trial: Whether the accelerator has yet to prove itself.
    """
    full = guest.hypervisor.boot_budget * patience
    share = accel.KVM_SHARE if accelerator == "kvm" else 1.0
    boot = boot or full * share
    return Budgets(
        boot=boot,
        stall=boot * 0.6,
        kernel=min(boot, full * accel.TRIAL_SHARE) if trial else boot * 0.8,
        refusal=boot * 0.3,
        checks=(full + WAIT_SECONDS) * share,
        power_off=full / 2 * share,
    )


def _overlay_size(image: Image, properties: Mapping[str, str]) -> int:
    wanted = math.ceil((image.virtual_size + ROOM) / GIB) * GIB
    return max(wanted, int(properties.get("min_disk") or 0) * GIB)


_DATASOURCES: Mapping[str, tuple[str, ...]] = {
    "config-drive": ("DataSourceConfigDrive",),
    "openstack": ("DataSourceOpenStack",),
    # nova's metadata service always speaks both languages; a guest may prefer the richer one.
    "ec2": ("DataSourceEc2", "DataSourceOpenStack"),
    "nocloud": ("DataSourceNoCloud",),
    "none": (),
}
"""Case -> the classes of cloud-init's datasources; some have variants with a longer name."""


def offered(case: BootCase, guest: NovaGuest) -> tuple[str, ...]:
    """Return cloud-init's names of the datasources that a guest can find."""
    drive = _DATASOURCES["config-drive"] if guest.config_drive else ()
    return (*_DATASOURCES[case.datasource], *drive)


def _serves_metadata(case: BootCase) -> bool:
    return case.datasource in {"openstack", "ec2"}


def _new_instance(case: BootCase) -> tuple[instance.InstanceData, str, str]:
    private, public = new_key()
    token = secrets.token_hex(8)
    # Locally administered, as neutron's base_mac fa:16:3e.
    mac = "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))
    data = instance.InstanceData(
        uuid=str(uuid.uuid4()),
        hostname=f"boot-{token[:6]}",
        public_key=public,
        mac=mac,
        user_data=user_data(token),
        vendor_data=vendor_data(token),
        network=case.network,
    )
    return data, private, token


def _write_seed(
    case: BootCase, guest: NovaGuest, data: instance.InstanceData, directory: Path
) -> Path | None:
    if case.datasource == "nocloud":
        path = directory / "nocloud.iso"
        seed.write(path, instance.nocloud(data), seed.NOCLOUD_LABEL)
        return path
    # img_config_drive=mandatory: nova attaches one whatever the user asked for.
    if case.datasource == "config-drive" or guest.config_drive:
        path = directory / "config-drive.iso"
        seed.write(path, instance.config_drive(data), seed.CONFIG_DRIVE_LABEL)
        return path
    return None


def _overlay_command(image: Image, overlay: str, size: int) -> list[str]:
    return [
        *("qemu-img", "create", "-q", "-f", "qcow2"),
        *("-b", str(image.path), "-F", image.format, overlay, str(size)),
    ]


def _create_overlay(image: Image, overlay: Path, size: int) -> None:
    run(_overlay_command(image, str(overlay), size))


def _script(
    command: Sequence[str],
    work: Path,
    image: Image,
    overlay_size: int,
    found: firmware.Firmware | None,
) -> str:
    """Write the boot as a shell script for people; its disk and variables are fresh each time."""
    overlay = shlex.join(_overlay_command(image, "disk.qcow2", overlay_size))
    lines = [
        "#!/bin/sh",
        "# The machine of this boot test, with its console on this terminal (Ctrl-A X ends it).",
        "# The metadata service is not part of it; log in on port 2222 of this host.",
        "set -eu",
        'work=$(mktemp -d); cd "$work"; trap \'rm -rf "$work"\' EXIT',
        overlay,
    ]
    if found is not None and found.template is not None:
        lines.append(f"cp {shlex.quote(str(found.template))} variables.fd; chmod u+w variables.fd")
    words = shlex.join(command).replace(f"{work}/", "")
    return "\n".join([*lines, words, ""])
