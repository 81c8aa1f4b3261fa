"""Build plans: template x profile, resolved, with a digest of all that can change the result."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import zstandard

from imagefactory import __version__, identifiers, properties
from imagefactory.arch import ArchProfile
from imagefactory.data import sha256_of, shipped_directory
from imagefactory.digest import digest_of, tree_digest
from imagefactory.errors import ConfigError
from imagefactory.packages.apt import preferences
from imagefactory.packages.dnf import Wish
from imagefactory.packages.pool import Package
from imagefactory.rpmtree import RpmTree
from imagefactory.schedule import BUILD_MEMORY
from imagefactory.sources import Sources
from imagefactory.systemtree import SystemTree
from imagefactory.template import (
    BootCase,
    Bootloader,
    DebianTree,
    GrubModules,
    ImageTemplate,
    MinimalTree,
    Repository,
    UefiFiles,
    beside,
)

_NAMESPACE = uuid.UUID("5b0f7a0c-6d2e-5c0b-9e0e-1f8a3f1c7d10")
"""Random, ours: the root of all identifiers that are derived from a plan's digest."""

# Packages count by their checksums, wherever they come from and whoever has signed their list.
_NOT_IN_THE_IMAGE = frozenset(
    {
        *("description", "tests", "patience", "visibility", "snapshot"),
        *("repositories", "extra_repositories", "tool_repositories"),
    }
)

_PACKAGED_KEYRINGS = "/usr/share/keyrings/"
"""Where packages such as debian-archive-keyring put keys, on the host as in the guest."""

_GUEST_KEYRINGS = "/etc/apt/keyrings/"
"""Where an administrator puts them, sources.list(5)."""

_UNPACKED_RATIO = 8
"""A tree in memory with its packages beside it, to the packages alone: 6 was seen."""

_BUILDING_CODE = ("packages", "rootfs", "sandbox", "disk", "tree.py", "identifiers.py", "plan.py")
"""The parts of this package whose code decides what an image's bytes are."""


