"""The command line: parse, call, render; no logic."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from pydantic import BaseModel
from rich.markup import escape

from imagefactory import __version__, batch, cache, doctor, imagetest, render, template, verify
from imagefactory.arch import ArchProfile
from imagefactory.catalog import Build, Catalog
from imagefactory.commands import Commands, complain
from imagefactory.console import Board, out, transfer
from imagefactory.data import SearchPath, cache_directory
from imagefactory.errors import BuildError, ConfigError
from imagefactory.packages.mirrors import Mirrors
from imagefactory.progress import Stages
from imagefactory.schedule import Schedule
from imagefactory.workbench import Workbench

if TYPE_CHECKING:
    from imagefactory.glance.upload import Uploaded

F = TypeVar("F", bound=Callable[..., Any])


def _as(read: Callable[[str], int]) -> Callable[[click.Context, click.Parameter, Any], int | None]:
    """Return what reads an option's value, or says how it is written."""

    def convert(_context: click.Context, _parameter: click.Parameter, value: Any) -> int | None:
        try:
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


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
        type=click.IntRange(1, 1024),
        envvar="IMAGEFACTORY_JOBS",
        show_envvar=True,
        help="How many builds and guests work at once, as far as there is memory for them "
        "[default: the usable CPUs].",
    )(command)


