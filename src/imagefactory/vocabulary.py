"""The vocabulary of image properties: every name that nova and Glance know, with its values.

It is nova's own (``nova/objects/image_meta.py``, ImageMetaProps 1.43, and
``nova/objects/fields.py``): Glance's page and metadata definitions differ from it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_PROPERTIES = 128
"""Glance's default ``image_property_quota``."""

MAX_NAME = 255
"""Characters of a property's name: a VARCHAR(255) in Glance's database."""

MAX_NOVA_VALUE = 255
"""Characters that nova keeps of a value (``safe_truncate`` in nova/utils.py)."""

MAX_VALUE = 65535
"""Bytes of any value: a TEXT in Glance's database. Its API schema sets no bound of its own."""


@dataclass(frozen=True)
class Text:
    """Free text, or text of one form."""

    form: str = r"(?s:.+)"
    says: str = "must not be empty"
    longest: int = MAX_NOVA_VALUE

    def mistake(self, value: str) -> str | None:
        """Say what is wrong with a value, if anything is."""
        if re.fullmatch(self.form, value) is None:
            return self.says
        if len(value) > self.longest:
            return f"has {len(value)} characters; nova cuts it after {self.longest}"
        return None


@dataclass(frozen=True)
class Choice:
    """One of a few words; ``aliases`` are other people's words for them."""

    words: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def mistake(self, value: str) -> str | None:
        """Say what is wrong with a value, if anything is."""
        if value in self.words:
            return None
        close = self.aliases.get(value.lower()) or closest(value.lower(), self.words)
        return f"is no such value{did_you_mean(close) or ', but ' + ', '.join(self.words)}"


@dataclass(frozen=True)
class Integer:
    """A whole number within bounds."""

    least: int = 0
    most: int = 2**31 - 1

    def mistake(self, value: str) -> str | None:
        """Say what is wrong with a value, if anything is."""
        if re.fullmatch(r"[0-9]{1,12}", value) and self.least <= int(value) <= self.most:
            return None
        bounds = f"from {self.least}" if self.most == Integer.most else f"{self.least}..{self.most}"
        return f"is no whole number {bounds}"


@dataclass(frozen=True)
class Boolean:
    """Yes or no in oslo's spellings; nova takes every other word for "no"."""

    yes = ("true", "yes", "on", "1", "t", "y")
    no = ("false", "no", "off", "0", "f", "n")

    def mistake(self, value: str) -> str | None:
        """Say what is wrong with a value, if anything is."""
        if value.lower() in (*self.yes, *self.no):
            return None
        return "is neither yes nor no; nova would take it for no"


Field = Text | Choice | Integer | Boolean

_TEXT, _BOOLEAN, _COUNT = Text(), Boolean(), Integer(least=1)
_LONG_TEXT = Text(longest=MAX_VALUE)
_UUID = Text(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "is no UUID")
_CPUS = Text(r"\^?\d+(-\d+)?(,\^?\d+(-\d+)?)*", "is no list of CPUs such as 0-3,^1")

# nova/virt/arch.py; nova itself maps only amd64, i386, i486, i586 and x86_32.
ARCHITECTURE = Choice(
    (
        *("aarch64", "alpha", "armv6", "armv7b", "armv7l", "cris", "i686", "ia64", "lm32"),
        *("m68k", "microblaze", "microblazeel", "mips", "mips64", "mips64el", "mipsel"),
        *("openrisc", "parisc", "parisc64", "ppc", "ppc64", "ppc64le", "ppcemb", "ppcle"),
        *("s390", "s390x", "sh4", "sh4eb", "sparc", "sparc64", "unicore32", "x86_64"),
        *("xtensa", "xtensaeb"),
    ),
    aliases={
        **dict.fromkeys(("arm64", "armv8"), "aarch64"),
        **dict.fromkeys(("armhf", "armv7"), "armv7l"),
        **dict.fromkeys(("ppc64el", "powerpc64le"), "ppc64le"),
        **dict.fromkeys(("amd64", "x64", "x86-64"), "x86_64"),
        **dict.fromkeys(("i386", "i486", "i586", "x86", "x86_32"), "i686"),
    },
)
NOT_IN_NOVA = ("riscv64", "loongarch64")
"""Architectures that Linux distributions publish images for and nova does not know yet."""

_DISK_BUS = Choice(
    ("fdc", "ide", "sata", "scsi", "usb", "virtio", "xen", "lxc", "uml"),
    aliases={"virtio-scsi": "scsi", "virtio-blk": "virtio", "nvme": "virtio"},
)

