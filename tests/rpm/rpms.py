"""Small RPM packages and their repositories, made on the spot: honest ones and hostile ones.

Scripts are Lua unless one says otherwise: it is inside rpm, so they run in an empty tree too.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from imagefactory.run import need, run
from tests.debs import Key
from tests.rpm.spec import EPOCH, Entry, Rpm, Script, build

LUA = "<lua>"


def make_rpm(
    directory: Path,
    name: str,
    files: Mapping[str, bytes] | None = None,
    *,
    version: str = "1.0",
    release: str = "1",
    architecture: str = "noarch",
    requires: Sequence[str] = (),
    provides: Sequence[str] = (),
    scripts: Mapping[str, str] | None = None,
    interpreter: str = LUA,
    owners: Mapping[str, str] | None = None,
    **more: Any,
) -> Path:
    """Let rpmbuild make a package.

    Args:
        directory: Where it is put.
        name: Its name.
        files: Path -> content; all are executable.
        version: Its version.
        release: Its release.
        architecture: RPM's name of it, or ``noarch``.
        requires: Lines of ``Requires:``.
        provides: Lines of ``Provides:``.
        scripts: ``post``, ``posttrans`` ... -> what it does.
        interpreter: Of the scripts.
        owners: Path -> ``user:group``; the rest are root's.
        more: Further fields of `Rpm`.
    """
    files = {f"usr/share/{name}": name.encode()} if files is None else files
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        entries = []
        for path, content in files.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            owner, _, group = (owners or {}).get(path, "root:root").partition(":")
            entries.append(Entry(f"/{path}", 0o755, owner, group))
        rpm = Rpm(
            name,
            version,
            architecture,
            release=release,
            requires=tuple(requires),
            provides=tuple(provides),
            entries=tuple(entries),
            scripts=tuple(
                Script(section, text, interpreter) for section, text in (scripts or {}).items()
            ),
            **more,
        )
        # Some architecture must be said to rpmbuild, even if nothing is of it.
        target = "x86_64" if architecture == "noarch" else architecture
        (made,) = build([rpm], tree, Path(scratch) / "work", directory, target)
    return made


def sign_rpms(files: Sequence[Path], key: Key) -> None:
    """Sign packages; a signature that they have is replaced."""
    if not files:
        return
    macros = {"__gpg": "/usr/bin/gpg", "_gpg_name": key.name, "_gpg_path": key.home}
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    words: list[str | Path] = [need("rpmsign", "rpm"), "--addsign", *defines, *files]
    run(words, env={"HOME": str(key.home)})


def armoured(key: Key) -> Path:
    """Write a key's public half as rpm wants to read it, beside its keyring."""
    file = key.home / f"RPM-GPG-KEY-{key.name}"
    if not file.exists():
        key.gpg("--armor", "--output", str(file), "--export", key.name)
    return file


@dataclass(frozen=True)
class RpmRepository:
    """A repository on this machine's own disk."""

    directory: Path
    key: Key
    rpms: list[Path] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Package groups: identifier -> packages."""

    @property
    def url(self) -> str:
        """What a template's or dnf's `baseurl` is."""
        return f"file://{self.directory}"

    @property
    def key_file(self) -> Path:
        """The public key, armoured, that an honest repository is verified with."""
        return armoured(self.key)

    def add(
        self, name: str, files: Mapping[str, bytes] | None = None, *, sign: bool = True, **more: Any
    ) -> Path:
        """Add a package, see `make_rpm`; unsigned if one says so."""
        rpm = make_rpm(self.directory / "Packages", name, files, **more)
        if sign:
            sign_rpms([rpm], self.key)
        self.rpms.append(rpm)
        return rpm

    def publish(
        self, *, signed_by: Key | None = None, sign: bool = True, checksum: str = "sha256"
    ) -> None:
        """Index what is there; repomd.xml gets a signature beside it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        words: list[str | Path] = [need("createrepo_c", "createrepo-c"), "--quiet"]
        words += ["--checksum", checksum]
        words += ["--revision", str(EPOCH), "--set-timestamp-to-revision"]
        if self.groups:
            comps = self.directory / "comps.xml"
            comps.write_text(_comps(self.groups), encoding="utf-8")
            words += ["--groupfile", comps]
        run([*words, self.directory])
        repomd = self.directory / "repodata/repomd.xml"
        if sign:
            (signed_by or self.key).gpg(
                *("--yes", "-u", (signed_by or self.key).name, "--armor"),
                *("--output", f"{repomd}.asc", "--detach-sign", str(repomd)),
            )

    def publish_modules(self, text: str) -> None:
        """Add what the repository says of module streams, and index it without a signature."""
        self.publish(sign=False)
        file = self.directory / "modules.yaml"
        file.write_text(text, encoding="utf-8")
        tool = need("modifyrepo_c", "createrepo-c")
        run([tool, "--mdtype=modules", file, self.directory / "repodata"])

    def damage(self, rpm: Path) -> None:
        """Change a published package's last byte: the list tells another checksum."""
        content = bytearray(rpm.read_bytes())
        content[-1] ^= 0xFF
        rpm.write_bytes(content)

    def lie(self, old: str, new: str) -> None:
        """Change the published list of packages: repomd.xml tells another checksum of it."""
        (primary,) = (self.directory / "repodata").glob("*-primary.xml.gz")
        text = gzip.decompress(primary.read_bytes()).decode().replace(old, new)
        primary.write_bytes(gzip.compress(text.encode()))

    def withhold(self, rpm: Path) -> None:
        """Remove a published package: the list promises what is not there."""
        rpm.unlink()

    def forget(self) -> None:
        """Remove the index, as if there were no repository."""
        shutil.rmtree(self.directory / "repodata")


def _comps(groups: Mapping[str, Sequence[str]]) -> str:
    text = '<?xml version="1.0" encoding="UTF-8"?>\n<comps>\n'
    for name, packages in groups.items():
        wanted = "".join(
            f'<packagereq type="mandatory">{escape(package)}</packagereq>' for package in packages
        )
        text += (
            f"<group><id>{escape(name)}</id><name>{escape(name)}</name>"
            "<description>made for a test</description><default>true</default>"
            f"<uservisible>true</uservisible><packagelist>{wanted}</packagelist></group>\n"
        )
    return text + "</comps>\n"
