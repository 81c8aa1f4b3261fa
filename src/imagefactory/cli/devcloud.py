"""Commands of the devcloud: up, down, status."""

from __future__ import annotations

import shlex
from dataclasses import asdict

import click

from imagefactory import render
from imagefactory.cli.options import json_option
from imagefactory.console import Board, say
from imagefactory.devcloud.place import NAME, UP, Place
from imagefactory.errors import CloudError
from imagefactory.progress import Stages
from imagefactory.workbench import Workbench


@click.group(
    "devcloud",
    epilog="Examples:\n\n  imagefactory devcloud up\n\n"
    "  imagefactory upload minimal --arch arm64 --cloud devcloud\n\n"
    "  imagefactory devcloud down",
)
def devcloud_group() -> None:
    """Run a real Keystone and Glance on this machine, to upload to without a cloud.

    They listen on 127.0.0.1 only, belong to the user who started them, and know two clouds:
    devcloud, of a member of a project, and devcloud-admin, of the administrator.
    """


@devcloud_group.command(
    "up",
    epilog="Examples:\n\n  imagefactory devcloud up\n\n"
    "  imagefactory upload minimal --arch arm64 --cloud devcloud\n\n"
    "  openstack --os-cloud devcloud image list   # after the line with `export` that it prints",
)
@json_option
@click.pass_obj
def up_command(bench: Workbench, *, as_json: bool) -> None:
    """Start the devcloud in the background, with all that it had when it was stopped.

    The first time it installs Keystone and Glance from PyPI into the cache, which takes a minute;
    from then on it needs no network.
    """
    # Here and not above: what it takes loads for half a second, and few commands need it.
    from imagefactory.devcloud import cloud  # noqa: PLC0415

    place = Place.default()
    board = Board([NAME])
    stages = Stages(board.announcer(NAME))
    with board.running():
        started = cloud.up(place, bench.cache, stages)
    status = cloud.look(place)
    if started:
        board.end(NAME, "is up", stages.seconds, well=True)
    elif not as_json:
        say("devcloud runs already")
    if as_json:
        click.echo(render.to_json(asdict(status)))
        return
    say(f"Keystone {status.keystone}, Glance {status.glance}")
    say("upload to it:       imagefactory upload minimal --arch arm64 --cloud devcloud")
    file = shlex.quote(status.clouds_yaml)
    say(f"for other clients:  export OS_CLIENT_CONFIG_FILE={file}")
    say("stop it:            imagefactory devcloud down")


@devcloud_group.command(
    "down",
    epilog="Examples:\n\n  imagefactory devcloud down\n\n  imagefactory devcloud down --delete",
)
@click.option("--delete", is_flag=True, help="Remove its images, users and passwords as well.")
def down_command(*, delete: bool) -> None:
    """Stop the devcloud; its images stay for the next time."""
    from imagefactory.devcloud import cloud  # noqa: PLC0415 (as above)

    board = Board([NAME])
    ran = cloud.down(Place.default(), Stages(board.announcer(NAME)), delete=delete)
    say(f"devcloud {'is stopped' if ran else 'did not run'}{', and deleted' if delete else ''}")


@devcloud_group.command(
    "status",
    epilog="Examples:\n\n  imagefactory devcloud status\n\n"
    "  imagefactory devcloud status --json || imagefactory devcloud up",
)
@json_option
def status_command(*, as_json: bool) -> int:
    """Say whether the devcloud runs, where, and what it holds.

    Exit status 0: it runs and answers; 8: it does not.
    """
    from imagefactory.devcloud import cloud  # noqa: PLC0415 (as above)

    status = cloud.look(Place.default())
    if as_json:
        click.echo(render.to_json(asdict(status)))
    else:
        for line in render.devcloud_lines(status):
            say(line)
        if not status.running:
            say(f"start it: {UP}")
    return 0 if status.running else CloudError.exit_code
