"""Image templates: one file of ``templates/`` describes one image for every architecture."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from imagefactory import yamlfile
from imagefactory.arch import BootMethod, Name
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.errors import ConfigError, UnknownNameError
from imagefactory.rpmtree import RpmTree
from imagefactory.systemtree import SystemTree
from imagefactory.words import (
    Address,
    Answer,
    Beside,
    CpuLevelName,
    Mode,
    Owner,
    PackageName,
    PasswordHash,
    PathGlob,
    Suite,
    TreePath,
    Unit,
    Word,
)
from imagefactory.yamlfile import Model

KernelArgument = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,:=/+@%-]+$", max_length=256)]
"""One word of the kernel's command line; it goes through GRUB's parser, so no quotes or blanks."""

Size = Annotated[int, Field(gt=0)]


class Distribution(Model):
    """Where the image's packages come from and what they are called in image properties."""

    id: Name = Field(description="libosinfo short id, the os_distro property")
    version: str = Field(description="the os_version property")
    release: Name = Field(description="the release's name on the mirror")


class Repository(Model):
    """One line of an apt sources list."""

    suite: Suite
    mirror: Address = Field(description="without the suite")
    mirrors: dict[Word, Address] = Field(
        default={},
        description="Debian's name of an architecture -> its mirror, where that is another one",
    )
    components: tuple[Word, ...] = ("main",)
    keyring: str | None = Field(
        default=None, description="file of the keys that sign the repository"
    )
    trusted: bool = Field(default=False, description="true: not signed, needs no keyring")
    priority: int | None = Field(
        default=None,
        description="apt's: over 1000 beats any version; for what has the `label`, else for all "
        "of the mirror's host",
    )
    label: Annotated[str, Field(pattern=r"^[^\s,\"][^,\"\n]*$")] | None = Field(
        default=None,
        description="the Label of its Release file, by which apt tells it from others",
    )
    snapshots: str | None = Field(
        default=None,
        pattern=r"^(https?|file)://[^\s\[\]]+$",
        description="archive of its past for `snapshot:`; {timestamp} stands for the moment",
    )
    required: bool = Field(
        default=True,
        description="false: when it cannot be read, go on without it and warn",
    )
    valid_until: bool = Field(
        default=True, description="false: take package lists whose time has run out"
    )

    @model_validator(mode="after")
    def _is_signed_or_trusted(self) -> Repository:
        if (self.keyring is None) != self.trusted:
            raise ValueError("name the `keyring:` that signs it, or say `trusted: true`")
        return self

    def at(self, moment: datetime | None) -> Repository:
        """Return the repository as it was at a moment; itself when none is given.

        Raises:
            ConfigError: Nothing says where its past is kept.
        """
        if moment is None:
            return self
        if self.snapshots is None:
            raise ConfigError(
                f"`snapshot:` is set, but the repository {self.suite} has no `snapshots:`",
                hint="it names the archive of its past, with {timestamp} for the moment",
            )
        utc = moment.astimezone(UTC) if moment.tzinfo else moment
        timestamp = f"{utc:%Y%m%dT%H%M%SZ}"
        past = self.snapshots.replace("{timestamp}", timestamp)
        return self.model_copy(update={"mirror": past, "mirrors": {}, "valid_until": False})

    def for_architecture(self, deb: str) -> Repository:
        """Return the repository where an architecture, by Debian's name, finds it."""
        mirror = self.mirrors.get(deb, self.mirror)
        return self.model_copy(update={"mirror": mirror, "mirrors": {}})


