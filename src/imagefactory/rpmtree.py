"""The part of a template that describes an image of RPM packages: `builder: rpm`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from imagefactory.arch import Name
from imagefactory.systemtree import SystemTree
from imagefactory.words import Beside, Shape, TreePath
from imagefactory.yamlfile import Model

RpmName = Annotated[
    str,
    Shape(
        r"@?[A-Za-z0-9][A-Za-z0-9+._-]*",
        "a package's name, or @ and that of a group,",
    ),
]

RepositoryId = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", "a repository's id")]

RepositoryUrl = Annotated[
    str,
    Shape(
        r"(https?|ftp|file)://\S+",
        "an address, in which dnf's variables ($basearch, $releasever) may stand,",
    ),
]

FileGlob = Annotated[
    str,
    Shape(r"[A-Za-z0-9*?][A-Za-z0-9*?._+-]*", "a file's name, in which * and ? stand for more,"),
]

Fingerprint = Annotated[
    str, Shape(r"([0-9A-F]{4} ?){9}[0-9A-F]{4}", "the 40 hexadecimal digits of a fingerprint")
]


class SigningKey(Model):
    """A public key that packages are signed with."""

    file: Beside = Field(description="beside the template")
    fingerprint: Fingerprint = Field(
        description="as the distribution publishes it; a file with another key is refused"
    )


class RpmRepository(Model):
    """One repository, as dnf.conf(5) has it."""

    id: RepositoryId
    name: str | None = Field(default=None, description="for people, unset: the id")
    baseurl: RepositoryUrl = Field(description="where it is; what `--mirror` replaces")
    baseurls: dict[Name, RepositoryUrl] = Field(
        default={},
        description="RPM's name of an architecture -> its `baseurl`, where that is another one",
    )
    metalink: RepositoryUrl | None = Field(
        default=None, description="names mirrors, with checksums of what they must have"
    )
    mirrorlist: RepositoryUrl | None = Field(default=None, description="names mirrors")
    keys: tuple[SigningKey, ...] = Field(
        default=(), description="who signs its packages; none only with `trusted: true`"
    )
    trusted: bool = Field(default=False, description="true: packages need no signature")
    signed_metadata: bool = Field(
        default=False, description="the list of packages is signed by the same keys (repo_gpgcheck)"
    )
    priority: int | None = Field(default=None, ge=1, le=99, description="dnf's: the lowest wins")
    exclude: tuple[str, ...] = Field(default=(), description="packages that it does not give")
    module_hotfixes: bool = Field(default=False, description="its packages beat module streams")
    required: bool = Field(
        default=True, description="false: when it cannot be read, go on without it and warn"
    )

    @model_validator(mode="after")
    def _is_signed_or_trusted(self) -> RpmRepository:
        if bool(self.keys) == self.trusted:
            raise ValueError("name the `keys:` that sign its packages, or say `trusted: true`")
        if self.signed_metadata and not self.keys:
            raise ValueError("signed_metadata: needs the `keys:`")
        if self.metalink and self.mirrorlist:
            raise ValueError("metalink and mirrorlist exclude each other")
        return self

    def baseurl_for(self, rpm: str) -> str:
        """Return where an architecture, by RPM's name, finds it."""
        return self.baseurls.get(rpm, self.baseurl)


class RpmTree(SystemTree):
    """The recipe of an image of RPM packages: what dnf installs, and what is done to it."""

    groups: tuple[Name, ...] = Field(
        default=("adm", "wheel", "systemd-journal"),
        description="of the default user, whom cloud-init makes",
    )

    repositories: tuple[RpmRepository, ...] = Field(min_length=1)
    extra_repositories: tuple[RpmRepository, ...] = Field(
        default=(), description="for templates that extend another one: EPEL, RDO, one's own"
    )
    packages: tuple[RpmName, ...] = Field(description="packages and @groups")
    architecture_packages: dict[Name, tuple[RpmName, ...]] = Field(
        default={}, description="architecture -> more packages, its bootloader for one"
    )
    extra_packages: tuple[RpmName, ...] = Field(
        default=(), description="for templates that extend another one"
    )
    local_packages: Beside | None = Field(
        default=None,
        description="directory of .rpm files beside the template, used like one more repository",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="packages that are never installed; * is a wildcard"
    )
    modules: tuple[str, ...] = Field(
        default=(), description="module streams to enable, NAME:STREAM"
    )
    weak_dependencies: bool = Field(
        default=False, description="install what packages recommend too"
    )
    platform: str | None = Field(
        default=None, description="module_platform_id of the release, platform:el9 and so on"
    )
    database: Literal["usr/lib/sysimage/rpm", "var/lib/rpm"] = Field(
        default="usr/lib/sysimage/rpm", description="where the release's rpm has its database"
    )
    repository_files: TreePath = Field(
        default="etc/yum.repos.d",
        description="where the guest's package manager reads of repositories",
    )
    rewrite_database: bool = Field(
        default=False,
        description="the tree's own rpm writes its database anew, in its own format, where that is "
        "not this host's (openSUSE: ndb)",
    )
    kernel_file: FileGlob = Field(default="vmlinuz-*", description="the kernel's name in /boot")
    kernel_files: dict[Name, FileGlob] = Field(
        default={}, description="architecture -> its `kernel_file`, where that is another one"
    )
    initramfs_file: FileGlob = Field(
        default="initramfs-*.img", description="the initramfs' name in /boot"
    )
    early_files: dict[TreePath, str] = Field(
        default={}, description="path -> content: there before the first package is, for scriptlets"
    )
    files: dict[TreePath, str] = Field(
        default={},
        description="path -> content: written when all packages are there; {kernel_arguments} "
        "stands for the kernel's command line without its root, {{ and }} for braces",
    )
    architecture_files: dict[Name, dict[TreePath, str]] = Field(
        default={}, description="architecture -> more `files`"
    )

    def files_for(self, architecture: str, kernel_arguments: str) -> dict[str, str]:
        """Return what `files` and `architecture_files` say, filled in: path -> content.

        Args:
            architecture: Its canonical name.
            kernel_arguments: The kernel's command line without its root.
        """
        asked = {**self.files, **self.architecture_files.get(architecture, {})}
        known = {"kernel_arguments": kernel_arguments}
        return {path: text.format_map(known) for path, text in asked.items()}

    @property
    def all_repositories(self) -> tuple[RpmRepository, ...]:
        """Those of the distribution, and those that were added."""
        return (*self.repositories, *self.extra_repositories)

    @property
    def signed(self) -> bool:
        """Whether every package has to bear a signature."""
        return not self.local_packages and not any(one.trusted for one in self.all_repositories)

    @model_validator(mode="after")
    def _files_can_be_filled_in(self) -> RpmTree:
        for architecture in ("", *self.architecture_files):
            try:
                self.files_for(architecture, "")
            except (LookupError, ValueError, AttributeError) as error:
                raise ValueError(
                    f"files: {error} cannot be filled in: there is {{kernel_arguments}}, and "
                    "{{ and }} stand for braces"
                ) from None
        return self

    @model_validator(mode="after")
    def _ids_are_distinct(self) -> RpmTree:
        ids = [repository.id for repository in self.all_repositories]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"two repositories have the id {', '.join(twice)}")
        return self
