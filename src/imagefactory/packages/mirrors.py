"""Mirrors: where the archives that a template names are really asked.

A mirror holds the same packages, signed by the same keys and known by their checksums, so which
one was asked changes nothing of an image and is no part of a plan's digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagefactory import yamlfile
from imagefactory.data import user_directory
from imagefactory.errors import ConfigError
from imagefactory.rpmtree import RpmRepository
from imagefactory.template import ImageTemplate, Repository

FILE = "mirrors.yaml"
"""The user's own mirrors, in ``$XDG_CONFIG_HOME/imagefactory``."""

_ADDRESS = r"(?:https?|file|ftp)://[^\s\[\]=]+"
_RULE = re.compile(rf"(?:({_ADDRESS}?)=)?({_ADDRESS})")


class _File(yamlfile.Model):
    """What the user's file says."""

    mirrors: tuple[str, ...]


@dataclass(frozen=True)
class Mirrors:
    """Rules by which addresses are replaced; the first that fits counts.

    Attributes:
        rules: Pairs of the address whose place is taken (None: that of the template's first
            repository, and of whatever lies beside it) and the one that takes it.
    """

    rules: tuple[tuple[str | None, str], ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> Mirrors:
        """Read rules as people write them: ``URL``, or ``OLD=NEW``.

        Raises:
            ConfigError: One is neither.
        """
        rules = []
        for word in words:
            match = _RULE.fullmatch(word)
            if not match:
                raise ConfigError(
                    f"{word!r} is not a mirror",
                    hint="say http://my.mirror/debian, or "
                    "http://deb.debian.org/debian=http://my.mirror/debian",
                )
            old, new = match.groups()
            rules.append((old.rstrip("/") if old else None, new.rstrip("/")))
        return cls(tuple(rules))

    @classmethod
    def chosen(cls, words: Sequence[str]) -> Mirrors:
        """Read what was asked for, and behind it what the user's own file says.

        Raises:
            ConfigError: One of them is no mirror.
            YamlMistakesError: The file has mistakes.
        """
        file = user_directory() / FILE
        lasting = yamlfile.load(file, _File).mirrors if file.exists() else ()
        try:
            return cls.parse([*words, *lasting])
        except ConfigError as error:
            raise ConfigError(f"{error.message} ({_where(file)})", hint=error.hint) from None

    def of(
        self, template: ImageTemplate, architecture: str
    ) -> tuple[tuple[Repository, ...], tuple[Repository, ...]]:
        """Return a template's repositories, and its tools', as they are to be asked.

        Args:
            template: The image.
            architecture: Debian's name of the one whose packages are asked for.
        """
        every = (*template.image_repositories, *template.tool_repositories)
        known = [
            address
            for repository in every
            for address in (repository.mirror, *repository.mirrors.values())
        ]
        image, tools = (
            tuple(repository.for_architecture(architecture) for repository in repositories)
            for repositories in (template.image_repositories, template.tool_repositories)
        )
        first = (*image, *tools)[0].mirror
        rules = [(old, new) if old else _beside(first, new, known) for old, new in self.rules]
        return (
            tuple(_rewritten(repository, rules) for repository in image),
            tuple(_rewritten(repository, rules) for repository in tools or image),
        )

    def of_rpm(
        self, repositories: Iterable[RpmRepository], architecture: str
    ) -> tuple[RpmRepository, ...]:
        """Return repositories of RPM packages as they are to be asked; only `OLD=URL` counts.

        Where one is replaced, nobody is asked for more mirrors of it.

        Args:
            repositories: As the template has them.
            architecture: RPM's name of the one whose packages are asked for.
        """
        rules = [(old, new) for old, new in self.rules if old]

        def place(url: str) -> str:
            return _moved(url, rules) or url

        found = []
        for one in repositories:
            others = {name: place(url) for name, url in one.baseurls.items()}
            changed: dict[str, object] = {"baseurl": place(one.baseurl), "baseurls": others}
            if _moved(one.baseurl_for(architecture), rules):
                changed |= {"metalink": None, "mirrorlist": None}
            found.append(one.model_copy(update=changed))
        return tuple(found)


def _where(file: Path) -> str:
    return f"--mirror, IMAGEFACTORY_MIRROR{f' or {file}' if file.exists() else ''}"


NONE = Mirrors()
"""The addresses that the template names."""


def _beside(first: str, new: str, known: Iterable[str]) -> tuple[str, str]:
    """Spell a bare address out: the directory that holds the first archive, and its new place.

    Archives lie side by side (``/debian``, ``/debian-security``); people name the place of one
    of them or that of all.
    """
    old, name = _directory(first)
    names = {_directory(address)[1] for address in known}
    above, last = _directory(new)
    if last and last in names:
        new = above
    return (old, new) if name else (first, new)


def _directory(address: str) -> tuple[str, str]:
    """Part an address into its directory and its last name, which a host alone has not."""
    host, slash, path = address.rstrip("/").partition("://")[2].partition("/")
    scheme = address.partition("://")[0]
    above, _, name = path.rpartition("/")
    return f"{scheme}://{host}{slash}{above}".rstrip("/"), name


def _rewritten(repository: Repository, rules: Sequence[tuple[str, str]]) -> Repository:
    moved = _moved(repository.mirror.rstrip("/"), rules)
    return repository.model_copy(update={"mirror": moved}) if moved else repository


def _moved(address: str, rules: Sequence[tuple[str, str]]) -> str | None:
    """Return the place that takes an address's; None: it stays."""
    for old, new in rules:
        # http and https are two ways to one host.
        plain, sought = (re.sub("^https:", "http:", text) for text in (address, old))
        if f"{plain}/".startswith(f"{sought}/"):
            return new + plain[len(sought) :]
    return None
