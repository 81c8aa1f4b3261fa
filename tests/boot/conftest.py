from __future__ import annotations

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot.instance import InstanceData
from imagefactory.boot.machine import Emulator
from imagefactory.data import SearchPath

DEVICES = frozenset({
    "VGA", "bochs-display", "cirrus-vga", "e1000", "e1000e", "i6300esb", "ich9-ahci", "ide-cd",
    "ide-hd", "intel-iommu", "lsi53c895a", "pcie-root-port", "piix3-usb-uhci", "qemu-xhci",
    "qxl-vga", "rtl8139", "scsi-cd", "scsi-hd", "usb-kbd", "usb-storage", "usb-tablet",
    "virtio-balloon-pci", "virtio-blk-pci", "virtio-gpu-pci", "virtio-iommu-pci",
    "virtio-keyboard-pci", "virtio-net-pci", "virtio-rng-pci", "virtio-scsi-pci",
    "virtio-serial-pci", "virtio-tablet-pci", "virtserialport",
})  # fmt: skip

EMULATORS = {
    "x86_64": Emulator(
        "/usr/bin/qemu-system-x86_64",
        "7.2.22",
        {"pc": "pc-i440fx-7.2", "pc-i440fx-7.2": "pc-i440fx-7.2", "q35": "pc-q35-7.2"},
        DEVICES | {"virtio-vga"},
    ),
    "aarch64": Emulator("/usr/bin/qemu-system-aarch64", "7.2.22", {"virt": "virt-7.2"}, DEVICES),
    "ppc64le": Emulator(
        "/usr/bin/qemu-system-ppc64",
        "7.2.22",
        {"pseries": "pseries-7.2"},
        DEVICES | {"spapr-vscsi", "spapr-vlan"},
    ),
}


@pytest.fixture(scope="session")
def profiles() -> ArchProfiles:
    return ArchProfiles.load(SearchPath.default())


@pytest.fixture
def emulators() -> dict[str, Emulator]:
    return EMULATORS


def an_instance(**changes: object) -> InstanceData:
    values = {
        "uuid": "0f3c1d52-7a8e-4b55-9c3d-2f1e6a7b8c9d",
        "hostname": "boot-a1b2c3",
        "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 test",
        "mac": "fa:16:3e:01:02:03",
        "user_data": "#!/bin/sh\necho hello\n",
        "vendor_data": {"cloud-init": "#!/bin/sh\ntrue\n"},
    }
    return InstanceData(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def instance() -> InstanceData:
    return an_instance()


@pytest.fixture
def static_instance() -> InstanceData:
    return an_instance(network="static")
