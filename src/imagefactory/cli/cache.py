"""Commands of the cache: show, prune."""

from __future__ import annotations

from dataclasses import asdict

import click

from imagefactory import cache, render
from imagefactory.cli.options import json_option, reading
from imagefactory.console import out, say
from imagefactory.workbench import Workbench


@click.group("cache")
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
    say(f"{total} in {bench.cache}; builds prune it to {bound}")


@cache_group.command(
    "prune",
    epilog="Examples:\n\n  imagefactory cache prune\n\n"
    "  imagefactory cache prune --max-size 10G --older-than 30d --dry-run",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    callback=reading(cache.parse_size),
    help="How much may stay: 500M, 10G [default: what builds prune it to].",
)
@click.option(
    "--older-than",
    metavar="AGE",
    callback=reading(cache.parse_age),
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
