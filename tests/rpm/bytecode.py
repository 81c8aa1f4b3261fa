"""Compiled Python beside its source, as RPM distributions ship it: a first boot need not do it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from imagefactory.packages import tools
from imagefactory.packages.apt import Apt
from imagefactory.run import run
from tests.rpm.spec import Entry, Rpm

PYTHON = "3.13"
"""The distribution's version; bytecode is of one version, and of no architecture."""


def compiled(rpms: list[Rpm], tree: Path, apt: Apt, cache: Path) -> list[Rpm]:
    """Compile what is in a tree.

    Args:
        rpms: Whose files they are.
        tree: The files.
        apt: Has the distribution's Python for this machine.
        cache: The directory of all caches.

    Returns:
        The packages, with what was compiled.
    """
    packages = apt.resolve([f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib"])
    apt.fetch(packages)
    python = tools.unpack(packages, apt.pool, cache)
    command = python.command(f"python{PYTHON}")
    # Not by time: rpmbuild changes it.
    how = ["-q", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/"]
    places = sorted((tree / "usr/lib").glob("python3*"))
    run(
        [*command, "-m", "compileall", *how, *places],
        env={"PYTHONHOME": str(python.directory / "usr")},
        accept=(0, 1),  # 1: templates with names of Python's that are none
    )
    return [replace(rpm, entries=(*rpm.entries, *_beside(rpm, tree))) for rpm in rpms]


def _beside(rpm: Rpm, tree: Path) -> list[Entry]:
    found: dict[str, Entry] = {}
    for entry in rpm.entries:
        source = Path(entry.path)
        bytecode = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
        if source.suffix == ".py" and (tree / bytecode.relative_to("/")).is_file():
            directory = str(bytecode.parent)
            found[directory] = Entry(directory, 0o755, kind="directory")
            found[str(bytecode)] = Entry(str(bytecode), 0o644)
    return list(found.values())
