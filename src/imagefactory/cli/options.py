"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


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


def config_option(command: F) -> F:
    """Add ``--config``."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="The factory's clouds [default: $XDG_CONFIG_HOME/imagefactory/factory.yaml].",
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


def boot_options(command: F) -> F:
    """Add how a disk that no template describes is booted."""
    for option in reversed(
        (
            click.option(
                "--property",
                "-p",
                "changes",
                multiple=True,
                metavar="KEY=VALUE",
                help="An image property; repeatable.",
            ),
            click.option(
                "--datasource",
                "datasources",
                multiple=True,
                type=click.Choice(["config-drive", "openstack", "ec2", "nocloud", "none"]),
                help="Boot once with each [default: config-drive].",
            ),
            click.option(
                "--reboot", is_flag=True, help="Let each guest reboot and prove itself again."
            ),
            click.option(
                "--memory", type=click.IntRange(32), help="MiB [default: min_ram, else 512]."
            ),
            click.option("--budget", type=click.IntRange(1), help="Seconds from power-on to SSH."),
        )
    ):
        command = option(command)
    return command


def source_options(command: F) -> F:
    """Add where packages come from."""
    command = click.option(
        "--offline",
        is_flag=True,
        help="Ask nothing from the network: package lists as last fetched, packages from the "
        "cache.",
    )(command)
    return mirror_option(command)


def mirror_option(command: F) -> F:
    """Add ``--mirror``."""
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


def reading(
    read: Callable[[str], T],
) -> Callable[[click.Context, click.Parameter, Any], T | None]:
    """Return what reads an option's value, or says how it is written."""

    def convert(_context: click.Context, _parameter: click.Parameter, value: Any) -> T | None:
        try:
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert
