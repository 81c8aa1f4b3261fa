"""A distribution that looks like Fedora, out of Debian's packages: bootable, signed, indexed.

No mirror of the RPM family need be within reach of a test, so this one is made on the spot. Each
of Debian's packages becomes an RPM, which provides ``deb(NAME)`` and requires what the package
depends on; some are renamed and composed as distribution.yaml says. Debian's maintainer scripts
are not taken: scriptlets are Fedora's kind, where something has to be done at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from imagefactory.arch import ArchProfile
from imagefactory.packages.apt import Apt
from imagefactory.run import run
from imagefactory.template import Repository
from tests.debs import Key
from tests.rpm import grub, selinux
from tests.rpm.bytecode import compiled
from tests.rpm.compose import Composer
from tests.rpm.debian import Deb
from tests.rpm.recipes import HERE, OVERLAY, Recipe, Table, of_kernel, table
from tests.rpm.rpms import RpmRepository, armoured, sign_rpms
from tests.rpm.spec import Rpm, build

MIRROR = "http://deb.debian.org/debian"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_GPG_KEYS = "fedora-gpg-keys"


@dataclass(frozen=True)
class Distribution:
    """A finished one, for one architecture.

    Attributes:
        repository: The system, with the older kernel.
        updates: The newer kernel, and nothing else.
    """

    repository: RpmRepository
    updates: RpmRepository

    @property
    def newer_kernel(self) -> Path:
        """The package kernel-core of the newer kernel."""
        return next((self.updates.directory / "Packages").glob("kernel-core-*"))


def distribution(
    profile: ArchProfile, downloads: Path, base: Path | None = None, *, kernel: str = ""
) -> Distribution:
    """Make the distribution, unless that was done before; others wait for it meanwhile.

    Args:
        profile: The architecture.
        downloads: The directory of imagefactory's caches, where Debian's packages are kept.
        base: Where distributions are kept.
        kernel: Debian's package of the kernel, if not the one of distribution.yaml.
    """
    base = base or _base()
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / f"{profile.name}.lock"):
        key = _key(base)
        wanted = table(profile)
        if kernel:
            wanted = wanted.model_copy(update={"kernels": {profile.name: kernel}})
        sources = _choose(profile, wanted, downloads)
        content = f"{sources.digest} {_code()} {armoured(key).read_text(encoding='utf-8')}"
        place = base / f"{profile.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            _make(profile, wanted, sources, key, downloads, place)
            (place / "complete").touch()
        return Distribution(
            RpmRepository(place / "repository", key), RpmRepository(place / "updates", key)
        )


def debian_twin(
    profile: ArchProfile, downloads: Path
) -> tuple[Mapping[str, str], tuple[Repository, ...]]:
    """Tell what `twin.make` asks for, if the native twin shall be of Debian's packages.

    Returns:
        Versions of Debian's packages by their names, and where they are from.
    """
    apt = _apt("trixie", profile.names.deb, downloads)
    # What is of forky has no twin.
    packages = apt.resolve(_asked(table(profile), "trixie"))
    return {package.name: package.version for package in packages}, apt.repositories


def _asked(wanted: Table, suite: str) -> list[str]:
    return [deb for item in wanted.packages.values() if item.suite == suite for deb in item.debs]


@dataclass(frozen=True)
class _Sources:
    """Files of Debian's packages by name, and of two kernels by `uname -r`, the older one first."""

    system: Mapping[str, Path]
    kernels: Mapping[str, Sequence[Path]]

    @property
    def digest(self) -> str:
        """Tell them apart from others: the names of files in the pool are their checksums."""
        kernels = (file for files in self.kernels.values() for file in files)
        names = sorted(file.name for file in (*self.system.values(), *kernels))
        return hashlib.sha256("".join(names).encode()).hexdigest()


def _apt(suite: str, architecture: str, downloads: Path) -> Apt:
    # The suite that is still being made may have a mirror that is some days behind.
    debian = Repository(suite=suite, mirror=MIRROR, keyring=_KEYRING, valid_until=False)
    apt = Apt([debian], architecture, downloads)
    apt.refresh()
    return apt


def _choose(profile: ArchProfile, wanted: Table, downloads: Path) -> _Sources:
    """Choose and fetch Debian's packages."""
    files: dict[str, Path] = {}
    kernels: dict[str, list[Path]] = {}
    for suite in ("trixie", "forky"):
        apt = _apt(suite, profile.names.deb, downloads)
        asked = _asked(wanted, suite)
        better = {*asked, *wanted.from_forky}
        packages = [
            package
            for package in apt.resolve(asked)
            if package.name in asked
            or (
                package.name not in wanted.ignored
                and (package.name not in files or package.name in better)
            )
        ]
        image = apt.kernel(wanted.kernels[profile.name])
        version = image.name.removeprefix("linux-image-")
        # Newer kernels are in several packages.
        parts = [package for package in apt.resolve([image.name]) if version in package.name]
        apt.fetch([*packages, *parts])
        files.update((package.name, apt.pool.take(package)) for package in packages)
        kernels[version] = [apt.pool.take(part) for part in parts]
    return _Sources(files, kernels)


