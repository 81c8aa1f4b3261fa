"""What rpmbuild is told: any number of packages, their files and their scripts, in one spec."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imagefactory.run import need, run

EPOCH = 1_700_000_000
"""SOURCE_DATE_EPOCH of the packages; the same content gives the same bytes."""

_TIMEOUT = 1200.0

_MACROS = {
    # Debian's rpm looks for gpg2.
    "__gpg": "/usr/bin/gpg",
    # Nothing is compiled, stripped, byte-compiled or searched for dependencies.
    "debug_package": "%{nil}",
    "__spec_install_post": "%{nil}",
    "_build_id_links": "none",
    "_unpackaged_files_terminate_build": "0",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "_buildhost": "localhost",
    "_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
}


@dataclass(frozen=True)
class Entry:
    """A file, directory or link of a package; the path is absolute."""

    path: str
    mode: int | None = None
    """None: a link's."""
    owner: str = "root"
    group: str = "root"
    kind: Literal["file", "directory", "ghost"] = "file"
    config: bool = False

    def line(self) -> str:
        """Return its line of %files."""
        mode = "-" if self.mode is None else f"{self.mode:04o}"
        words = [f"%attr({mode},{self.owner},{self.group})"]
        words += ["%dir"] * (self.kind == "directory") + ["%ghost"] * (self.kind == "ghost")
        words += ["%config(noreplace)"] * self.config
        # rpmbuild takes a name for globs between blanks, and expands macros in them.
        name = re.sub(r"([*?[{])", r"[\1]", self.path.replace("%", "%%")).replace(" ", "?")
        return f'{" ".join(words)} "{name}"'


@dataclass(frozen=True)
class Script:
    """A scriptlet or trigger.

    Attributes:
        section: ``post``, ``preun``, ``posttrans`` and so on.
        text: What it does; a percent sign is one.
        interpreter: ``<lua>`` is inside rpm itself and needs no program of the tree.
        condition: Of a trigger: the paths or packages that it waits for.
    """

    section: str
    text: str
    interpreter: str = "/bin/sh"
    condition: str = ""

    def lines(self, package: str) -> str:
        """Return its section of the spec."""
        condition = f" -- {self.condition}" if self.condition else ""
        text = self.text.replace("%", "%%").rstrip("\n")
        return f"%{self.section} -n {package} -p {self.interpreter}{condition}\n{text}\n"


@dataclass(frozen=True)
class Rpm:
    """One package; ``noarch`` is an architecture too."""

    name: str
    version: str
    architecture: str
    release: str = "1.test"
    epoch: str = ""
    summary: str = "made for a test"
    requires: tuple[str, ...] = ()
    """A line each of ``Requires:``; with ``(pre) bash`` it is ``Requires(pre): bash``."""
    provides: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    obsoletes: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = field(default=(), repr=False)
    scripts: tuple[Script, ...] = field(default=(), repr=False)

    @property
    def file_name(self) -> str:
        """The name that rpmbuild gives its file."""
        return f"{self.name}-{self.version}-{self.release}.{self.architecture}.rpm"

    def text(self) -> str:
        """Return its part of the spec."""
        return "".join(f"{line}\n" for line in self._preamble()) + "".join(self._sections())

    def _preamble(self) -> Iterator[str]:
        yield f"%package -n {self.name}"
        yield f"Version: {self.version}"
        yield f"Release: {self.release}"
        if self.epoch:
            yield f"Epoch: {self.epoch}"
        if self.architecture == "noarch":
            yield "BuildArch: noarch"
        yield f"Summary: {self.summary}"
        yield "AutoReqProv: no"
        for tag in ("requires", "provides", "conflicts", "obsoletes", "recommends"):
            for value in getattr(self, tag):
                qualifier = re.match(r"\([a-z,]+\) ", value)
                if tag == "requires" and qualifier:
                    yield f"Requires{qualifier[0].strip()}: {value[qualifier.end() :]}"
                else:
                    yield f"{tag.capitalize()}: {value}"
        yield f"%description -n {self.name}"
        yield self.summary

    def _sections(self) -> Iterator[str]:
        yield from (script.lines(self.name) for script in self.scripts)
        yield f"%files -n {self.name}\n"
        yield from (f"{entry.line()}\n" for entry in self.entries)


def build(
    rpms: Sequence[Rpm], tree: Path, work: Path, output: Path, target: str, *, level: int = 1
) -> list[Path]:
    """Let rpmbuild make packages.

    Args:
        rpms: What is made.
        tree: Holds the files of all of them; it is gone afterwards.
        work: A scratch directory.
        output: Where the packages are put.
        target: RPM's name of the architecture of those that are not ``noarch``.
        level: Of zstd's compression.
    """
    output.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    spec = work / "packages.spec"
    spec.write_text(_spec(rpms, tree), encoding="utf-8")
    macros = {
        **_MACROS,
        "_topdir": str(work / "rpmbuild"),
        "_rpmdir": str(output),
        "_tmppath": str(work),
        "_dbpath": str(work / "db"),
        "_binary_payload": f"w{level}.zstdio",
    }
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    words: list[str | Path] = [need("rpmbuild", "rpm"), "-bb", "--quiet", *defines]
    words += ["--target", f"{target}-linux", "--buildroot", work / "buildroot", "--", spec]
    run(
        words,
        env={"HOME": str(work), "SOURCE_DATE_EPOCH": str(EPOCH)},
        log=work / "rpmbuild.log",
        timeout=_TIMEOUT,
    )
    shutil.rmtree(work / "buildroot", ignore_errors=True)
    return [output / rpm.file_name for rpm in rpms]


def _spec(rpms: Sequence[Rpm], tree: Path) -> str:
    head = (
        "Name: packages\nVersion: 1\nRelease: 1\nSummary: made for a test\nLicense: none\n"
        "%description\nmade for a test\n"
    )
    # Not a copy: it may hold a gigabyte.
    install = f'%install\nrm -rf "%{{buildroot}}"\nmv "{tree}" "%{{buildroot}}"\n'
    return head + install + "".join(rpm.text() for rpm in rpms)
