"""The command that puts builds into a cloud."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from imagefactory import render, template
from imagefactory.catalog import Build
from imagefactory.cli.options import F, arch_option, json_option
from imagefactory.console import err, out, transfer
from imagefactory.glance.target import CloudTarget
from imagefactory.workbench import Workbench

if TYPE_CHECKING:
    from imagefactory.glance.upload import Uploaded


def target_options(command: F) -> F:
    """Add how the cloud wants the image."""
    for option in reversed(
        (
            click.option("--region", help="One of the cloud's regions."),
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
                type=click.FloatRange(0),
                help="Delete older builds but those of so many days.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    "upload",
    epilog="Examples:\n\n  imagefactory upload minimal --arch arm64 --cloud mycloud --dry-run\n\n"
    "  imagefactory upload debian-12 -a all --cloud mycloud --visibility public --keep 3",
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@arch_option
@json_option
@click.option("--cloud", required=True, help="A cloud of clouds.yaml; envvars: the OS_* variables.")
@target_options
@rotation_options
@click.option("--dry-run", is_flag=True, help="Look at the cloud and say what would be done.")
@click.option("--allow-untested", is_flag=True, help="Also without a passed boot test.")
@click.pass_obj
def upload_command(
    bench: Workbench,
    /,
    *,
    images: tuple[str, ...],
    architectures: tuple[str, ...],
    as_json: bool,
    cloud: str,
    dry_run: bool,
    allow_untested: bool,
    **said: Any,
) -> None:
    """Upload the newest builds of each IMAGE to a cloud, verified by the cloud's own hash.

    What is there already is not sent again, but brought in line. An older build gives up its
    name when the new one is verified and seen.
    """
    target = _target(said)
    builds = [build for image in images for build in bench.builds(image, architectures)]
    if "{" not in target.name and len(builds) > 1:
        raise click.UsageError(
            "--name is for one build: name one image and one architecture, or say "
            "{image} and {arch} in it"
        )
    uploads = []
    for build in builds:
        with transfer(f"upload {build.image} {build.architecture}") as progress:
            uploads.append(
                upload_one(
                    bench,
                    build,
                    cloud,
                    target,
                    progress=progress,
                    announce=lambda text: err.print(f"upload: {text}", soft_wrap=True),
                    dry_run=dry_run,
                    allow_untested=allow_untested,
                )
            )
    if as_json:
        click.echo(render.to_json([asdict(done) for done in uploads]))
        return
    for done in uploads:
        report_upload(done, planned=dry_run)


def _target(said: dict[str, Any]) -> CloudTarget:
    rotation = {key: said.pop(key) for key in ("old", "keep", "keep_days")}
    given = {key: value for key, value in said.items() if value not in (None, ())}
    try:
        return CloudTarget.model_validate(
            {**given, "rotation": {k: v for k, v in rotation.items() if v is not None}}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(first["msg"].removeprefix("Value error, ")) from None


def upload_one(
    bench: Workbench, build: Build, cloud: str, target: CloudTarget, **manner: Any
) -> Uploaded:
    """Put one build into a cloud.

    Args:
        bench: Where its template is, which says who shall see it unless the target does.
        build: The build.
        cloud: Of clouds.yaml.
        target: How the cloud wants it.
        manner: More of `glance.upload.Manner`.

    Raises:
        CloudError: Glance or Keystone refused, or answered something else than was sent.
    """
    # Here and not above: openstacksdk takes half a second to load, and few commands need it.
    from imagefactory.glance.upload import Manner, NewImage, upload  # noqa: PLC0415

    item, _ = template.load(bench.path, build.image)
    image = NewImage.of_build(build, target, item.visibility)
    how = Manner(rotation=target.rotation, region=target.region, **manner)
    return upload(image, cloud=cloud, manner=how)


def require(cloud: str) -> None:
    """Refuse a cloud that nothing describes.

    Raises:
        ConfigError: No clouds.yaml and no OS_* variables describe it.
    """
    from imagefactory.glance.client import check_configured  # noqa: PLC0415 (as above)

    check_configured(cloud)


def report_upload(done: Uploaded, *, planned: bool = False) -> None:
    """Print what an upload did, or would do."""

    def line(text: str) -> None:
        out.print(text, soft_wrap=True, markup=False)

    if planned:
        what = "would be done:" if done.steps else "as it should be, nothing would be done"
        line(f"{done.name}: {what}")
    elif done.sent:
        line(
            f"{done.name}: {render.megabytes(done.size)} sent in {done.seconds:.1f} s, "
            f"verified by os_hash_value, {done.visibility}, id {done.id}"
        )
    else:
        changed = "brought in line" if done.steps else "as it should be"
        line(f"{done.name}: already there as {done.id}, {changed}, nothing was sent")
    for step in done.steps:
        line(f"  {step}")
    for text in done.left:
        line(f"  left: {text}")
