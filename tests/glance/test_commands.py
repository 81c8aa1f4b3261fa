"""The whole command line against a real Keystone: regions, and that it keeps secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.factory import MINUTES
from tests.glance.identity import CANARY, Identity, identity
from tests.glance.proxy import bad_wire
from tests.test_delivery import add_build

__all__ = ["identity"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(10 * MINUTES),
    pytest.mark.filterwarnings("ignore:.*will be removed in a future release"),  # openstacksdk
]

SECRETS = ("config/openstack/clouds.yaml", "config/openstack/secure.yaml")
"""The only files that may hold the password."""


@dataclass(frozen=True)
class Home:
    """A user of their own, with all their files below one directory."""

    directory: Path

    def configure(self, clouds: dict[str, Any], factory: dict[str, Any] | None = None) -> None:
        """Write clouds.yaml and factory.yaml; JSON is YAML."""
        for name, content in (
            ("openstack/clouds.yaml", clouds),
            ("imagefactory/factory.yaml", factory or {}),
        ):
            file = self.directory / "config" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"clouds": content}))

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """Start the program as this user."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        return subprocess.Popen(
            [sys.executable, "-m", "imagefactory", *words],
            env={
                **kept,
                "HOME": str(self.directory),
                **{f"XDG_{kind}_HOME": str(self.directory / kind.lower()) for kind in _KINDS},
                **more,
            },
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str, **more: str) -> tuple[int, str]:
        """Run the program; return its status and all that it said."""
        process = self.start(*words, **more)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output + errors

    def kept(self) -> Iterator[Path]:
        """Yield every file that this user has, but those that hold the secrets."""
        for file in self.directory.rglob("*"):
            if file.is_file() and str(file.relative_to(self.directory)) not in SECRETS:
                yield file


_KINDS = ("CONFIG", "CACHE", "DATA", "STATE")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A user with one build; in the end, none of their files tells a secret."""
    user = Home(tmp_path / "home")
    add_build(user.directory / "data/imagefactory")
    yield user
    told = [file for file in user.kept() if CANARY.encode() in file.read_bytes()]
    assert told == []


@pytest.fixture(autouse=True)
def clean(identity: Identity) -> Iterator[None]:
    """Leave no image in the project."""
    yield
    with identity.connect() as cloud:
        for image in cloud.image.images(owner=identity.project):
            cloud.image.delete_image(image.id)


def test_a_password_is_told_nowhere(identity: Identity, home: Home) -> None:
    home.configure({"mine": identity.entry(identity.auth())})
    for words, status in (
        (("upload", "minimal", "--cloud", "mine", "--dry-run"), 0),
        (("upload", "minimal", "--cloud", "mine"), 0),
        (("upload", "minimal", "--cloud", "mine", "--json"), 0),
        (("validate", "--cloud", "mine", "--scs"), 3),
    ):
        seen, told = home.call(*words)
        assert seen == status, told
        assert CANARY not in told


@pytest.mark.parametrize(
    "change",
    [
        {"password": f"wrong-{CANARY}"},
        {"username": "nobody"},
        {"auth_url": f"https://builder:{CANARY}@127.0.0.1:1/v3"},
    ],
    ids=["password", "user", "url"],
)
def test_a_login_that_fails_tells_no_password(
    identity: Identity, home: Home, change: dict[str, str]
) -> None:
    entry = identity.entry(identity.auth(**change))
    home.configure({"mine": entry}, {"mine": {"budget": 2}})
    status, told = home.call("upload", "minimal", "--cloud", "mine")
    assert status == 8, told
    assert CANARY not in told


def test_the_password_of_the_environment_is_told_nowhere(identity: Identity, home: Home) -> None:
    words = {f"OS_{name.upper()}": value for name, value in identity.auth().items()}
    more = {"OS_CACERT": str(identity.authority), "OS_REGION_NAME": "here"}
    hook = {"after_upload": [["/bin/sh", "-c", "exit 1"]]}
    home.configure({}, {"envvars": hook})
    status, told = home.call("upload", "minimal", "--cloud", "envvars", **words, **more)
    assert status == 8, told
    assert "after_upload" in told
    assert CANARY not in told


def test_even_a_bug_of_ours_tells_no_password(
    identity: Identity, home: Home, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from imagefactory.glance import upload\n"
        "def broken(*words): raise RuntimeError('a bug', *words)\n"
        "upload._Work.decide = broken\n"
    )
    home.configure({"mine": identity.entry(identity.auth())})
    words = ("upload", "minimal", "--cloud", "mine")
    status, told = home.call(*words, PYTHONPATH=str(tmp_path))
    assert status == 1
    assert "RuntimeError: ('a bug', _Work(glance=Glance(" in told
    assert CANARY not in told


def test_an_interrupted_upload_tells_no_password(identity: Identity, home: Home) -> None:
    reached, released = threading.Event(), threading.Event()

    def hold(piece: bytes) -> bytes:
        reached.set()
        released.wait(60)
        return piece

    with identity.connect() as cloud:
        endpoint = str(cloud.image.get_endpoint())
    with bad_wire(endpoint, hold, after=1_000_000) as slow:
        home.configure({"mine": identity.entry(identity.auth(), image_endpoint_override=slow)})
        process = home.start("upload", "minimal", "--cloud", "mine")
        assert reached.wait(60)
        process.send_signal(signal.SIGINT)
        released.set()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert CANARY not in output + errors


def test_each_region_of_a_cloud_gets_the_image(
    identity: Identity, home: Home, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    with identity.region("there", second):
        entry = identity.entry(identity.auth())
        del entry["region_name"]
        home.configure(
            {"mine": {**entry, "regions": ["here", "there"]}},
            {
                "near": {"cloud": "mine", "region": "here"},
                "far": {"cloud": "mine", "region": "there", "name": "{image}-there"},
            },
        )
        status, told = home.call("upload", "minimal", "--cloud", "all", "--json")
        assert status == 0, told
        rows = {row["cloud"]: row for row in json.loads(told[told.index("[") :])}
        for region, name, row in (
            ("here", "minimal-aarch64", rows["near"]),
            ("there", "minimal-there", rows["far"]),
        ):
            with identity.connect(region=region) as cloud:
                (image,) = cloud.image.images()
                assert (image.id, image.name, image.status) == (row["id"], name, "active")
        assert rows["near"]["id"] != rows["far"]["id"]
        status, told = home.call("upload", "minimal", "--cloud", "all")
        assert status == 0
        assert told.count("as it should be, nothing was sent") == 2

        home.configure({"mine": identity.entry(identity.auth())}, {"mine": {"region": "there"}})
        status, told = home.call("upload", "minimal", "--cloud", "mine")
        assert status == 3
        assert "`regions: [there, ...]`" in told