@dataclass(frozen=True)
class BuildPlan:
    """Everything that is decided before the work begins.

    Attributes:
        image_packages: What the image and its bootloader are taken from.
        kernel: The one of them that holds the kernel.
        disk_tools: Host programs that write filesystems.
        boot_tools: Host programs of the image's own release that write its bootloader.
        properties: The Glance image properties; the boot test starts from them too.
        epoch: SOURCE_DATE_EPOCH when the environment sets it, in seconds since 1970.
        digest: SHA-256 over all that can change the image's bytes.
        mirrors: Where the packages come from; not part of the digest.
    """

    template: ImageTemplate
    template_file: Path
    profile: ArchProfile
    image_packages: tuple[Package, ...]
    kernel: Package
    disk_tools: tuple[Package, ...]
    boot_tools: tuple[Package, ...]
    properties: dict[str, str]
    warnings: tuple[str, ...]
    epoch: int | None
    digest: str = field(default="")
    mirrors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Image and architecture, as used in names of files."""
        return f"{self.template.name}-{self.profile.name}"

    @property
    def to_fetch(self) -> tuple[tuple[Package, ...], tuple[Package, ...], tuple[Package, ...]]:
        """What `Sources.fetch` takes: the packages of the image, its disk tools, its boot tools."""
        return self.image_packages, self.disk_tools, self.boot_tools

    @property
    def boot(self) -> tuple[str, ...]:
        """The boot methods the disk is prepared for; a partition image has none."""
        return boot_methods(self.template, self.profile)

    @property
    def overlay(self) -> Path | None:
        """The directory of the image's own files."""
        overlay = self.template.recipe.overlay
        return self.beside(overlay) if overlay else None

    @property
    def build_memory(self) -> int:
        """MiB that building takes: programs, and a tree that is made in memory."""
        if isinstance(self.template.recipe, MinimalTree):
            return BUILD_MEMORY
        packed = sum(package.size for package in self.image_packages)
        return BUILD_MEMORY + (packed * _UNPACKED_RATIO >> 20)

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        """The kernel's command line without the root filesystem: graphical console, then serial.

        The last one becomes /dev/console, where an operator looks (`nova console-log`).
        """
        recipe = self.template.recipe
        plain_names = isinstance(recipe, SystemTree) and not recipe.predictable_names
        return (
            "console=tty0",
            f"console={self.profile.console}",
            *(("net.ifnames=0",) if plain_names else ()),
            *self.template.kernel_arguments,
        )

    @property
    def command_line(self) -> str:
        """The kernel's whole command line."""
        root = self.identifier(identifiers.ROOT_FILESYSTEM)
        return " ".join((f"root=UUID={root}", *self.kernel_arguments))

    @property
    def sources_list(self) -> str:
        """Where the guest gets its packages from, as apt reads it; empty: it is not told."""
        return "".join(
            f"deb [{_trust(repository)}] {repository.mirror} {repository.suite} "
            f"{' '.join(repository.components)}".rstrip()
            + "\n"
            for repository in self._guest_repositories
        )

    @property
    def apt_preferences(self) -> str:
        """The guest's apt preferences; empty: it has none."""
        return preferences(self._guest_repositories)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What the image was asked to have: names of packages, and apt's patterns of them."""
        return _wanted(self.template, self.profile)

    @property
    def guest_keyrings(self) -> dict[str, Path]:
        """The keyrings that no package brings: where the guest looks for them -> the host's."""
        return {
            _guest_keyring(repository.keyring): Path(repository.keyring)
            for repository in self._guest_repositories
            if repository.keyring and _guest_keyring(repository.keyring) != repository.keyring
        }

    @property
    def _guest_repositories(self) -> tuple[Repository, ...]:
        recipe = self.template.recipe
        if not isinstance(recipe, DebianTree) or not recipe.guest_repositories:
            return ()
        every = (*self.template.repositories, *self.template.extra_repositories)
        return tuple(item.for_architecture(self.profile.names.deb) for item in every)

    @property
    def fstab(self) -> str:
        """What `fstab` says: the root filesystem and, where the disk has one, the ESP."""
        has_esp = any(method.startswith("uefi") for method in self.boot)
        return identifiers.fstab(self.identifier, "/boot/efi" if has_esp else None)

    def beside(self, path: str) -> Path:
        """Return a file that the template names by its path beside itself."""
        return beside(self.template_file, path)

    def identifier(self, purpose: str) -> uuid.UUID:
        """Derive an identifier (of a disk, a partition, a filesystem) from the digest."""
        return uuid.uuid5(_NAMESPACE, f"{self.digest}:{purpose}")

    def facts(self) -> dict[str, Any]:
        """Return what `plan --json` prints and the manifest keeps."""
        return {
            "image": self.template.name,
            "architecture": self.profile.name,
            "digest": self.digest,
            "imagefactory": __version__,
            "template": str(self.template_file),
            "source_date_epoch": self.epoch,
            "disk_size_mib": self.template.disk_size,
            "boot": list(self.boot),
            "kernel": str(self.kernel),
            "mirrors": list(self.mirrors),
            "packages": [asdict(package) for package in self.image_packages],
            "tools": [str(package) for package in (*self.disk_tools, *self.boot_tools)],
            "properties": self.properties,
            "tests": [case.name for case in self.cases],
            "warnings": list(self.warnings),
        }

    @property
    def cases(self) -> tuple[BootCase, ...]:
        """The boot tests that concern this architecture."""
        return tuple(
            case
            for case in self.template.tests
            if case.architectures is None or self.profile.name in case.architectures
        )


def make_plan(
    template: ImageTemplate, template_file: Path, profile: ArchProfile, sources: Sources
) -> BuildPlan:
    """Resolve an image for one architecture.

    Raises:
        ConfigError: The image does not exist for this architecture, or a file that the template
            names does not.
        PackageError: A package does not exist, or a repository cannot be reached.
        PropertyError: The image properties are not what nova accepts.
    """
    check_exists(template, profile)
    _check_files(template, template_file)
    names = installed(template, profile)
    image_properties = properties.derive(profile, template, names)
    warnings = properties.validate(image_properties, hypervisor=profile.hypervisor)
    sources.refresh()
    with ThreadPoolExecutor() as pool:
        image = pool.submit(_image_packages, template, profile, sources)
        disk = pool.submit(sources.disk_tools.resolve, template.tool_packages)
        boot = pool.submit(sources.boot_tools.resolve, template.bootloader.tools)
        kernel, packages = image.result()
        plan = BuildPlan(
            template=template,
            template_file=template_file,
            profile=profile,
            image_packages=packages,
            kernel=kernel,
            disk_tools=disk.result(),
            boot_tools=boot.result(),
            properties=image_properties,
            warnings=(*warnings, *sources.warnings),
            epoch=_epoch_of_environment(),
            mirrors=sources.mirrors,
        )
    return _with_digest(plan)