def _make(
    profile: ArchProfile, wanted: Table, sources: _Sources, key: Key, downloads: Path, place: Path
) -> None:
    """Make both repositories."""
    older, newer = sources.kernels
    work = place / "work"
    debs = {name: Deb.read(file) for name, file in sources.system.items()}
    provided = {name for deb in debs.values() for name in (deb.name, *deb.provides)}

    def composer(tree: Path) -> Composer:
        tree.mkdir(parents=True)
        return Composer(
            tree,
            profile.names.rpm,
            wanted.excluded,
            wanted.packages,
            debs,
            frozenset(provided),
            frozenset(wanted.ignored),
        )

    def kernel(composer: Composer, version: str) -> list[Rpm]:
        recipe = of_kernel(wanted.kernel_core, version)
        core = composer.compose(
            "kernel-core", recipe, [Deb.read(file) for file in sources.kernels[version]]
        )
        needs = f"kernel-core = {core.version}-{core.release}"
        same: dict[str, Any] = {
            "version": core.version,
            "release": core.release,
            "architecture": core.architecture,
        }
        return [core, composer.compose("kernel", Recipe(requires=(needs,)), **same)]

    def publish(
        rpms: Sequence[Rpm], tree: Path, target: Path, groups: Mapping[str, list[str]]
    ) -> None:
        repository = RpmRepository(target, key, groups=dict(groups))
        made = build(rpms, tree, work / target.name, target / "Packages", profile.names.rpm)
        sign_rpms(made, key)
        repository.publish()

    system = composer(work / "tree")
    host = run(["dpkg", "--print-architecture"]).stdout.strip()
    tools = {suite: _apt(suite, host, downloads) for suite in ("trixie", "forky")}
    made = _system(system, profile, wanted, key, tools["forky"], downloads)
    made = [
        _with_policy(rpm, system.tree, tools["trixie"], downloads, place.parent) for rpm in made
    ]
    made = compiled(made, system.tree, tools["trixie"], downloads)
    made += kernel(system, older)
    publish(made, system.tree, place / "repository", wanted.groups)
    update = composer(work / "newer")
    publish(kernel(update, newer), update.tree, place / "updates", {})
    shutil.rmtree(work)


def _system(
    composer: Composer, profile: ArchProfile, wanted: Table, key: Key, tools: Apt, downloads: Path
) -> list[Rpm]:
    rpms = []
    own = {deb for recipe in wanted.packages.values() for deb in recipe.debs}
    for name, deb in composer.debs.items():
        if name not in own:
            rpms.append(composer.compose(name, Recipe(), [deb]))
    # The programs of GRUB are made of what other packages hold.
    for name, recipe in sorted(wanted.packages.items(), key=lambda item: item[1].core):
        made: dict[str, Path] = {}
        if recipe.core:
            modules = composer.tree / f"usr/lib/grub/{profile.names.grub_efi}"
            file = composer.tree.parent / "core.efi"
            grub.make_core(tools, downloads, modules, file, recipe.prefix)
            made[recipe.core] = file
        if name == _GPG_KEYS:
            made[f"/etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-44-{profile.names.rpm}"] = armoured(key)
        debs = [composer.debs[deb] for deb in recipe.debs]
        rpms.append(composer.compose(name, recipe, debs, made))
    return rpms


def _with_policy(rpm: Rpm, tree: Path, tools: Apt, downloads: Path, base: Path) -> Rpm:
    """Give the package of SELinux's policy what it holds; others stay as they are."""
    if rpm.name != f"selinux-policy-{selinux.NAME}":
        return rpm
    policy = selinux.policy(tools, downloads, base)
    shutil.copytree(policy, tree, symlinks=True, dirs_exist_ok=True)
    return replace(rpm, entries=(*rpm.entries, *selinux.entries(policy)))


def _base() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    own = os.environ.get("IMAGEFACTORY_TEST_CACHE") or Path(cache) / "imagefactory-tests"
    return Path(own) / "rpm"


def _key(base: Path) -> Key:
    """Take the key that signs all of them; it is made once."""
    with FileLock(base / "key.lock"):
        home = base / "key"
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(mode=0o700)
            armoured(Key.make(home, "distribution"))
            (home / "complete").touch()
    return Key(home, "distribution")


_MAKERS = (
    "*.yaml",
    "bytecode.py",
    "compose.py",
    "debian.py",
    "distribution.py",
    "grub.py",
    "recipes.py",
    "selinux.py",
    "spec.py",
)
"""What decides how packages become."""


def _code() -> str:
    """Tell the state of this maker."""
    state = hashlib.sha256()
    files = [file for pattern in _MAKERS for file in HERE.glob(pattern)]
    for file in sorted([*files, *OVERLAY.rglob("*")]):
        if file.is_file():
            state.update(f"{file.relative_to(HERE)} {file.stat().st_mode & 0o100}\n".encode())
            state.update(file.read_bytes())
    return state.hexdigest()
