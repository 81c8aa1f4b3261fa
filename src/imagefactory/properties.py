"""The image properties that nova and Glance understand: derive an image's set, check any set.

Nova drops a misspelt property without a word and refuses a wrong value only when a guest is
started. The vocabulary below is nova's own (``nova/objects/image_meta.py``, ImageMetaProps 1.43,
and ``nova/objects/fields.py``), so that both are found before anything is sent.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from imagefactory.arch import ArchProfile, Hypervisor
from imagefactory.errors import PropertyError
from imagefactory.template import ImageTemplate

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
        close = self.aliases.get(value.lower()) or _closest(value.lower(), self.words)
        return f"is no such value{_did_you_mean(close) or ', but ' + ', '.join(self.words)}"


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
_ARCHITECTURE = Choice(
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
    "architecture": _ARCHITECTURE,
    "hypervisor_type": Choice(
        (
            *("baremetal", "bhyve", "docker", "fake", "hyperv", "ironic", "kqemu", "kvm", "lxc"),
            *("lxd", "openvz", "parallels", "phyp", "prsm", "qemu", "test", "uml", "vbox"),
            *("vmware", "vz", "xen", "zvm"),
        )
    ),
    "vm_mode": Choice(("hvm", "xen", "uml", "exe"), aliases={"hv": "hvm", "pv": "xen"}),
    "hw_emulation_architecture": _ARCHITECTURE,
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
_OLD_NAMES = {
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
    name: FIELDS.get(old) or FIELDS[new] for old, new in _OLD_NAMES.items() for name in (old, new)
}

_FAMILIES: tuple[tuple[str, Field], ...] = (
    (r"hw_numa_cpus\.\d{1,3}", _CPUS),
    (r"hw_numa_mem\.\d{1,3}", _COUNT),
    (r"trait:[A-Z0-9_]+", Choice(("required",))),
)
"""Properties that are numbered or named freely."""

_OURS = re.compile(r"(hw|os|img)_|trait:")
"""Names that nova reads; others belong to whoever sets them."""

_RESERVED = "os_glance"
"""Glance answers 403 to every name that begins so."""

_CORE_FIELDS = frozenset(
    (
        *("checksum", "container_format", "created_at", "deleted", "deleted_at", "direct_url"),
        *("disk_format", "file", "id", "location", "locations", "name", "os_hash_algo"),
        *("os_hash_value", "os_hidden", "owner", "protected", "schema", "self", "size", "status"),
        *("stores", "tags", "updated_at", "virtual_size", "visibility"),
    )
)
"""Fields of the image itself, which are no properties and are set in other ways."""


@dataclass(frozen=True)
class Rule:
    """Properties that nova refuses, or silently ignores, together.

    Args:
        when: Property -> pattern of its whole value; an unset property is the empty string.
        why: What goes wrong.
        hint: What to do.
    """

    when: Mapping[str, str]
    why: str
    hint: str


_UNSET, _NO_UEFI, _NO_Q35 = "", "|bios", "(?!.*q35).*"
_ON_QEMU = "|qemu|kvm"
_X86, _NOT_X86, _NOT_POWER = "x86_64|i686", "(?!x86_64|i686).+", "(?!ppc).+"
_NO_IDE = r"virt(-.*)?|pseries(-.*)?|.*q35.*|s390-ccw.*"

RULES: tuple[Rule, ...] = (
    # nova/virt/libvirt/driver.py, _configure_guest_by_virt_type, _check_secure_boot_support
    Rule(
        {"os_secure_boot": "required", "hw_firmware_type": _NO_UEFI},
        "Secure Boot needs UEFI; nova would start the guest without it",
        "set hw_firmware_type=uefi",
    ),
    Rule(
        {"os_secure_boot": "required", "architecture": "x86_64", "hw_machine_type": _NO_Q35},
        "Secure Boot on x86_64 needs the q35 machine",
        "set hw_machine_type=q35",
    ),
    # libvirt: "IDE controllers are unsupported for this QEMU binary or machine type"
    *(
        Rule(
            {bus: "ide", "hw_machine_type": _NO_IDE},
            f"the machine has no IDE bus ({bus}=ide)",
            f"set {bus}=scsi",
        )
        for bus in ("hw_disk_bus", "hw_cdrom_bus", "hw_rescue_bus")
    ),
    # nova/virt/libvirt/blockinfo.py, SUPPORTED_DEVICE_BUSES; vif.py, SUPPORTED_VIF_MODELS
    *(
        Rule(
            {bus: "xen|lxc|uml", "hypervisor_type": _ON_QEMU},
            f"QEMU has no such bus ({bus})",
            f"set {bus}=virtio or scsi",
        )
        for bus in ("hw_disk_bus", "hw_cdrom_bus", "hw_rescue_bus", "hw_floppy_bus")
    ),
    Rule(
        {"hw_vif_model": "netfront|sriov|vmxnet", "hypervisor_type": _ON_QEMU},
        "QEMU has no such network card (hw_vif_model)",
        "set hw_vif_model=virtio",
    ),
    Rule(
        {"hw_vif_model": "spapr-vlan", "hw_machine_type": "(?!pseries).+"},
        "only the pseries machine has hw_vif_model=spapr-vlan",
        "set hw_vif_model=virtio",
    ),
    # Machines of another architecture: libvirt knows no such machine for the guest's.
    Rule(
        {"architecture": _NOT_X86, "hw_machine_type": r"pc(-.*)?|q35"},
        "the machine types pc and q35 are x86's",
        "set the hw_machine_type of the architecture",
    ),
    Rule(
        {"architecture": _NOT_POWER, "hw_machine_type": r"pseries(-.*)?"},
        "the machine type pseries is Power's",
        "set the hw_machine_type of the architecture",
    ),
    Rule(
        {"architecture": _X86, "hw_machine_type": r"virt(-.*)?"},
        "x86 has no machine type virt",
        "set hw_machine_type=q35, or leave it unset",
    ),
    # nova/virt/hardware.py, get_vtpm_constraint
    Rule(
        {"hw_tpm_model": ".+", "hw_tpm_version": _UNSET},
        "nova adds no TPM when hw_tpm_version is unset",
        "set hw_tpm_version=2.0",
    ),
    Rule(
        {"hw_tpm_model": "tpm-crb", "hw_tpm_version": "1.2"},
        "hw_tpm_model=tpm-crb exists for TPM 2.0 only",
        "set hw_tpm_version=2.0, or hw_tpm_model=tpm-tis",
    ),
    # nova/virt/hardware.py, get_stateless_firmware_constraint
    Rule(
        {"hw_firmware_stateless": "yes", "hw_firmware_type": _NO_UEFI},
        "only UEFI can be stateless; nova would ignore hw_firmware_stateless",
        "set hw_firmware_type=uefi",
    ),
    # nova/virt/hardware.py, MemEncryptionConfigSev and its children
    Rule(
        {"hw_mem_encryption": "yes", "hw_firmware_type": _NO_UEFI},
        "memory encryption needs UEFI",
        "set hw_firmware_type=uefi",
    ),
    Rule(
        {"hw_mem_encryption": "yes", "hw_machine_type": "(?!.*q35).+"},
        "memory encryption needs the q35 machine",
        "set hw_machine_type=q35",
    ),
    Rule(
        {
            "hw_mem_encryption": "yes",
            "hw_mem_encryption_model": "amd-sev-snp",
            "hw_firmware_stateless": "|no",
        },
        "AMD SEV-SNP needs stateless firmware",
        "set hw_firmware_stateless=yes",
    ),
    # nova/virt/libvirt/driver.py, _get_iommu_model
    Rule(
        {"hw_viommu_model": ".+", "architecture": _X86, "hw_machine_type": _NO_Q35},
        "a virtual IOMMU on x86 needs the q35 machine",
        "set hw_machine_type=q35",
    ),
    Rule(
        {"hw_viommu_model": ".+", "architecture": "(?!x86_64|i686|aarch64).+"},
        "nova knows a virtual IOMMU on x86 and aarch64 only",
        "leave hw_viommu_model unset",
    ),
    # nova/virt/hardware.py, get_locked_memory_constraint
    Rule(
        {"hw_locked_memory": "yes", "hw_mem_page_size": _UNSET},
        "nova locks memory only when hw_mem_page_size is set",
        "set hw_mem_page_size=any",
    ),
    # nova/virt/libvirt/driver.py, _can_quiesce
    Rule(
        {"os_require_quiesce": "yes", "hw_qemu_guest_agent": "|no"},
        "snapshots would fail: os_require_quiesce needs the guest agent",
        "set hw_qemu_guest_agent=yes (and install qemu-guest-agent)",
    ),
    # cursive.signature_utils.should_create_verifier: all four, or the signature is not checked
    *(
        Rule(
            {"img_signature": ".+", missing: _UNSET},
            f"a signature is verified only with {missing} beside it",
            f"set {missing}",
        )
        for missing in (
            "img_signature_certificate_uuid",
            "img_signature_hash_method",
            "img_signature_key_type",
        )
    ),
)


class PropertyMistakesError(PropertyError):
    """A property set that nova or Glance would refuse; the message lists all mistakes at once."""

    def __init__(self, mistakes: list[str]) -> None:
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(
            f"image properties: {count}\n" + "\n".join(mistakes),
            hint="correct `properties` in the template or the arch profile",
        )
        self.mistakes = tuple(mistakes)


def derive(profile: ArchProfile, template: ImageTemplate) -> dict[str, str]:
    """Put together the properties of an image; the template's own win over the profile's.

    ``min_disk`` (GiB, the disk's virtual size rounded up) and ``min_ram`` (MiB) are among them;
    they become core fields of the image when it is uploaded.
    """
    properties = {
        "os_type": "linux",
        "os_distro": template.distribution.id,
        "os_version": template.distribution.version,
        "os_admin_user": template.default_user,
        "min_disk": str(-(-template.disk_size // 1024)),
        "min_ram": str(profile.min_ram),
        **profile.properties,
        **template.properties,
    }
    return dict(sorted(properties.items()))


def validate(properties: Mapping[str, str], *, hypervisor: Hypervisor | None = None) -> list[str]:
    """Check a property set against nova's and Glance's rules.

    Args:
        properties: The whole set, ``min_disk`` and ``min_ram`` included.
        hypervisor: What the cloud does for the architecture when a property is unset; without
            it an unset property is taken as unset, and firmware is not checked against the
            firmware that the architecture has.

    Returns:
        Warnings: what is allowed but will not please nova.

    Raises:
        PropertyMistakesError: Something is wrong; all of it is listed.
    """
    mistakes = [
        f"{name}={_shown(value)}: {wrong}"
        for name, value in properties.items()
        if (wrong := _mistake(name, value))
    ]
    if not mistakes:  # combinations of sound values only, so that nothing is told twice
        mistakes += _combined(properties, hypervisor)
    if len(properties) > MAX_PROPERTIES:
        mistakes.append(f"{len(properties)} properties; Glance keeps at most {MAX_PROPERTIES}")
    if mistakes:
        raise PropertyMistakesError(mistakes)
    return list(_warnings(properties))


def _mistake(name: str, value: str) -> str | None:
    if not isinstance(value, str):
        return "Glance keeps text only; quote the value"
    if wrong := _wrong_text(name, value):
        return wrong
    known = _field(name)
    if known is None and _OURS.match(name):
        return "nova knows no such property and would ignore it" + _did_you_mean(
            _closest(name, FIELDS)
        )
    if known is None or (known is _ARCHITECTURE and value in NOT_IN_NOVA):
        return None
    return known.mistake(value)


def _wrong_text(name: str, value: str) -> str | None:
    if name in _CORE_FIELDS:
        return "is a field of the image itself, not a property"
    if name.startswith(_RESERVED):
        return f"names that begin with {_RESERVED} are reserved by Glance"
    if not name or name != name.strip() or len(name) > MAX_NAME:
        return f"a name has 1..{MAX_NAME} characters and no space around it"
    if any(ord(letter) > 0xFFFF for letter in name + value):
        return "Glance refuses characters of four bytes (emoji)"
    if len(value.encode(errors="replace")) > MAX_VALUE:
        return f"is longer than {MAX_VALUE} bytes"
    return None


def _combined(properties: Mapping[str, str], hypervisor: Hypervisor | None) -> list[str]:
    effective = _effective(properties, hypervisor)
    mistakes = [
        f"{rule.why} - {rule.hint}"
        for rule in RULES
        if all(re.fullmatch(form, effective.get(name, "")) for name, form in rule.when.items())
    ]
    for old, new in _OLD_NAMES.items():
        if old in properties and properties.get(new, properties[old]) != properties[old]:
            mistakes.append(f"{old} and {new} are one property with two values - set {old} only")
    firmware = properties.get("hw_firmware_type")
    if hypervisor and firmware and firmware not in hypervisor.firmware_packages:
        has = ", ".join(sorted(hypervisor.firmware_packages)) or "leave hw_firmware_type unset"
        mistakes.append(
            f"hw_firmware_type={firmware}: the architecture has no such firmware - {has}"
        )
    return mistakes


def _effective(properties: Mapping[str, str], hypervisor: Hypervisor | None) -> dict[str, str]:
    """Fill in what nova gives when a property is unset, under one name and one spelling each."""
    effective = {}
    if hypervisor:
        effective["hw_machine_type"] = hypervisor.machine
        effective["hw_firmware_type"] = hypervisor.firmware.replace("none", "")
    effective |= properties
    for old, new in _OLD_NAMES.items():
        effective[old] = properties.get(new) or properties.get(old, "")
    for name, value in effective.items():
        if isinstance(_field(name), Boolean) and value:
            effective[name] = "yes" if value.lower() in Boolean.yes else "no"
    return effective


def _warnings(properties: Mapping[str, str]) -> Iterator[str]:
    for name, value in properties.items():
        if _field(name) is _ARCHITECTURE and value in NOT_IN_NOVA:
            yield f"{name}={value}: nova does not know this architecture and starts no guest of it"
        close = None if name in FIELDS or _OURS.match(name) else _closest(name, FIELDS, 0.85)
        if close:
            yield f"{name}: nova ignores it{_did_you_mean(close)}"


def _field(name: str) -> Field | None:
    families = (known for form, known in _FAMILIES if re.fullmatch(form, name))
    return FIELDS.get(name) or next(families, None)


def _closest(word: str, known: Mapping[str, Field] | tuple[str, ...], cutoff: float = 0.6) -> str:
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), "")


def _did_you_mean(close: str) -> str:
    return f" - did you mean {close!r}?" if close else ""


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
