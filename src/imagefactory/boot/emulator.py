"""Asks a QEMU binary what it is: version, machine types, devices."""

from __future__ import annotations

import functools
import re

from imagefactory.arch import Hypervisor
from imagefactory.boot.machine import Emulator
from imagefactory.run import need, run

_MACHINE = re.compile(r"^(?P<name>\S+)\s.*?(?:\(alias of (?P<canonical>\S+)\))?$")
_DEVICE = re.compile(r'^name "(?P<name>[^"]+)"')


@functools.cache
def _ask(binary: str) -> Emulator:
    version = run([binary, "--version"]).stdout
    machines = run([binary, "-machine", "help"]).stdout
    # Debian's builds print the list of devices on standard output, others on standard error.
    devices = run([binary, "-device", "help"])
    return Emulator(
        binary=binary,
        version=parse_version(version),
        machines=parse_machines(machines),
        devices=parse_devices(devices.stdout + devices.stderr),
    )


def ask(hypervisor: Hypervisor) -> Emulator:
    """Ask the emulator of an architecture.

    Raises:
        HostError: It is not installed; the hint names the package.
    """
    return _ask(str(need(hypervisor.qemu, hypervisor.qemu_package)))


def parse_version(text: str) -> str:
    """Read ``qemu-system-* --version``."""
    found = re.search(r"version (\S+)", text)
    return found[1] if found else "unknown"


def parse_machines(text: str) -> dict[str, str]:
    """Read ``-machine help``: every name, aliases included, to its canonical name."""
    machines = {}
    for line in text.splitlines()[1:]:
        found = _MACHINE.match(line.strip())
        if found:
            machines[found["name"]] = found["canonical"] or found["name"]
    return machines


def parse_devices(text: str) -> frozenset[str]:
    """Read ``-device help``: the names of all devices."""
    found = (_DEVICE.match(line) for line in text.splitlines())
    return frozenset(match["name"] for match in found if match)
