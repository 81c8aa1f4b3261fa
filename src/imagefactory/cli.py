"""The command line: parse, call, render; no logic."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from pydantic import BaseModel
from rich.markup import escape

from imagefactory import __version__, doctor, imagetest, pipeline, render, template
from imagefactory.arch import ArchProfile
from imagefactory.catalog import Build, Catalog
from imagefactory.commands import Commands, complain
from imagefactory.console import Announcer, err, out, transfer
from imagefactory.data import SearchPath, cache_directory
from imagefactory.errors import ImageFactoryError
from imagefactory.progress import Stages
from imagefactory.workbench import Workbench

if TYPE_CHECKING:
    from imagefactory.glance.upload import Uploaded

F = TypeVar("F", bound=Callable[..., Any])


def arch_option(command: F) -> F:
    """Add ``--arch``."""
    return click.option(
        "--arch",
        "-a",
        "architectures",
        multiple=True,
        metavar="ARCH",
        help="Architecture or alias (aarch64, arm64, ppc64el, amd64 ...), or all; repeatable.",
    )(command)


def json_option(command: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def proof_options(command: F) -> F:
    """Add what concerns boot tests."""
    command = click.option(
        "--accelerator",
        type=click.Choice(["auto", "kvm", "tcg"]),
        default="auto",
        show_default=True,
        help="auto takes KVM only where a real guest proved that it works.",
    )(command)
    return click.option(
        "--jobs",
        "-j",
        type=click.IntRange(1, 64),
        default=2,
        show_default=True,
        envvar="IMAGEFACTORY_JOBS",
        show_envvar=True,
        help="How many guests boot at once.",
    )(command)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Examples:\n\n"
    "  imagefactory doctor --arch all\n\n"
    "  imagefactory build minimal --arch aarch64 --arch ppc64le\n\n"
    "  imagefactory upload minimal --arch aarch64 --cloud mycloud\n\n"
    "Exit status: 0 done, 1 unexpected, 2 usage, 3 configuration, 4 host, 5 packages, 6 build, "
    "7 boot test, 8 cloud, 130 interrupted.",
)
@click.version_option(__version__, prog_name="imagefactory")
@click.option(
    "--path",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Directory with your own templates/ and arch_profiles/, looked at first; repeatable.",
)
@click.option(
    "--catalog",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where builds are kept [default: $XDG_DATA_HOME/imagefactory].",
)
@click.pass_context
def main(context: click.Context, paths: tuple[Path, ...], catalog: Path | None) -> None:
    """Build, boot-test and upload OpenStack images for every processor architecture."""
    context.obj = Workbench(
        SearchPath.default(paths),
        Catalog(catalog.absolute()) if catalog else Catalog.default(),
        cache_directory(),
    )


@main.command("doctor")
@arch_option
@json_option
@click.pass_obj
def doctor_command(bench: Workbench, architectures: tuple[str, ...], as_json: bool) -> int:
    """Say what this host has and lacks, and which package brings it.

    Exit status 0: the architectures can be built and boot-tested here; 4: they cannot.
    """
    templates = [item for item, _ in template.load_all(bench.path).values()]
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
    return 0 if doctor.sufficient(findings) else 4


@main.command("list")
@arch_option
@json_option
@click.option("--markdown", is_flag=True, help="Print the README's table of tested builds.")
@click.pass_obj
def list_command(
    bench: Workbench, architectures: tuple[str, ...], as_json: bool, markdown: bool
) -> None:
    """List images and architectures with their last builds."""
    rows = [
        (name, profile.name, bench.catalog.latest(name, profile.name))
        for name, (item, _) in sorted(template.load_all(bench.path).items())
        for profile in bench.chosen(architectures)
        if item.exists_for(profile.name)
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


@main.command("show")
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
    _show_builds(builds)
    for build in builds:
        out.print(f"[bold]{build.image} {build.architecture}[/]  digest {build.digest}")
        out.print(render.report_table(build.boots, build.comparisons))


@main.command("plan")
@click.argument("image")
@arch_option
@json_option
@click.pass_obj
def plan_command(
    bench: Workbench, image: str, architectures: tuple[str, ...], as_json: bool
) -> None:
    """Show what building IMAGE would do: packages with versions, properties, tests, digest."""
    made = [bench.plan(image, profile)[0] for profile in bench.profiles_of(image, architectures)]
    if as_json:
        click.echo(render.to_json([plan.facts() for plan in made]))
        return
    for plan in made:
        out.rule(f"[bold]{plan.name}[/]")
        out.print(render.plan_table(plan))


@main.command(
    "build",
    epilog="Examples:\n\n  imagefactory build --arch aarch64\n\n"
    "  imagefactory build minimal -a arm64 -a ppc64el --upload mycloud",
)
@click.argument("image", default="minimal")
@arch_option
@json_option
@proof_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--skip-test", is_flag=True, help="Do not boot it; it is marked as untested.")
@click.option("--upload", "cloud", metavar="CLOUD", help="Upload to this cloud of clouds.yaml.")
@click.pass_context
def build_command(  # noqa: PLR0913
    click_context: click.Context,
    *,
    image: str,
    architectures: tuple[str, ...],
    as_json: bool,
    accelerator: Literal["auto", "kvm", "tcg"],
    jobs: int,
    dry_run: bool,
    skip_test: bool,
    cloud: str | None,
) -> int:
    """Build IMAGE (default: minimal), boot-test it and put it into the catalog."""
    bench: Workbench = click_context.obj
    if dry_run:
        click_context.invoke(
            plan_command, image=image, architectures=architectures, as_json=as_json
        )
        return 0
    template.load(bench.path, image)
    builds, failures = [], []
    for profile in bench.profiles_of(image, architectures):
        announce = Announcer(f"{image} {profile.name}")
        factory = pipeline.Factory(
            profiles=bench.profiles,
            catalog=bench.catalog,
            cache=bench.cache,
            accelerator=accelerator,
            skip_test=skip_test,
            jobs=jobs,
            announce=announce,
        )
        try:
            with announce.running():
                stages = Stages(announce)
                with stages.stage("plan", "resolving packages"):
                    plan, sources = bench.plan(image, profile)
                for warning in plan.warnings:
                    err.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
                build = pipeline.build(plan, sources, factory, stages)
            builds.append(build)
            if cloud:
                _report_upload(_upload(bench, build, cloud, allow_untested=skip_test))
        except ImageFactoryError as error:
            complain(error)
            failures.append(error)
    if as_json:
        click.echo(render.to_json([render.build_row(build) for build in builds]))
    elif builds:
        _show_builds(builds)
    return failures[0].exit_code if failures else 0


@main.command(
    "test",
    epilog="Examples:\n\n  imagefactory test debian-12-generic-arm64.qcow2 --arch aarch64 "
    "-p os_admin_user=debian\n\n"
    "  imagefactory test disk.raw --format raw -a amd64 -p hw_firmware_type=uefi "
    "-p hw_machine_type=q35",
)
@click.argument("disk", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@arch_option
@json_option
@proof_options
@click.option(
    "--format",
    "disk_format",
    type=click.Choice(["qcow2", "raw"]),
    help="The disk's format [default: raw for .raw, else qcow2].",
)
@click.option("--property", "-p", "changes", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@click.option(
    "--properties",
    "properties_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON file of image properties [default: the build's manifest, or the profile's].",
)
@click.option(
    "--datasource",
    "datasources",
    multiple=True,
    type=click.Choice(["config-drive", "openstack", "ec2", "nocloud", "none"]),
    help="Boot once with each [default: config-drive].",
)
@click.option("--reboot", is_flag=True, help="Let each guest reboot and prove itself again.")
@click.option("--memory", type=click.IntRange(32), help="MiB [default: min_ram, else 512].")
@click.option("--budget", type=click.IntRange(1), help="Seconds from power-on to SSH.")
@click.option("--evidence", type=click.Path(path_type=Path), help="Where logs and pictures go.")
@click.pass_obj
def test_command(  # noqa: PLR0913
    bench: Workbench,
    *,
    disk: Path,
    architectures: tuple[str, ...],
    as_json: bool,
    accelerator: Literal["auto", "kvm", "tcg"],
    jobs: int,
    disk_format: str | None,
    changes: tuple[str, ...],
    properties_file: Path | None,
    datasources: tuple[str, ...],
    reboot: bool,
    memory: int | None,
    budget: int | None,
    evidence: Path | None,
) -> int:
    """Boot-test any DISK as nova would start it from its image properties."""
    subject = imagetest.describe(
        disk,
        architectures,
        bench.profiles,
        disk_format=disk_format,
        properties_file=properties_file,
        changes=changes,
        datasources=datasources,
        reboot=reboot,
        memory=memory,
    )
    where = evidence or imagetest.evidence_directory(bench.catalog.directory, disk)
    announce = Announcer(disk.name)
    with announce.running():
        report = imagetest.run(
            subject,
            where,
            bench.profiles,
            accelerator=accelerator,
            jobs=jobs,
            budget=budget,
            announce=announce,
        )
    if as_json:
        click.echo(report.to_json())
    else:
        told = json.loads(report.to_json())
        out.print(render.report_table(told["cases"], told["checks"]))
        out.print(f"[bold]{report.verdict}[/]: {escape(report.summary)}", soft_wrap=True)
        out.print(f"evidence: {where}", soft_wrap=True, markup=False)
    return 0 if report.passed else 7


@main.command("upload")
@click.argument("image")
@arch_option
@json_option
@click.option("--cloud", required=True, help="A cloud of clouds.yaml; envvars: the OS_* variables.")
@click.option("--name", help="Name in the cloud [default: IMAGE-ARCH].")
@click.option(
    "--visibility",
    type=click.Choice(["private", "shared", "community", "public"]),
    help="Who sees it [default: the template's].",
)
@click.option("--allow-untested", is_flag=True, help="Also without a passed boot test.")
@click.pass_obj
def upload_command(
    bench: Workbench,
    *,
    image: str,
    architectures: tuple[str, ...],
    as_json: bool,
    cloud: str,
    name: str | None,
    visibility: Literal["private", "shared", "community", "public"] | None,
    allow_untested: bool,
) -> None:
    """Upload the newest builds of IMAGE to a cloud, verified by the cloud's own hash."""
    uploads = [
        _upload(
            bench,
            build,
            cloud,
            name=name,
            visibility=visibility,
            allow_untested=allow_untested,
        )
        for build in bench.builds(image, architectures)
    ]
    if as_json:
        click.echo(render.to_json([asdict(done) for done in uploads]))
        return
    for done in uploads:
        _report_upload(done)


