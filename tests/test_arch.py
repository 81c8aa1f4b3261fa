from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.errors import ConfigError, UnknownNameError
from imagefactory.yamlfile import YamlMistakesError

SHIPPED = ArchProfiles.load(SearchPath((shipped_directory(),)))

# The example that the documentation gives is the one that is tested.
ARMV7L = (
    (shipped_directory() / "docs" / "profiles.md")
    .read_text()
    .partition("```yaml\n")[2]
    .partition("```")[0]
)


def put(directory: Path, name: str, content: str) -> Path:
    path = directory / "arch_profiles" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def shipped_text(name: str) -> str:
    return (shipped_directory() / "arch_profiles" / f"{name}.yaml").read_text()


def load(*directories: Path) -> ArchProfiles:
    return ArchProfiles.load(SearchPath((*directories, shipped_directory())))


def test_three_architectures_are_shipped_under_novas_names() -> None:
    assert SHIPPED.names == ("aarch64", "ppc64le", "x86_64")


@pytest.mark.parametrize("profile", SHIPPED.profiles, ids=SHIPPED.names)
def test_a_shipped_profile_agrees_with_itself(profile: ArchProfile) -> None:
    assert profile.properties["architecture"] == profile.name
    assert "debian" in profile.kernel
    assert profile.hypervisor.qemu.startswith("qemu-system-")
    if profile.hypervisor.firmware != "none":
        assert profile.hypervisor.firmware in profile.hypervisor.firmware_packages


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("aarch64", "aarch64"),
        ("arm64", "aarch64"),
        ("ppc64el", "ppc64le"),
        ("amd64", "x86_64"),
        ("x86-64", "x86_64"),
        ("ARM64", "aarch64"),
    ],
)
def test_names_and_aliases_lead_to_the_profile(asked: str, name: str) -> None:
    assert SHIPPED.get(asked).name == name


@settings(deadline=None)  # the machine may be busy
@given(asked=st.text(max_size=20))
def test_any_other_name_is_refused_with_the_known_ones(asked: str) -> None:
    known = {name for profile in SHIPPED.profiles for name in (profile.name, *profile.aliases)}
    if asked.lower() in known:
        return
    with pytest.raises(UnknownNameError) as caught:
        SHIPPED.get(asked)
    assert caught.value.hint == "known: aarch64, ppc64le, x86_64"


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (("all",), ("aarch64", "ppc64le", "x86_64")),
        (("ALL",), ("aarch64", "ppc64le", "x86_64")),
        (("x86_64", "all"), ("x86_64", "aarch64", "ppc64le")),
        (("arm64", "aarch64"), ("aarch64",)),
        (("ppc64el", "arm64"), ("ppc64le", "aarch64")),
        ((), ()),
    ],
)
def test_several_names_select_each_profile_once_in_their_order(
    asked: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert tuple(profile.name for profile in SHIPPED.select(asked)) == names


def test_a_typo_beside_all_is_not_swallowed() -> None:
    with pytest.raises(UnknownNameError, match="amr64"):
        SHIPPED.select(("all", "amr64"))


def test_an_architecture_is_added_by_one_file(tmp_path: Path) -> None:
    put(tmp_path, "armv7l", ARMV7L)
    profiles = load(tmp_path)
    assert profiles.names == ("aarch64", "armv7l", "ppc64le", "x86_64")
    assert profiles.get("armhf").hypervisor.qemu == "qemu-system-arm"
    assert profiles.select(("all",)) == profiles.profiles


def test_a_users_profile_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    put(tmp_path, "aarch64", shipped_text("aarch64").replace("min_ram: 256", "min_ram: 512"))
    profiles = load(tmp_path)
    assert profiles.get("arm64").min_ram == 512
    assert profiles.names == SHIPPED.names


def test_an_alias_that_another_profile_has_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "armv7l", ARMV7L.replace("armhf]", "arm64]"))
    with pytest.raises(ConfigError, match=r"the name 'arm64' is taken by .*armv7l\.yaml"):
        load(tmp_path)


def test_no_architecture_may_be_called_all(tmp_path: Path) -> None:
    put(tmp_path, "armv7l", ARMV7L.replace("armhf]", "all]"))
    with pytest.raises(ConfigError, match="'all' means all architectures"):
        load(tmp_path)


def test_a_file_is_named_like_its_profile(tmp_path: Path) -> None:
    put(tmp_path, "arm", ARMV7L)
    with pytest.raises(ConfigError, match="named 'armv7l', the file 'arm'") as caught:
        load(tmp_path)
    assert caught.value.hint == "rename the file to armv7l.yaml"


def test_all_mistakes_of_a_profile_are_told_at_once(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "armv7l",
        ARMV7L.replace("boot: [uefi-unsigned]", "boot: [uefi, u-boot]")
        .replace("bits: 32", "bits: 33")
        .replace("console:", "konsole:"),
    )
    with pytest.raises(YamlMistakesError) as caught:
        load(tmp_path)
    told = [mistake.removeprefix(f"{path}:") for mistake in caught.value.mistakes]
    assert [mistake.split(": ")[0:2] for mistake in told] == [
        ["1", "console"],
        ["6", "elf.bits"],
        ["8", "konsole"],
        ["9", "boot.1"],
    ]
    assert "did you mean 'console'?" in told[2]


def test_booting_by_uefi_needs_the_names_of_its_programs(tmp_path: Path) -> None:
    put(tmp_path, "armv7l", ARMV7L.replace(", efi: arm, grub_efi: arm-efi", ""))
    with pytest.raises(YamlMistakesError, match="names needs efi and grub_efi"):
        load(tmp_path)


def keys_of(node: Any, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = []
    for key, value in node.items() if isinstance(node, dict) else ():
        found += [(*where, key), *keys_of(value, (*where, key))]
    return found


KEYS = keys_of(YAML(typ="safe", pure=True).load(ARMV7L))


@settings(deadline=None)  # the machine may be busy
@given(where=st.sampled_from(KEYS), junk=st.sampled_from([None, [], {}, 1.5, ["x"], {"x": []}, ""]))
def test_no_wrong_value_anywhere_is_more_than_a_named_mistake(
    tmp_path_factory: pytest.TempPathFactory, where: tuple[str | int, ...], junk: object
) -> None:
    content = YAML(typ="safe", pure=True).load(ARMV7L)
    node = content
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = junk
    directory = tmp_path_factory.getbasetemp() / "junk"
    YAML().dump(content, put(directory, "armv7l", ""))
    try:
        assert "armv7l" in load(directory).names
    except ConfigError as error:
        told = error.message
        assert "armv7l.yaml" in told