class UefiFiles(Model):
    """A distribution's signed EFI programs; ``{efi}`` and its like are the profile's names."""

    packages: tuple[str, ...]
    shim: TreePath
    grub: TreePath
    config_directory: TreePath = Field(description="where the signed GRUB looks for grub.cfg")
    more_config_directories: tuple[TreePath, ...] = Field(
        default=(), description="where a GRUB looks that is started from elsewhere on the ESP"
    )
    grub_name: TreePath = Field(
        default="grub{efi}.efi", description="the name under which shim looks for GRUB beside it"
    )
    modules: TreePath | None = Field(
        default=None, description="its modules, for menus that the guest's grub-mkconfig writes"
    )
    esp: dict[TreePath, TreePath] = Field(
        default={}, description="further files: path on the ESP -> path in the packages"
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """The paths of all that is taken from the packages; names are not filled in."""
        return tuple(dict.fromkeys((self.shim, self.grub, *self.esp.values())))


class GrubModules(Model):
    """A distribution's GRUB modules of one target."""

    packages: tuple[str, ...]
    modules: TreePath


class Bootloader(Model):
    """The distribution's own bootloader, per boot method."""

    tools: tuple[str, ...] = Field(
        default=(),
        description="packages that bring grub-mkimage for the host; unset: the tree's own links "
        "what is to be linked",
    )
    directory: TreePath = Field(default="boot/grub", description="where GRUB has its files")
    menu: Literal["entries", "bls"] = Field(
        default="entries",
        description="bls: kernel-install writes boot entries (Boot Loader Specification), and "
        "GRUB reads them",
    )
    uefi: UefiFiles | None = None
    uefi_unsigned: GrubModules | None = Field(default=None, alias="uefi-unsigned")
    bios: GrubModules | None = None
    prep: GrubModules | None = None


class MinimalTree(Model):
    """The recipe of a minimal image: which files of which packages, and our own beside them."""

    overlay: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$",
        description="directory beside the template, copied into the tree",
    )
    packages: dict[str, tuple[TreePath, ...]] = Field(
        description="package -> the globs taken from it; all else is left out"
    )
    applets: tuple[str, ...] = Field(description="busybox applets that become links in usr/bin")
    modules: tuple[str, ...] = Field(description="kernel modules, taken with their dependencies")
    optional_modules: tuple[str, ...] = Field(
        default=(), description="taken where the architecture's kernel has them"
    )
    initramfs_modules: tuple[str, ...] = Field(
        description="those modules that find the root filesystem, in the order of loading"
    )
    initramfs_script: TreePath = Field(description="the script that mounts the root filesystem")
    initramfs_programs: tuple[TreePath, ...] = Field(
        description="programs that it runs, taken with their libraries"
    )
    modes: dict[str, Mode] = Field(default={}, description="path -> mode in octal")
    directories: tuple[TreePath, ...] = ()
    links: dict[str, str] = Field(default={}, description="path -> target of a symbolic link")
    kernel_compression: Literal["none", "xz"] = Field(
        default="none",
        description="xz: stored compressed, GRUB unpacks it; smaller, slower to build and boot",
    )
    console_password: PasswordHash | None = Field(
        default=None,
        description="hash (crypt(5), as `mkpasswd` or `openssl passwd -6` prints it) of the "
        "default user's console password; unset: no password",
    )

    @model_validator(mode="after")
    def _initramfs_takes_known_modules(self) -> MinimalTree:
        known = {*self.modules, *self.optional_modules}
        strangers = [name for name in self.initramfs_modules if name not in known]
        if strangers:
            raise ValueError(
                f"initramfs_modules {', '.join(strangers)}: "
                "name them in modules or optional_modules too"
            )
        return self


class Copy(Model):
    """A file or directory beside the template that goes into the tree."""

    source: Beside = Field(alias="from")
    to: TreePath
    mode: Mode | None = Field(
        default=None, description="octal, of a file; unset: 0755 for what is executable, else 0644"
    )
    owner: Owner = Field(default="root:root", description="USER:GROUP as the tree knows them")


class Step(Model):
    """One step of the customisation; exactly one key is set. Steps run in their order."""

    copy_: Copy | None = Field(default=None, alias="copy", description="put files into the tree")
    script: Beside | None = Field(
        default=None, description="a program beside the template, run as root of the tree"
    )
    run: str | None = Field(default=None, description="a line for the tree's /bin/sh")
    enable: tuple[Unit, ...] = Field(default=(), description="systemd units")
    disable: tuple[Unit, ...] = ()
    mask: tuple[Unit, ...] = ()

    @model_validator(mode="after")
    def _does_one_thing(self) -> Step:
        if len(self.model_fields_set) != 1:
            raise ValueError("a step has exactly one of copy, script, run, enable, disable, mask")
        return self


class DebianTree(SystemTree):
    """The recipe of a whole Debian: packages that apt installs, and what is done to them."""

    packages: tuple[PackageName, ...] = Field(description="with all they depend on")
    architecture_packages: dict[Name, tuple[PackageName, ...]] = Field(
        default={}, description="architecture -> more packages, its bootloader for one"
    )
    extra_packages: tuple[PackageName, ...] = Field(
        default=(), description="for templates that extend another one"
    )
    recommends: bool = Field(default=False, description="install what packages recommend too")
    local_packages: Beside | None = Field(
        default=None,
        description="directory of .deb files beside the template, used like one more repository",
    )
    exclude: tuple[PathGlob, ...] = Field(
        default=(), description="files that dpkg leaves out, now and in the guest (dpkg(1))"
    )
    include: tuple[PathGlob, ...] = Field(
        default=(), description="those of them that it takes nevertheless"
    )
    preseed: tuple[Answer, ...] = Field(
        default=(), description="answers to debconf: PACKAGE QUESTION TYPE ANSWER"
    )


