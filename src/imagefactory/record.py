"""What a manifest keeps of a plan, so that it can be repeated: written, read again, compared.

A manifest's ``plan`` tells people and programs what was built; ``record`` has the rest: the
template with all that it extends, the profile, the tools, the checksums of the files that a
template takes from beside itself, and of the code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from imagefactory.arch import ArchProfile
from imagefactory.catalog import Build
from imagefactory.digest import digest_of
from imagefactory.errors import ConfigError
from imagefactory.packages.pool import Package
from imagefactory.plan import BuildPlan, inputs
from imagefactory.template import ImageTemplate

_PATTERNS = {
    "name": r"[A-Za-z0-9][A-Za-z0-9+._-]*",
    "version": r"[A-Za-z0-9][A-Za-z0-9.+:~^_-]*",
    "architecture": r"[a-z0-9_-]+",
    "sha256": r"[0-9a-f]{64}",
}
"""Debian policy 5.6, and what RPM's packages have besides; a manifest may be anybody's, and these
become names of files."""

_WORDS = 60
"""Characters of a value that is told in full."""

M = TypeVar("M", bound=BaseModel)


def of(plan: BuildPlan) -> dict[str, Any]:
    """Return what `read` makes the plan of again, besides `BuildPlan.facts`."""
    made_of = inputs(plan)
    return {
        "template": _written(plan.template),
        "profile": _written(plan.profile),
        "kernel": plan.kernel.name,
        "disk_tools": [asdict(package) for package in plan.disk_tools],
        "boot_tools": [asdict(package) for package in plan.boot_tools],
        "files": made_of["files"],
        "code": made_of["code"],
    }


def read(build: Build, template_file: Path | None = None) -> BuildPlan:
    """Make the plan that a build was made from of its manifest; its digest is the build's.

    Args:
        build: The build.
        template_file: Beside it lie the files that the template names; as recorded if None.

    Raises:
        ConfigError: The manifest does not hold what is needed.
    """
    facts, kept = build.manifest["plan"], build.manifest.get("record")
    if kept is None:
        raise ConfigError(
            f"the manifest of {build.directory} does not tell enough to repeat the build",
            hint="an older imagefactory made it: build it anew, what is built now can be verified",
        )
    try:
        packages = _packages(facts["packages"])
        plan = BuildPlan(
            template=_model(ImageTemplate, kept["template"]),
            template_file=template_file or Path(facts["template"]),
            profile=_model(ArchProfile, kept["profile"]),
            image_packages=packages,
            kernel=next(package for package in packages if package.name == kept["kernel"]),
            disk_tools=_packages(kept["disk_tools"]),
            boot_tools=_packages(kept["boot_tools"]),
            properties=dict(facts["properties"]),
            warnings=(),
            epoch=_epoch(facts["source_date_epoch"]),
            digest=build.digest,
            mirrors=tuple(facts["mirrors"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        mistake = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"the manifest of {build.directory} is damaged: {mistake}",
            hint="it was changed, or a newer imagefactory made it",
        ) from None
    if (plan.template.name, plan.profile.name) != (build.image, build.architecture):
        raise ConfigError(f"the manifest of {build.directory} names two images")
    return plan


def changed_files(build: Build, plan: BuildPlan) -> tuple[str, ...]:
    """Name the files beside the template that are not what they were at a build."""
    found = _keys(build.manifest["record"]["files"], inputs(plan)["files"])
    return tuple(name.removesuffix("/") for name in found)


def changed_code(build: Build, plan: BuildPlan) -> tuple[str, ...]:
    """Name the parts of imagefactory that are not what they were at a build.

    A manifest whose digest is not that of what it holds counts too.
    """
    kept = build.manifest["record"]
    now = inputs(plan)
    changed = [f"imagefactory's code: {key}" for key in _keys(kept["code"], now["code"])]
    if digest_of({**now, "files": kept["files"], "code": kept["code"]}) != build.digest:
        changed.append(
            "the manifest's digest is not of what it records: it was edited, or this "
            "imagefactory reads templates otherwise"
        )
    return tuple(changed)


def changes(then: BuildPlan, today: BuildPlan) -> tuple[str, ...]:
    """Tell what a plan of today has otherwise than one of then, but for the code."""
    before, after = inputs(then), inputs(today)
    return (
        *(f"the template: {text}" for text in _values(before["template"], after["template"])),
        *(f"the profile: {text}" for text in _values(before["profile"], after["profile"])),
        *_of_packages("package", then.image_packages, today.image_packages),
        *_of_packages("tool", _tools(then), _tools(today)),
        *(["the repositories in sources.list"] if _sources(before) != _sources(after) else []),
        *_values({"SOURCE_DATE_EPOCH": then.epoch}, {"SOURCE_DATE_EPOCH": today.epoch}),
    )


def _written(model: BaseModel) -> dict[str, Any]:
    """What was said, not what is assumed: a step of `customize:` says exactly one thing."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _model(model: type[M], content: object) -> M:
    try:
        return model.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{model.__name__} {where}: {first['msg']}") from None


def _packages(content: Sequence[Mapping[str, Any]]) -> tuple[Package, ...]:
    packages = tuple(Package(**fields) for fields in content)
    for package in packages:
        for field, pattern in _PATTERNS.items():
            if not re.fullmatch(pattern, getattr(package, field)):
                raise ValueError(f"the {field} of the package {package} is none")
        if type(package.size) is not int:
            raise ValueError(f"the size of the package {package} is none")
    return packages


def _epoch(value: object) -> int | None:
    if value is None or type(value) is int:
        return value
    raise ValueError("source_date_epoch is no number")


def _tools(plan: BuildPlan) -> tuple[Package, ...]:
    return tuple(sorted({*plan.disk_tools, *plan.boot_tools}))


def _sources(content: Mapping[str, Any]) -> str:
    return str(content["sources_list"])


def _of_packages(kind: str, before: Sequence[Package], after: Sequence[Package]) -> Iterator[str]:
    """Tell packages apart by name; one name may have several versions among the tools."""
    then, now = _by_name(before), _by_name(after)
    for name in sorted({*then, *now}):
        one, other = then.get(name), now.get(name)
        if one is None:
            yield f"{kind} added: {_versions(other)}"
        elif other is None:
            yield f"{kind} removed: {_versions(one)}"
        elif one != other:
            same = "" if _versions(one) != _versions(other) else " with another content"
            yield f"{kind} changed: {_versions(one)} -> {_versions(other)}{same}"


def _by_name(packages: Sequence[Package]) -> dict[str, list[Package]]:
    found: dict[str, list[Package]] = {}
    for package in packages:
        found.setdefault(package.name, []).append(package)
    return found


def _versions(packages: Sequence[Package] | None) -> str:
    return ", ".join(map(str, packages or ()))


def _keys(before: object, after: object, path: str = "") -> Iterator[str]:
    """Name the leaves in which two trees of mappings differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from _keys(before.get(key), after.get(key), f"{path}/{key}" if path else key)
    elif before != after:
        yield path


def _values(before: object, after: object, path: str = "") -> Iterator[str]:
    """Tell the keys in which two trees of mappings differ, with their values if short."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            inner = f"{path}.{key}" if path else key
            yield from _values(before.get(key), after.get(key), inner)
    elif before != after:
        told = f"{json.dumps(before)} -> {json.dumps(after)}"
        yield f"{path} {told}" if len(told) <= _WORDS else path