def source_options(command: F) -> F:
    """Add where packages come from."""
    command = click.option(
        "--offline",
        is_flag=True,
        help="Ask nothing from the network: package lists as last fetched, packages from the "
        "cache.",
    )(command)
    return click.option(
        "--mirror",
        "mirrors",
        multiple=True,
        metavar="[OLD=]URL",
        envvar="IMAGEFACTORY_MIRROR",
        show_envvar=True,
        help="Take packages from another mirror: http://my.mirror/debian (archives beside it, "
        "like /debian-security, are sought there too), or "
        "http://deb.debian.org/debian=http://my.mirror/debian for one archive alone; repeatable, "
        "the first that fits counts.",
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
        return _complain_of(mistakes)
    return 0 if doctor.sufficient(findings) else 4


@main.command("list")
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
        (name, profile.name, bench.catalog.latest(name, profile.name))
        for name, (item, _) in sorted(found.items())
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
    return _complain_of(mistakes)


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


@main.command(
    "plan",
    epilog="Examples:\n\n  imagefactory plan minimal --arch arm64\n\n"
    "  imagefactory plan minimal -a all --mirror http://my.mirror/debian",
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@arch_option
@json_option
@source_options
@click.pass_obj
def plan_command(
    bench: Workbench,
    *,
    images: tuple[str, ...],
    architectures: tuple[str, ...],
    as_json: bool,
    mirrors: tuple[str, ...],
    offline: bool,
) -> None:
    """Show what building each IMAGE would do: packages with versions, properties, tests, digest."""
    orders = batch.orders(bench, images, architectures)
    manner = batch.Manner(mirrors=Mirrors.chosen(mirrors), offline=offline)
    made = batch.plan_all(bench, orders, manner, Schedule.of_this_host())
    if as_json:
        click.echo(render.to_json([plan.facts() for plan in made]))
        return
    for plan in made:
        out.rule(f"[bold]{plan.name}[/]")
        out.print(render.plan_table(plan))


@main.command(
    "build",
    epilog="Examples:\n\n  imagefactory build --arch aarch64\n\n"
    "  imagefactory build minimal -a arm64 -a ppc64el --upload mycloud\n\n"
    "  imagefactory build minimal --arch all --jobs 4 --mirror http://my.mirror/debian",
)
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@arch_option
@json_option
@proof_options
@source_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--skip-test", is_flag=True, help="Do not boot it; it is marked as untested.")
@click.option("--upload", "cloud", metavar="CLOUD", help="Upload to this cloud of clouds.yaml.")
@click.pass_context
def build_command(  # noqa: PLR0913
    click_context: click.Context,
    *,
    images: tuple[str, ...],
    architectures: tuple[str, ...],
    as_json: bool,
    accelerator: Literal["auto", "kvm", "tcg"],
    jobs: int | None,
    mirrors: tuple[str, ...],
    offline: bool,
    dry_run: bool,
    skip_test: bool,
    cloud: str | None,
) -> int:
    """Build each IMAGE (default: minimal), boot-test it and put it into the catalog.

    Images and architectures are built side by side. One that fails does not stop the others;
    the exit status is that of the first that failed.
    """
    bench: Workbench = click_context.obj
    images = images or ("minimal",)
    if dry_run:
        click_context.invoke(
            plan_command,
            images=images,
            architectures=architectures,
            as_json=as_json,
            mirrors=mirrors,
            offline=offline,
        )
        return 0
    if offline and cloud:
        raise click.UsageError("--offline and --upload exclude each other")
    room_for_cache = cache.allowed_size()
    orders = batch.orders(bench, images, architectures)
    manner = batch.Manner(
        mirrors=Mirrors.chosen(mirrors),
        offline=offline,
        accelerator=accelerator,
        skip_test=skip_test,
        upload=_uploader(bench, cloud, allow_untested=skip_test) if cloud else None,
    )
    board = Board([order.subject for order in orders])
    with board.running():
        schedule = Schedule.of_this_host(jobs)
        outcomes = batch.build_all(bench, orders, manner, schedule, board, complain)
    cache.prune(bench.cache, max_size=room_for_cache)
    if as_json:
        click.echo(render.to_json([_outcome_row(outcome) for outcome in outcomes]))
    else:
        _show_builds([row for outcome in outcomes for row in _table_rows(outcome)])
        for outcome in outcomes:
            if outcome.uploaded:
                _report_upload(outcome.uploaded)
    return next((outcome.error.exit_code for outcome in outcomes if outcome.error), 0)


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
    jobs: int | None,
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
    board = Board([disk.name])
    with board.running():
        report = imagetest.run(
            subject,
            where,
            bench.profiles,
            accelerator=accelerator,
            schedule=Schedule.of_this_host(jobs),
            budget=budget,
            announce=board.announcer(disk.name),
        )
    if as_json:
        click.echo(report.to_json())
    else:
        told = json.loads(report.to_json())
        out.print(render.report_table(told["cases"], told["checks"]))
        out.print(f"[bold]{report.verdict}[/]: {escape(report.summary)}", soft_wrap=True)
        out.print(f"evidence: {where}", soft_wrap=True, markup=False)
    return 0 if report.passed else 7


@main.command(
    "verify",
    epilog="Examples:\n\n  imagefactory verify minimal --arch arm64\n\n"
    "  imagefactory verify ./minimal/aarch64/20260102T030405000000Z-0123456789ab --keep again",
)
@click.argument("subject", default="minimal", metavar="[IMAGE|DIRECTORY]")
@arch_option
@json_option
@source_options
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the image that was made again in this directory.",
)
@click.pass_obj
def verify_command(
    bench: Workbench,
    *,
    subject: str,
    architectures: tuple[str, ...],
    as_json: bool,
    mirrors: tuple[str, ...],
    offline: bool,
    keep: Path | None,
) -> int:
    """Make the newest builds of IMAGE, or the one in DIRECTORY, again and compare bit for bit.

    Exit status 0: the same bytes came out; 6: other ones; 5: a package can no longer be had.
    """
    builds = verify.chosen(bench, subject, architectures)
    manner = verify.Manner(Mirrors.chosen(mirrors), offline, keep)
    board = Board([f"{build.image} {build.architecture}" for build in builds])
    verdicts = []
    with board.running():
        schedule = Schedule.of_this_host()
        for build in builds:
            name = f"{build.image} {build.architecture}"
            stages = Stages(board.announcer(name))
            verdict = verify.verify(bench, build, manner, schedule, stages)
            board.end(name, verdict.in_words, stages.seconds, well=verdict.identical)
            verdicts.append(verdict)
    if as_json:
        click.echo(render.to_json([asdict(verdict) for verdict in verdicts]))
    else:
        for verdict in verdicts:
            out.print(render.verdict_text(verdict), soft_wrap=True)
    return 0 if all(verdict.identical for verdict in verdicts) else BuildError.exit_code


@main.command("upload")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
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
    images: tuple[str, ...],
    architectures: tuple[str, ...],
    as_json: bool,
    cloud: str,
    name: str | None,
    visibility: Literal["private", "shared", "community", "public"] | None,
    allow_untested: bool,
) -> None:
    """Upload the newest builds of each IMAGE to a cloud, verified by the cloud's own hash."""
    builds = [build for image in images for build in bench.builds(image, architectures)]
    if name and len(builds) > 1:
        raise click.UsageError("--name is for one build: name one image and one architecture")
    uploads = []
    for build in builds:
        with transfer(f"upload {name or f'{build.image} {build.architecture}'}") as progress:
            done = _upload(
                bench,
                build,
                cloud,
                progress,
                name=name,
                visibility=visibility,
                allow_untested=allow_untested,
            )
        uploads.append(done)
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


