"""What is looked at in a guest that has booted.

One script in POSIX sh with busybox-level tools collects facts in the guest, in one go, for
every command costs an emulated guest a second. The checks are pure functions over those facts.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

from imagefactory.boot import cloudinit
from imagefactory.boot.facts import LABELLED, Expected, Facts, SkippedError, require
from imagefactory.boot.instance import DNS, GATEWAY, STATIC_IPV6, STATIC_MTU
from imagefactory.boot.report import SECURE_BOOT, Check, Verdict


def run_checks(facts: Facts, expected: Expected) -> tuple[Check, ...]:
    """Run every check; each returns what it saw or raises AssertionError with what is wrong."""
    return tuple(_run(name, check, facts, expected) for name, check in CHECKS)


def _run(
    name: str, check: Callable[[Facts, Expected], str], facts: Facts, expected: Expected
) -> Check:
    began = time.monotonic()
    verdict: Verdict = "passed"
    try:
        detail = check(facts, expected)
    except SkippedError as why:
        verdict, detail = "skipped", str(why)
    except AssertionError as wrong:
        verdict, detail = "failed", str(wrong)
    return Check(name, verdict, detail, time.monotonic() - began)


def _complete(facts: Facts, expected: Expected) -> str:
    require(
        facts.get("end") == expected.token, f"the guest answered only: {', '.join(facts) or '-'}"
    )
    return f"{len(facts)} facts"


def _architecture(facts: Facts, expected: Expected) -> str:
    seen = facts.get("uname", "")
    require(seen == expected.uname, f"uname -m is {seen!r}, the image says {expected.uname!r}")
    return f"{seen}, Linux {facts.get('kernel', '?')}"


def _hostname(facts: Facts, expected: Expected) -> str:
    seen, wanted = facts.get("hostname", ""), expected.instance.hostname
    require(seen.split(".")[0] == wanted, f"the hostname is {seen!r}, not {wanted!r}")
    return seen


def _user_data(facts: Facts, expected: Expected) -> str:
    lines = facts.get("user-data", "").split()
    require(lines, "the user-data script did not run")
    require(set(lines) == {expected.token}, f"the script left {lines[0]!r}, not its token")
    require(len(lines) == 1, f"the user-data script ran {len(lines)} times")
    return "ran once"


def _vendor_data(facts: Facts, expected: Expected) -> str:
    lines = facts.get("vendor-data", "").split()
    if not lines and not facts.get("cloud-init"):
        raise SkippedError("the guest has no cloud-init; others need not read vendor data")
    require(lines == [expected.token], f"the vendor-data script left {lines}")
    return "ran once"


def _root_grew(facts: Facts, expected: Expected) -> str:
    columns = facts.get("root", "").split()
    require(len(columns) >= 6 and columns[1].isdecimal(), f"df says {facts.get('root')!r}")
    size = int(columns[1]) * 1024
    # A filesystem keeps a few per cent for itself, an image may have other partitions.
    grown = size > expected.image_bytes or size > 0.85 * expected.overlay_bytes
    seen = f"{size >> 20} MiB of a {expected.overlay_bytes >> 20} MiB disk"
    require(grown, f"the root filesystem did not grow: {seen}")
    return f"{seen} (image: {expected.image_bytes >> 20} MiB)"


def _address(facts: Facts, expected: Expected) -> str:
    seen, wanted = facts.get("addresses", ""), expected.instance.address
    require(re.search(rf"\b{re.escape(wanted)}\b", seen), f"no {wanted} among:\n{seen}")
    if expected.instance.network == "static":
        require(STATIC_IPV6 in seen, f"no {STATIC_IPV6} among:\n{seen}")
        return f"{wanted}, {STATIC_IPV6}"
    return wanted


def _route(facts: Facts, expected: Expected) -> str:
    routes = facts.get("routes", "")
    pattern = rf"(?m)^(?:default via|0\.0\.0\.0) +{re.escape(GATEWAY)}\b"
    require(re.search(pattern, routes), f"no default route by {GATEWAY} among:\n{routes}")
    return f"default via {GATEWAY}"


def _mtu(facts: Facts, expected: Expected) -> str:
    if expected.instance.network != "static":
        raise SkippedError("the cloud gives an MTU to the static network only")
    for line in facts.get("links", "").splitlines():
        mac, mtu, *_ = [*line.split(), "", ""]
        if mac == expected.instance.mac:
            require(mtu == str(STATIC_MTU), f"the MTU is {mtu}, not {STATIC_MTU}")
            return mtu
    raise AssertionError(f"no interface has the address {expected.instance.mac}")


def _dns(facts: Facts, expected: Expected) -> str:
    require(re.search(rf"nameserver\s+{re.escape(DNS)}\b", facts.get("dns", "")), f"not {DNS}")
    return DNS


def _metadata(facts: Facts, expected: Expected) -> str:
    if not expected.metadata_service:
        raise SkippedError("this boot has no metadata service")
    text = facts.get("metadata", "")
    try:
        seen = json.loads(text).get("uuid")
    except (ValueError, AttributeError):
        seen = None
    require(seen == expected.instance.uuid, f"169.254.169.254 answered {text[:200]!r}")
    return "169.254.169.254 answers"


def _host_keys(facts: Facts, expected: Expected) -> str:
    files = [line.split()[0] for line in facts.get("host-keys", "").splitlines() if line.strip()]
    require(files, "the guest has no SSH host keys where sshd and dropbear keep them")
    return ", ".join(file.rsplit("/", 1)[-1] for file in files)


def _memory(facts: Facts, expected: Expected) -> str:
    seen = facts.get("memory", "").split()
    require(seen and seen[0].isdecimal(), f"MemTotal is {facts.get('memory')!r}")
    total = int(seen[0]) >> 10
    # The kernel, its crash reserve and the firmware keep some; half would be a wrong map.
    require(expected.memory / 2 < total <= expected.memory, f"{total} of {expected.memory} MiB")
    return f"{total} of {expected.memory} MiB"


def _services(facts: Facts, expected: Expected) -> str:
    lines = facts.get("systemd", "").splitlines()
    if not lines:
        raise SkippedError("the guest has no systemd")
    failed = [line.split()[0] for line in lines[1:] if line.strip()]
    told = f"failed units: {', '.join(failed)}" if failed else "no unit failed"
    require(lines[0] == "running" and not failed, f"systemd is {lines[0]!r}, {told}")
    return lines[0]


def _machine_id(facts: Facts, expected: Expected) -> str:
    seen = facts.get("machine-id", "")
    if not seen and not facts.get("systemd"):
        raise SkippedError("the guest has neither systemd nor a machine-id")
    require(re.fullmatch("[0-9a-f]{32}", seen), f"/etc/machine-id is {seen!r}")
    return seen


def _secure_boot(facts: Facts, expected: Expected) -> str:
    if not expected.secure_boot:
        raise SkippedError("this boot's firmware does not enforce Secure Boot")
    seen = facts.get("secure-boot", "")
    require(seen, "the guest has no EFI variables")
    values = dict(line.split() for line in seen.splitlines() if len(line.split()) == 2)
    for name, wanted in (("SecureBoot", "1"), ("SetupMode", "0")):
        require(values.get(name) == wanted, f"{name} is {values.get(name)}, not {wanted}")
    # The firmware's word is not enough: a bootloader may have started a kernel past it all.
    locked = re.search(r"(?m)^lockdown .*\[(integrity|confidentiality)\]", seen)
    told = re.search(r"(?im)^kernel .*secure ?boot.*\benabled\b", seen)
    require(locked or told, f"the kernel does not know of Secure Boot: {seen}")
    lockdown = f"lockdown {locked[1]}" if locked else "no lockdown"
    return f"SecureBoot=1, SetupMode=0, {lockdown}"


_OF_THE_GUEST = ("Would relabel /etc/.pwd.lock ",)
"""What the guest's own programs write first, under another label than its policy then wants."""


