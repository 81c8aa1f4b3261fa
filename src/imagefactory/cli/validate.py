"""The command that compares image properties with what nova and standards know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from imagefactory import properties, render, scs, template
from imagefactory.cli.options import arch_option, config_option, json_option, mirror_option
from imagefactory.console import say
from imagefactory.errors import ConfigError, PackageError
from imagefactory.glance.stored import MARK_PART
from imagefactory.glance.target import CloudTarget
from imagefactory.online import Finding, Prober
from imagefactory.packages.dnf import check_key
from imagefactory.packages.mirrors import Mirrors
from imagefactory.plan import installed
from imagefactory.properties import PropertyMistakesError
from imagefactory.rpmtree import RpmTree
from imagefactory.settings import Settings
from imagefactory.workbench import Workbench


@dataclass(frozen=True)
class Verdict:
    """What was found of one set of properties.

    Attributes:
        subject: What people call it.
        mistakes: What nova or Glance would refuse.
        warnings: What nova will not like.
        scs: What the SCS standard has otherwise; empty if nobody asked.
        conforms: Whether the standard is kept.
        keys: Files of keys that are not what the template says.
    """

    subject: str
    mistakes: tuple[str, ...]
    warnings: tuple[str, ...]
    scs: tuple[str, ...] = ()
    conforms: bool = True
    keys: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        """Whether there is nothing to correct."""
        return self.conforms and not self.mistakes and not self.keys


@click.command(
    "validate",
    epilog="Examples:\n\n  imagefactory validate\n\n"
    "  imagefactory validate debian-12 --arch all --built --cloud mycloud --scs\n\n"
    "  imagefactory validate --cloud mycloud --scs 'Debian 12'\n\n"
    "  imagefactory validate --online fedora-44 --arch all",
)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@arch_option
@json_option
@click.option("--built", is_flag=True, help="Look at the newest builds, not at the templates.")
@click.option(
    "--cloud",
    help="Look at images in a cloud, by name or id [default: all of ours that are not hidden]. "
    "With --built: at the builds as they would be in that cloud.",
)
@config_option
@click.option("--scs", "by_scs", is_flag=True, help="By the standard scs-0102, too.")
@click.option(
    "--online",
    is_flag=True,
    help="Ask the templates' mirrors: are the repositories there, do the keys fit, do all "
    "packages exist?",
)
@mirror_option
@click.pass_obj
def validate_command(  # noqa: PLR0913
    bench: Workbench,
    *,
    images: tuple[str, ...],
    architectures: tuple[str, ...],
    as_json: bool,
    built: bool,
    cloud: str | None,
    config: Path | None,
    by_scs: bool,
    online: bool,
    mirrors: tuple[str, ...],
) -> int:
    """Compare image properties with nova's vocabulary, and with the SCS standard for metadata.

    Of each IMAGE (default: all templates) what would be uploaded, of its newest builds, or of
    images that are in a cloud. Exit status 0: all is well; 3: something is to be corrected;
    5: with --online, a repository, a key or a package is not what the template says.
    """
    if online:
        if built or cloud or by_scs:
            raise click.UsageError("--online looks at templates, not at properties of images")
        names = images or sorted(bench.path.yaml_files("templates"))
        prober = Prober(bench, Mirrors.chosen(mirrors))
        return _tell(prober.findings(bench.orders(names, architectures)), as_json=as_json)
    if built:
        target = Settings.read(config).targets([cloud])[cloud] if cloud else CloudTarget()
        found = _built(bench, images, architectures, target)
    elif cloud:
        found = _in_cloud(cloud, images, config)
    else:
        found = _described(bench, images, architectures)
    verdicts = [_judge(subject, what, keys, by_scs=by_scs) for subject, what, keys in found]
    if as_json:
        click.echo(render.to_json([{**asdict(one), "well": one.well} for one in verdicts]))
    for verdict in () if as_json else verdicts:
        _show(verdict)
    return 0 if all(verdict.well for verdict in verdicts) else ConfigError.exit_code


Found = Iterator[tuple[str, Mapping[str, str], tuple[str, ...]]]
"""What is looked at, its properties, and what is wrong with its keys."""


def _described(bench: Workbench, images: Sequence[str], architectures: Sequence[str]) -> Found:
    names = images or sorted(bench.path.yaml_files("templates"))
    for image, profile in bench.orders(names, architectures):
        item, file = template.load(bench.path, image)
        told = scs.told(datetime.now(UTC), item.description, item.default_user)
        derived = properties.derive(profile, item, installed(item, profile))
        yield f"{image} {profile.name}", {**told, **derived}, tuple(_wrong_keys(item, file))


def _wrong_keys(item: template.ImageTemplate, file: Path) -> Iterator[str]:
    """Tell which keys that a template names are not there, or are others than it means."""
    if not isinstance(item.recipe, RpmTree):
        return
    for key in dict.fromkeys(key for one in item.recipe.all_repositories for key in one.keys):
        try:
            check_key(key, template.beside(file, key.file))
        except PackageError as error:
            yield error.message


def _tell(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Tell what the mirrors said, and return the exit status."""
    if as_json:
        facts = [{**asdict(one), "well": one.well} for one in findings]
        click.echo(render.to_json(facts))
    for finding in () if as_json else findings:
        subject = f"{finding.image} {finding.architecture}"
        if finding.well:
            count = len(finding.sources)
            say(f"{subject}: right, {finding.packages} packages of {count} repositories")
        else:
            say(f"{subject}: to be corrected")
        for source in finding.sources:
            if not source.well:
                where = f"{source.name} ({source.address}, {source.architecture})"
                say(f"  {where}: {_indented(source.wrong)}")
        for text in finding.wrong:
            say(f"  {_indented(text)}")
        for text in finding.warnings:
            say(f"  warning: {_indented(text)}")
    bad = {finding.exit_code for finding in findings if not finding.well}
    return PackageError.exit_code if PackageError.exit_code in bad else max(bad, default=0)


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def _built(
    bench: Workbench, images: Sequence[str], architectures: Sequence[str], target: CloudTarget
) -> Found:
    from imagefactory.glance.newimage import NewImage  # noqa: PLC0415 (as in cli/upload.py)

    for image in images or bench.catalog.images():
        for build in bench.builds(image, architectures):
            new = NewImage.of_build(build, target, "private")
            subject = f"{image} {build.architecture} of {build.manifest['built'][:16]}"
            yield subject, new.properties, ()