@main.group("cache")
def cache_group() -> None:
    """Show or prune what was fetched and made before, and is kept for the next build."""


@cache_group.command("show")
@json_option
@click.pass_obj
def cache_show_command(bench: Workbench, as_json: bool) -> None:
    """Show what the cache holds, kind by kind."""
    kinds = cache.summary(bench.cache)
    if as_json:
        click.echo(render.to_json(kinds))
        return
    out.print(render.cache_table(kinds))
    total = render.gigabytes(sum(kind["bytes"] for kind in kinds))
    bound = render.gigabytes(cache.allowed_size())
    out.print(f"{total} in {bench.cache}; builds prune it to {bound}", soft_wrap=True, markup=False)


@cache_group.command(
    "prune",
    epilog="Examples:\n\n  imagefactory cache prune\n\n"
    "  imagefactory cache prune --max-size 10G --older-than 30d --dry-run",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    callback=_as(cache.parse_size),
    help="How much may stay: 500M, 10G [default: what builds prune it to].",
)
@click.option(
    "--older-than",
    metavar="AGE",
    callback=_as(cache.parse_age),
    help="Take out whatever was not used for as long: 12h, 30d, 2w.",
)
@click.option("--all", "everything", is_flag=True, help="Take out everything.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_obj
def cache_prune_command(
    bench: Workbench,
    *,
    max_size: int | None,
    older_than: int | None,
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take out what was not used for longest; what running builds use stays.

    Everything in the cache can be fetched or made again.
    """
    if everything:
        max_size = 0
    elif max_size is None and older_than is None:
        max_size = cache.allowed_size()
    done = cache.prune(bench.cache, max_size=max_size, older_than=older_than, dry_run=dry_run)
    if as_json:
        click.echo(render.to_json(asdict(done)))
        return
    size = render.gigabytes(sum(entry.size for entry in done.removed))
    verb = "would be pruned" if dry_run else "pruned"
    out.print(f"{len(done.removed)} entries, {size} {verb}; {render.gigabytes(done.left)} left")
    if done.kept_in_use:
        out.print(f"{len(done.kept_in_use)} entries stay: running builds use them")


def _complain_of(mistakes: Sequence[ConfigError]) -> int:
    for mistake in mistakes:
        complain(mistake)
    return ConfigError.exit_code if mistakes else 0


def _outcome_row(outcome: batch.Outcome) -> dict[str, Any]:
    row = render.build_row(outcome.build) if outcome.build else {}
    if outcome.error:
        order = outcome.order
        row |= render.failure_row(order.image, order.profile.name, outcome.error)
    if outcome.uploaded:
        row["upload"] = asdict(outcome.uploaded)
    return row


def _uploader(
    bench: Workbench, cloud: str, *, allow_untested: bool
) -> Callable[[Build, Stages], Uploaded]:
    def upload_build(build: Build, stages: Stages) -> Uploaded:
        told = -1

        def progress(sent: int, total: int) -> None:
            nonlocal told
            tenth = 10 * sent // max(total, 1)
            if tenth != told:
                told = tenth
                stages.announce("upload", f"{cloud}: {tenth * 10} %")

        with stages.stage("upload", cloud):
            return _upload(bench, build, cloud, progress, allow_untested=allow_untested)

    return upload_build


def _table_rows(outcome: batch.Outcome) -> Iterator[Build | tuple[str, str, str]]:
    if outcome.build:
        yield outcome.build
    if outcome.error:
        yield outcome.order.image, outcome.order.profile.name, outcome.error.message


def _show_builds(rows: Sequence[Build | tuple[str, str, str]]) -> None:
    out.print(render.builds_table(rows))
    for row in rows:  # on lines of their own: a path is for copying
        if isinstance(row, Build):
            out.print(str(row.disk), soft_wrap=True, markup=False)


def _upload(
    bench: Workbench,
    build: Build,
    cloud: str,
    progress: Callable[[int, int], None],
    *,
    name: str | None = None,
    visibility: Literal["private", "shared", "community", "public"] | None = None,
    allow_untested: bool = False,
) -> Uploaded:
    # Here and not above: openstacksdk takes half a second to load, and few commands need it.
    from imagefactory.glance.upload import NewImage, upload  # noqa: PLC0415

    item, _ = template.load(bench.path, build.image)
    image = NewImage.of_build(build, name, visibility or item.visibility)
    return upload(image, cloud=cloud, allow_untested=allow_untested, progress=progress)


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