def grub_stub(plan: BuildPlan) -> str:
    """Return the first configuration GRUB reads: find the root filesystem and go on there."""
    root = plan.identifier(identifiers.ROOT_FILESYSTEM)
    directory = plan.template.bootloader.directory
    return (
        f"search --no-floppy --fs-uuid --set=root {root}\n"
        f"set prefix=($root)/{directory}\n"
        f"configfile ($root)/{directory}/grub.cfg\n"
    )


def check_exists(template: ImageTemplate, profile: ArchProfile) -> None:
    """Refuse an image that does not exist for an architecture.

    Raises:
        ConfigError: It does not.
    """
    if not template.exists_for(profile.name):
        raise ConfigError(
            f"the image {template.name!r} does not exist for {profile.name}",
            hint=f"it exists for {', '.join(template.architectures or ())}",
        )


def boot_files(bootloader: Bootloader, method: str) -> UefiFiles | GrubModules:
    """Return where the distribution keeps its bootloader for one boot method.

    Raises:
        ConfigError: The template does not say it.
    """
    known = {
        "uefi": bootloader.uefi,
        "uefi-unsigned": bootloader.uefi_unsigned,
        "bios": bootloader.bios,
        "prep": bootloader.prep,
    }
    files = known.get(method)
    if files is None:
        available = ", ".join(name for name, value in known.items() if value)
        raise ConfigError(
            f"the template has no bootloader for the boot method {method!r}",
            hint=f"it has: {available}; the profile's key `boot` names the methods",
        )
    return files


def boot_methods(template: ImageTemplate, profile: ArchProfile) -> tuple[str, ...]:
    """Return how firmware starts the image: as the template says, else as the profile does.

    Firmware does not start a partition image; its kernel is handed over from outside.
    """
    if template.shape == "partition":
        return ()
    return template.boot.get(profile.name, profile.boot)


def _check_files(template: ImageTemplate, template_file: Path) -> None:
    """What a template names beside itself must be there before hours are spent."""
    recipe = template.recipe
    extra = recipe.extra_overlay if isinstance(recipe, SystemTree) else None
    for key, overlay in (("overlay", recipe.overlay), ("extra_overlay", extra)):
        if overlay and not beside(template_file, overlay).is_dir():
            raise ConfigError(
                f"{template_file}: {key}: {template_file.parent / overlay} is not a directory",
                hint=f"`{key}:` names a directory beside the template",
            )
    for name in _files(template):
        found = beside(template_file, name)
        if not found.exists():
            raise ConfigError(
                f"{template_file}: {template_file.parent / name} does not exist",
                hint="the steps of `customize:` name it by its path beside the template",
            )
        homes = (template_file.parent, template_file.resolve().parent, shipped_directory())
        if not any(found.resolve().is_relative_to(home.resolve()) for home in homes):
            raise ConfigError(
                f"{template_file}: {found} leads out of its directory, to {found.resolve()}",
                hint="it is a symbolic link; what goes into an image lies beside its template",
            )
    for step in template.customize:
        if step.script and not beside(template_file, step.script).is_file():
            raise ConfigError(
                f"{template_file}: {template_file.parent / step.script} is not a file",
                hint="`script:` names one program; `copy:` takes directories too",
            )


def _image_packages(
    template: ImageTemplate, profile: ArchProfile, sources: Sources
) -> tuple[Package, tuple[Package, ...]]:
    """Return the kernel's package and all packages."""
    name = _kernel_package(template, profile)
    recipe = template.recipe
    if isinstance(recipe, RpmTree):
        modules, weak = recipe.modules, recipe.weak_dependencies
        wish = Wish(_wanted(template, profile), recipe.exclude, modules, weak)
        packages, kernel = sources.rpm.resolve(wish), name
    else:
        apt = sources.debian
        found = apt.kernel(name)
        if isinstance(recipe, MinimalTree):
            names = (*recipe.packages, *_bootloader_packages(template, profile))
            return found, (found, *apt.find((*dict.fromkeys(names),)))
        packages = apt.resolve(_wanted(template, profile), recommends=recipe.recommends)
        kernel = found.name
    held = next((package for package in packages if package.name == kernel), None)
    if held is None:
        raise ConfigError(
            f"{name} does not bring the kernel {kernel} into the image",
            hint="`kernel:` names a package with a kernel in /boot, or one that depends on it",
        )
    return held, packages


