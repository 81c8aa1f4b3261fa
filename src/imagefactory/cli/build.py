"""Commands that make images: plan, build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from imagefactory import batch, cache, render
from imagefactory.catalog import Build
from imagefactory.cli.look import show_builds
from imagefactory.cli.options import (
    arch_option,
    config_option,
    json_option,
    proof_options,
    source_options,
)
from imagefactory.cli.upload import deliver, delivery_row, report_upload, require
from imagefactory.commands import complain
from imagefactory.console import Board, out
from imagefactory.errors import CloudError
from imagefactory.glance.target import CloudTarget
from imagefactory.packages.mirrors import Mirrors
from imagefactory.progress import Stages
from imagefactory.schedule import Schedule
from imagefactory.settings import Settings
from imagefactory.workbench import Workbench

if TYPE_CHECKING:
    from imagefactory.delivery import Delivered


@click.command(
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


@click.command(
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
@click.option(
    "--upload",
    "clouds",
    multiple=True,
    metavar="CLOUD",
    help="Upload to this cloud of factory.yaml or clouds.yaml; repeatable.",
)
@config_option
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
    clouds: tuple[str, ...],
    config: Path | None,
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
    if offline and clouds:
        raise click.UsageError("--offline and --upload exclude each other")
    targets = Settings.read(config).targets(clouds)
    require(targets)  # now, and not when the builds are done
    room_for_cache = cache.allowed_size()
    orders = batch.orders(bench, images, architectures)
    manner = batch.Manner(
        mirrors=Mirrors.chosen(mirrors),
        offline=offline,
        accelerator=accelerator,
        skip_test=skip_test,
        upload=_uploader(bench, targets, allow_untested=skip_test) if targets else None,
    )
    board = Board([order.subject for order in orders])
    with board.running():
        schedule = Schedule.of_this_host(jobs)
        outcomes = batch.build_all(bench, orders, manner, schedule, board, complain)
    cache.prune(bench.cache, max_size=room_for_cache)
    if as_json:
        click.echo(render.to_json([_outcome_row(outcome) for outcome in outcomes]))
    else:
        show_builds([row for outcome in outcomes for row in _table_rows(outcome)])
        for outcome in outcomes:
            for one in outcome.uploaded or ():
                report_upload(one.uploaded, one.delivery.cloud)
    return next((outcome.error.exit_code for outcome in outcomes if outcome.error), 0)


def _outcome_row(outcome: batch.Outcome) -> dict[str, Any]:
    row = render.build_row(outcome.build) if outcome.build else {}
    if outcome.error:
        order = outcome.order
        row |= render.failure_row(order.image, order.profile.name, outcome.error)
    if outcome.uploaded:
        row["uploads"] = [delivery_row(one) for one in outcome.uploaded]
    return row


def _uploader(
    bench: Workbench, targets: Mapping[str, CloudTarget], *, allow_untested: bool
) -> Callable[[Build, Stages], list[Delivered]]:
    def upload_build(build: Build, stages: Stages) -> list[Delivered]:
        with stages.stage("upload", ", ".join(targets)):
            done = deliver(bench, [build], targets, allow_untested=allow_untested)
        failed = [one for one in done if one.error]
        if failed:
            told = [f"{one.delivery.cloud}: {one.error.message}" for one in failed if one.error]
            hints = [one.error.hint for one in failed if one.error]
            others = len(done) - len(failed)
            told += [f"uploaded to {others} of {len(done)} clouds"] if others else []
            raise CloudError("; ".join(told), hint=hints[0])
        return done

    return upload_build


def _table_rows(outcome: batch.Outcome) -> Iterator[Build | tuple[str, str, str]]:
    if outcome.build:
        yield outcome.build
    if outcome.error:
        yield outcome.order.image, outcome.order.profile.name, outcome.error.message
