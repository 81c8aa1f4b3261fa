"""Commands that prove something of an image: test, verify."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click
from rich.markup import escape

from imagefactory import imagetest, render, verify
from imagefactory.cli.options import (
    arch_option,
    boot_options,
    json_option,
    proof_options,
    source_options,
)
from imagefactory.console import Board, out, say
from imagefactory.errors import BuildError
from imagefactory.packages.mirrors import Mirrors
from imagefactory.progress import Stages
from imagefactory.schedule import Schedule
from imagefactory.workbench import Workbench


@click.command(
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
@boot_options
@click.option(
    "--format",
    "disk_format",
    type=click.Choice(["qcow2", "raw"]),
    help="The disk's format [default: raw for .raw, else qcow2].",
)
@click.option(
    "--properties",
    "properties_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON file of image properties [default: the build's manifest, or the profile's].",
)
@click.option(
    "--kernel",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Start this kernel, as nova does for images with kernel_id; os_command_line is its line.",
)
@click.option(
    "--ramdisk",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The ramdisk (initramfs) that goes with it, as of ramdisk_id.",
)
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
    kernel: Path | None,
    ramdisk: Path | None,
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
        kernel=kernel,
        ramdisk=ramdisk,
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
        say(f"evidence: {where}")
    return 0 if report.passed else 7


@click.command(
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
