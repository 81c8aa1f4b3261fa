from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import create_model

from imagefactory import template
from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.errors import ConfigError, UnknownNameError
from imagefactory.template import BootCase, ImageTemplate, MinimalTree, Repository
from imagefactory.yamlfile import YamlMistakesError

SHIPPED = SearchPath((shipped_directory(),))
MINIMAL = shipped_directory() / "templates" / "minimal.yaml"
HASH = (
    "$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6WouIL9AjRbLCelDCy.g."
)


@pytest.fixture(scope="module")
def minimal() -> ImageTemplate:
    return template.load(SHIPPED, "minimal")[0]


def put(directory: Path, name: str, content: str) -> SearchPath:
    path = directory / "templates" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return SearchPath((directory, shipped_directory()))


def test_every_shipped_template_is_right_and_named_like_its_file() -> None:
    found = template.load_all(SHIPPED)
    assert "minimal" in found
    assert all(name == image.name == file.stem for name, (image, file) in found.items())


def test_shipped_templates_name_only_architectures_that_have_a_profile() -> None:
    known = ArchProfiles.load(SHIPPED).names
    for image, file in template.load_all(SHIPPED).values():
        named = {*(image.architectures or ())}
        named |= {name for case in image.tests for name in case.architectures or ()}
        assert named <= {*known}, file


def test_merged_repositories_keep_what_they_do_not_change(minimal: ImageTemplate) -> None:
    assert len({repository.keyring for repository in minimal.repositories}) == 1
    assert len({repository.suite for repository in minimal.repositories}) == 3


def test_an_image_that_nobody_describes_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="no image is called 'cirros'") as caught:
        template.load(SHIPPED, "cirros")
    assert "minimal" in caught.value.hint


def test_a_copy_under_its_own_name_adds_an_image(tmp_path: Path) -> None:
    copy = MINIMAL.read_text().replace("name: minimal\n", "name: mine\n", 1)
    path = put(tmp_path, "mine", copy)
    image, file = template.load(path, "mine")
    assert (image.name, file) == ("mine", tmp_path / "templates" / "mine.yaml")
    assert {"mine", "minimal"} <= template.load_all(path).keys()


def test_a_copy_under_the_same_name_takes_the_shipped_ones_place(tmp_path: Path) -> None:
    path = put(tmp_path, "minimal", MINIMAL.read_text() + "visibility: community\n")
    assert template.load(path, "minimal")[0].visibility == "community"


def test_a_copy_that_kept_its_old_name_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "mine", MINIMAL.read_text())
    with pytest.raises(ConfigError, match="named 'minimal', the file 'mine'"):
        template.load(path, "mine")


def described(tmp_path: Path, old: str, new: str) -> ImageTemplate:
    content = MINIMAL.read_text()
    assert old in content
    return template.load(put(tmp_path, "minimal", content.replace(old, new, 1)), "minimal")[0]


def test_two_boots_of_one_name_are_refused(tmp_path: Path) -> None:
    again = "tests:\n  - {name: metadata, datasource: ec2}\n"
    with pytest.raises(YamlMistakesError, match="two tests have the name metadata"):
        described(tmp_path, "tests:\n", again)


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ('version: "12"', "version: 12", "put it in quotes"),
        ("builder: minimal", "builder: magic", "builder: Input should be"),
        ("datasource: config-drive", "datasource: floppy", "tests.0.datasource: "),
        ("disk_size: ", "disk_size: -", "disk_size: Input should be greater than 0"),
        ("shim: usr/", "shim: /usr/", "bootloader.uefi.shim: "),
        ("http://", "gopher://", "repositories.0.mirror: "),
        ("disk_size", "disc_size", "did you mean 'disk_size'?"),
        ("uefi-unsigned", "uefi_unsigned", "did you mean 'uefi-unsigned'?"),
    ],
)
def test_mistakes_are_told_with_their_key(tmp_path: Path, old: str, new: str, mistake: str) -> None:
    with pytest.raises(YamlMistakesError) as caught:
        described(tmp_path, old, new)
    assert any(mistake in told for told in caught.value.mistakes), caught.value.message


# The one field of a minimal image that is a secret, by itself.
Console = create_model(
    "Console",
    console_password=(str | None, MinimalTree.model_fields["console_password"]),
)


@pytest.mark.parametrize("given", [HASH, "$y$j9T$salt$hash", "$5$rounds=5000$salt$hash"])
def test_a_console_password_is_given_as_its_hash(given: str) -> None:
    assert Console.model_validate({"console_password": given})


@pytest.mark.parametrize("given", ["gocubsgo", "", "*", "$6$", "$6$salt$hash:x", "$6$a$b\nroot::0"])
def test_a_password_in_clear_or_a_line_that_breaks_shadow_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        Console.model_validate({"console_password": given})


def test_a_boot_needs_no_more_than_a_name_and_a_datasource() -> None:
    case = BootCase(name="plain", datasource="none")
    assert (case.network, case.architectures, case.memory) == ("dhcp", None, None)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("overlay: minimal", "overlay: ../../etc", "minimal.overlay"),
        ("[quiet]", '["quiet; reboot"]', "kernel_arguments.0"),
        ("disk_size: 112", "disk_size: 99999999", "disk_size"),
    ],
)
def test_what_would_reach_out_of_the_image_is_refused(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    shipped = SearchPath.default().yaml_files("templates")["minimal"].read_text(encoding="utf-8")
    assert old in shipped
    directory = tmp_path / "templates"
    directory.mkdir()
    (directory / "minimal.yaml").write_text(shipped.replace(old, new), encoding="utf-8")
    with pytest.raises(YamlMistakesError, match=told):
        template.load(SearchPath((tmp_path,)), "minimal")


def test_a_password_that_is_no_hash_is_not_repeated(tmp_path: Path) -> None:
    shipped = SearchPath.default().yaml_files("templates")["minimal"].read_text(encoding="utf-8")
    directory = tmp_path / "templates"
    directory.mkdir()
    text = shipped.replace("kernel_compression: xz", "console_password: hunter2")
    (directory / "minimal.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(YamlMistakesError) as caught:
        template.load(SearchPath((tmp_path,)), "minimal")
    assert "console_password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_mirror_of_an_architecture_is_gone_in_the_past() -> None:
    repository = Repository(
        suite="noble",
        mirror="http://ports.example.org",
        mirrors={"amd64": "http://main.example.org"},
        snapshots="http://past.example.org/{timestamp}",
        keyring="/k",
    )
    assert repository.for_architecture("amd64").mirror == "http://main.example.org"
    assert repository.for_architecture("arm64").mirror == "http://ports.example.org"
    past = repository.at(datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert past.for_architecture("amd64").mirror == "http://past.example.org/20250102T030405Z"
    with pytest.raises(ValueError, match=r"mirrors\.amd64"):
        Repository(suite="s", mirror="http://m", mirrors={"amd64": "gopher://m"}, keyring="/k")


def test_only_a_guest_that_lets_somebody_in_can_be_told_to_reboot() -> None:
    assert BootCase(name="x", datasource="nocloud", reboot=True).reboot
    with pytest.raises(ValueError, match="reboot needs a datasource"):
        BootCase(name="x", datasource="none", reboot=True)