def _kernel_package(template: ImageTemplate, profile: ArchProfile) -> str:
    name = template.kernel or profile.kernel.get(template.distribution.id)
    if name is None:
        raise ConfigError(
            f"the profile {profile.name} names no kernel for {template.distribution.id}",
            hint=f"add `kernel: {{{template.distribution.id}: PACKAGE}}` to the profile",
        )
    return name


def _wanted(template: ImageTemplate, profile: ArchProfile) -> tuple[str, ...]:
    names = (
        *installed(template, profile),
        *_bootloader_packages(template, profile),
        _kernel_package(template, profile),
    )
    return tuple(dict.fromkeys(names))


def _trust(repository: Repository) -> str:
    if repository.keyring is None:
        return "trusted=yes"
    return f"signed-by={_guest_keyring(repository.keyring)}"


def _guest_keyring(keyring: str) -> str:
    if keyring.startswith(_PACKAGED_KEYRINGS):
        return keyring
    return f"{_GUEST_KEYRINGS}{Path(keyring).name}"


def installed(template: ImageTemplate, profile: ArchProfile) -> tuple[str, ...]:
    """Name what a template asks to be installed; of a minimal one's packages only files are."""
    recipe = template.recipe
    if isinstance(recipe, MinimalTree):
        return ()
    for_architecture = recipe.architecture_packages.get(profile.name, ())
    return (*recipe.packages, *for_architecture, *recipe.extra_packages)


def _bootloader_packages(template: ImageTemplate, profile: ArchProfile) -> list[str]:
    return [
        fill(name, profile)
        for method in boot_methods(template, profile)
        for name in boot_files(template.bootloader, method).packages
    ]


def fill(text: str, profile: ArchProfile) -> str:
    """Fill the architecture's names into a template's ``{deb}``, ``{efi}`` and ``{grub_efi}``."""
    known = {key: value or "" for key, value in profile.names}
    known["grub_deb"] = profile.names.grub_deb or profile.names.deb
    try:
        return text.format_map(known)
    except (LookupError, ValueError, AttributeError):
        raise ConfigError(
            f"{text!r} in the template cannot be filled in",
            hint=f"it may hold {', '.join(f'{{{key}}}' for key in known)}",
        ) from None


def _epoch_of_environment() -> int | None:
    value = os.environ.get("SOURCE_DATE_EPOCH")
    if value is None:
        return None
    # ext4 and cpio keep 32 bits of it.
    if not (value.isascii() and value.isdigit() and len(value) <= 10 and int(value) < 1 << 32):
        raise ConfigError(f"SOURCE_DATE_EPOCH is not a number of seconds: {value!r}")
    return int(value)


def _with_digest(plan: BuildPlan) -> BuildPlan:
    plan = replace(plan, digest=digest_of(inputs(plan)))
    if plan.boot:
        return plan
    # nova's own command line has no console but x86's and Power's (`CONSOLE` of its driver).
    told = {"os_command_line": plan.command_line, **plan.properties}
    return replace(plan, properties=dict(sorted(told.items())))


def inputs(plan: BuildPlan) -> dict[str, Any]:
    """Return all that can change the image's bytes; the digest is made of it."""
    recipe = plan.template.model_dump(mode="json", exclude=set(_NOT_IN_THE_IMAGE))
    return {
        "template": recipe,
        "profile": plan.profile.model_dump(mode="json", exclude={"description", "hypervisor"}),
        "packages": [package.checksum[1] for package in plan.image_packages],
        "sources_list": plan.sources_list,
        "keyrings": {path: sha256_of(file) for path, file in plan.guest_keyrings.items()},
        "tools": [package.sha256 for package in (*plan.disk_tools, *plan.boot_tools)],
        "files": {name: tree_digest(plan.beside(name)) for name in _files(plan.template)},
        "code": {
            **{part: tree_digest(Path(__file__).parent / part) for part in _BUILDING_CODE},
            # Another release of it compresses to other bytes.
            "libraries": {"zstd": ".".join(map(str, zstandard.ZSTD_VERSION))},
        },
        "epoch": plan.epoch,
    }


def _files(template: ImageTemplate) -> list[str]:
    """Name all that a template takes from beside itself."""
    steps = template.customize
    recipe = template.recipe
    extra = recipe.extra_overlay if isinstance(recipe, SystemTree) else None
    named = [recipe.overlay, extra, *(step.script for step in steps)]
    named += [step.copy_.source for step in steps if step.copy_]
    if isinstance(recipe, RpmTree):
        named += [key.file for one in recipe.all_repositories for key in one.keys]
    return sorted({name for name in named if name})
