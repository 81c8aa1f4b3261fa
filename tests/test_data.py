from pathlib import Path

import pytest

from imagefactory import data
from imagefactory.data import SearchPath
from imagefactory.errors import ConfigError


def put(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return directory


def test_the_checkout_ships_profiles_and_templates() -> None:
    shipped = SearchPath.default()
    assert {"aarch64", "ppc64le", "x86_64"} <= shipped.yaml_files("arch_profiles").keys()
    assert "minimal" in shipped.yaml_files("templates")


def test_the_first_directory_wins_and_the_others_add(tmp_path: Path) -> None:
    mine = put(tmp_path / "mine", "a.yaml")
    theirs = put(tmp_path / "theirs", "a.yaml", "b.yml")
    found = SearchPath((mine, theirs)).yaml_files("templates")
    assert found == {
        "a": mine / "templates/a.yaml",
        "b": theirs / "templates/b.yml",
    }


def test_the_users_own_directory_comes_before_the_shipped_one_and_after_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    extra = put(tmp_path / "extra", "minimal.yaml")
    assert SearchPath.default([extra]).directories == (
        extra,
        tmp_path / "imagefactory",
        data.shipped_directory(),
    )


def test_editors_locks_backups_and_other_files_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", ".a.yaml", "a.yaml~", "README.md")
    (tmp_path / "templates" / ".#a.yaml").symlink_to("user@host.1234:5678")
    assert list(SearchPath((tmp_path,)).yaml_files("templates")) == ["a"]


def test_directories_that_do_not_exist_or_run_in_circles_are_empty(tmp_path: Path) -> None:
    (tmp_path / "templates").symlink_to("templates")
    assert SearchPath((tmp_path / "nothing", tmp_path)).yaml_files("templates") == {}


def test_a_path_that_the_user_names_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is not a directory") as caught:
        SearchPath.default([tmp_path / "nothing"])
    assert "templates/" in caught.value.hint


@pytest.mark.parametrize("useless", ["", "relative/path"])
def test_an_empty_or_relative_config_home_is_ignored(
    monkeypatch: pytest.MonkeyPatch, useless: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", useless)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert data.user_directory() == Path("/home/somebody/.config/imagefactory")


def test_a_user_without_a_home_has_no_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert not data.user_directory().exists()