FIELDS: dict[str, Field] = {
    "architecture": ARCHITECTURE,
    "hypervisor_type": Choice(
        (
            *("baremetal", "bhyve", "docker", "fake", "hyperv", "ironic", "kqemu", "kvm", "lxc"),
            *("lxd", "openvz", "parallels", "phyp", "prsm", "qemu", "test", "uml", "vbox"),
            *("vmware", "vz", "xen", "zvm"),
        )
    ),
    "vm_mode": Choice(("hvm", "xen", "uml", "exe"), aliases={"hv": "hvm", "pv": "xen"}),
    "hw_emulation_architecture": ARCHITECTURE,
    "hw_auto_disk_config": _TEXT,
    "hw_boot_menu": _BOOLEAN,
    "hw_cdrom_bus": _DISK_BUS,
    "hw_cpu_cores": _COUNT,
    "hw_cpu_max_cores": _COUNT,
    "hw_cpu_max_sockets": _COUNT,
    "hw_cpu_max_threads": _COUNT,
    "hw_cpu_policy": Choice(("dedicated", "shared", "mixed")),
    "hw_cpu_realtime_mask": _CPUS,
    "hw_cpu_sockets": _COUNT,
    "hw_cpu_thread_policy": Choice(("prefer", "isolate", "require")),
    "hw_cpu_threads": _COUNT,
    "hw_device_id": Integer(),
    "hw_disk_bus": _DISK_BUS,
    "hw_disk_type": _TEXT,
    "hw_ephemeral_encryption": _BOOLEAN,
    "hw_ephemeral_encryption_format": Choice(("plain", "luks", "luksv2")),
    "hw_ephemeral_encryption_secret_uuid": _UUID,
    "hw_firmware_stateless": _BOOLEAN,
    "hw_firmware_type": Choice(
        ("uefi", "bios"),
        aliases={"efi": "uefi", "ovmf": "uefi", "aavmf": "uefi", "seabios": "bios"},
    ),
    "hw_floppy_bus": _DISK_BUS,
    "hw_input_bus": Choice(("usb", "virtio")),
    "hw_ipxe_boot": _BOOLEAN,
    "hw_locked_memory": _BOOLEAN,
    "hw_machine_type": _TEXT,
    "hw_maxphysaddr_bits": _COUNT,
    "hw_maxphysaddr_mode": Choice(("passthrough", "emulate")),
    "hw_mem_encryption": _BOOLEAN,
    "hw_mem_encryption_model": Choice(("amd-sev", "amd-sev-es", "amd-sev-snp")),
    "hw_mem_page_size": Text(
        r"small|large|any|\d+([kKMGT]i?[bB])?", "is none of small, large, any or a size"
    ),
    "hw_numa_nodes": Integer(1, 128),
    "hw_pci_numa_affinity_policy": Choice(("required", "legacy", "preferred", "socket")),
    "hw_pmu": _BOOLEAN,
    "hw_pointer_model": Choice(("usbtablet",)),
    "hw_qemu_guest_agent": _BOOLEAN,
    "hw_redirected_usb_ports": Integer(0, 15),
    "hw_rescue_bus": _DISK_BUS,
    "hw_rescue_device": Choice(("cdrom", "disk", "floppy", "fs", "lun")),
    "hw_rng_model": Choice(("virtio",)),
    "hw_scsi_model": Choice(
        (
            *("buslogic", "ibmvscsi", "lsilogic", "lsisas1068", "lsisas1078", "virtio-scsi"),
            "vmpvscsi",
        ),
        aliases={"virtio": "virtio-scsi", "lsilogicsas": "lsisas1068", "paravirtual": "vmpvscsi"},
    ),
    "hw_serial_port_count": _COUNT,
    "hw_sound_model": Choice(
        ("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"),
    ),
    "hw_time_hpet": _BOOLEAN,
    "hw_tpm_model": Choice(("tpm-tis", "tpm-crb"), aliases={"tis": "tpm-tis", "crb": "tpm-crb"}),
    "hw_tpm_version": Choice(("1.2", "2.0"), aliases={"2": "2.0"}),
    "hw_usb_model": Choice(("none", "nec-xhci", "qemu-xhci")),
    "hw_video_model": Choice(
        ("cirrus", "qxl", "vga", "vmvga", "xen", "virtio", "gop", "none", "bochs"),
        aliases={"virtio-gpu": "virtio", "std": "vga"},
    ),
    "hw_video_ram": _COUNT,
    "hw_vif_model": Choice(
        (
            *("e1000", "e1000e", "igb", "lan9118", "ne2k_pci", "netfront", "pcnet", "rtl8139"),
            *("spapr-vlan", "sriov", "virtio", "vmxnet", "vmxnet3"),
        ),
        aliases={"virtio-net": "virtio", "virtio-net-pci": "virtio"},
    ),
    "hw_vif_multiqueue_enabled": _BOOLEAN,
    "hw_viommu_model": Choice(("intel", "smmuv3", "virtio", "auto")),
    "hw_virtio_packed_ring": _BOOLEAN,
    "hw_watchdog_action": Choice(("none", "pause", "poweroff", "reset", "disabled")),
    "img_bdm_v2": _BOOLEAN,
    "img_bittorrent": _BOOLEAN,
    "img_block_device_mapping": _LONG_TEXT,
    "img_cache_in_nova": _BOOLEAN,
    "img_compression_level": Integer(1, 9),
    "img_config_drive": Choice(("optional", "mandatory"), aliases={"required": "mandatory"}),
    "img_hide_hypervisor_id": _BOOLEAN,
    "img_hv_requested_version": _TEXT,
    "img_linked_clone": _BOOLEAN,
    "img_mappings": _LONG_TEXT,
    "img_owner_id": _TEXT,
    "img_root_device_name": _TEXT,
    "img_signature": _LONG_TEXT,
    "img_signature_certificate_uuid": _UUID,
    "img_signature_hash_method": Choice(("SHA-224", "SHA-256", "SHA-384", "SHA-512")),
    "img_signature_key_type": Choice(
        (
            *("DSA", "ECC_SECP384R1", "ECC_SECP521R1", "ECC_SECT409K1", "ECC_SECT409R1"),
            *("ECC_SECT571K1", "ECC_SECT571R1", "RSA-PSS"),
        )
    ),
    "img_type": _TEXT,  # Ironic: partition or whole-disk
    "img_use_agent": _BOOLEAN,
    "img_version": Integer(),
    "os_admin_user": _TEXT,
    "os_command_line": _TEXT,
    "os_distro": Text(r"[a-z][a-z0-9._-]*", "is no libosinfo short id such as debian"),
    "os_purpose": _TEXT,  # SCS standard scs-0102
    "os_require_quiesce": _BOOLEAN,
    "os_secure_boot": Choice(("required", "optional", "disabled")),
    "os_shutdown_timeout": Integer(),  # nova/compute/manager.py, seconds
    "os_skip_agent_inject_files_at_boot": _BOOLEAN,
    "os_skip_agent_inject_ssh": _BOOLEAN,
    "os_type": Choice(("linux", "windows")),
    "os_version": _TEXT,
    "kernel_id": _UUID,
    "ramdisk_id": _UUID,
    "min_disk": Integer(),  # GiB; a core field of Glance, as min_ram (MiB)
    "min_ram": Integer(),
}