class BootCase(Model):
    """One boot of the test: the datasource offered, and what differs from the plain guest."""

    name: Name
    datasource: Literal["config-drive", "openstack", "ec2", "nocloud", "none"]
    network: Literal["dhcp", "static"] = Field(
        default="dhcp", description="static: addresses and MTU in network_data.json, no DHCP used"
    )
    architectures: tuple[Name, ...] | None = Field(
        default=None, description="only on these architectures; unset: on all"
    )
    properties: dict[str, str] = Field(
        default={}, description="image properties changed for this boot (another firmware, bus)"
    )
    memory: Size | None = Field(default=None, description="MiB; unset: the image's min_ram")
    reboot: bool = Field(
        default=False,
        description="let the guest reboot: it must come up again as who it was, every check "
        "passed once more",
    )

    @model_validator(mode="after")
    def _only_who_is_let_in_can_reboot(self) -> BootCase:
        if self.reboot and self.datasource == "none":
            raise ValueError("reboot needs a datasource: without one nobody can log in")
        return self


class ImageTemplate(Model):
    """One image, for every architecture that its distribution has."""

    name: Name
    description: str
    extends: Name | None = Field(
        default=None,
        description="the template that this one builds upon, saying only what differs",
    )
    builder: Literal["minimal", "debian", "rpm"]
    distribution: Distribution
    architectures: tuple[Name, ...] | None = Field(
        default=None, description="the only architectures it exists for; unset: all"
    )
    repositories: tuple[Repository, ...] = Field(
        default=(), description="of Debian packages; those of RPM packages are in `rpm:`"
    )
    extra_repositories: tuple[Repository, ...] = Field(
        default=(), description="for templates that extend another one"
    )
    snapshot: datetime | None = Field(
        default=None, description="take the repositories as they were at this moment"
    )
    tool_packages: tuple[str, ...] = Field(
        description="packages of the programs that write filesystems, run on the host"
    )
    tool_repositories: tuple[Repository, ...] = Field(
        default=(), description="where they come from; unset: the image's own repositories"
    )
    kernel: str | None = Field(default=None, description="kernel package; unset: the profile's")
    boot: dict[Name, tuple[BootMethod, ...]] = Field(
        default={}, description="architecture -> boot methods, in place of the profile's"
    )
    cpu: dict[Name, CpuLevelName] = Field(
        default={},
        description="architecture -> the CPU level that the distribution is compiled for, where "
        "it is not all of the architecture's; one of the profile's `cpu_levels`",
    )
    require_cpu: bool = Field(
        default=True,
        description="tell nova's scheduler, by traits; false: for clouds that report none",
    )
    kernel_arguments: tuple[KernelArgument, ...] = ()
    bootloader: Bootloader
    minimal: MinimalTree | None = Field(default=None, description="for `builder: minimal`")
    debian: DebianTree | None = Field(default=None, description="for `builder: debian`")
    rpm: RpmTree | None = Field(default=None, description="for `builder: rpm`")
    customize: tuple[Step, ...] = Field(
        default=(), description="what is done to the finished tree (not for `builder: minimal`)"
    )
    esp_size: Size = Field(default=16, le=1024, description="MiB of the EFI system partition")
    compression: Literal["fast", "balanced", "small"] = Field(
        default="small", description="of the qcow2; `small` takes minutes for a large image"
    )
    disk_size: Size = Field(le=1 << 20, description="MiB, the virtual size of the disk")
    default_user: Name
    properties: dict[str, str] = Field(default={})
    tests: tuple[BootCase, ...] = Field(min_length=1)
    patience: Annotated[float, Field(gt=0, le=100)] = Field(
        default=1.0, description="times the profile's boot_budget, for images that have more to do"
    )
    visibility: Literal["private", "shared", "community", "public"] = "private"
    shape: Literal["whole-disk", "partition"] = Field(
        default="whole-disk",
        description="partition: the root filesystem alone, with kernel and ramdisk as images of "
        "their own (kernel_id, ramdisk_id), for nova's AMI-style boot and Ironic",
    )
    emulated_on: Name | None = Field(
        default=None,
        description="architecture of the cloud's hosts where it is not the image's: nova emulates "
        "(hw_emulation_architecture)",
    )

    def exists_for(self, architecture: str) -> bool:
        """Whether the image can be built for an architecture."""
        return self.architectures is None or architecture in self.architectures

    @property
    def recipe(self) -> MinimalTree | DebianTree | RpmTree:
        """The section of the template's builder."""
        recipe: MinimalTree | DebianTree | RpmTree = getattr(self, self.builder)
        return recipe

    @property
    def image_repositories(self) -> tuple[Repository, ...]:
        """Where the image's packages come from: its own repositories and the added ones."""
        every = (*self.repositories, *self.extra_repositories)
        return tuple(repository.at(self.snapshot) for repository in every)

    @model_validator(mode="after")
    def _has_its_builders_section(self) -> ImageTemplate:
        for name in ("minimal", "debian", "rpm"):
            if (getattr(self, name) is not None) != (name == self.builder):
                raise ValueError(f"`builder: {self.builder}` needs the section `{self.builder}:`")
        if bool(self.repositories) == (self.builder == "rpm"):
            raise ValueError(
                f"`builder: {self.builder}` needs "
                + ("rpm.repositories" if self.builder == "rpm" else "repositories")
                + " to take packages from, and no others"
            )
        if self.customize and self.builder == "minimal":
            raise ValueError("`customize:` runs programs of the image, `builder: minimal` does not")
        return self

    @model_validator(mode="after")
    def _emulated_guests_get_no_config_drive(self) -> ImageTemplate:
        given = [case.name for case in self.tests if case.datasource == "config-drive"]
        if self.emulated_on and given:
            raise ValueError(
                f"tests: {', '.join(given)}: nova gives emulated guests no config drive; test "
                "with `datasource: openstack`"
            )
        return self

    @model_validator(mode="after")
    def _a_partition_has_no_secure_boot(self) -> ImageTemplate:
        asking = [case.name for case in self.tests if "os_secure_boot" in case.properties]
        if self.shape == "partition" and asking:
            raise ValueError(
                f"tests: {', '.join(asking)}: a partition image has no bootloader that Secure Boot "
                "could verify; give the template `tests:` of its own"
            )
        return self

    @model_validator(mode="after")
    def _users_are_nobody_else(self) -> ImageTemplate:
        recipe = self.recipe
        names = [user.name for user in recipe.users] if isinstance(recipe, SystemTree) else []
        for name in names:
            if name == self.default_user:
                raise ValueError(
                    f"users: cloud-init makes the default user {name!r}; `groups:` are its "
                    "groups, `default_user:` gives it another name"
                )
            if name == "root" or names.count(name) > 1:
                raise ValueError(f"users: there is a user {name!r} already")
        return self

    @field_validator("tests")
    @classmethod
    def _tests_have_distinct_names(cls, tests: tuple[BootCase, ...]) -> tuple[BootCase, ...]:
        names = [case.name for case in tests]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tests have the name {', '.join(twice)}")
        return tests


