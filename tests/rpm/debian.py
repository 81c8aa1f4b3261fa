"""Debian's binary packages, read as what another distribution is made of."""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from debian.deb822 import Deb822

from imagefactory.packages import deb as archive
from imagefactory.run import started
from tests.rpm.spec import Entry

_MERGED = re.compile(r"^/(bin|sbin|lib|lib64)(?=/|$)")
"""What usr-merged systems have below /usr."""


@dataclass(frozen=True)
class Deb:
    """A package's file and what its control file says."""

    file: Path
    name: str
    version: str
    architecture: str
    depends: tuple[tuple[str, ...], ...]
    """Alternatives, all of which must be met; versions and architectures are left out."""
    provides: tuple[str, ...]
    conffiles: frozenset[str]

    @classmethod
    def read(cls, file: Path) -> Deb:
        """Read a package's control file."""
        control = _control(file)
        fields = Deb822(control["control"])
        relations = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
        return cls(
            file,
            fields["Package"],
            fields["Version"],
            fields["Architecture"],
            tuple(tuple(_names(group, "|")) for group in relations.split(",") if group.strip()),
            tuple(_names(fields.get("Provides", ""), ",")),
            frozenset(
                line for line in control.get("conffiles", "").split() if line.startswith("/")
            ),
        )

    @property
    def upstream(self) -> tuple[str, str]:
        """Version and release as RPM wants them: without epoch and dashes.

        What Debian has rebuilt for one architecture alone (policy 5.6.12.1) is of the same source:
        distributions of RPM packages rebuild for all.
        """
        whole = re.sub(r"\+b\d+$", "", self.version.rpartition(":")[2])
        version, _, revision = whole.rpartition("-")
        if not version:
            version, revision = revision, "0"
        return version.replace("-", "."), revision

    def unpack(self, tree: Path, place: Callable[[str], str | None]) -> Iterator[Entry]:
        """Copy the package's files into a tree.

        Args:
            tree: Where they go; others may be there.
            place: Tells for a path, absolute and below /usr where that is merged, the path that
                it shall have; None leaves it out.

        Yields:
            What was copied.
        """
        with archive.opened(self.file) as data:
            for member in data:
                path = merged("/" + member.name.removeprefix("./").rstrip("/"))
                target = place(path)
                if target is None or target == "/":
                    continue
                yield _copy(data, member, tree, target, target in self.conffiles)


def merged(path: str) -> str:
    """Say where a path is on a usr-merged system."""
    return _MERGED.sub(r"/usr/\1", path)


def _control(file: Path) -> dict[str, str]:
    """Read the archive of what is said of a package."""
    with tempfile.TemporaryFile() as plain:
        with started(["dpkg-deb", "--ctrl-tarfile", file], stdout=plain) as process:
            process.wait()
        plain.seek(0)
        with tarfile.open(fileobj=plain) as archived:
            return {
                member.name.removeprefix("./"): archive.read(archived, member).decode()
                for member in archived
                if member.name in {"./control", "./conffiles"}
            }


def _names(text: str, separator: str) -> Iterator[str]:
    for part in text.split(separator):
        if part.strip():
            yield re.split(r"[ (:\[]", part.strip())[0]


def _copy(
    data: tarfile.TarFile, member: tarfile.TarInfo, tree: Path, target: str, config: bool
) -> Entry:
    place = tree / target[1:]
    owner, group = member.uname or "root", member.gname or "root"
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return Entry(target, member.mode & 0o7777, owner, group, "directory")
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        place.symlink_to(member.linkname)
        return Entry(target)
    source = data.extractfile(member)  # of a hard link: the file that it is another name of
    assert source is not None, f"{member.name} is neither file, directory nor link"
    with place.open("wb") as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
    return Entry(target, member.mode & 0o7777, owner, group, config=config)
