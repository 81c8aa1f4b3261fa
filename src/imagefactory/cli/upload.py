"""The command that puts builds into a cloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError
from rich.markup import escape

from imagefactory import render
from imagefactory.catalog import Build
from imagefactory.cli.options import F, arch_option, config_option, json_option
from imagefactory.commands import complain
from imagefactory.console import err, out, say, transfers
from imagefactory.errors import ConfigError
from imagefactory.glance.target import CloudTarget
from imagefactory.settings import Settings
from imagefactory.workbench import Workbench

if TYPE_CHECKING:
    from imagefactory.delivery import Delivered
    from imagefactory.glance.upload import Uploaded


def target_options(command: F) -> F:
    """Add how the cloud wants the image."""
    for option in reversed(
        (
            click.option("--region", help="One of the cloud's regions."),
            click.option(
                "--format",
                type=click.Choice(["qcow2", "raw", "ami"]),
                help="The image's format in the cloud; raw for Ceph [default: qcow2].",
            ),
            click.option(
                "--name",
                help="Name of the newest build in the cloud; {image}, {arch}, {distro}, {version} "
                "stand for what they say [default: {image}-{arch}].",
            ),
            click.option(
                "--dated-name",
                help="Name of older builds, with {date} or {digest} [default: "
                "{image}-{arch}-{date}].",
            ),
            click.option(
                "--visibility",
                type=click.Choice(["private", "shared", "community", "public"]),
                help="Who sees it [default: the template's].",
            ),
            click.option(
                "--member",
                "members",
                multiple=True,
                metavar="PROJECT",
                help="Offer a shared image to a project, by its id; repeatable.",
            ),
            click.option("--protected", is_flag=True, help="Glance refuses to delete it."),
        )
    ):
        command = option(command)
    return command


def rotation_options(command: F) -> F:
    """Add what becomes of older builds."""
    for option in reversed(
        (
            click.option(
                "--old",
                type=click.Choice(["rename", "hide", "deactivate"]),
                help="What is done to older builds [default: hide]; each gets its dated name.",
            ),
            click.option(
                "--keep",
                type=click.IntRange(0),
                help="Delete older builds but so many [default: none is deleted].",
            ),
            click.option(
                "--keep-days",
                type=click.FloatRange(0, 36_500),
                help="Delete older builds but those of so many days.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    "upload",
    epilog="Examples:\n\n  imagefactory upload minimal --arch arm64 --cloud mycloud --dry-run\n\n"
    "  imagefactory upload debian-12 -a all --cloud mycloud --visibility public --keep 3\n\n"
    "  imagefactory upload minimal debian-12 --cloud all --config factory.yaml",
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@arch_option
@json_option
@click.option(
    "--cloud",
    "clouds",
    required=True,
    multiple=True,
    help="A cloud of factory.yaml or clouds.yaml; envvars: the OS_* variables; all: those of "
    "factory.yaml; repeatable.",
)
@config_option
@target_options
@rotation_options
@click.option("--dry-run", is_flag=True, help="Look at the cloud and say what would be done.")
@click.option("--allow-untested", is_flag=True, help="Also without a passed boot test.")
@click.option("--allow-older", is_flag=True, help="Also in the place of a newer build.")
@click.pass_obj
def upload_command(  # noqa: PLR0913
    bench: Workbench,
    /,
    *,
    images: tuple[str, ...],
    architectures: tuple[str, ...],
    as_json: bool,
    clouds: tuple[str, ...],
    config: Path | None,
    dry_run: bool,
    allow_untested: bool,
    allow_older: bool,
    **said: Any,
) -> int:
    """Upload the newest builds of each IMAGE to clouds, verified by the clouds' own hashes.

    What is there already is not sent again, but brought in line. An older build gives up its
    name when the new one is verified and seen. One cloud that fails does not stop the others.
    """
    targets = {
        name: _changed(target, said)
        for name, target in Settings.read(config).targets(clouds).items()
    }
    builds = [build for image in images for build in bench.builds(image, architectures)]
    if said["name"] and "{" not in said["name"] and len(builds) > 1:
        raise click.UsageError(
            "--name is for one build: name one image and one architecture, or say "
            "{image} and {arch} in it"
        )
    for broken in (one for build in builds for one in bench.catalog.broken_since(build)):
        err.print(f"[yellow]warning:[/] passed over, unreadable: {escape(str(broken))}")
    done = deliver(
        bench,
        builds,
        targets,
        dry_run=dry_run,
        allow_untested=allow_untested,
        allow_older=allow_older,
    )
    if as_json:
        click.echo(render.to_json([delivery_row(one) for one in done]))
    for one in done:
        if one.uploaded and not as_json:
            report_upload(one.uploaded, one.delivery.cloud, planned=dry_run)
    if len(done) > 1 and not as_json:
        out.print(render.deliveries_table(done, planned=dry_run))
    for one in done:
        if one.error:
            complain(one.error, one.delivery.subject)
    return next((one.error.exit_code for one in done if one.error), 0)


def _changed(target: CloudTarget, said: Mapping[str, Any]) -> CloudTarget:
    """Let the command line win over factory.yaml."""
    # Zero is said, too: `--keep 0`.
    given = {
        key: value
        for key, value in said.items()
        if value is not None and value is not False and value != ()
    }
    rotation = {key: given.pop(key) for key in ("old", "keep", "keep_days") if key in given}
    known = target.model_dump(exclude_unset=True)
    known["rotation"] = {**known.get("rotation", {}), **rotation}
    try:
        return CloudTarget.model_validate({**known, **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(first["msg"].removeprefix("Value error, ")) from None


def deliver(
    bench: Workbench,
    builds: Sequence[Build],
    targets: Mapping[str, CloudTarget],
    *,
    allow_untested: bool,
    allow_older: bool = False,
    dry_run: bool = False,
) -> list[Delivered]:
    """Bring builds to clouds, and show how far it is.

    Args:
        bench: Where the templates are, which say who shall see an image unless a target does.
        builds: What to bring.
        targets: What people call a cloud -> the cloud.
        allow_untested: Also without a passed boot test.
        allow_older: Also in the place of a newer build.
        dry_run: Only look.

    Raises:
        ConfigError: A cloud is described nowhere; nothing has been done then.
    """
    # Here and not above: openstacksdk takes half a second to load, and few commands need it.
    from imagefactory.delivery import Courier, Delivery  # noqa: PLC0415

    require(targets)
    deliveries = [
        Delivery(build, name, target, bench.visibility_of(build.image))
        for build in builds
        for name, target in targets.items()
    ]
    with transfers() as shown:
        courier = Courier(
            bench.cache,
            shown,
            lambda text: err.print(f"[yellow]again:[/] {escape(text)}", soft_wrap=True),
            allow_untested=allow_untested,
            allow_older=allow_older,
            dry_run=dry_run,
        )
        return courier.deliver(deliveries)


def require(targets: Mapping[str, CloudTarget]) -> None:
    """Refuse clouds that nothing describes.

    Raises:
        ConfigError: No clouds.yaml and no OS_* variables describe one.
    """
    from imagefactory.glance.login import check_configured  # noqa: PLC0415 (as above)

    for name, target in targets.items():
        try:
            check_configured(target.cloud or name, target.region)
        except ConfigError as error:
            if target.cloud:  # people know it by the name that they gave it
                error.message = f"{name}: {error.message}"
            raise


def delivery_row(one: Delivered) -> dict[str, Any]:
    """Tell programs what became of a delivery."""
    build = one.delivery.build
    row: dict[str, Any] = {
        "image": build.image,
        "architecture": build.architecture,
        "cloud": one.delivery.cloud,
    }
    if one.error:
        row |= {"error": one.error.message, "hint": one.error.hint}
    return row | (asdict(one.uploaded) if one.uploaded else {})


def report_upload(done: Uploaded, cloud: str, *, planned: bool = False) -> None:
    """Print what an upload did, or would do."""
    who = f"{done.name} in {cloud}"
    if planned:
        what = "would be done:" if done.steps else "as it should be, nothing would be done"
        say(f"{who}: {what}")
    elif done.sent:
        say(
            f"{who}: {render.megabytes(done.size)} sent in {done.seconds:.1f} s, "
            f"verified by os_hash_value, {done.visibility}, id {done.id}"
        )
    else:
        changed = "brought in line" if done.steps else "as it should be"
        say(f"{who}: already there as {done.id}, {changed}, nothing was sent")
    for step in done.steps:
        say(f"  {step}")
    for text in done.left:
        say(f"  left: {text}")
