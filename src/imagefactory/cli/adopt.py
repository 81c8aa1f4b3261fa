"""The command that takes in images that were not built here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import TypeAdapter, ValidationError

from imagefactory import cache, render
from imagefactory.arch import Name
from imagefactory.cli.look import show_builds
from imagefactory.cli.options import (
    arch_option,
    boot_options,
    json_option,
    proof_options,
    reading,
)
from imagefactory.console import Board, say
from imagefactory.errors import ConfigError, ImageFactoryError
from imagefactory.pipeline import Factory
from imagefactory.progress import Stages
from imagefactory.schedule import Schedule
from imagefactory.vendor.checksums import Checksum
from imagefactory.vendor.claims import Claims
from imagefactory.workbench import Workbench


def _name(text: str) -> str:
    try:
        return TypeAdapter(Name).validate_python(text)
    except ValidationError:
        raise ValueError(
            "a name has small letters, digits and . _ + - only, and 64 at most"
        ) from None


@click.command(
    "adopt",
    epilog="Examples:\n\n"
    "  imagefactory adopt https://example.org/server-arm64.qcow2.xz --name server -a arm64 "
    "--checksums https://example.org/SHA256SUMS --signature https://example.org/SHA256SUMS.gpg "
    "--key example.asc -p os_distro=debian -p os_version=12 -p os_admin_user=debian\n\n"
    "  imagefactory adopt disk.raw --name mine -a ppc64le --unverified --dry-run",
)
@click.argument("source", metavar="FILE|URL")
@click.option(
    "--name", required=True, callback=reading(_name), help="What it is called here, and in clouds."
)
@arch_option
@json_option
@click.option(
    "--checksum",
    callback=reading(Checksum.parse),
    metavar="HEX",
    help="Its sha256, sha384 or sha512.",
)
@click.option("--checksums", metavar="FILE|URL", help="A list that has it, like SHA256SUMS.")
@click.option(
    "--signature",
    metavar="FILE|URL",
    help="Detached signature of the list, or of the image where there is no list.",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The signer's OpenPGP key; with it and no --signature, the list signs itself; repeatable.",
)
@click.option("--unverified", is_flag=True, help="Take it as it is.")
@boot_options
@proof_options
@click.option("--skip-test", is_flag=True, help="Do not boot it; it is marked as untested.")
@click.option("--dry-run", is_flag=True, help="Fetch, verify and look, and say what would be told.")
@click.pass_obj
def adopt_command(  # noqa: PLR0913
    bench: Workbench,
    *,
    source: str,
    name: str,
    architectures: tuple[str, ...],
    as_json: bool,
    checksum: Checksum | None,
    checksums: str | None,
    signature: str | None,
    keys: tuple[Path, ...],
    unverified: bool,
    changes: tuple[str, ...],
    datasources: tuple[str, ...],
    reboot: bool,
    memory: int | None,
    budget: int | None,
    accelerator: Literal["auto", "kvm", "tcg"],
    jobs: int | None,
    skip_test: bool,
    dry_run: bool,
) -> int:
    """Take in an image that was not built here: verify, inspect and boot-test it.

    FILE or URL is a qcow2 or raw disk, maybe compressed (xz, gzip, bzip2). What passes is in the
    catalog like a build of ours: `show`, `upload`, `validate --built` know it by its name. What
    is there already, with these properties, is not booted again.
    """
    from imagefactory.adoption import Order, adopt  # noqa: PLC0415 (as in cli/upload.py)

    chosen = bench.profiles.select(architectures)
    if len(chosen) != 1:
        raise click.UsageError("an image is for one architecture: say which, like --arch aarch64")
    if bench.is_described(name):
        raise ConfigError(
            f"{name} is an image of a template", hint="give what is adopted another --name"
        )
    order = Order(
        source,
        name,
        chosen[0],
        Claims(checksum, checksums, signature, keys, unverified),
        changes,
        datasources,
        reboot,
        memory,
        budget,
    )
    room_for_cache = cache.allowed_size()
    label = f"{name} {chosen[0].name}"
    board = Board([label])
    stages = Stages(board.announcer(label))
    with board.running():
        factory = Factory(
            bench.profiles,
            bench.catalog,
            bench.cache,
            accelerator=accelerator,
            skip_test=skip_test,
            schedule=Schedule.of_this_host(jobs),
            announce=stages.announce,
        )
        try:
            done = adopt(order, factory, stages, dry_run=dry_run)
        except ImageFactoryError as error:
            board.end(label, f"failed: {error.message.splitlines()[0]}", {}, well=False)
            raise
        result = render.build_in_words(done.build) if done.build else "verified, not kept"
        board.end(label, result, stages.seconds, well=True)
    cache.prune(bench.cache, max_size=room_for_cache)
    if as_json:
        row = render.build_row(done.build) if done.build else {}
        told = {"verified": done.verified, "properties": done.properties, "known": done.known}
        click.echo(render.to_json({**row, **told}))
        return 0
    if done.build and not dry_run:
        show_builds([done.build])
    else:
        for key, value in sorted(done.properties.items()):
            say(f"{key}={value}")
    say(f"verified: {done.verified}")
    if done.known:
        say("it is there already, with these properties, and is not booted again")
    return 0
