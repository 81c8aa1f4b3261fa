"""The command line: parse, call, render; no logic."""

from __future__ import annotations

from pathlib import Path

import click

from imagefactory import __version__
from imagefactory.catalog import Catalog
from imagefactory.cli.adopt import adopt_command
from imagefactory.cli.build import build_command, plan_command
from imagefactory.cli.cache import cache_group
from imagefactory.cli.devcloud import devcloud_group
from imagefactory.cli.look import doctor_command, list_command, schema_command, show_command
from imagefactory.cli.proof import test_command, verify_command
from imagefactory.cli.upload import upload_command
from imagefactory.cli.validate import validate_command
from imagefactory.commands import Commands
from imagefactory.data import SearchPath, cache_directory
from imagefactory.workbench import Workbench


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
    type=click.Path(path_type=Path, resolve_path=True),
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


for _command in (
    doctor_command,
    list_command,
    show_command,
    plan_command,
    build_command,
    adopt_command,
    test_command,
    verify_command,
    validate_command,
    upload_command,
    schema_command,
    cache_group,
    devcloud_group,
):
    main.add_command(_command)
