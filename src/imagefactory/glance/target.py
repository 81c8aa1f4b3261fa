"""How a cloud wants its images: format, names, who sees them, what becomes of old ones."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from imagefactory.arch import Name
from imagefactory.glance.stored import MARK_PREFIX
from imagefactory.properties import mistake
from imagefactory.yamlfile import Model

Visibility = Literal["private", "shared", "community", "public"]

NAME_WORDS = ("image", "distro", "version", "arch", "date", "digest")
"""What may stand in braces in an image's name."""


def _words(pattern: str) -> set[str]:
    """Return what stands in a pattern's braces."""
    return {
        f"{word}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}"
        for _, word, spec, conversion in Formatter().parse(pattern)
        if word is not None
    }


def _filled_with(*known: str) -> AfterValidator:
    """Refuse braces that hold something else."""

    def check(text: str) -> str:
        try:
            strangers = sorted(_words(text) - {*known})
        except ValueError as error:
            raise ValueError(f"its braces are wrong: {error}") from None
        if strangers:
            raise ValueError(
                f"{{{strangers[0]}}} stands for nothing; known: "
                + ", ".join(f"{{{word}}}" for word in known)
            )
        return text

    return AfterValidator(check)


def fill_name(pattern: str, words: Mapping[str, str]) -> str:
    """Fill what stands in a name's braces."""
    return pattern.format_map(words)


NamePattern = Annotated[str, _filled_with(*NAME_WORDS), Field(min_length=1, max_length=255)]
UrlPattern = Annotated[
    str, _filled_with("file", *NAME_WORDS), Field(pattern="^https?://[^ ]+$", max_length=2000)
]
CommandWord = Annotated[str, _filled_with("id", "name", "cloud")]


def _ours(name: str) -> str | None:
    return "is a mark of our own" if name.startswith(MARK_PREFIX) else None


class Rotation(Model):
    """What becomes of a build once the cloud has a newer one."""

    old: Literal["rename", "hide", "deactivate"] = Field(
        default="hide",
        description="what is done to it; it always gets its dated name. hide: not in lists, "
        "servers can still be made of it by its id; deactivate: only administrators can read it",
    )
    keep: int | None = Field(
        default=None, ge=0, description="so many old ones stay, unset: all; see keep_days"
    )
    keep_days: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="those built in the last days stay as well, however many there are",
    )


class CloudTarget(Model):
    """One cloud that images go to."""

    cloud: str | None = Field(
        default=None, description="its name in clouds.yaml, unset: the key itself"
    )
    region: str | None = Field(default=None, description="one of the cloud's regions")
    line: Name | None = Field(
        default=None,
        description="tells apart what several entries bring to one project of a cloud: each "
        "takes the others' images for older builds of its own otherwise",
    )
    format: Literal["qcow2", "raw", "ami"] = Field(
        default="qcow2",
        description="raw for images in Ceph (RBD), where qcow2 cannot be cloned; ami for "
        "partition images that clouds want so: raw, with container_format ami too",
    )
    name: NamePattern = Field(
        default="{image}-{arch}", description="of the newest build; it moves from one to the next"
    )
    dated_name: NamePattern = Field(
        default="{image}-{arch}-{date}", description="of older builds, and while one is sent"
    )
    method: Literal["direct", "glance-direct", "web-download"] = Field(
        default="direct",
        description="how the data gets there: sent, sent to be imported, or fetched by the cloud",
    )
    url: UrlPattern | None = Field(
        default=None,
        description="for web-download: where the cloud finds the file; {file} and the words of "
        "`name` stand for what they say",
    )
    stores: tuple[str, ...] | Literal["all"] = Field(
        default=(), description="which of the cloud's stores have the image, unset: its default"
    )
    visibility: Visibility | None = Field(
        default=None, description="who sees it, unset: as the template says"
    )
    members: tuple[str, ...] = Field(
        default=(), description="projects (by id) that a shared image is offered to"
    )
    protected: bool = Field(default=False, description="Glance refuses to delete the newest build")
    min_disk: int | None = Field(default=None, ge=1, description="GiB, in the image's place")
    min_ram: int | None = Field(default=None, ge=0, description="MiB, in the image's place")
    properties: dict[Name, str] = Field(
        default={}, description="more image properties, on top of the template's"
    )
    rotation: Rotation = Rotation()
    after_upload: tuple[tuple[CommandWord, ...], ...] = Field(
        default=(),
        description="commands that look at a verified image before it is seen, as lists of words; "
        "{id} and {name} stand for the image's, {cloud} for the cloud's name, {{ for a brace. "
        "One that fails removes the image",
    )
    budget: float = Field(
        default=4 * 3600.0, gt=0, description="seconds for one image, all attempts together"
    )

    @model_validator(mode="after")
    def _keys_fit_together(self) -> CloudTarget:
        if self.name == self.dated_name or not {"date", "digest"} & _words(self.dated_name):
            raise ValueError("dated_name: it must tell builds apart, by {date} or {digest}")
        if (self.method == "web-download") != (self.url is not None):
            raise ValueError("`method: web-download` and `url:` go together")
        for name, value in self.properties.items():
            if wrong := mistake(name, value) or _ours(name):
                raise ValueError(f"properties: {name}={value}: {wrong}")
        if self.members and self.visibility != "shared":
            raise ValueError("members: only an image of `visibility: shared` has members")
        return self
