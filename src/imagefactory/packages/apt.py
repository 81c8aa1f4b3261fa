"""An apt of one's own: any architecture, any release, no root, nothing of the host's changed.

Of the host's settings only the proxies count: one that allows unsigned repositories or runs
a program after each update is not ours to follow. apt checks the signatures and checksums; we
check the checksum once more when a package enters the pool and each time one is taken out of it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from debian.deb822 import Deb822

from imagefactory import run
from imagefactory.errors import CommandError, PackageError
from imagefactory.packages.lists import Lists
from imagefactory.packages.pool import Package, Pool
from imagefactory.template import Repository

KEYRING_HINT = (
    "install the package that brings it: debian-archive-keyring for Debian's keys, "
    "ubuntu-keyring for Ubuntu's (Debian has no package of them: see docs/debian.md)"
)

_HINT = "check the network and the mirror (--mirror URL takes another)"
_HINTS = {
    "Unable to locate package": "the template names it (`packages:`, `extra_packages:`): is it in "
    "that release, for that architecture?",
    "NO_PUBKEY": "the repository's `keyring:` has other keys than the one that signed it; if they "
    "are old, update the package that brings them",
    "is not signed": "the repository's `keyring:` says who signs it; `trusted: true` takes an "
    "unsigned one",
    "does not have a Release file": "is the `mirror:` without the suite, and is the `suite:` "
    "there? `trusted: true` takes a repository that nobody signed",
    "snapshot": "`snapshot:` needs the archive that `snapshots:` names: can it be reached?",
}
"""What apt says -> what to try."""

_REFRESH_TIMEOUT = 240.0
_FETCH_TIMEOUT = 1800.0


class Apt:
    """The package lists of some repositories for one architecture.

    Args:
        repositories: Where packages come from; each names the keys that sign it.
        architecture: Debian's name of the architecture.
        cache: The directory of all caches; lists, pool and locks live below it.
        offline: Nothing is asked from the network: lists as they were last fetched, packages
            that are in the pool.
    """

    def __init__(
        self,
        repositories: Sequence[Repository],
        architecture: str,
        cache: Path,
        *,
        offline: bool = False,
    ) -> None:
        self.repositories = tuple(repositories)
        self.architecture = architecture
        self.offline = offline
        self.pool = Pool(cache / "pool")
        asked = f"{architecture}\n{self._sources()}{preferences(self.repositories)}"
        self._lists = Lists(cache, "apt", asked)
        self._root = self._lists.directory

    @property
    def identity(self) -> str:
        """A name that no other lists have."""
        return self._root.name

    @property
    def names(self) -> tuple[str, ...]:
        """What people call its repositories."""
        return tuple(repository.suite for repository in self.repositories)

    @property
    def apart(self) -> tuple[Apt, ...]:
        """Each of its repositories as lists of its own."""
        cache = self._lists.cache
        return tuple(
            Apt((repository,), self.architecture, cache, offline=self.offline)
            for repository in self.repositories
        )

    @property
    def age(self) -> float | None:
        """Seconds since the package lists were fetched; None if they never were."""
        return self._lists.age

    def refresh(self) -> None:
        """Bring the package lists up to date, unless that was done minutes ago.

        Raises:
            PackageError: A repository cannot be reached, or its signature is wrong; or there are
                no lists, and they may not be fetched.
        """
        if self.offline:
            suites = ", ".join(f"{item.mirror} {item.suite}" for item in self.repositories)
            self._lists.require(f"{suites} ({self.architecture})")
        self._prepare()
        with self._lists.lock():
            if self._lists.fresh or self.offline:
                return
            (self._root / "apt.log").unlink(missing_ok=True)
            self._update()
            self._forget_old_answers()
            self._lists.refreshed()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Suites that could not be read and are not required, each with the reason."""
        return self._lists.left_out

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where its packages come from."""
        return tuple(repository.mirror for repository in self.repositories)

    @property
    def unsigned(self) -> tuple[str, ...]:
        """Those of the addresses whose packages are taken as they are."""
        return tuple(item.mirror for item in self.repositories if item.trusted)

    def _update(self) -> None:
        self._lists.leave_out(())
        try:
            self._update_from(self.repositories)
        except PackageError:
            if all(repository.required for repository in self.repositories):
                raise
            self._update_without_the_broken()

    def _update_without_the_broken(self) -> None:
        """Take what is required, then each of the others that can be read."""
        taken = tuple(repository for repository in self.repositories if repository.required)
        if taken:
            self._update_from(taken)
        left_out = []
        for repository in self.repositories:
            if repository.required:
                continue
            try:
                self._update_from((*taken, repository))
                taken = (*taken, repository)
            except PackageError as error:
                reason = re.search(r"\bE: (.+)", error.message)
                left_out.append(
                    f"{repository.suite} ({self.architecture}) left out: "
                    f"{reason[1] if reason else error.message.splitlines()[0]}"
                )
        self._update_from(taken)
        self._lists.leave_out(left_out)

    def _update_from(self, repositories: Sequence[Repository]) -> None:
        sources = self._root / "etc/sources.list"
        sources.write_text(self._sources(repositories), encoding="utf-8")
        self._apt("apt-get", "-q", "update", "--error-on=any", timeout=_REFRESH_TIMEOUT)

    def find(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Look packages up, in the newest version, without what they depend on.

        Raises:
            PackageError: One does not exist for this architecture.
        """
        return self._remembered("find", tuple(names), self._find)

    def resolve(self, names: Sequence[str], *, recommends: bool = False) -> tuple[Package, ...]:
        """Look packages up together with all that they depend on.

        Args:
            names: Packages or patterns, apt-patterns(7).
            recommends: Take what they recommend too.

        Raises:
            PackageError: The dependencies cannot be satisfied.
        """
        if recommends:
            return self._remembered("with recommends", tuple(names), self._resolve_recommended)
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
        key = hashlib.sha256(f"{question} {names}".encode()).hexdigest()
        return self._lists.remembered(lambda: self._answers() / f"{key}.json", lambda: ask(names))

    def _answers(self) -> Path:
        """Name the directory of the answers that the package lists give as they are now."""
        state = hashlib.sha256()
        lists = self._root / "lists"
        releases = sorted(lists.glob("*Release"))
        for release in releases:
            state.update(release.read_bytes())
        # A repository that nobody signs may have no Release that would tell its states apart.
        known = tuple(re.sub("(In)?Release$", "", release.name) for release in releases)
        for index in sorted(lists.glob("*_Packages*")):
            if not index.name.startswith(known) and index.exists():
                status = index.stat()
                state.update(f"{index.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return self._root / "answers" / state.hexdigest()

    def _forget_old_answers(self) -> None:
        current = self._answers()
        for directory in current.parent.glob("*"):
            if directory != current:
                shutil.rmtree(directory, ignore_errors=True)

    def _find(self, names: tuple[str, ...]) -> tuple[Package, ...]:
        if not names:
            return ()
        # 100: one of the names is unknown; which one, is told below.
        text = self._apt("apt-cache", "--no-all-versions", "show", "--", *names, accept=(0, 100))
        stanzas = Deb822.iter_paragraphs(text, use_apt_pkg=False)
        found = {stanza["Package"]: _package(stanza) for stanza in stanzas if "Package" in stanza}
        absent = [name for name in names if name not in found]
        if absent:
            suites = ", ".join(repository.suite for repository in self.repositories)
            raise PackageError(
                f"no package {', '.join(absent)} for {self.architecture} in {suites}",
                hint="check the names in the template and the profile, and the mirror",
            )
        return tuple(found[name] for name in names)

    def _resolve_recommended(self, names: tuple[str, ...]) -> tuple[Package, ...]:
        return self._resolve(names, "--install-recommends")

    def _resolve(
        self, names: tuple[str, ...], recommends: str = "--no-install-recommends"
    ) -> tuple[Package, ...]:
        text = self._apt("apt-get", "-s", recommends, "install", "--", *names)
        installed = re.findall(r"^Inst (\S+) \(", text, re.MULTILINE)
        return tuple(sorted(self._find(tuple(name.split(":")[0] for name in installed))))

    def fetch(self, packages: Iterable[Package]) -> None:
        """Download those packages that the pool lacks.

        Raises:
            PackageError: A download failed or did not match its checksum.
        """
        with self._lists.lock():
            missing = self.pool.to_fetch(packages, offline=self.offline)
            if not missing:
                return
            directory = self._lists.emptied("download")
            self._apt("apt-get", "-q", "download", "--", *map(str, missing), cwd=directory)
            for package in missing:
                self.pool.add(_downloaded(directory, package), package)

    def _sources(self, repositories: Sequence[Repository] | None = None) -> str:
        return "".join(
            f"deb [{' '.join(self._options(repository))}] "
            f"{repository.mirror} {repository.suite} {' '.join(repository.components)}\n"
            for repository in (repositories or self.repositories)
        )

    def _options(self, repository: Repository) -> Iterator[str]:
        yield f"arch={self.architecture}"
        yield f"signed-by={repository.keyring}" if repository.keyring else "trusted=yes"
        if not repository.valid_until:
            yield "check-valid-until=no"

    def _prepare(self) -> None:
        folders = ("lists/partial", "archives/partial", "etc/preferences.d")
        files = (
            ("status", ""),
            ("apt.conf", self._settings()),
            ("etc/preferences", preferences(self.repositories)),
        )
        self._lists.prepare(folders, files)
        for repository in self.repositories:
            if repository.keyring is None:
                continue  # the template says so, and the plan warns of it
            if re.search(r"[\s\[\],]", repository.keyring):
                raise PackageError(
                    f"the path of the keyring {repository.keyring!r} has blanks or brackets",
                    hint="apt cannot take such a path: put the file elsewhere",
                )
            if not Path(repository.keyring).exists():
                raise PackageError(
                    f"the keyring {repository.keyring} does not exist",
                    hint=f"`keyring:` names a file of this host; {KEYRING_HINT}",
                )

    def _settings(self) -> str:
        settings: Mapping[str, str] = {
            "APT::Architecture": self.architecture,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "30",
            "Acquire::https::Timeout": "30",
            "Dir::State": str(self._root),
            "Dir::State::lists": str(self._root / "lists"),
            "Dir::State::status": str(self._root / "status"),
            "Dir::Cache": str(self._root),
            "Dir::Etc::sourcelist": str(self._root / "etc/sources.list"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": str(self._root / "etc/preferences"),
            "Dir::Etc::preferencesparts": str(self._root / "etc/preferences.d"),
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::trusted": "/dev/null",
            "Dir::Etc::trustedparts": "/dev/null",
        }
        lines = [f'{key} "{value}";\n' for key, value in settings.items()]
        architectures = f'APT::Architectures {{ "{self.architecture}"; }};\n'
        return "".join([_proxies_of_the_host(), architectures, *lines])

    def _apt(
        self,
        program: str,
        *arguments: str,
        cwd: Path | None = None,
        accept: Sequence[int] = (0,),
        timeout: float = _FETCH_TIMEOUT,
    ) -> str:
        log = self._root / "apt.log"
        try:
            return run.run(
                [program, *arguments],
                env={"APT_CONFIG": str(self._root / "apt.conf")},
                cwd=cwd,
                timeout=timeout,
                log=log,
                accept=accept,
            ).stdout
        except CommandError as error:
            raise PackageError(
                error.message,
                hint=next((hint for sign, hint in _HINTS.items() if sign in error.message), _HINT),
                log=log,
            ) from None


@cache
def _proxies_of_the_host() -> str:
    """How this host reaches the network; nothing else of its settings concerns an image."""
    methods = ("Acquire::http", "Acquire::https", "Acquire::ftp")
    settings = [run.run(["apt-config", "dump", method]).stdout for method in methods]
    return "".join(
        line + "\n" for line in "".join(settings).splitlines() if "proxy" in line.lower()
    )


def preferences(repositories: Iterable[Repository]) -> str:
    """Say which repositories apt prefers, as apt_preferences(5) has it; empty: none."""
    return "\n".join(
        f"Package: *\nPin: {_pin(repository)}\nPin-Priority: {repository.priority}\n"
        for repository in repositories
        if repository.priority is not None
    )


def _pin(repository: Repository) -> str:
    """Say which packages are a repository's; the origin is a host's name, empty for files."""
    if repository.label is not None:
        return f"release l={repository.label}"
    return f'origin "{urlsplit(repository.mirror).hostname or ""}"'


def _package(stanza: Mapping[str, str]) -> Package:
    # The checksum names a file of the pool: it must be one and no path.
    if not re.fullmatch("[0-9a-f]{64}", stanza.get("SHA256", "")):
        raise PackageError(f"the package list has no SHA-256 of {stanza['Package']}")
    try:
        return Package(
            stanza["Package"],
            stanza["Version"],
            stanza["Architecture"],
            stanza["SHA256"],
            int(stanza["Size"]),
            stanza.get("Depends", ""),
        )
    except (KeyError, ValueError) as error:
        raise PackageError(
            f"the package list says nothing usable of {stanza['Package']}: {error}"
        ) from None


def _downloaded(directory: Path, package: Package) -> Path:
    version = package.version.replace(":", "%3a")
    return directory / f"{package.name}_{version}_{package.architecture}.deb"