@main.command("schema")
@click.argument("kind", type=click.Choice(["template", "arch-profile"]))
def schema_command(kind: str) -> None:
    """Print the JSON Schema of a kind of YAML file, for editors."""
    models: dict[str, type[BaseModel]] = {
        "template": template.ImageTemplate,
        "arch-profile": ArchProfile,
    }
    click.echo(render.to_json(models[kind].model_json_schema()))


def _show_builds(builds: Sequence[Build]) -> None:
    out.print(render.builds_table(builds))
    for build in builds:  # on lines of their own: a path is for copying
        out.print(str(build.disk), soft_wrap=True, markup=False)


def _upload(
    bench: Workbench,
    build: Build,
    cloud: str,
    *,
    name: str | None = None,
    visibility: Literal["private", "shared", "community", "public"] | None = None,
    allow_untested: bool = False,
) -> Uploaded:
    # Here and not above: openstacksdk takes half a second to load, and few commands need it.
    from imagefactory.glance.upload import NewImage, upload  # noqa: PLC0415

    item, _ = template.load(bench.path, build.image)
    image = NewImage.of_build(build, name, visibility or item.visibility)
    with transfer(f"upload {image.name}") as bar:
        task = bar.task_ids[0]
        return upload(
            image,
            cloud=cloud,
            allow_untested=allow_untested,
            progress=lambda sent, total: bar.update(task, completed=sent, total=total),
        )


def _report_upload(done: Uploaded) -> None:
    if not done.sent:
        out.print(
            f"{done.name}: already there as {done.id}, nothing was sent",
            soft_wrap=True,
            markup=False,
        )
        return
    out.print(
        f"{done.name}: {render.megabytes(done.size)} sent in {done.seconds:.1f} s, "
        f"verified by os_hash_value, {done.visibility}, id {done.id}",
        soft_wrap=True,
        markup=False,
    )
