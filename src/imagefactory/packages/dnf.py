"""A dnf of one's own: any architecture, any release, no root, nothing of the host's changed.

Of the host's settings none counts but the proxies in the environment. dnf fetches the lists of
packages and decides what is installed; signatures are checked by rpm with a keyring that holds
the template's keys and no others, checksums by dnf and by us.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imagefactory import run
from imagefactory.data import write_whole
from imagefactory.errors import CommandError, HostError, PackageError
from imagefactory.packages.lists import Lists
from imagefactory.packages.pool import Package, Pool
from imagefactory.rpmtree import RpmRepository, SigningKey

PYTHON = "/usr/bin/python3"
"""The interpreter that the distribution's module `dnf` is for."""

QUERY = Path(__file__).with_name("dnf_query.py")

_DIGITS = {"sha256": 64, "sha512": 128}
"""Kind of checksum -> its hexadecimal digits; weaker ones are none."""

_REFRESH_TIMEOUT = 600.0
_FETCH_TIMEOUT = 1800.0

_HINT = "check the network and the mirror (--mirror OLD=URL takes another)"
_HINTS = {
    "No match for argument": "the template names it (`packages:`, `extra_packages:`): is it in "
    "that release, for that architecture?",
    "Unable to find a match": "the template names it (`packages:`, `extra_packages:`): is it in "
    "that release, for that architecture?",
    "No available modular metadata": "`modules:` names a stream that no repository has",
    "GPG": "the repository's `keys:` are not those that signed it",
    "Status code: 404": "is the `baseurl:` right, and is the architecture there?",
}
"""What dnf says -> what to try."""


@dataclass(frozen=True)
class Wish:
    """What is to be installed.

    Attributes:
        names: Packages and @groups.
        exclude: Packages that may not be among what is installed for them.
        modules: Module streams that are enabled.
        weak: Whether to take what packages recommend.
    """

    names: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    weak: bool = False


