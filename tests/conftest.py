from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefactory.run import run
from tests.debs import Archive, Key


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
