from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefactory.devcloud.place import SERVICES, Place
from imagefactory.errors import CloudError, ConfigError
from imagefactory.glance import login
from imagefactory.glance.failures import UnknownCloudError
from tests.devcloud.test_place import holding

ENTRY = "clouds:\n  {}: {{auth: {{auth_url: {}, username: u, password: p, project_id: x}}}}\n"
OURS, THEIRS = "https://127.0.0.1:1/v3", "https://keystone.example.com/v3"


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    for files in ("CONFIG_FILES", "SECURE_FILES"):
        monkeypatch.setattr(f"openstack.config.loader.{files}", [])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))


@contextlib.contextmanager
def a_devcloud_runs() -> Iterator[None]:
    place = Place.default()
    processes = [holding(place.service(name)) for name in SERVICES]
    place.clouds_yaml.write_text(ENTRY.format("devcloud", OURS))
    yield
    for process in processes:
        process.communicate("")


def url_of(cloud: str) -> str:
    return str(login._region(cloud).config["auth"]["auth_url"])


def test_the_devcloud_needs_no_line_in_clouds_yaml(tmp_path: Path) -> None:
    with a_devcloud_runs():
        login.check_configured("devcloud")
        (tmp_path / "clouds.yaml").write_text(ENTRY.format("mine", THEIRS))
        assert url_of("devcloud") == OURS
        assert url_of("mine") == THEIRS


def test_an_entry_of_ones_own_wins(tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text(ENTRY.format("devcloud", THEIRS))
    with a_devcloud_runs():
        assert url_of("devcloud") == THEIRS
    assert url_of("devcloud") == THEIRS


def test_a_devcloud_that_does_not_run_is_told() -> None:
    for _ in range(2):  # never started, and stopped
        with pytest.raises(CloudError, match="does not run") as caught:
            login.check_configured("devcloud")
        assert "imagefactory devcloud up" in caught.value.hint
        with a_devcloud_runs():
            login.check_configured("devcloud")


def test_the_devcloud_is_among_the_known_ones_while_it_runs() -> None:
    with a_devcloud_runs(), pytest.raises(UnknownCloudError) as caught:
        login.check_configured("devclod")
    assert "did you mean 'devcloud'?" in caught.value.hint
    with pytest.raises(UnknownCloudError) as caught:
        login.check_configured("devclod")
    assert "devcloud" not in caught.value.hint


def test_a_broken_clouds_yaml_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text("clouds: {")
    with a_devcloud_runs(), pytest.raises(ConfigError, match="not readable as YAML"):
        login.check_configured("devcloud")