class Dnf:
    """The lists of packages of some repositories, for one architecture of one release.

    Args:
        repositories: Where packages come from; each names the keys that sign it.
        keys: Where the file of each key is.
        architecture: RPM's name of the architecture.
        release: What ``$releasever`` stands for.
        cache: The directory of all caches; lists, pool and locks live below it.
        platform: The release's module_platform_id, if it has modules.
        offline: Nothing is asked from the network: lists as they were last fetched, packages
            that are in the pool.
    """

    def __init__(
        self,
        repositories: Sequence[RpmRepository],
        keys: dict[SigningKey, Path],
        architecture: str,
        release: str,
        cache: Path,
        *,
        platform: str | None = None,
        offline: bool = False,
    ) -> None:
        self.repositories = tuple(repositories)
        self.architecture = architecture
        self.release = release
        self.offline = offline
        self.pool = Pool(cache / "pool", "rpm")
        self._keys = keys
        self._platform = platform
        sections = (section(repository, architecture) for repository in repositories)
        # What other keys have signed is another distribution, though it may lie at the same place.
        signers = " ".join(key.fingerprint for item in repositories for key in item.keys)
        asked = f"{architecture} {release} {platform} {signers}\n" + "".join(sections)
        self._lists = Lists(cache, "dnf", asked)
        self._root = self._lists.directory

    def elsewhere(self, architecture: str) -> Dnf:
        """Return the lists of the same repositories for another architecture."""
        return Dnf(
            self.repositories,
            self._keys,
            architecture,
            self.release,
            self._lists.cache,
            platform=self._platform,
            offline=self.offline,
        )

    @property
    def identity(self) -> str:
        """A name that no other lists have."""
        return self._root.name

    @property
    def names(self) -> tuple[str, ...]:
        """What people call its repositories."""
        return tuple(repository.id for repository in self.repositories)

    @property
    def apart(self) -> tuple[Dnf, ...]:
        """Each of its repositories as lists of its own."""
        cache = self._lists.cache
        return tuple(
            Dnf(
                (repository,),
                {key: self._keys[key] for key in repository.keys},
                self.architecture,
                self.release,
                cache,
                platform=self._platform,
                offline=self.offline,
            )
            for repository in self.repositories
        )

    @property
    def age(self) -> float | None:
        """Seconds since the lists were fetched; None if they never were."""
        return self._lists.age

    @property
    def left_out(self) -> tuple[str, ...]:
        """Repositories that could not be read and are not required, each with the reason."""
        return self._lists.left_out

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where its packages come from."""
        return tuple(map(self._asked_address, self.repositories))

    @property
    def unsigned(self) -> tuple[str, ...]:
        """Those of the addresses whose packages are taken as they are."""
        return tuple(self._asked_address(item) for item in self.repositories if item.trusted)

    def _asked_address(self, repository: RpmRepository) -> str:
        _, address = _place(repository, self.architecture)
        address = address.replace("$releasever", self.release)
        return address.replace("$basearch", self.architecture)

    def refresh(self) -> None:
        """Bring the lists up to date, unless that was done minutes ago.

        Raises:
            PackageError: A repository cannot be reached, is not for this architecture, or its
                signature is wrong; or there are no lists, and they may not be fetched.
        """
        if self.offline:
            names = ", ".join(repository.id for repository in self.repositories)
            self._lists.require(f"{names} ({self.architecture})")
        self._prepare()
        with self._lists.lock():
            if self._lists.fresh or self.offline:
                return
            (self._root / "dnf.log").unlink(missing_ok=True)
            done = self._run(
                [
                    *("dnf", "--assumeyes", f"--config={self._config}", "--refresh"),
                    *(f"--installroot={self._empty}", f"--forcearch={self.architecture}"),
                    # Those of the configuration would lie below the empty tree.
                    *(f"--setopt={key}={value}" for key, value in self._directories.items()),
                    *(f"--releasever={self.release}", "makecache"),
                ],
                _REFRESH_TIMEOUT,
            )
            self._end_agents()
            self._note_left_out(done.stdout + done.stderr)
            self._lists.refreshed()

    def resolve(self, wish: Wish) -> tuple[Package, ...]:
        """Decide which packages are installed.

        Raises:
            PackageError: One does not exist for this architecture, or they do not fit together.
        """
        words = json.dumps(asdict(wish), sort_keys=True)

        def ask() -> tuple[Package, ...]:
            answer = self._ask("resolve", asdict(wish))
            return tuple(sorted(_package(fields) for fields in answer["packages"]))

        return self._lists.remembered(
            lambda: self._root / "answers" / f"{self._state(words)}.json", ask
        )

    def fetch(self, packages: Iterable[Package]) -> None:
        """Download those packages that the pool lacks, and see that each of all is signed.

        What the pool has may have come there for a template that trusts others.

        Raises:
            PackageError: A download failed, did not match its checksum, or is not signed by the
                template's keys.
        """
        packages = tuple(packages)
        with self._lists.lock():
            self._download(self.pool.to_fetch(packages, offline=self.offline))
            self._check_kept(packages)

    def _download(self, missing: Sequence[Package]) -> None:
        if missing:
            directory = self._lists.emptied("download")
            wanted = [_wanted(package) for package in missing]
            files = self._ask("fetch", {"packages": wanted, "directory": str(directory)})
            trusted = {repository.id for repository in self.repositories if repository.trusted}
            self._check_signatures(
                [file for file, origin in files.values() if origin not in trusted]
            )
            for package in missing:
                file = Path(files[_identity(package)][0])
                if file.parent != directory:  # of a repository on this machine: not ours to move
                    file = Path(shutil.copyfile(file, directory / file.name))
                self.pool.add(file, package)
            self._note_signed(map(_identity, missing))

    def _check_kept(self, packages: Sequence[Package]) -> None:
        """Look at the signatures of what is in the pool, once for these repositories and keys."""
        known = self._signed()
        unseen = {_identity(one): one for one in packages if _identity(one) not in known}
        if not unseen:
            return
        trusted = {repository.id for repository in self.repositories if repository.trusted}
        origins: dict[str, str] = {}
        if trusted:
            wanted = [_wanted(package) for package in unseen.values()]
            origins = self._ask("origins", {"packages": wanted, "missing_ok": True})
            # What no list has any more is a recorded build's: nobody knows where it came from.
            unseen = {key: one for key, one in unseen.items() if key in origins}
        directory = self._lists.emptied("kept")
        links = []
        for key, package in unseen.items():
            if origins.get(key) not in trusted:
                links.append(directory / f"{package.name}-{package.architecture}-{key[-12:]}.rpm")
                links[-1].symlink_to(self.pool.take(package).absolute())
        self._check_signatures([*map(str, links)])
        self._note_signed(unseen)

    def _signed(self) -> set[str]:
        """Return what was found to be as these repositories and keys want it."""
        note = self._root / "signed"
        return {*note.read_text(encoding="utf-8").split()} if note.exists() else set()

    def _note_signed(self, identities: Iterable[str]) -> None:
        known = sorted({*self._signed(), *identities})
        write_whole(self._root / "signed", "\n".join(known).encode())

    def probe(self, packages: Iterable[Package]) -> tuple[str, ...]:
        """Fetch the smallest package of each repository, and look at its signature.

        Args:
            packages: Those of an answer of `resolve`.

        Returns:
            What is wrong, repository by repository.
        """
        smallest: dict[str, Package] = {}
        by_checksum = {_identity(package): package for package in packages}
        with self._lists.lock():
            wanted = [_wanted(package) for package in by_checksum.values()]
            origins = self._ask("origins", {"packages": wanted})
        for checksum, origin in origins.items():
            package = by_checksum[checksum]
            if origin not in smallest or package.size < smallest[origin].size:
                smallest[origin] = package
        trusted = {repository.id for repository in self.repositories if repository.trusted}
        wrong = []
        for origin, package in sorted(smallest.items()):
            try:
                self.fetch([package])
                if origin not in trusted:  # one that was in the pool was signed by some key, once
                    self._check_signatures([str(self.pool.take(package))])
            except PackageError as error:
                wrong.append(f"{origin}: {package}: {error.message}")
        return tuple(wrong)

    @property
    def _config(self) -> Path:
        return self._root / "dnf.conf"

    @property
    def _directories(self) -> dict[str, str]:
        return {f"{kind}dir": str(self._root / kind) for kind in ("cache", "persist", "log")}

    @property
    def _empty(self) -> Path:
        """An empty tree: what the host has installed does not count."""
        return self._root / "empty"

    def _prepare(self) -> None:
        run.need("dnf", "dnf")
        run.need("rpmkeys", "rpm")
        folders = ("empty", "home", "answers", "log")
        self._lists.prepare(folders, [(self._config.name, self._settings())])
        for key, file in self._keys.items():
            check_key(key, file)

    def _settings(self) -> str:
        main = {
            "reposdir": "/nonexistent",
            "varsdir": "/nonexistent",
            "pluginpath": "/nonexistent",
            "plugins": "0",
            "gpgcheck": "1",
            "best": "1",
            **self._directories,
            "retries": "3",
            "timeout": "30",
            **({"module_platform_id": self._platform} if self._platform else {}),
        }
        lines = "".join(f"{name}={value}\n" for name, value in main.items())
        sections = (
            section(repository, self.architecture, [self._keys[key] for key in repository.keys])
            for repository in self.repositories
        )
        return f"[main]\n{lines}{''.join(sections)}"

    def _ask(self, question: str, words: dict[str, Any]) -> Any:
        request = self._root / "request.json"
        content = {
            "question": question,
            "config": str(self._config),
            "root": str(self._empty),
            "architecture": self.architecture,
            "release": self.release,
            **words,
        }
        request.write_text(json.dumps(content), encoding="utf-8")
        done = self._run([PYTHON, "-I", str(QUERY), str(request)], _FETCH_TIMEOUT)
        return json.loads(done.stdout)

    def _check_signatures(self, files: Sequence[str]) -> None:
        """Let rpm check files against the template's keys, and nothing less than a signature."""
        if not files:
            return
        keyring = self._root / "keyring"
        shutil.rmtree(keyring, ignore_errors=True)
        words = ["rpmkeys", f"--define=_dbpath {keyring}"]
        keys = [self._keys[key] for repository in self.repositories for key in repository.keys]
        self._run([*words, "--import", *map(str, dict.fromkeys(keys))], _REFRESH_TIMEOUT)
        level = "--define=_pkgverify_level all"
        self._run([*words, level, "--checksig", *files], _FETCH_TIMEOUT)

    def _end_agents(self) -> None:
        """End the agents that checking a list's signature has started: they would run on."""
        for home in (self._root / "cache").glob("*/pubring"):
            run.run(["gpgconf", "--homedir", home, "--kill", "all"])

    def _note_left_out(self, said: str) -> None:
        lines = [
            f"{name} ({self.architecture}) left out: it could not be read"
            for found in re.findall(r"^Ignoring repositories: (.+)$", said, re.MULTILINE)
            for name in found.split(", ")
        ]
        self._lists.leave_out(lines)

    def _state(self, words: str) -> str:
        """Return a key for an answer: what is asked, of which state of the lists."""
        state = hashlib.sha256(words.encode())
        for file in sorted((self._root / "cache").glob("*/repodata/repomd.xml")):
            state.update(file.read_bytes())
        return state.hexdigest()

    def _run(self, argv: Sequence[str], timeout: float) -> run.Completed:
        log = self._root / "dnf.log"
        try:
            # HOME: rpm reads ~/.rpmmacros. C: its words are looked for.
            env = {"HOME": str(self._root / "home"), "LC_ALL": "C.UTF-8"}
            return run.run(argv, env=env, timeout=timeout, log=log)
        except CommandError as error:
            raise PackageError(
                error.message,
                hint=next((hint for sign, hint in _HINTS.items() if sign in error.message), _HINT),
                log=log,
            ) from None


