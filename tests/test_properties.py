"""What nova takes, what it refuses, and what the factory derives for its own images."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.errors import PropertyError
from imagefactory.properties import PropertyMistakesError, derive, validate
from imagefactory.vocabulary import FIELDS, Choice
from tests.glance.images import MINIMAL

SHIPPED = SearchPath((shipped_directory(),))
PROFILES = ArchProfiles.load(SHIPPED)


def mistakes(properties: dict[str, str], profile: ArchProfile | None = None) -> str:
    with pytest.raises(PropertyMistakesError) as caught:
        validate(properties, hypervisor=profile.hypervisor if profile else None)
    return "\n".join(caught.value.mistakes)


@pytest.mark.parametrize("profile", PROFILES.profiles, ids=PROFILES.names)
def test_an_image_of_every_architecture_pleases_nova(profile: ArchProfile) -> None:
    properties = derive(profile, MINIMAL)
    assert validate(properties, hypervisor=profile.hypervisor) == []
    assert properties["architecture"] == profile.name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "aarch64",
            {
                "hw_firmware_type": "uefi",
                "hw_machine_type": "virt",
                "hw_cdrom_bus": "scsi",
                "hw_video_model": "virtio",
            },
        ),
        (
            "ppc64le",
            {
                "hw_firmware_type": None,
                "hw_machine_type": "pseries",
                "hw_cdrom_bus": "scsi",
                "hw_video_model": "vga",
            },
        ),
        ("x86_64", {"hw_firmware_type": None, "hw_machine_type": None, "hw_disk_bus": "virtio"}),
    ],
)
def test_an_architecture_gets_the_hardware_that_nova_has_for_it(
    name: str, expected: dict[str, str | None]
) -> None:
    properties = derive(PROFILES.get(name), MINIMAL)
    assert {key: properties.get(key) for key in expected} == expected


def test_the_distribution_and_the_sizes_become_properties() -> None:
    properties = derive(PROFILES.get("aarch64"), MINIMAL)
    told = {key: properties[key] for key in ("os_type", "os_distro", "os_version")}
    assert told == {"os_type": "linux", "os_distro": "debian", "os_version": "12"}
    assert properties["os_admin_user"] == MINIMAL.default_user
    assert properties["min_ram"] == str(PROFILES.get("aarch64").min_ram)
    assert list(properties) == sorted(properties)


@pytest.mark.parametrize(
    ("name", "machine"), [("x86_64", "pc"), ("ppc64le", "pseries"), ("aarch64", "virt")]
)
def test_an_image_for_hosts_of_another_architecture_pleases_nova(name: str, machine: str) -> None:
    profile = PROFILES.get(name)
    hosts = "x86_64" if name == "aarch64" else "aarch64"
    properties = derive(profile, MINIMAL.model_copy(update={"emulated_on": hosts}))
    assert validate(properties, hypervisor=profile.hypervisor) == []
    told = [properties[key] for key in ("architecture", "hw_emulation_architecture")]
    assert (told, properties["hw_machine_type"]) == ([hosts, name], machine)


def test_what_nova_cannot_do_for_emulated_guests_is_refused() -> None:
    emulated = {"architecture": "aarch64", "hw_emulation_architecture": "x86_64"}
    assert "the hosts' machine type" in mistakes(emulated)
    drive = {**emulated, "hw_machine_type": "q35", "img_config_drive": "mandatory"}
    assert "no config drive" in mistakes(drive)
    wrong = {**emulated, "hw_machine_type": "virt"}
    assert "x86 has no machine type virt" in mistakes(wrong)


def test_a_partition_image_says_so() -> None:
    template = MINIMAL.model_copy(update={"shape": "partition"})
    assert derive(PROFILES.get("aarch64"), template)["img_type"] == "partition"


@pytest.mark.parametrize(
    ("mebibytes", "gibibytes"), [(1, "1"), (112, "1"), (1024, "1"), (1025, "2"), (10240, "10")]
)
def test_min_disk_is_the_disk_in_whole_gibibytes(mebibytes: int, gibibytes: str) -> None:
    template = MINIMAL.model_copy(update={"disk_size": mebibytes})
    assert derive(PROFILES.get("x86_64"), template)["min_disk"] == gibibytes


def test_the_template_wins_over_the_profile() -> None:
    own = {"hw_disk_bus": "scsi", "min_ram": "2048", "min_disk": "20"}
    template = MINIMAL.model_copy(update={"properties": own})
    properties = derive(PROFILES.get("aarch64"), template)
    assert own.items() <= properties.items()


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"architecture": "arm64"}, "did you mean 'aarch64'"),
        ({"architecture": "ppc64el"}, "did you mean 'ppc64le'"),
        ({"architecture": "amd64"}, "did you mean 'x86_64'"),
        ({"hw_architecture": "arm64"}, "did you mean 'aarch64'"),
        ({"hw_firmware_type": "UEFI"}, "did you mean 'uefi'"),
        ({"hw_firmware_type": "efi"}, "did you mean 'uefi'"),
        ({"hw_disk_bus": "nvme"}, "did you mean 'virtio'"),
        ({"hw_disk_bus": "virtio-scsi"}, "did you mean 'scsi'"),
        ({"hw_vif_model": "virtio-net"}, "did you mean 'virtio'"),
        ({"hw_scsi_model": "virtio"}, "did you mean 'virtio-scsi'"),
        ({"img_config_drive": "yes"}, "but optional, mandatory"),
        ({"hw_qemu_guest_agent": "yse"}, "neither yes nor no"),
        ({"hw_redirected_usb_ports": "16"}, "no whole number 0..15"),
        ({"min_ram": "512M"}, "no whole number"),
        ({"min_disk": "-1"}, "no whole number"),
        ({"kernel_id": "vmlinuz"}, "no UUID"),
        ({"os_distro": "Debian 12"}, "libosinfo short id"),
        ({"os_version": ""}, "must not be empty"),
        ({"os_admin_user": "x" * 256}, "nova cuts it after 255"),
        ({"hw_disk_buss": "scsi"}, "did you mean 'hw_disk_bus'"),
        ({"os_disto": "debian"}, "did you mean 'os_distro'"),
        ({"img_configdrive": "optional"}, "did you mean 'img_config_drive'"),
        ({"hw_numa_cpus.0": "a"}, "no list of CPUs"),
        ({"trait:HW_CPU_X86_AVX2": "yes"}, "but required"),
        ({"trait:avx2": "required"}, "nova knows no such property"),
        ({"os_glance_importing": "x"}, "reserved by Glance"),
        ({"os_hidden": "true"}, "field of the image itself"),
        ({"visibility": "public"}, "field of the image itself"),
        ({"": "x"}, "1..255 characters"),
        ({"x" * 256: "x"}, "1..255 characters"),
        ({"note": "\N{ROCKET}"}, "four bytes"),
        ({"note": "x" * 65536}, "longer than 65535 bytes"),
        ({f"note{number}": "x" for number in range(129)}, "at most 128"),
    ],
)
def test_nova_and_glance_would_refuse(properties: dict[str, str], told: str) -> None:
    assert told in mistakes(properties)


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"os_secure_boot": "required"}, "Secure Boot needs UEFI"),
        (
            {"architecture": "x86_64", "os_secure_boot": "required", "hw_firmware_type": "uefi"},
            "needs the q35 machine",
        ),
        ({"hw_disk_bus": "ide", "hw_machine_type": "virt-7.2"}, "no IDE bus"),
        ({"hw_cdrom_bus": "ide", "hw_machine_type": "pseries"}, "no IDE bus"),
        ({"hw_rescue_bus": "ide", "hw_machine_type": "pc-q35-7.2"}, "no IDE bus"),
        ({"hw_disk_bus": "xen"}, "QEMU has no such bus"),
        ({"hw_vif_model": "vmxnet", "hypervisor_type": "kvm"}, "no such network card"),
        ({"hw_vif_model": "spapr-vlan", "hw_machine_type": "virt"}, "only the pseries machine"),
        ({"architecture": "aarch64", "hw_machine_type": "q35"}, "are x86's"),
        ({"architecture": "aarch64", "hw_machine_type": "pseries"}, "is Power's"),
        ({"architecture": "x86_64", "hw_machine_type": "virt"}, "x86 has no machine type virt"),
        ({"hw_tpm_model": "tpm-crb"}, "adds no TPM"),
        ({"hw_tpm_model": "tpm-crb", "hw_tpm_version": "1.2"}, "TPM 2.0 only"),
        ({"hw_firmware_stateless": "True", "hw_firmware_type": "bios"}, "can be stateless"),
        ({"hw_mem_encryption": "on"}, "memory encryption needs UEFI"),
        ({"hw_viommu_model": "virtio", "architecture": "ppc64le"}, "x86 and aarch64 only"),
        ({"hw_locked_memory": "yes"}, "hw_mem_page_size"),
        ({"os_require_quiesce": "yes", "hw_qemu_guest_agent": "no"}, "needs the guest agent"),
        ({"img_signature": "c2lnbmVk"}, "img_signature_key_type"),
        ({"architecture": "x86_64", "hw_architecture": "i686"}, "one property with two values"),
    ],
)
def test_nova_would_refuse_the_combination(properties: dict[str, str], told: str) -> None:
    assert told in mistakes(properties)


@pytest.mark.parametrize(
    ("arch", "changed", "told"),
    [
        ("ppc64le", {"hw_firmware_type": "uefi"}, "leave hw_firmware_type unset"),
        ("ppc64le", {"hw_firmware_type": "bios"}, "leave hw_firmware_type unset"),
        ("aarch64", {"hw_firmware_type": "bios"}, "no such firmware - uefi"),
        ("x86_64", {"os_secure_boot": "required"}, "Secure Boot needs UEFI"),
        ("ppc64le", {"hw_cdrom_bus": "ide"}, "no IDE bus"),
    ],
)
def test_the_architecture_lacks_the_hardware(arch: str, changed: dict[str, str], told: str) -> None:
    profile = PROFILES.get(arch)
    assert told in mistakes(derive(profile, MINIMAL) | changed, profile)


@pytest.mark.parametrize(
    ("arch", "changed"),
    [
        ("x86_64", {"hw_firmware_type": "uefi", "hw_machine_type": "q35"}),
        ("x86_64", {"hw_firmware_type": "bios", "hw_cdrom_bus": "ide"}),
        (
            "x86_64",
            {
                "hw_firmware_type": "uefi",
                "hw_machine_type": "pc-q35-7.2",
                "os_secure_boot": "required",
                "hw_tpm_model": "tpm-crb",
                "hw_tpm_version": "2.0",
            },
        ),
        ("aarch64", {"os_secure_boot": "required"}),
        ("aarch64", {"hw_viommu_model": "smmuv3", "hw_machine_type": "virt-8.0"}),
        ("ppc64le", {"hw_vif_model": "spapr-vlan", "hw_disk_bus": "scsi"}),
        ("x86_64", {"hw_qemu_guest_agent": "yes", "os_require_quiesce": "True"}),
        ("x86_64", {"trait:HW_CPU_X86_AVX2": "required", "hw_numa_cpus.0": "0-3,^1"}),
        ("x86_64", {"image_build_date": "2026-01-01", "replace_frequency": "monthly"}),
    ],
)
def test_nova_takes(arch: str, changed: dict[str, str]) -> None:
    profile = PROFILES.get(arch)
    own = derive(profile, MINIMAL) | changed
    assert validate(own, hypervisor=profile.hypervisor) == []


@pytest.mark.parametrize("architecture", ["riscv64", "loongarch64"])
def test_an_architecture_that_nova_does_not_know_yet_is_a_warning(architecture: str) -> None:
    (warning,) = validate({"architecture": architecture})
    assert architecture in warning


def test_a_misspelt_name_without_prefix_is_a_warning() -> None:
    (warning,) = validate({"architeture": "aarch64"})
    assert "did you mean 'architecture'" in warning


def test_all_mistakes_are_told_at_once() -> None:
    wrong = {"architecture": "arm64", "hw_firmware_type": "UEFI", "hw_disk_buss": "scsi"}
    with pytest.raises(PropertyError, match="3 mistakes") as caught:
        validate(wrong)
    assert all(name in caught.value.message for name in wrong)
    assert caught.value.hint


def test_a_value_that_is_no_text_is_refused() -> None:
    assert "quote the value" in mistakes({"min_ram": 512})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "name", [name for name, known in FIELDS.items() if isinstance(known, Choice)]
)
def test_every_alias_leads_to_a_word_that_nova_takes(name: str) -> None:
    known = FIELDS[name]
    assert isinstance(known, Choice)
    assert set(known.aliases.values()) <= set(known.words)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(), st.text(), max_size=8))
def test_any_set_is_either_taken_or_refused_by_name(properties: dict[str, str]) -> None:
    with contextlib.suppress(PropertyError):
        assert isinstance(validate(properties), list)


def test_an_image_that_needs_a_newer_cpu_is_sent_to_hosts_that_have_it() -> None:
    wanting = MINIMAL.model_copy(update={"cpu": {"x86_64": "x86-64-v3", "ppc64le": "POWER9"}})
    x86 = PROFILES.get("x86_64")
    properties = derive(x86, wanting)
    assert validate(properties, hypervisor=x86.hypervisor) == []
    assert properties["cpu_level"] == "x86-64-v3"
    assert properties["trait:HW_CPU_X86_AVX2"] == "required"
    # Nova's libvirt driver reports no trait of Power's: a required one would fit no host.
    power = derive(PROFILES.get("ppc64le"), wanting)
    assert power["cpu_level"] == "POWER9"
    assert not any(name.startswith("trait:") for name in power)
    assert "cpu_level" not in derive(PROFILES.get("aarch64"), wanting)

    told = derive(x86, wanting.model_copy(update={"require_cpu": False}))
    assert told["cpu_level"] == "x86-64-v3"
    assert not any(name.startswith("trait:") for name in told)


def test_a_cpu_level_that_the_profile_does_not_know_is_named() -> None:
    wanting = MINIMAL.model_copy(update={"cpu": {"x86_64": "x86-64-v9"}})
    with pytest.raises(PropertyError, match="'x86-64-v9'") as caught:
        derive(PROFILES.get("x86_64"), wanting)
    assert "x86-64-v2, x86-64-v3" in caught.value.hint


@pytest.mark.parametrize(("name", "level"), [("x86_64", "x86-64-v3"), ("ppc64le", "POWER9")])
def test_nova_emulates_no_cpu_that_is_new_enough(name: str, level: str) -> None:
    wanting = MINIMAL.model_copy(update={"cpu": {name: level}, "emulated_on": "aarch64"})
    profile = PROFILES.get(name)
    assert "older than what the image needs" in mistakes(derive(profile, wanting), profile)