def _selinux(facts: Facts, expected: Expected) -> str:
    lines = facts.get("selinux", "").split()
    if len(lines) < 2:
        raise SkippedError("the guest has no SELinux")
    configured, running = lines[0].lower(), lines[-1].lower()
    require(running == configured, f"SELinux is {running}, /etc/selinux/config says {configured}")
    return running


def _labels(facts: Facts, expected: Expected) -> str:
    lines = facts.get("selinux", "").split()
    if len(lines) < 2 or lines[-1].lower() == "disabled":
        raise SkippedError("the guest has no SELinux at work")
    told = facts.get("selinux-labels", "").splitlines()
    wrong = [line for line in told if not line.startswith(_OF_THE_GUEST)]
    require(not wrong, "restorecon would change labels:\n" + "\n".join(wrong))
    return f"as the policy wants them in {LABELLED}"


def _status(facts: Facts, expected: Expected) -> str:
    text = facts.get("status", "")
    if not text:
        raise SkippedError("the guest has no imagefactory-status")
    try:
        status = json.loads(text)
    except ValueError:
        raise AssertionError(f"status.json is not JSON: {text[:200]!r}") from None
    failed = status.get("failed") if isinstance(status, dict) else None
    require(failed in (0, "0"), f"imagefactory-status reports failures: {text[:2000]}")
    return f"ok={status.get('ok')} warn={status.get('warn')} failed={failed}"


CHECKS: tuple[tuple[str, Callable[[Facts, Expected], str]], ...] = (
    ("answers", _complete),
    ("architecture", _architecture),
    ("hostname", _hostname),
    ("user-data", _user_data),
    ("vendor-data", _vendor_data),
    ("root filesystem grew", _root_grew),
    ("address", _address),
    ("default route", _route),
    ("mtu", _mtu),
    ("dns", _dns),
    ("metadata service", _metadata),
    ("ssh host keys", _host_keys),
    ("memory", _memory),
    ("services", _services),
    ("cloud-init", cloudinit.check_work),
    ("datasource", cloudinit.check_datasource),
    ("machine-id", _machine_id),
    (SECURE_BOOT, _secure_boot),
    ("selinux", _selinux),
    ("selinux labels", _labels),
    ("imagefactory-status", _status),
)
