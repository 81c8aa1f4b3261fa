"""What a guest is given to run, what it is asked, and how its answers are read."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from imagefactory.boot.instance import InstanceData

USER_DATA_FILE = "/var/lib/imagefactory-boot-test.user-data"
VENDOR_DATA_FILE = "/var/lib/imagefactory-boot-test.vendor-data"
STATUS_FILE = "/run/imagefactory/status.json"
"""Where a minimal image tells what became of its boot, once that is over."""
EFI_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""EFI_GLOBAL_VARIABLE (UEFI specification 3.3); Linux's files hold 4 bytes of attributes first."""
LABELLED = "/boot /etc /usr /var"
"""Where SELinux's labels are compared with the policy's; the rest is users' and the kernel's."""
WAIT_SECONDS = 90
"""Seconds that the guest itself may take from SSH to the end of its first boot's work."""


@dataclass(frozen=True)
class Expected:
    """What the guest was given, so what it must show."""

    uname: str
    instance: InstanceData
    token: str
    metadata_service: bool
    memory: int
    """MiB"""
    image_bytes: int
    overlay_bytes: int
    datasources: tuple[str, ...] = ()
    """cloud-init's names of what was offered, each the beginning of the name it may report."""
    secure_boot: bool = False
    """Whether the firmware enforces Secure Boot."""


def user_data(token: str) -> str:
    """Return a user-data script that leaves a trace each time it runs."""
    return textwrap.dedent(f"""\
        #!/bin/sh
        # Each run adds a line: the boot test wants exactly one.
        echo {token} >>{USER_DATA_FILE}
        echo "imagefactory-boot-test: user-data {token}" >/dev/console
        """)


def vendor_data(token: str) -> dict[str, str]:
    """Return vendor data that cloud-init acts upon; other guests may leave it alone."""
    return {"cloud-init": f"#!/bin/sh\necho {token} >>{VENDOR_DATA_FILE}\n"}


def facts_script(token: str) -> str:
    """Return the script that prints every fact, each after a line ``@@name``.

    Of a guest's secrets it prints none: host keys only in their public form.
    """
    return textwrap.dedent(f"""\
        exec 2>/dev/null
        PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin
        have() {{ command -v "$1" >/dev/null; }}
        fact() {{ printf '\\n@@%s\\n' "$1"; }}
        as_root() {{ [ "$(id -u)" = 0 ] || set -- sudo -n "$@"; "$@" </dev/null; }}
        fact cloud-init; have cloud-init && cloud-init status --wait --long | sed 's,^[.]*,,'
        fact cloud-init-status; cat /run/cloud-init/status.json
        fact cloud-init-result; cat /run/cloud-init/result.json
        fact systemd; have systemctl && [ -d /run/systemd/system ] && {{
            systemctl is-system-running --wait; systemctl --failed --no-legend --plain; }}
        done_booting() {{
            [ -s {USER_DATA_FILE} ] && {{ ! have imagefactory-status || [ -s {STATUS_FILE} ]; }}; }}
        left={WAIT_SECONDS}
        while [ "$left" -gt 0 ] && ! done_booting; do left=$((left - 1)); sleep 1; done
        fact user-data; cat {USER_DATA_FILE}
        fact vendor-data; cat {VENDOR_DATA_FILE}
        fact uname; uname -m
        fact kernel; uname -r
        fact hostname; cat /proc/sys/kernel/hostname
        fact uptime; cat /proc/uptime
        fact memory; sed -n 's/^MemTotal: *//p' /proc/meminfo
        fact root; df -kP / | tail -n 1
        fact addresses; ip addr show || ifconfig -a
        fact links; for i in /sys/class/net/*; do
            echo "$(cat $i/address) $(cat $i/mtu) ${{i##*/}}"; done
        fact routes; ip route show || route -n
        fact dns; cat /etc/resolv.conf /run/systemd/resolve/resolv.conf
        fact metadata; url=http://169.254.169.254/openstack/latest/meta_data.json
        limit=; have timeout && timeout 1 true && limit='timeout 20'
        # Not wget's own -T: it crashes busybox 1.35.
        $limit wget -q -O - $url || $limit curl -sf $url
        fact host-keys
        for file in /etc/ssh/ssh_host_*_key.pub; do
            [ -e "$file" ] && echo "$file $(cut -d ' ' -f 1,2 "$file")"; done
        for file in /etc/dropbear/*_host_key; do
            [ -e "$file" ] && echo "$file $(as_root dropbearkey -y -f "$file" |
                grep -E '^(ssh|ecdsa)-' | cut -d ' ' -f 1,2)"; done
        fact machine-id; cat /etc/machine-id
        fact boot-id; cat /proc/sys/kernel/random/boot_id
        fact secure-boot; efi=/sys/firmware/efi/efivars
        [ -d $efi ] && {{
            [ -e $efi/SecureBoot-{EFI_GLOBAL} ] || as_root mount -t efivarfs none $efi
            for name in SecureBoot SetupMode; do
                echo "$name $(od -A n -t u1 -j 4 -N 1 $efi/$name-{EFI_GLOBAL})"; done
            echo "lockdown $(cat /sys/kernel/security/lockdown)"
            as_root dmesg | grep -i 'secure *boot' | sed 's,^,kernel ,'; }}
        fact selinux; have getenforce && {{
            sed -n 's/^SELINUX=//p' /etc/selinux/config; getenforce; }}
        fact selinux-labels; have getenforce && [ "$(getenforce)" != Disabled ] &&
            as_root restorecon -n -v -R {LABELLED} | head -n 40
        fact status; have imagefactory-status && cat {STATUS_FILE}
        fact end; echo {token}
        """)


Facts = Mapping[str, str]


def parse_facts(text: str) -> dict[str, str]:
    """Read what ``facts_script`` printed."""
    facts = {}
    for part in re.split(r"(?m)^@@", text)[1:]:
        name, _, value = part.partition("\n")
        facts[name.strip()] = value.strip()
    return facts


class SkippedError(Exception):
    """The guest is of a kind to which a check does not apply."""


def require(condition: object, wrong: str) -> None:
    """Fail the check that calls this unless the condition holds.

    Raises:
        AssertionError: It does not; the message says what is wrong.
    """
    if not condition:
        raise AssertionError(wrong)