def load_each(
    path: SearchPath,
) -> tuple[dict[str, tuple[ImageTemplate, Path]], tuple[ConfigError, ...]]:
    """Read every template that can be read, and tell what is wrong with the others.

    Returns:
        Name -> template and its file; the mistakes.
    """
    found, mistakes = {}, []
    for name, file in path.yaml_files("templates").items():
        try:
            found[name] = _load(file, path)
        except ConfigError as error:
            mistakes.append(error)
    return found, tuple(mistakes)


def load(path: SearchPath, name: str) -> tuple[ImageTemplate, Path]:
    """Read one template by the image's name.

    Raises:
        UnknownNameError: No template has this name.
        YamlMistakesError: The template has mistakes.
    """
    files = path.yaml_files("templates")
    if name not in files:
        raise UnknownNameError("image", name, sorted(files))
    return _load(files[name], path)


def beside(template_file: Path, name: str) -> Path:
    """Find what a template names by its path: beside itself, else beside the shipped templates.

    The latter for templates of a user's that extend a shipped one.
    """
    own = template_file.parent / name
    return own if own.exists() else shipped_directory() / "templates" / name


def _load(file: Path, path: SearchPath) -> tuple[ImageTemplate, Path]:
    def parent(name: str, extending: Path) -> Path:
        files = path.yaml_files("templates")
        if name == extending.stem:  # one's own debian-12 may extend the shipped one
            files = SearchPath((shipped_directory(),)).yaml_files("templates")
        if name not in files:
            raise UnknownNameError("image", name, sorted(files), where=f"{extending}: extends")
        return files[name]

    template = yamlfile.load(file, ImageTemplate, parent)
    if template.name != file.stem:
        raise ConfigError(
            f"{file}: the image is named {template.name!r}, the file {file.stem!r}",
            hint=f"rename the file to {template.name}.yaml",
        )
    return template, file
