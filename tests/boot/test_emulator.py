from __future__ import annotations

from imagefactory.boot.emulator import parse_devices, parse_machines, parse_version

MACHINES = """\
Supported machines are:
microvm              microvm (i386)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)
pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)
"""

DEVICES = """\
Controller/Bridge/Hub devices:
name "pcie-root-port", bus PCI, desc "PCI Express Root Port"

Network devices:
name "virtio-net-pci", bus PCI, alias "virtio-net"
"""


def test_machine_types_lead_to_their_canonical_names() -> None:
    assert parse_machines(MACHINES) == {
        "microvm": "microvm",
        "pc": "pc-i440fx-7.2",
        "pc-i440fx-7.2": "pc-i440fx-7.2",
        "q35": "pc-q35-7.2",
    }


def test_devices_are_found_by_name() -> None:
    assert parse_devices(DEVICES) == {"pcie-root-port", "virtio-net-pci"}


def test_the_version_is_found() -> None:
    assert parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)") == "7.2.22"
    assert parse_version("?") == "unknown"
