"""What is looked at in a guest that has booted.

One script in POSIX sh with busybox-level tools collects facts in the guest, in one go, for
every command costs an emulated guest a second. The checks are pure functions over those facts.
"""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imagefactory.boot.instance import (
    DNS,
    GATEWAY,
    STATIC_IPV6,
    STATIC_MTU,
    InstanceData,
)
from imagefactory.boot.report import Check, Verdict

USER_DATA_FILE = "/var/lib/imagefactory-boot-test.user-data"
VENDOR_DATA_FILE = "/var/lib/imagefactory-boot-test.vendor-data"
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
    """Return the script that prints every fact, each after a line ``@@name``."""
    return textwrap.dedent(f"""\
        exec 2>/dev/null
        PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin
        have() {{ command -v "$1" >/dev/null; }}
        fact() {{ printf '\\n@@%s\\n' "$1"; }}
        fact cloud-init; have cloud-init && cloud-init status --wait --long | sed 's,^[.]*,,'
        fact systemd; have systemctl && [ -d /run/systemd/system ] && {{
            systemctl is-system-running --wait; systemctl --failed --no-legend --plain; }}
        left={WAIT_SECONDS}
        while [ "$left" -gt 0 ] && ! [ -s {USER_DATA_FILE} ]; do left=$((left - 1)); sleep 1; done
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
        fact host-keys; ls /etc/ssh/ssh_host_*_key.pub /etc/dropbear/*_host_key
        fact status; have imagefactory-status && cat /run/imagefactory/status.json
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
    """The guest is of a kind to which the check does not apply."""


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


def _require(condition: object, wrong: str) -> None:
    if not condition:
        raise AssertionError(wrong)


def _complete(facts: Facts, expected: Expected) -> str:
    _require(
        facts.get("end") == expected.token, f"the guest answered only: {', '.join(facts) or '-'}"
    )
    return f"{len(facts)} facts"


def _architecture(facts: Facts, expected: Expected) -> str:
    seen = facts.get("uname", "")
    _require(seen == expected.uname, f"uname -m is {seen!r}, the image says {expected.uname!r}")
    return f"{seen}, Linux {facts.get('kernel', '?')}"


def _hostname(facts: Facts, expected: Expected) -> str:
    seen, wanted = facts.get("hostname", ""), expected.instance.hostname
    _require(seen.split(".")[0] == wanted, f"the hostname is {seen!r}, not {wanted!r}")
    return seen


def _user_data(facts: Facts, expected: Expected) -> str:
    lines = facts.get("user-data", "").split()
    _require(lines, "the user-data script did not run")
    _require(set(lines) == {expected.token}, f"the script left {lines[0]!r}, not its token")
    _require(len(lines) == 1, f"the user-data script ran {len(lines)} times")
    return "ran once"


def _vendor_data(facts: Facts, expected: Expected) -> str:
    lines = facts.get("vendor-data", "").split()
    if not lines and not facts.get("cloud-init"):
        raise SkippedError("the guest has no cloud-init; others need not read vendor data")
    _require(lines == [expected.token], f"the vendor-data script left {lines}")
    return "ran once"


def _root_grew(facts: Facts, expected: Expected) -> str:
    columns = facts.get("root", "").split()
    _require(len(columns) >= 6 and columns[1].isdecimal(), f"df says {facts.get('root')!r}")
    size = int(columns[1]) * 1024
    # A filesystem keeps a few per cent for itself, an image may have other partitions.
    grown = size > expected.image_bytes or size > 0.85 * expected.overlay_bytes
    seen = f"{size >> 20} MiB of a {expected.overlay_bytes >> 20} MiB disk"
    _require(grown, f"the root filesystem did not grow: {seen}")
    return f"{seen} (image: {expected.image_bytes >> 20} MiB)"


def _address(facts: Facts, expected: Expected) -> str:
    seen, wanted = facts.get("addresses", ""), expected.instance.address
    _require(re.search(rf"\b{re.escape(wanted)}\b", seen), f"no {wanted} among:\n{seen}")
    if expected.instance.network == "static":
        _require(STATIC_IPV6 in seen, f"no {STATIC_IPV6} among:\n{seen}")
        return f"{wanted}, {STATIC_IPV6}"
    return wanted


def _route(facts: Facts, expected: Expected) -> str:
    routes = facts.get("routes", "")
    pattern = rf"(?m)^(?:default via|0\.0\.0\.0) +{re.escape(GATEWAY)}\b"
    _require(re.search(pattern, routes), f"no default route by {GATEWAY} among:\n{routes}")
    return f"default via {GATEWAY}"


def _mtu(facts: Facts, expected: Expected) -> str:
    if expected.instance.network != "static":
        raise SkippedError("the cloud gives an MTU to the static network only")
    for line in facts.get("links", "").splitlines():
        mac, mtu, *_ = [*line.split(), "", ""]
        if mac == expected.instance.mac:
            _require(mtu == str(STATIC_MTU), f"the MTU is {mtu}, not {STATIC_MTU}")
            return mtu
    raise AssertionError(f"no interface has the address {expected.instance.mac}")


def _dns(facts: Facts, expected: Expected) -> str:
    _require(re.search(rf"nameserver\s+{re.escape(DNS)}\b", facts.get("dns", "")), f"not {DNS}")
    return DNS


def _metadata(facts: Facts, expected: Expected) -> str:
    if not expected.metadata_service:
        raise SkippedError("this boot has no metadata service")
    text = facts.get("metadata", "")
    try:
        seen = json.loads(text).get("uuid")
    except (ValueError, AttributeError):
        seen = None
    _require(seen == expected.instance.uuid, f"169.254.169.254 answered {text[:200]!r}")
    return "169.254.169.254 answers"


def _host_keys(facts: Facts, expected: Expected) -> str:
    keys = facts.get("host-keys", "").split()
    _require(keys, "the guest has no SSH host keys where sshd and dropbear keep them")
    return ", ".join(key.rsplit("/", 1)[-1] for key in keys)


def _memory(facts: Facts, expected: Expected) -> str:
    seen = facts.get("memory", "").split()
    _require(seen and seen[0].isdecimal(), f"MemTotal is {facts.get('memory')!r}")
    total = int(seen[0]) >> 10
    # The kernel, its crash reserve and the firmware keep some; half would be a wrong map.
    _require(expected.memory / 2 < total <= expected.memory, f"{total} of {expected.memory} MiB")
    return f"{total} of {expected.memory} MiB"


def _services(facts: Facts, expected: Expected) -> str:
    lines = facts.get("systemd", "").splitlines()
    if not lines:
        raise SkippedError("the guest has no systemd")
    failed = [line.split()[0] for line in lines[1:] if line.strip()]
    _require(not failed, f"failed units: {', '.join(failed)}")
    _require(lines[0] in {"running", "degraded", "starting"}, f"systemd is {lines[0]!r}")
    return lines[0]


def _cloud_init(facts: Facts, expected: Expected) -> str:
    text = facts.get("cloud-init", "")
    if not text:
        raise SkippedError("the guest has no cloud-init")
    found = re.search(r"status: (\w+)", text)
    _require(found and found[1] == "done", f"cloud-init: {text}")
    return "done"


def _status(facts: Facts, expected: Expected) -> str:
    text = facts.get("status", "")
    if not text:
        raise SkippedError("the guest has no imagefactory-status")
    try:
        status = json.loads(text)
    except ValueError:
        raise AssertionError(f"status.json is not JSON: {text[:200]!r}") from None
    failed = status.get("failed") if isinstance(status, dict) else None
    _require(failed in (0, "0"), f"imagefactory-status reports failures: {text[:2000]}")
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
    ("cloud-init", _cloud_init),
    ("imagefactory-status", _status),
)
