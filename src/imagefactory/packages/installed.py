"""The packages of a finished tree, as its own package database tells them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from debian.deb822 import Deb822
from pydantic import TypeAdapter

from imagefactory import run


@dataclass(frozen=True, order=True)
class Installed:
    """One package; what the database does not tell is empty.

    Attributes:
        kind: What it is a package of, as the type of a package URL.
        version: Debian's with its epoch; RPM's VERSION-RELEASE.
        epoch: RPM's.
        source: The name of the source package that it was built from.
        source_version: The version of that, in the form of `version`.
        license: RPM's tag; dpkg's database knows of none.
        supplier: RPM's vendor, Debian's maintainer.
    """

    name: str
    version: str
    epoch: str
    architecture: str
    kind: Literal["deb", "rpm"]
    source: str = ""
    source_version: str = ""
    license: str = ""
    supplier: str = ""

    @property
    def full_version(self) -> str:
        """The version as package managers print it: with the epoch, if there is one."""
        return f"{self.epoch}:{self.version}" if self.epoch not in {"", "0"} else self.version


_LIST = TypeAdapter(tuple[Installed, ...])

_ABSENT = ("not-installed", "config-files")
"""States of a package that has no files of its own in the tree, dpkg(1)."""

_OTHER_LINE_ENDS = re.compile("[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""What Unicode takes for the end of a line and dpkg does not."""

_SOURCE = re.compile(r"(\S+)(?: \((.+)\))?")
"""Debian policy 5.6.1: a name, and the version where it is not the binary package's."""

_TAGS = ("NAME", "EPOCH", "VERSION", "RELEASE", "ARCH", "SOURCERPM", "LICENSE", "VENDOR")

# Quoted as for a shell: a vendor's name may hold anything, line ends too.
_QUERY = "".join(f"%|{tag}?{{%{{{tag}:shescape}}}}:{{''}}| " for tag in _TAGS)
_VALUE = re.compile(r"'([^']*(?:'\\''[^']*)*)'|([0-9]+)")

_KEY = "gpg-pubkey"
"""What rpm enters the keys under that it trusts; they are no packages."""

_NOT_PLAIN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")
"""Blanks, and what is no character of a document: controls, surrogates."""


def of_dpkg(status: str) -> tuple[Installed, ...]:
    """Read dpkg's database (``/var/lib/dpkg/status``), or control files of packages.

    Args:
        status: Its paragraphs.
    """
    strict = {"whitespace-separates-paragraphs": False}
    found = {
        package
        # Not all at once: a paragraph that says nothing would end it; nor as one text: that is
        # split at whatever Unicode takes for the end of a line.
        for text in re.split(r"\n{2,}", _OTHER_LINE_ENDS.sub(" ", status))
        for package in _of_paragraph(Deb822(text.split("\n"), strict=strict))
    }
    return tuple(sorted(found))


def _of_paragraph(paragraph: Deb822) -> Iterator[Installed]:
    def field(name: str) -> str:
        return _plain(paragraph.get(name, ""))

    name, version = field("Package"), field("Version")
    if not name or field("Status").endswith(_ABSENT):
        return
    source = _SOURCE.fullmatch(field("Source") or name)
    yield Installed(
        name,
        version,
        "",
        field("Architecture"),
        "deb",
        source=source[1] if source else name,
        source_version=(source and source[2]) or version,
        supplier=field("Maintainer"),
    )


def of_rpm(database: Path) -> tuple[Installed, ...]:
    """Ask this machine's rpm what a database holds, whatever its format.

    Args:
        database: Its directory; rpm may write there.

    Raises:
        HostError: There is no rpm.
        CommandError: It cannot read the database.
    """
    words: list[str | Path] = [run.need("rpm", "rpm"), f"--dbpath={database}", "--query", "--all"]
    said = run.run([*words, "--queryformat", f"{_QUERY}\n"]).stdout
    values = [_plain(text.replace(r"'\''", "'") or number) for text, number in _VALUE.findall(said)]
    rows = zip(*(values[first :: len(_TAGS)] for first in range(len(_TAGS))), strict=True)
    found = (dict(zip(_TAGS, row, strict=True)) for row in rows)
    return tuple(sorted({_of_tags(tags) for tags in found if tags["NAME"] not in {"", _KEY}}))


def _of_tags(tags: Mapping[str, str]) -> Installed:
    # NAME-VERSION-RELEASE.src.rpm; .nosrc.rpm where a source may not be given away.
    source_rpm = tags["SOURCERPM"].removesuffix(".rpm").rpartition(".")[0]
    source, *source_version = source_rpm.rsplit("-", 2)
    return Installed(
        tags["NAME"],
        f"{tags['VERSION']}-{tags['RELEASE']}",
        tags["EPOCH"],
        tags["ARCH"],
        "rpm",
        source=source,
        source_version="-".join(source_version),
        license=tags["LICENSE"],
        supplier=tags["VENDOR"],
    )


def write(packages: tuple[Installed, ...], file: Path) -> None:
    """Keep a list of packages in a file, for `read`."""
    file.write_bytes(_LIST.dump_json(packages))


def read(file: Path) -> tuple[Installed, ...]:
    """Read what `write` has written."""
    return _LIST.validate_json(file.read_bytes())


def _plain(text: str) -> str:
    """Make one line of printable characters of whatever a database holds."""
    return _NOT_PLAIN.sub(" ", text).strip()