def _identity(package: Package) -> str:
    """Name what a package's file holds."""
    return ":".join(package.checksum)


def _wanted(package: Package) -> tuple[str, str, str, str]:
    """Name a package as `dnf_query` wants to hear it."""
    return package.name, package.version, package.architecture, _identity(package)


def _place(repository: RpmRepository, architecture: str) -> tuple[str, str]:
    """Return dnf's option by which a repository is found, and its value."""
    if repository.metalink:
        return "metalink", repository.metalink
    if repository.mirrorlist:
        return "mirrorlist", repository.mirrorlist
    return "baseurl", repository.baseurl_for(architecture)


def section(repository: RpmRepository, architecture: str, keys: Sequence[Path] = ()) -> str:
    """Write a repository as dnf.conf(5) has it.

    Args:
        repository: The repository.
        architecture: RPM's name of the one whose packages it shall give.
        keys: Where the files of its keys are.
    """
    return f"[{repository.id}]\n" + "".join(
        f"{name}={value}\n" for name, value in _options(repository, architecture, keys)
    )


def _options(
    repository: RpmRepository, architecture: str, keys: Sequence[Path]
) -> Iterator[tuple[str, str]]:
    yield "name", repository.name or repository.id
    yield _place(repository, architecture)
    yield "gpgcheck", "0" if repository.trusted else "1"
    yield "repo_gpgcheck", "1" if repository.signed_metadata else "0"
    if keys:
        yield "gpgkey", " ".join(key.absolute().as_uri() for key in keys)
    if repository.priority is not None:
        yield "priority", str(repository.priority)
    if repository.exclude:
        yield "excludepkgs", " ".join(repository.exclude)
    yield "module_hotfixes", "1" if repository.module_hotfixes else "0"
    yield "skip_if_unavailable", "0" if repository.required else "1"


