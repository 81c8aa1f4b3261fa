"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from imagefactory.run import run
from tests.debs import Archive, Key
from tests.factory import BuiltImage, Factory
from tests.glance.cloud import glance_cloud, glance_service

# A busy machine is no reason for a failure: tests have timeouts, examples have no deadlines.
settings.register_profile("factory", deadline=None)
settings.load_profile("factory")

# Tests run side by side already: a build of theirs boots one guest at a time.
os.environ["IMAGEFACTORY_JOBS"] = "1"

__all__ = ["archive", "built", "factory", "glance_cloud", "glance_service", "keys"]


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all of pytest-xdist's workers, whose own ones lie side by side."""
    own = tmp_path_factory.getbasetemp()
    directory = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    """The command line with a catalog of its own and the usual caches."""
    return Factory(tmp_path / "catalog")


@pytest.fixture(scope="session")
def built(shared_directory: Path) -> Callable[[str], BuiltImage]:
    """Build the minimal image for an architecture, once for all tests and workers."""

    def build(architecture: str) -> BuiltImage:
        catalog = shared_directory / "catalog"
        with FileLock(shared_directory / f"{architecture}.lock"):
            factory = Factory(catalog)
            made = sorted((catalog / "minimal" / architecture).glob("*/*.qcow2"))
            if not made:
                factory.run("build", "minimal", "--arch", architecture, "--skip-test")
                made = sorted((catalog / "minimal" / architecture).glob("*/*.qcow2"))
        return BuiltImage.of(made[0])

    return build


@pytest.fixture(scope="session")
def keys() -> Iterator[tuple[Key, Key]]:
    """Two keys; in a directory with a short name, because gpg-agent's socket lies there."""
    with tempfile.TemporaryDirectory(prefix="keys") as directory:
        home = Path(directory)
        yield Key.make(home, "archive"), Key.make(home, "stranger")
        run(["gpgconf", "--homedir", home, "--kill", "all"])


@pytest.fixture
def archive(keys: tuple[Key, Key], tmp_path: Path) -> Archive:
    """A repository with two programs, one of which needs a library, and a kernel."""
    made = Archive(tmp_path / "mirror", keys[0])
    made.add("program", architecture="all", depends="library (>= 2)")
    made.add("library", version="1:2.0", architecture="all")
    made.add("linux-image-cloud", architecture="all", depends="linux-image-6.1.0-9-cloud (= 6.1-1)")
    made.add("linux-image-6.1.0-9-cloud", version="6.1-1", architecture="all")
    made.publish()
    return made


@pytest.fixture
def installed_for_all(tmp_path: Path) -> Iterator[Path]:
    """Install the wheel where every user can run it; return its command."""
    target = Path("/var/tmp") / f"imagefactory-test-{os.getpid()}"
    source = Path(__file__).resolve().parent.parent
    # An interpreter of one's own (pyenv, uv) may lie where nobody else can go.
    python = "/usr/bin/python3"
    subprocess.run([python, "-m", "venv", str(target)], check=True)
    try:
        wheels = tmp_path / "wheels"
        pip = [str(target / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(source)], check=True)
        subprocess.run([*pip, "install", *map(str, wheels.glob("*.whl"))], check=True)
        subprocess.run(["chmod", "-R", "go+rX", str(target)], check=True)
        yield target / "bin/imagefactory"
    finally:
        subprocess.run(["rm", "-rf", str(target)], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: at the end, one of them would keep one worker busy and no other."""
    long = {"test_debian_job.py", "test_rpm_job.py", "test_rpm_menu_job.py"}
    items.sort(key=lambda item: item.path.name not in long)