# _legacy_property_map of ImageMetaProps where the two names mean one thing to us as well.
OLD_NAMES = {
    "architecture": "hw_architecture",
    "auto_disk_config": "hw_auto_disk_config",
    "bdm_v2": "img_bdm_v2",
    "bittorrent": "img_bittorrent",
    "block_device_mapping": "img_block_device_mapping",
    "cache_in_nova": "img_cache_in_nova",
    "hypervisor_type": "img_hv_type",
    "hypervisor_version_requires": "img_hv_requested_version",
    "ipxe_boot": "hw_ipxe_boot",
    "mappings": "img_mappings",
    "owner_id": "img_owner_id",
    "root_device_name": "img_root_device_name",
    "vm_mode": "hw_vm_mode",
}
FIELDS |= {
    name: FIELDS.get(old) or FIELDS[new] for old, new in OLD_NAMES.items() for name in (old, new)
}

FAMILIES: tuple[tuple[str, Field], ...] = (
    (r"hw_numa_cpus\.\d{1,3}", _CPUS),
    (r"hw_numa_mem\.\d{1,3}", _COUNT),
    (r"trait:[A-Z0-9_]+", Choice(("required",))),
)
"""Properties that are numbered or named freely."""

OWN_NAMES = re.compile(r"(hw|os|img)_|trait:")
"""Names that nova reads; others belong to whoever sets them."""

RESERVED = "os_glance"
"""Glance answers 403 to every name that begins so."""

CORE_FIELDS = frozenset(
    (
        *("checksum", "container_format", "created_at", "deleted", "deleted_at", "direct_url"),
        *("disk_format", "file", "id", "location", "locations", "name", "os_hash_algo"),
        *("os_hash_value", "os_hidden", "owner", "protected", "schema", "self", "size", "status"),
        *("stores", "tags", "updated_at", "virtual_size", "visibility"),
    )
)
"""Fields of the image itself, which are no properties and are set in other ways."""


def closest(word: str, known: Mapping[str, Field] | tuple[str, ...], cutoff: float = 0.6) -> str:
    """Return the known word that is most like a given one, or nothing."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), "")


def did_you_mean(close: str) -> str:
    """Return the end of a sentence that proposes a word, if there is one."""
    return f" - did you mean {close!r}?" if close else ""