def check_key(key: SigningKey, file: Path) -> None:
    """See that a file holds the key that the template means, and no other.

    Raises:
        PackageError: It does not.
        HostError: There is no gpg.
    """
    if not file.exists():
        raise PackageError(
            f"the key {file} does not exist", hint="`keys:` names a file beside the template"
        )
    gpg = run.which("gpg")
    if gpg is None:
        raise HostError("there is no gpg to look at keys with", hint="install the package gpg")
    # It ends with status 2 where there is none.
    shown = run.run([gpg, "--batch", "--with-colons", "--show-keys", file], accept=(0, 2))
    said = shown.stdout
    # gnupg, doc/DETAILS: the record after a primary key's has its fingerprint.
    found = re.findall(r"^pub:.*\n(?:\w+:.*\n)*?fpr:+([0-9A-F]{40}):", said, re.MULTILINE)
    wanted = key.fingerprint.replace(" ", "")
    if found != [wanted]:
        raise PackageError(
            f"{file} holds the key {', '.join(found) or 'none'}, not {wanted}",
            hint="`fingerprint:` is the one that the distribution publishes",
        )


def _package(fields: dict[str, Any]) -> Package:
    kind, _, digest = str(fields["checksum"]).partition(":")
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS.get(kind, 0)}}}", digest):
        raise PackageError(
            f"the repository {fields['repository']} lists {fields['name']} with a checksum "
            f"of the kind {kind}; {' or '.join(_DIGITS)} is expected"
        )
    names = ("name", "version", "architecture")
    name, version, architecture = (str(fields[key]) for key in names)
    return Package(
        name, version, architecture, size=int(fields["size"]), **{"sha256": "", kind: digest}
    )
