"""The command that puts builds into a cloud."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import click

from imagefactory import render, template
from imagefactory.catalog import Build
from imagefactory.cli.options import arch_option, json_option
from imagefactory.console import out, transfer
from imagefactory.workbench import Workbench

if TYPE_CHECKING:
    from imagefactory.glance.upload import Uploaded


@click.command("upload")
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
            done = upload_one(
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
        report_upload(done)


def upload_one(
    bench: Workbench,
    build: Build,
    cloud: str,
    progress: Callable[[int, int], None],
    *,
    name: str | None = None,
    visibility: Literal["private", "shared", "community", "public"] | None = None,
    allow_untested: bool = False,
) -> Uploaded:
    """Put one build into a cloud.

    Args:
        bench: Where its template is, which says who shall see it.
        build: The build.
        cloud: Of clouds.yaml.
        progress: Is told bytes sent, and bytes in all.
        name: In the cloud; unset: image and architecture.
        visibility: In the place of the template's.
        allow_untested: Also without a passed boot test.

    Raises:
        CloudError: Glance or Keystone refused, or answered something else than was sent.
    """
    # Here and not above: openstacksdk takes half a second to load, and few commands need it.
    from imagefactory.glance.upload import NewImage, upload  # noqa: PLC0415

    item, _ = template.load(bench.path, build.image)
    image = NewImage.of_build(build, name, visibility or item.visibility)
    return upload(image, cloud=cloud, allow_untested=allow_untested, progress=progress)


def require(cloud: str) -> None:
    """Refuse a cloud that nothing describes.

    Raises:
        ConfigError: No clouds.yaml and no OS_* variables describe it.
    """
    from imagefactory.glance.client import check_configured  # noqa: PLC0415 (as above)

    check_configured(cloud)


def report_upload(done: Uploaded) -> None:
    """Print what an upload did."""
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
