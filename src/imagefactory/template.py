"""Image templates: one file of ``templates/`` describes one image for every architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from imagefactory import yamlfile
from imagefactory.arch import BootMethod, Name
from imagefactory.data import SearchPath
from imagefactory.errors import ConfigError, UnknownNameError
from imagefactory.yamlfile import Model

KernelArgument = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,:=/+@%-]+$", max_length=256)]
"""One word of the kernel's command line; it goes through GRUB's parser, so no quotes or blanks."""

Size = Annotated[int, Field(gt=0)]
TreePath = Annotated[
    str, Field(pattern=r"^[^/]", description="a path inside the tree, no slash first")
]


class Distribution(Model):
    """Where the image's packages come from and what they are called in image properties."""

    id: Name = Field(description="libosinfo short id, the os_distro property")
    version: str = Field(description="the os_version property")
    release: Name = Field(description="the release's name on the mirror")


Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9./_+~-]*$")]
"""A word of an apt sources list, where blanks, brackets and line ends would say something else."""


class Repository(Model):
    """One line of an apt sources list."""

    suite: Word
    mirror: str = Field(
        pattern=r"^(https?|file|ftp)://[^\s\[\]]+$", description="without the suite"
    )
    components: tuple[Word, ...] = ("main",)
    keyring: str = Field(description="file of the keys that sign the repository")
    required: bool = Field(
        default=True,
        description="false: when it cannot be read, go on without it and warn",
    )


class UefiFiles(Model):
    """A distribution's signed EFI programs; ``{efi}`` and its like are the profile's names."""

    packages: tuple[str, ...]
    shim: TreePath
    grub: TreePath
    config_directory: TreePath = Field(description="where the signed GRUB looks for grub.cfg")


class GrubModules(Model):
    """A distribution's GRUB modules of one target."""

    packages: tuple[str, ...]
    modules: TreePath


class Bootloader(Model):
    """The distribution's own bootloader, per boot method."""

    tools: tuple[str, ...] = Field(description="packages that bring grub-mkimage for the host")
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
    modes: dict[str, Annotated[str, Field(pattern="^[0-7]{3,4}$")]] = Field(
        default={}, description="path -> mode in octal"
    )
    directories: tuple[TreePath, ...] = ()
    links: dict[str, str] = Field(default={}, description="path -> target of a symbolic link")
    kernel_compression: Literal["none", "xz"] = Field(
        default="none",
        description="xz: stored compressed, GRUB unpacks it; smaller, slower to build and boot",
    )
    console_password: str | None = Field(
        default=None,
        description="hash (crypt(5), as `mkpasswd` or `openssl passwd -6` prints it) of the "
        "default user's console password; unset: no password",
        pattern=r"^\$[0-9a-z]+\$[^:\s]+$",
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
    builder: Literal["minimal"]
    distribution: Distribution
    architectures: tuple[Name, ...] | None = Field(
        default=None, description="the only architectures it exists for; unset: all"
    )
    repositories: tuple[Repository, ...] = Field(min_length=1)
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
    kernel_arguments: tuple[KernelArgument, ...] = ()
    bootloader: Bootloader
    minimal: MinimalTree
    disk_size: Size = Field(le=1 << 20, description="MiB, the virtual size of the disk")
    default_user: Name
    properties: dict[str, str] = Field(default={})
    tests: tuple[BootCase, ...] = Field(min_length=1)
    visibility: Literal["private", "shared", "community", "public"] = "private"

    def exists_for(self, architecture: str) -> bool:
        """Whether the image can be built for an architecture."""
        return self.architectures is None or architecture in self.architectures

    @field_validator("tests")
    @classmethod
    def _tests_have_distinct_names(cls, tests: tuple[BootCase, ...]) -> tuple[BootCase, ...]:
        names = [case.name for case in tests]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tests have the name {', '.join(twice)}")
        return tests


def load_all(path: SearchPath) -> dict[str, tuple[ImageTemplate, Path]]:
    """Read every template on the search path: name -> template and its file.

    Raises:
        YamlMistakesError: A template has mistakes.
        ConfigError: A file is named unlike its template.
    """
    return {name: _load(file) for name, file in path.yaml_files("templates").items()}


def load(path: SearchPath, name: str) -> tuple[ImageTemplate, Path]:
    """Read one template by the image's name.

    Raises:
        UnknownNameError: No template has this name.
        YamlMistakesError: The template has mistakes.
    """
    files = path.yaml_files("templates")
    if name not in files:
        raise UnknownNameError("image", name, sorted(files))
    return _load(files[name])


def _load(file: Path) -> tuple[ImageTemplate, Path]:
    template = yamlfile.load(file, ImageTemplate)
    if template.name != file.stem:
        raise ConfigError(
            f"{file}: the image is named {template.name!r}, the file {file.stem!r}",
            hint=f"rename the file to {template.name}.yaml",
        )
    return template, file
