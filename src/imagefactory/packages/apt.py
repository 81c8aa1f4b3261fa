"""An apt of one's own: any architecture, any release, no root, nothing of the host's changed.

apt checks the signatures and checksums; we check the checksum once more when a package
enters the pool and each time one is taken out of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from debian.deb822 import Deb822
from filelock import FileLock

from imagefactory import run
from imagefactory.errors import CommandError, PackageError
from imagefactory.template import Repository

FRESH_SECONDS = 900
"""Package lists younger than this are not asked for again."""

_FETCH_TIMEOUT = 1800.0


@dataclass(frozen=True, order=True)
class Package:
    """One binary package of a repository; size in bytes."""

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    depends: str = ""

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class Pool:
    """Downloaded packages, named by their content: safe to share, never out of date."""

    directory: Path

    def path(self, package: Package) -> Path:
        """Return where the package is, or would be."""
        return self.directory / f"{package.sha256}.deb"

    def missing(self, packages: Iterable[Package]) -> tuple[Package, ...]:
        """Return those packages that are not in the pool."""
        return tuple(package for package in packages if not self.path(package).exists())

    def add(self, file: Path, package: Package) -> None:
        """Take a downloaded file in.

        Raises:
            PackageError: The file is not what the signed package list says.
        """
        if sha256_of(file) != package.sha256:
            raise PackageError(f"{package}: the downloaded file has a wrong checksum")
        self.directory.mkdir(parents=True, exist_ok=True)
        file.replace(self.path(package))

    def take(self, package: Package) -> Path:
        """Hand out a package's file, checked again.

        Raises:
            PackageError: The file was damaged since it was stored; it is removed.
        """
        path = self.path(package)
        if sha256_of(path) != package.sha256:
            path.unlink()
            raise PackageError(
                f"{package}: the cached file was damaged and has been removed",
                hint="start the build again: it will be fetched anew",
            )
        return path


class Apt:
    """The package lists of some repositories for one architecture.

    Args:
        repositories: Where packages come from; each names the keys that sign it.
        architecture: Debian's name of the architecture.
        cache: The directory of all caches; lists, pool and locks live below it.
    """

    def __init__(self, repositories: Sequence[Repository], architecture: str, cache: Path) -> None:
        self.repositories = tuple(repositories)
        self.architecture = architecture
        self.pool = Pool(cache / "pool")
        key = hashlib.sha256(f"{architecture}\n{self._sources()}".encode()).hexdigest()[:16]
        self._root = cache / "apt" / key

    def refresh(self) -> None:
        """Bring the package lists up to date, unless that was done minutes ago.

        Raises:
            PackageError: A repository cannot be reached, or its signature is wrong.
        """
        self._prepare()
        with self._lock():
            stamp = self._root / "refreshed"
            if stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH_SECONDS:
                return
            self._update()
            stamp.touch()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Suites that could not be read and are not required, each with the reason."""
        note = self._root / "left-out"
        return tuple(note.read_text(encoding="utf-8").splitlines()) if note.exists() else ()

    def _update(self) -> None:
        note = self._root / "left-out"
        note.unlink(missing_ok=True)
        (self._root / "etc/sources.list").write_text(self._sources(), encoding="utf-8")
        try:
            self._apt("apt-get", "-q", "update", "--error-on=any")
        except PackageError as error:
            optional = [suite.suite for suite in self.repositories if not suite.required]
            if not optional:
                raise
            required = tuple(suite for suite in self.repositories if suite.required)
            (self._root / "etc/sources.list").write_text(self._sources(required), encoding="utf-8")
            self._apt("apt-get", "-q", "update", "--error-on=any")
            reason = next((line for line in error.message.splitlines() if "E: " in line), "")
            note.write_text(
                f"{', '.join(optional)} ({self.architecture}) left out: "
                f"{reason.partition('E: ')[2]}\n",
                encoding="utf-8",
            )

    def find(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Look packages up, in the newest version, without what they depend on.

        Raises:
            PackageError: One does not exist for this architecture.
        """
        return self._remembered("find", tuple(names), self._find)

    def resolve(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Look packages up together with all that they depend on (not what they recommend).

        Raises:
            PackageError: The dependencies cannot be satisfied.
        """
        return self._remembered("resolve", tuple(names), self._resolve)

    def kernel(self, name: str) -> Package:
        """Follow a kernel's metapackage to the package that holds the kernel.

        Raises:
            PackageError: There is no such kernel for this architecture.
        """
        (package,) = self.find([name])
        target = re.search(r"\b(linux-image-[0-9][^ ,(]*)", package.depends)
        return self.find([target.group(1)])[0] if target else package

    def _remembered(
        self,
        question: str,
        names: tuple[str, ...],
        ask: Callable[[tuple[str, ...]], tuple[Package, ...]],
    ) -> tuple[Package, ...]:
        """Ask apt, which takes half a second to load its lists, once per state of the lists."""
        state = hashlib.sha256(f"{question} {names}".encode())
        for release in sorted((self._root / "lists").glob("*Release")):
            state.update(release.read_bytes())
        note = self._root / "answers" / f"{state.hexdigest()}.json"
        with contextlib.suppress(OSError, ValueError, TypeError):
            return tuple(Package(**fields) for fields in json.loads(note.read_bytes()))
        answer = ask(names)
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as stream:
            json.dump([asdict(package) for package in answer], stream)
        Path(stream.name).replace(note)
        return answer

    def _find(self, names: tuple[str, ...]) -> tuple[Package, ...]:
        if not names:
            return ()
        try:
            text = self._apt("apt-cache", "--no-all-versions", "show", *names)
        except PackageError:
            text = ""
        found = {
            stanza["Package"]: Package(
                stanza["Package"],
                stanza["Version"],
                stanza["Architecture"],
                stanza["SHA256"],
                int(stanza["Size"]),
                stanza.get("Depends", ""),
            )
            for stanza in Deb822.iter_paragraphs(text, use_apt_pkg=False)
            if "SHA256" in stanza
        }
        absent = [name for name in names if name not in found]
        if absent and not text:
            absent = [name for name in names if not self._exists(name)]
        if absent:
            suites = ", ".join(repository.suite for repository in self.repositories)
            raise PackageError(
                f"no package {', '.join(absent)} for {self.architecture} in {suites}",
                hint="check the names in the template and the profile, and the mirror",
            )
        return tuple(found[name] for name in names)

    def _resolve(self, names: tuple[str, ...]) -> tuple[Package, ...]:
        text = self._apt("apt-get", "-s", "--no-install-recommends", "install", *names)
        installed = re.findall(r"^Inst (\S+) \(", text, re.MULTILINE)
        return tuple(sorted(self._find(tuple(name.split(":")[0] for name in installed))))

    def fetch(self, packages: Iterable[Package]) -> None:
        """Download those packages that the pool lacks.

        Raises:
            PackageError: A download failed or did not match its checksum.
        """
        with self._lock():
            missing = self.pool.missing(packages)
            if not missing:
                return
            self.pool.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.pool.directory) as scratch:
                directory = Path(scratch)
                self._apt("apt-get", "-q", "download", *map(str, missing), cwd=directory)
                for package in missing:
                    self.pool.add(_downloaded(directory, package), package)

    def _exists(self, name: str) -> bool:
        try:
            return f"Package: {name}\n" in self._apt("apt-cache", "show", name)
        except PackageError:
            return False

    def _sources(self, repositories: Sequence[Repository] | None = None) -> str:
        return "".join(
            f"deb [arch={self.architecture} signed-by={repository.keyring}] "
            f"{repository.mirror} {repository.suite} {' '.join(repository.components)}\n"
            for repository in (repositories or self.repositories)
        )

    def _prepare(self) -> None:
        for folder in ("lists/partial", "archives/partial", "etc/preferences.d"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        for repository in self.repositories:
            if not Path(repository.keyring).exists():
                raise PackageError(
                    f"the keyring {repository.keyring} does not exist",
                    hint="for Debian's keys: install the package debian-archive-keyring",
                )
        (self._root / "status").touch()
        (self._root / "apt.conf").write_text(self._settings(), encoding="utf-8")

    def _settings(self) -> str:
        settings: Mapping[str, str] = {
            "APT::Architecture": self.architecture,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Dir::State": str(self._root),
            "Dir::State::lists": str(self._root / "lists"),
            "Dir::State::status": str(self._root / "status"),
            "Dir::Cache": str(self._root),
            "Dir::Etc::sourcelist": str(self._root / "etc/sources.list"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": str(self._root / "etc/preferences.d"),
            "Dir::Etc::trusted": "/dev/null",
            "Dir::Etc::trustedparts": "/dev/null",
        }
        lines = [f'{key} "{value}";\n' for key, value in settings.items()]
        return "".join([f'APT::Architectures {{ "{self.architecture}"; }};\n', *lines])

    def _lock(self) -> FileLock:
        return FileLock(self._root / "lock")

    def _apt(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        log = self._root / "apt.log"
        try:
            return run.run(
                [program, *arguments],
                env={"APT_CONFIG": str(self._root / "apt.conf")},
                cwd=cwd,
                timeout=_FETCH_TIMEOUT,
                log=log,
            ).stdout
        except CommandError as error:
            raise PackageError(
                error.message,
                hint="check the mirror (templates name it) and the network",
                log=log,
            ) from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _downloaded(directory: Path, package: Package) -> Path:
    version = package.version.replace(":", "%3a")
    return directory / f"{package.name}_{version}_{package.architecture}.deb"
