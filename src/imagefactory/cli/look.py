"""Commands that look and change nothing: doctor, list, show, schema."""

from __future__ import annotations

from collections.abc import Sequence

import click
from pydantic import BaseModel

from imagefactory import doctor, render, template
from imagefactory.arch import ArchProfile
from imagefactory.catalog import Build
from imagefactory.cli.options import arch_option, json_option
from imagefactory.commands import complain
from imagefactory.console import out, say
from imagefactory.errors import ConfigError
from imagefactory.settings import Settings
from imagefactory.workbench import Workbench


@click.command("doctor")
@arch_option
@json_option
@click.pass_obj
def doctor_command(bench: Workbench, architectures: tuple[str, ...], as_json: bool) -> int:
    """Say what this host has and lacks, and which package brings it.

    Exit status 0: the architectures can be built and boot-tested here; 4: they cannot.
    """
    found, mistakes = template.load_each(bench.path)
    templates = [item for item, _ in found.values()]
    findings = doctor.examine(
        bench.chosen(architectures),
        templates,
        doctor.Host(directory=bench.catalog.nearest_directory),
    )
    if as_json:
        click.echo(doctor.to_json(findings))
    else:
        out.print(doctor.render(findings))
        missing = doctor.packages_to_install(findings)
        if missing:
            out.print(f"install with: apt-get install {' '.join(missing)}")
    if mistakes:
        return complain_of(mistakes)
    return 0 if doctor.sufficient(findings) else 4


@click.command("list")
@arch_option
@json_option
@click.option("--markdown", is_flag=True, help="Print the README's table of tested builds.")
@click.pass_obj
def list_command(
    bench: Workbench, architectures: tuple[str, ...], as_json: bool, markdown: bool
) -> int:
    """List images and architectures with their last builds."""
    found, mistakes = template.load_each(bench.path)
    rows = [
        (name, profile.name, build)
        for name in bench.images
        for profile in bench.chosen(architectures)
        if (build := bench.catalog.latest(name, profile.name))
        or (name in found and found[name][0].exists_for(profile.name))
    ]
    builds = [build for _, _, build in rows if build]
    if markdown:
        click.echo(render.markdown_table(b for b in builds if b.verdict == "passed"), nl=False)
    elif as_json:
        empty = [
            {"image": image, "architecture": arch, "verdict": None}
            for image, arch, build in rows
            if build is None
        ]
        click.echo(render.to_json([*map(render.build_row, builds), *empty]))
    else:
        out.print(render.list_table(rows))
    return complain_of(mistakes)


@click.command("show")
@click.argument("image")
@arch_option
@json_option
@click.pass_obj
def show_command(
    bench: Workbench, image: str, architectures: tuple[str, ...], as_json: bool
) -> None:
    """Show the newest builds of IMAGE: every check, every milestone, where things lie."""
    builds = bench.builds(image, architectures)
    if as_json:
        click.echo(render.to_json([build.manifest for build in builds]))
        return
    show_builds(builds)
    for build in builds:
        out.print(f"[bold]{build.image} {build.architecture}[/]  digest {build.digest}")
        for standard, document in build.sbom.items():
            say(f"{standard}: {document}")
        out.print(render.report_table(build.boots, build.comparisons))


@click.command("schema")
@click.argument("kind", type=click.Choice(["template", "arch-profile", "factory"]))
def schema_command(kind: str) -> None:
    """Print the JSON Schema of a kind of YAML file, for editors."""
    models: dict[str, type[BaseModel]] = {
        "template": template.ImageTemplate,
        "arch-profile": ArchProfile,
        "factory": Settings,
    }
    click.echo(render.to_json(models[kind].model_json_schema()))


def show_builds(rows: Sequence[Build | tuple[str, str, str]]) -> None:
    """Print builds and failures (image, architecture, what failed), then where the disks lie."""
    out.print(render.builds_table(rows))
    for row in rows:  # on lines of their own: a path is for copying
        if isinstance(row, Build):
            say(str(row.disk))


def complain_of(mistakes: Sequence[ConfigError]) -> int:
    """Print mistakes of YAML files, and return the exit status that they make."""
    for mistake in mistakes:
        complain(mistake)
    return ConfigError.exit_code if mistakes else 0
