"""Image properties: derive an image's set, and refuse any set that a cloud would choke on.

Nova drops a misspelt property without a word and refuses a wrong value only when a guest is
started; here both are found before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from imagefactory.arch import CPU_LEVEL, ArchProfile, Hypervisor
from imagefactory.errors import PropertyError
from imagefactory.template import ImageTemplate
from imagefactory.vocabulary import (
    ARCHITECTURE,
    CORE_FIELDS,
    FAMILIES,
    FIELDS,
    MAX_NAME,
    MAX_PROPERTIES,
    MAX_VALUE,
    NOT_IN_NOVA,
    OLD_NAMES,
    OWN_NAMES,
    RESERVED,
    Boolean,
    Field,
    closest,
    did_you_mean,
)


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
    # nova/virt/libvirt/driver.py, _check_emulation_arch; libvirt/utils.py, get_machine_type
    Rule(
        {"hw_emulation_architecture": ".+", "img_config_drive": "mandatory"},
        "nova gives emulated guests no config drive",
        "leave img_config_drive unset",
    ),
    Rule(
        {"hw_emulation_architecture": ".+", "hw_machine_type": _UNSET},
        "nova takes the hosts' machine type for the emulated guest's",
        "set hw_machine_type",
    ),
    # nova/virt/libvirt/driver.py, _get_guest_cpu_config: one model, or QEMU's default
    Rule(
        {"hw_emulation_architecture": ".+", CPU_LEVEL: ".+"},
        "nova emulates a CPU that is older than what the image needs (cpu_level)",
        "build it for hosts of its own architecture",
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


PROPERTIES_OF_PACKAGES = {"qemu-guest-agent": {"hw_qemu_guest_agent": "yes"}}
"""Package -> what is true of an image that has it. Without the property nova gives the agent no
channel; with it and without the agent, nova waits for an answer that never comes."""


def derive(
    profile: ArchProfile, template: ImageTemplate, packages: Collection[str] = ()
) -> dict[str, str]:
    """Put together the properties of an image; the template's own win over the profile's.

    ``min_disk`` (GiB, the disk's virtual size rounded up) and ``min_ram`` (MiB) are among them;
    they become core fields of the image when it is uploaded.

    Args:
        profile: The architecture.
        template: The image.
        packages: The names of the packages that it asks to be installed.
    """
    properties = {
        "os_type": "linux",
        "os_distro": template.distribution.id,
        "os_version": template.distribution.version,
        "os_admin_user": template.default_user,
        "min_disk": str(-(-template.disk_size // 1024)),
        "min_ram": str(profile.min_ram),
        **profile.properties,
        **_of_packages(packages),
        **_of_cpu(profile, template),
        **_of_emulation(profile, template),
        **({"img_type": template.shape} if template.shape == "partition" else {}),
        **template.properties,
    }
    return dict(sorted(properties.items()))


def _of_cpu(profile: ArchProfile, template: ImageTemplate) -> dict[str, str]:
    """Tell which hosts have a CPU that runs the image.

    The level goes to operators, under a name that nova does not read; the traits to nova's
    scheduler (nova/scheduler/utils.py, `ResourceRequest._process_image_meta`).
    """
    name = template.cpu.get(profile.name)
    if name is None:
        return {}
    level = profile.hypervisor.cpu_levels.get(name)
    if level is None:
        known = ", ".join(profile.hypervisor.cpu_levels) or "none"
        raise PropertyError(
            f"`cpu:` of {template.name} names {name!r}, which the profile {profile.name} does not",
            hint=f"known: {known}; `cpu_levels:` of the profile names them",
        )
    traits = level.traits if template.require_cpu else ()
    return {CPU_LEVEL: name, **{f"trait:{trait}": "required" for trait in traits}}


def _of_emulation(profile: ArchProfile, template: ImageTemplate) -> dict[str, str]:
    """Let hosts of one architecture run guests of another.

    ``architecture`` is what the hosts have to be (ImagePropertiesFilter). The machine type must
    be there: nova's default of it is the hosts' (libvirt.utils.get_machine_type).
    """
    if template.emulated_on is None:
        return {}
    return {
        "architecture": template.emulated_on,
        "hw_emulation_architecture": profile.name,
        "hw_machine_type": profile.properties.get("hw_machine_type", profile.hypervisor.machine),
    }


def _of_packages(packages: Collection[str]) -> dict[str, str]:
    return {
        name: value
        for package, properties in PROPERTIES_OF_PACKAGES.items()
        if package in packages
        for name, value in properties.items()
    }


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
        if (wrong := mistake(name, value))
    ]
    if not mistakes:  # combinations of sound values only, so that nothing is told twice
        mistakes += _combined(properties, hypervisor)
    if len(properties) > MAX_PROPERTIES:
        mistakes.append(f"{len(properties)} properties; Glance keeps at most {MAX_PROPERTIES}")
    if mistakes:
        raise PropertyMistakesError(mistakes)
    return list(_warnings(properties))


def mistake(name: str, value: str) -> str | None:
    """Tell what nova or Glance would not take of one property by itself; None: nothing."""
    if not isinstance(value, str):
        return "Glance keeps text only; quote the value"
    if wrong := _wrong_text(name, value):
        return wrong
    known = _field(name)
    if known is None and OWN_NAMES.match(name):
        return "nova knows no such property and would ignore it" + did_you_mean(
            closest(name, FIELDS)
        )
    if known is None or (known is ARCHITECTURE and value in NOT_IN_NOVA):
        return None
    return known.mistake(value)


def _wrong_text(name: str, value: str) -> str | None:
    if name in CORE_FIELDS:
        return "is a field of the image itself, not a property"
    if name.startswith(RESERVED):
        return f"names that begin with {RESERVED} are reserved by Glance"
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
    for old, new in OLD_NAMES.items():
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
    for old, new in OLD_NAMES.items():
        effective[old] = properties.get(new) or properties.get(old, "")
    # LibvirtDriver._check_emulation_arch: what follows of the architecture follows of this one.
    if emulated := properties.get("hw_emulation_architecture"):
        effective["architecture"] = emulated
    for name, value in effective.items():
        if isinstance(_field(name), Boolean) and value:
            effective[name] = "yes" if value.lower() in Boolean.yes else "no"
    return effective


def _warnings(properties: Mapping[str, str]) -> Iterator[str]:
    for name, value in properties.items():
        if _field(name) is ARCHITECTURE and value in NOT_IN_NOVA:
            yield f"{name}={value}: nova does not know this architecture and starts no guest of it"
        close = None if name in FIELDS or OWN_NAMES.match(name) else closest(name, FIELDS, 0.85)
        if close:
            yield f"{name}: nova ignores it{did_you_mean(close)}"


def _field(name: str) -> Field | None:
    families = (known for form, known in FAMILIES if re.fullmatch(form, name))
    return FIELDS.get(name) or next(families, None)


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
