"""Packages and signed repositories, made on the spot: honest ones by dpkg-deb, hostile by hand."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagefactory.run import run
from imagefactory.template import Repository

Member = tarfile.TarInfo | tuple[str, bytes]
"""What a forged package holds: anything tar knows, or a plain file."""


def make_deb(
    directory: Path,
    name: str,
    files: Mapping[str, bytes] | None = None,
    *,
    version: str = "1.0",
    architecture: str = "amd64",
    depends: str = "",
    scripts: Mapping[str, str] | None = None,
) -> Path:
    """Let dpkg-deb build a package; scripts are its maintainer's, ``postinst`` and the like."""
    tree = directory / f"{name}-{version}.tree"
    for path, content in (files or {f"usr/share/{name}": name.encode()}).items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755)
    control = tree / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    relations = f"Depends: {depends}\n" if depends else ""
    control.write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n{relations}"
        "Maintainer: Nobody <nobody@example.org>\nDescription: made for a test\n"
    )
    for script, text in (scripts or {}).items():
        (tree / "DEBIAN" / script).write_text(text)
        (tree / "DEBIAN" / script).chmod(0o755)
    run(["chmod", "-R", "u=rwX,go=rX", tree])
    deb = directory / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
    run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb])
    return deb


def forge_deb(file: Path, members: Sequence[Member]) -> Path:
    """Write a package whose archive holds whatever one likes; dpkg-deb would refuse to."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w"):
        pass
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar": control.getvalue(),
        "data.tar": data.getvalue(),
    }
    content = b"!<arch>\n"
    for name, part in parts.items():
        header = f"{name:<16}{1700000000:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n"
        content += header.encode() + part + b"\n" * (len(part) % 2)
    file.write_bytes(content)
    return file


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor = kind, 8, 0
    return info


ARCHITECTURES = ("amd64", "arm64", "ppc64el")


@dataclass(frozen=True)
class Key:
    """A key that signs repositories, with its keyring."""

    home: Path
    name: str

    @classmethod
    def make(cls, home: Path, name: str) -> Key:
        key = cls(home, name)
        identity = f"{name} <{name}@example.org>"
        key.gpg("--passphrase", "", "--quick-gen-key", identity, "ed25519", "sign", "never")
        key.gpg("--output", str(key.ring), "--export", identity)
        return key

    @property
    def ring(self) -> Path:
        return self.home / f"{self.name}.gpg"

    def sign(self, file: Path, target: Path) -> None:
        self.gpg("--yes", "-u", self.name, "--output", str(target), "--clearsign", str(file))

    def gpg(self, *arguments: str) -> None:
        run(["gpg", "--batch", "--quiet", "--homedir", self.home, *arguments])


@dataclass(frozen=True)
class Archive:
    """A repository on this machine's own disk."""

    directory: Path
    key: Key
    suite: str = "stable"
    debs: list[Path] = field(default_factory=list)

    def add(self, name: str, **more: str) -> Path:
        pool = self.directory / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        deb = make_deb(pool, name, **more)  # type: ignore[arg-type]
        self.debs.append(deb)
        return deb

    def publish(self, *, signed_by: Key | None = None, sign: bool = True) -> None:
        """Write the lists: Packages with checksums, Release over it, a signature over that."""
        packages = "\n".join(self._stanza(deb) for deb in self.debs)
        self.publish_lists(packages, signed_by=signed_by, sign=sign)

    def publish_lists(self, text: str, *, signed_by: Key | None = None, sign: bool = True) -> None:
        folder = self.directory / "dists" / self.suite
        content = text.encode()
        sums = ""
        for architecture in ARCHITECTURES:
            lists = folder / f"main/binary-{architecture}/Packages"
            lists.parent.mkdir(parents=True, exist_ok=True)
            lists.write_bytes(content)
            path = lists.relative_to(folder)
            sums += f" {hashlib.sha256(content).hexdigest()} {len(content)} {path}\n"
        release = folder / "Release"
        release.write_text(
            f"Suite: {self.suite}\nCodename: {self.suite}\n"
            f"Architectures: {' '.join(ARCHITECTURES)}\n"
            "Components: main\nDate: Sat, 01 Nov 2025 00:00:00 UTC\nSHA256:\n" + sums
        )
        if sign:
            (signed_by or self.key).sign(release, folder / "InRelease")

    def _stanza(self, deb: Path) -> str:
        control = run(["dpkg-deb", "--field", deb]).stdout
        content = deb.read_bytes()
        return (
            f"{control}Filename: pool/{deb.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )

    def repository(self, *, required: bool = True, keyring: Path | None = None) -> Repository:
        return Repository(
            suite=self.suite,
            mirror=f"file://{self.directory}",
            keyring=str(keyring or self.key.ring),
            required=required,
        )
