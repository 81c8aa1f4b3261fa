"""The services' programs: from PyPI, in a venv of their own in the cache."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from imagefactory.cache import Store
from imagefactory.errors import CommandError, HostError, PackageError
from imagefactory.progress import Stages
from imagefactory.run import run

KIND = "services"
"""Of the cache's entries."""

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

_VENV_SECONDS = 120.0
_PIP_SECONDS = 1800.0
"""A minute is usual; half an hour on a slow line."""


def key() -> str:
    """Name the venv: other pins or another Python make another one."""
    return hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]


def obtain(cache: Path, log: Path, stages: Stages) -> Path:
    """Return the venv; the first to ask makes it, others wait.

    It was moved after it was made, so its scripts want to be run by its Python by name.

    Args:
        cache: The directory of all caches; to be called in an `in_use` block.
        log: Where pip tells what it does.
        stages: Is told when there is something to do.

    Raises:
        HostError: Python cannot make a venv.
        PackageError: A package could not be installed.
    """

    def make(venv: Path) -> None:
        with stages.stage(
            "install", f"Keystone and Glance from PyPI, the first time only; see {log}"
        ):
            _make(venv, log)

    return Store(cache, KIND).obtain(key(), make)


def _make(venv: Path, log: Path) -> None:
    try:
        run([sys.executable, "-m", "venv", venv], log=log, timeout=_VENV_SECONDS)
    except CommandError:
        raise HostError(
            "Python could not make a virtual environment",
            hint="on Debian and Ubuntu the package python3-venv brings what it needs",
            log=log,
        ) from None
    pip: list[str | Path] = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check"]
    pip += ["install", "--progress-bar", "off", "--requirement", REQUIREMENTS]
    try:
        with log.open("ab") as stream, tempfile.TemporaryDirectory(dir=venv.parent) as scratch:
            # Interrupted, pip leaves what it has unpacked.
            env = {"TMPDIR": scratch}
            run(pip, into=stream, log=log, timeout=_PIP_SECONDS, env=env)
    except CommandError:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line for line in reversed(said) if line.startswith("ERROR:")), "")
        raise PackageError(
            f"pip could not install Keystone and Glance: {last.removeprefix('ERROR: ')}".rstrip(
                ": "
            ),
            hint="the first time it needs PyPI, or an index that PIP_INDEX_URL names",
            log=log,
        ) from None