def _in_cloud(name: str, images: Sequence[str], config: Path | None) -> Found:
    from imagefactory.glance.login import connect  # noqa: PLC0415 (as in cli/upload.py)
    from imagefactory.glance.upload import SILENCE  # noqa: PLC0415

    (target,) = Settings.read(config).targets([name]).values()
    with connect(target.cloud or name, SILENCE, target.region) as glance:
        for image in glance.visible(images):
            if MARK_PART in image.properties:  # nova starts no guest of a kernel alone
                continue
            numbers = {key: str(image.fields[key] or 0) for key in ("min_disk", "min_ram")}
            yield f"{image.name} ({image.id})", {**image.properties, **numbers}, ()


def _judge(
    subject: str, told: Mapping[str, str], keys: tuple[str, ...], *, by_scs: bool
) -> Verdict:
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    try:
        warnings = tuple(properties.validate(told))
    except PropertyMistakesError as error:
        mistakes = error.mistakes
    found = tuple(scs.check(told)) if by_scs else ()
    conforms = not any(one.breaks for one in found)
    return Verdict(subject, mistakes, warnings, tuple(map(str, found)), conforms, keys)


def _show(verdict: Verdict) -> None:
    say(f"{verdict.subject}: {'right' if verdict.well else 'to be corrected'}")
    for kind, texts in (
        ("nova", verdict.mistakes),
        ("key", verdict.keys),
        ("warning", verdict.warnings),
        ("scs-0102", verdict.scs),
    ):
        for text in texts:
            say(f"  {kind}: {text}")
