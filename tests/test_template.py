import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from imagefactory import template
from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.errors import ConfigError, UnknownNameError
from imagefactory.packages.dnf import check_key
from imagefactory.rpmtree import RpmTree
from imagefactory.systemtree import User
from imagefactory.template import (
    BootCase,
    Copy,
    DebianTree,
    ImageTemplate,
    Repository,
    Step,
)
from imagefactory.words import PasswordHash, TreePath
from imagefactory.yamlfile import YamlMistakesError
from tests.rpm.images import fingerprint

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
    found, mistakes = template.load_each(SHIPPED)
    assert mistakes == ()
    assert "minimal" in found
    assert all(name == image.name == file.stem for name, (image, file) in found.items())


def test_shipped_templates_name_only_architectures_that_have_a_profile() -> None:
    known = ArchProfiles.load(SHIPPED).names
    for image, file in template.load_each(SHIPPED)[0].values():
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
    assert {"mine", "minimal"} <= template.load_each(path)[0].keys()


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


@pytest.mark.parametrize("given", [HASH, "$y$j9T$salt$hash", "$5$rounds=5000$salt$hash"])
def test_a_console_password_is_given_as_its_hash(given: str) -> None:
    assert TypeAdapter(PasswordHash).validate_python(given) == given


@pytest.mark.parametrize("given", ["gocubsgo", "", "*", "$6$", "$6$salt$hash:x", "$6$a$b\nroot::0"])
def test_a_password_in_clear_or_a_line_that_breaks_shadow_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="is expected"):
        TypeAdapter(PasswordHash).validate_python(given)


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


@pytest.mark.parametrize(
    "step",
    [
        {"copy": {"from": "a", "to": "b"}},
        {"script": "files/go"},
        {"run": "true"},
        {"enable": ["a.service"]},
        {"disable": ["a@b.service"]},
        {"mask": ["a.timer"]},
    ],
)
def test_a_step_does_one_thing(step: dict[str, object]) -> None:
    assert Step.model_validate_json(json.dumps(step))


@pytest.mark.parametrize("step", [{}, {"run": "true", "script": "go"}, {"run": "a", "mask": []}])
def test_a_step_that_does_none_or_two_is_refused(step: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="exactly one of"):
        Step.model_validate_json(json.dumps(step))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", ".", "..", "a//b", "a/", "", "-", ".x/y"])
def test_a_path_beside_the_template_stays_there(name: str) -> None:
    if name == "-":
        assert Step(script=name).script == name
        return
    for wrong in (
        lambda: Step(script=name),
        lambda: Copy.model_validate({"from": name, "to": "x"}),
        lambda: DebianTree(packages=(), local_packages=name),
        lambda: DebianTree(packages=(), overlay=name),
    ):
        with pytest.raises(ValueError, match="is expected"):
            wrong()


@pytest.mark.parametrize("unit", ["a b", "--now", "a;b", "a/b"])
def test_a_unit_is_one_word_and_no_option(unit: str) -> None:
    with pytest.raises(ValueError, match="is expected"):
        Step(enable=(unit,))


def test_a_repository_is_signed_or_trusted() -> None:
    where = {"suite": "x", "mirror": "https://example.org/x"}
    assert Repository.model_validate({**where, "keyring": "/k"})
    assert Repository.model_validate({**where, "trusted": True})
    for wrong in ({}, {"keyring": "/k", "trusted": True}):
        with pytest.raises(ValueError, match="trusted: true"):
            Repository.model_validate({**where, **wrong})


@pytest.mark.parametrize("suite", ["./", "bookworm/updates", "stable"])
def test_a_suite_is_a_name_or_one_directory(suite: str) -> None:
    assert Repository(suite=suite, mirror="file:///x", trusted=True).suite == suite


@pytest.mark.parametrize("suite", ["/", "../", "./x", "a b", "[x]", ""])
def test_a_suite_says_nothing_else(suite: str) -> None:
    with pytest.raises(ValueError, match="is expected"):
        Repository(suite=suite, mirror="file:///x", trusted=True)


def test_a_label_cannot_say_more_to_apt() -> None:
    for label in ("", ' a"', "a\nPin-Priority: 1", "a,b"):
        with pytest.raises(ValueError, match="should match pattern"):
            Repository(suite="x", mirror="file:///x", trusted=True, label=label)


def test_a_snapshot_is_asked_for_at_its_moment_in_utc() -> None:
    repository = Repository(
        suite="x", mirror="http://now/x", keyring="/k", snapshots="http://then/{timestamp}/x"
    )
    moment = datetime(2025, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    past = repository.at(moment)
    assert past.mirror == "http://then/20250228T233000Z/x"
    assert not past.valid_until
    assert repository.at(moment.astimezone(UTC)) == past
    assert repository.at(None) is repository


def test_a_repository_without_a_past_has_no_snapshot() -> None:
    repository = Repository(suite="x", mirror="http://now/x", keyring="/k")
    with pytest.raises(ConfigError, match="the repository x has no `snapshots:`"):
        repository.at(datetime(2025, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize("path", ["/etc", "..", "../x", "a/../../x", "a/..", ""])
def test_a_path_of_the_tree_stays_in_it(path: str) -> None:
    with pytest.raises(ValueError, match="a path inside the tree"):
        TypeAdapter(TreePath).validate_python(path)
    assert TypeAdapter(TreePath).validate_python("etc/..x/a..b/.c") == "etc/..x/a..b/.c"


def test_an_answer_to_debconf_has_four_words() -> None:
    with pytest.raises(ValueError, match="PACKAGE QUESTION TYPE ANSWER is expected"):
        DebianTree(packages=(), preseed=("foo",))
    assert DebianTree(packages=(), preseed=("tzdata tzdata/Areas select Europe",)).preseed


def test_a_datasource_that_cloud_init_does_not_know_is_told() -> None:
    with pytest.raises(ValueError, match="'OpenStack'"):
        DebianTree.model_validate_json('{"packages": [], "datasources": ["Openstack"]}')


@pytest.mark.parametrize(
    ("names", "mistake"),
    [
        (["debian"], "cloud-init makes the default user"),
        (["root"], "there is a user 'root' already"),
        (["anna", "anna"], "there is a user 'anna' already"),
    ],
)
def test_a_user_is_nobody_else(names: list[str], mistake: str) -> None:
    shipped, _ = template.load(SearchPath((shipped_directory(),)), "debian-12")
    told = shipped.model_dump(mode="json", exclude_unset=True, by_alias=True)
    told["debian"]["users"] = [{"name": name} for name in names]
    with pytest.raises(ValueError, match=mistake):
        ImageTemplate.model_validate_json(json.dumps(told))


def test_a_users_password_is_a_hash() -> None:
    assert User(name="anna", password_hash=HASH).password_hash == HASH
    with pytest.raises(ValueError, match="is expected"):
        User(name="anna", password_hash="secret")


def extending(tmp_path: Path, name: str, content: str) -> ImageTemplate:
    return template.load(put(tmp_path, name, content), name)[0]


def test_an_extension_says_only_what_differs(tmp_path: Path) -> None:
    shipped = template.load(SHIPPED, "debian-12")[0]
    content = (
        "name: mine\nextends: debian-12\ndescription: mine\n"
        "debian:\n  packages: [apt]\n  architecture_packages: {x86_64: []}\n"
    )
    image = extending(tmp_path, "mine", content)
    before, after = shipped.debian, image.debian
    assert before is not None
    assert after is not None
    assert after.packages == ("apt",)  # a list takes the place of the other
    assert after.architecture_packages == {**before.architecture_packages, "x86_64": ()}
    assert after.exclude == before.exclude
    assert (image.bootloader, image.repositories) == (shipped.bootloader, shipped.repositories)


def test_ones_own_image_may_extend_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    own = "name: debian-12\nextends: debian-12\nvisibility: community\n"
    assert extending(tmp_path, "debian-12", own).visibility == "community"
    # And others extend it in turn, one's own and shipped ones.
    more = "name: more\nextends: debian-12\n"
    assert extending(tmp_path, "more", more).visibility == "community"
    path = SearchPath((tmp_path, shipped_directory()))
    assert template.load(path, "debian-13")[0].visibility == "community"
    assert template.load(path, "debian-13")[0].distribution.version == "13"


def test_an_unknown_parent_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no image is called 'debian-21'") as caught:
        extending(tmp_path, "mine", "name: mine\nextends: debian-21\n")
    assert "did you mean 'debian-1" in caught.value.hint
    with pytest.raises(UnknownNameError, match="no image is called 'mine'"):
        extending(tmp_path, "mine", "name: mine\nextends: mine\n")


def test_images_that_extend_each_other_are_told(tmp_path: Path) -> None:
    put(tmp_path, "one", "name: one\nextends: two\n")
    with pytest.raises(YamlMistakesError, match=r"two\.yaml:1: extends: .*two.yaml extends itself"):
        extending(tmp_path, "two", "name: two\nextends: one\n")


def test_mistakes_of_an_extension_are_told_at_its_own_lines(tmp_path: Path) -> None:
    content = (
        "name: mine\nextends: debian-12\ndebian:\n  timezone: Etc/UTC\n  packages: [a b]\n"
        "disc_size: 1\n"
    )
    with pytest.raises(YamlMistakesError) as caught:
        extending(tmp_path, "mine", content)
    file = tmp_path / "templates/mine.yaml"
    one, two = caught.value.mistakes
    assert one.startswith(f"{file}:5: debian.packages.0: ")
    assert two == f"{file}:6: disc_size: unknown key - did you mean 'disk_size'?"


def test_files_are_taken_from_beside_the_template_else_from_the_shipped_ones(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.yaml"
    assert template.beside(file, "cloud") == shipped_directory() / "templates/cloud"
    (tmp_path / "cloud").mkdir()
    assert template.beside(file, "cloud") == tmp_path / "cloud"


def test_an_emulated_image_is_not_tested_with_a_config_drive(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "there",
        "{name: there, extends: minimal, description: x, emulated_on: aarch64}",
    )
    with pytest.raises(YamlMistakesError, match="no config drive"):
        template.load(path, "there")


def test_secure_boot_is_not_asked_of_a_partition_image(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "apart",
        "{name: apart, extends: debian-12, description: x, shape: partition}",
    )
    with pytest.raises(YamlMistakesError, match="no bootloader that Secure Boot could verify"):
        template.load(path, "apart")


RPM = {
    name: (image, file)
    for name, (image, file) in template.load_each(SHIPPED)[0].items()
    if isinstance(image.recipe, RpmTree)
}


OPENSUSE = ("opensuse-leap-16.0", "opensuse-tumbleweed")


def test_the_family_of_rpm_distributions_is_shipped() -> None:
    family = ("almalinux", "centos-stream", "rocky")
    others = {"fedora-43", "fedora-44", *OPENSUSE}
    assert {*RPM} == others | {f"{n}-{v}" for n in family for v in (9, 10)}


@pytest.mark.parametrize("name", OPENSUSE)
def test_a_shipped_template_of_opensuse_agrees_with_itself(name: str) -> None:
    image, file = RPM[name]
    recipe, uefi = image.recipe, image.bootloader.uefi
    assert isinstance(recipe, RpmTree)
    assert uefi
    # The GRUB beside each shim finds a configuration there.
    started = {str(Path(path).parent) for path in (*uefi.esp, "EFI/BOOT/grub.efi")}
    assert started == {uefi.config_directory, *uefi.more_config_directories}
    assert all(path.startswith("usr/share/efi/{rpm}/") for path in uefi.sources)
    for modules in (image.bootloader.bios, image.bootloader.prep):
        assert modules
        assert modules.modules.startswith("usr/share/grub2/")
    loader = "etc/sysconfig/bootloader"
    assert 'LOADER_TYPE="none"' in recipe.early_files[loader]
    assert 'LOADER_TYPE="grub2-efi"' in recipe.files[loader]
    assert 'LOADER_TYPE="grub2"\n' in recipe.architecture_files["ppc64le"][loader]
    for repository in recipe.repositories:
        assert repository.signed_metadata
        for architecture in ("aarch64", "ppc64le", "x86_64"):
            url = repository.baseurl_for(architecture)
            assert url.startswith("https://download.opensuse.org/")
            ports = {"aarch64": "/ports/aarch64/", "ppc64le": "/ports/ppc/"}.get(architecture)
            assert "$basearch" in url or ports is None or ports in url
        for key in repository.keys:
            check_key(key, template.beside(file, key.file))


@pytest.mark.parametrize("name", [name for name in RPM if name not in OPENSUSE])
def test_a_shipped_rpm_template_agrees_with_itself(name: str) -> None:
    image, file = RPM[name]
    recipe = image.recipe
    assert isinstance(recipe, RpmTree)
    major = image.distribution.version
    assert image.distribution.release == major
    assert recipe.platform in {f"platform:el{major}", f"platform:f{major}"}
    uefi = image.bootloader.uefi
    assert uefi
    assert {Path(uefi.shim).parent, Path(uefi.grub).parent} == {
        Path("boot/efi", uefi.config_directory)
    }
    for repository in recipe.repositories:
        assert not repository.trusted
        assert repository.metalink or repository.mirrorlist
        for url in (repository.baseurl, *repository.baseurls.values()):
            assert url.startswith("https://")
            assert {"$releasever", "$basearch"} <= {*re.findall(r"\$[a-z]+", url)}
        for key in repository.keys:
            check_key(key, template.beside(file, key.file))


def test_each_shipped_key_is_documented_with_its_fingerprint() -> None:
    told = (shipped_directory() / "docs/rpm.md").read_text(encoding="utf-8")
    files = sorted((shipped_directory() / "templates/keys").iterdir())
    assert len(files) > 5
    for file in files:
        assert f"| `{file.name}` | {fingerprint(file)} |" in told
