"""What people see: tables of builds, plans and boot tests. No decisions are made here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from imagefactory.boot.report import SECOND
from imagefactory.catalog import Build
from imagefactory.errors import ImageFactoryError
from imagefactory.plan import BuildPlan
from imagefactory.verify import Verdict

if TYPE_CHECKING:
    from imagefactory.delivery import Delivered
    from imagefactory.devcloud.cloud import Status

_VERDICT_STYLE = {"passed": "green", "failed": "red", "skipped": "yellow", "untested": "yellow"}


def megabytes(size: int) -> str:
    """Return a size in megabytes (10^6 bytes), as image lists have it."""
    return f"{size / 1e6:.1f} MB"


def seconds(value: float | None) -> str:
    """Return a duration, or a dash."""
    return "-" if value is None else f"{value:.1f} s"


def build_row(build: Build) -> dict[str, Any]:
    """Return what tables and ``--json`` say of a build."""
    passed, made = build.checks
    return {
        "image": build.image,
        "architecture": build.architecture,
        "built": str(build.manifest["built"]),
        "size": build.size,
        "boot_seconds": build.boot_seconds,
        "checks_passed": passed,
        "checks": made,
        "verdict": build.verdict,
        "seconds": build.manifest["seconds"],
        "digest": build.digest,
        "disk": str(build.disk),
    }


def failure_row(image: str, architecture: str, error: ImageFactoryError) -> dict[str, Any]:
    """Return what ``--json`` says of a build that failed."""
    return {
        "image": image,
        "architecture": architecture,
        "verdict": "failed",
        "error": error.message,
        "hint": error.hint,
        "log": str(error.log) if error.log else None,
        "exit_code": error.exit_code,
    }


def build_in_words(build: Build) -> str:
    """Tell in one line what came out."""
    words = [megabytes(build.size)]
    if build.boot_seconds is not None:
        words.append(f"boots in {seconds(build.boot_seconds)}")
    return " · ".join([*words, _checks(build)])


def builds_table(rows: Iterable[Build | tuple[str, str, str]]) -> Table:
    """Show builds, what came out and how it was proven.

    Args:
        rows: Builds; or image, architecture and reason of one that failed.
    """
    table = _table("image", "architecture", "size", "boots in", "checks")
    for row in rows:
        if not isinstance(row, Build):
            image, architecture, message = row
            reason = Text(f"failed: {message.splitlines()[0]}", style="red", overflow="fold")
            table.add_row(image, architecture, "-", "-", reason)
            continue
        table.add_row(
            row.image,
            row.architecture,
            megabytes(row.size),
            seconds(row.boot_seconds),
            f"[{_VERDICT_STYLE[row.verdict]}]{_checks(row)}[/]",
        )
    return table


def _checks(build: Build) -> str:
    passed, made = build.checks
    return f"{passed}/{made} {build.verdict}" if made else build.verdict


def gigabytes(size: float) -> str:
    """Return a size with the unit that suits it, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def cache_table(kinds: Sequence[dict[str, Any]]) -> Table:
    """Show what the cache holds, kind by kind."""
    table = _table("kind", "holds", "entries", "size", "oldest use", "newest use")
    for column in table.columns:
        column.no_wrap = column.header != "holds"
        column.justify = "right" if column.header in {"entries", "size"} else "left"
    for kind in kinds:
        table.add_row(
            escape(kind["kind"]),
            kind["holds"],
            str(kind["entries"]),
            gigabytes(kind["bytes"]),
            *(kind[key][:10] for key in ("oldest_use", "newest_use")),
        )
    return table


def devcloud_lines(status: Status) -> Iterator[str]:
    """Say what a look at the devcloud shows; plain lines, for paths are for copying."""
    partly = len(status.silent) == 1

    def where(service: str, url: str | None) -> str:
        return f"{url or '-'}{', does not answer' if partly and service in status.silent else ''}"

    for name, value in (
        ("devcloud", "running" if status.running else "stopped"),
        ("Keystone", where("keystone", status.keystone)),
        ("Glance", where("glance", status.glance)),
        ("clouds.yaml", status.clouds_yaml),
        ("images", f"{status.images}, {megabytes(status.size)} on the disk with all else"),
    ):
        yield f"{name:12} {value}"


def list_table(rows: Sequence[tuple[str, str, Build | None]]) -> Table:
    """Show images x architectures with their last builds."""
    table = _table("image", "architecture", "last build", "boot test", "boots in", "size")
    for image, architecture, build in rows:
        if build is None:
            table.add_row(image, architecture, "[dim]never[/]", "-", "-", "-")
            continue
        style = _VERDICT_STYLE[build.verdict]
        table.add_row(
            image,
            architecture,
            str(build.manifest["built"])[:16].replace("T", " "),
            f"[{style}]{build.verdict}[/]",
            seconds(build.boot_seconds),
            megabytes(build.size),
        )
    return table


def deliveries_table(done: Iterable[Delivered], *, planned: bool) -> Table:
    """Show what became of each build in each cloud."""
    table = _table("image", "architecture", "cloud", "outcome")
    for one in done:
        build = one.delivery.build
        table.add_row(build.image, build.architecture, one.delivery.cloud, _outcome(one, planned))
    return table


def _outcome(one: Delivered, planned: bool) -> str:
    if one.uploaded is None:
        return "[red]failed[/]"
    if planned:
        return "would be changed" if one.uploaded.steps else "as it should be"
    if one.uploaded.sent:
        return "[green]sent[/]"
    return "[green]brought in line[/]" if one.uploaded.steps else "[green]as it should be[/]"


def markdown_table(builds: Iterable[Build]) -> str:
    """Return builds as a Markdown table, for the README."""
    lines = [
        "| image | architecture | size | boots in | memory | checks |",
        "|---|---|--:|--:|--:|---|",
    ]
    for build in builds:
        passed, made = build.checks
        memory = build.properties.get("min_ram", "-")
        lines.append(
            f"| {build.image} | {build.architecture} | {megabytes(build.size)} "
            f"| {seconds(build.boot_seconds)} | {memory} MiB | {passed} of {made} passed |"
        )
    return "\n".join(lines) + "\n"


def plan_table(plan: BuildPlan) -> Table:
    """Show what a build would do."""
    table = _table(plan.name, "", show_header=False)
    facts = plan.facts()
    table.add_row("digest", facts["digest"])
    table.add_row("template", Text(facts["template"], overflow="fold"))
    table.add_row("kernel", facts["kernel"])
    table.add_row("boot", ", ".join(facts["boot"]) or "kernel and ramdisk apart")
    table.add_row("disk", f"{facts['disk_size_mib']} MiB, grows with the guest's disk")
    table.add_row("mirrors", Text("\n".join(facts["mirrors"]), overflow="fold"))
    table.add_row("packages", Text(" ".join(map(str, plan.image_packages)), overflow="fold"))
    table.add_row("tools", Text(" ".join(facts["tools"]), overflow="fold"))
    properties = "\n".join(f"{key}={value}" for key, value in sorted(plan.properties.items()))
    table.add_row("properties", Text(properties))
    tests = "\n".join(f"{case.name}: {case.datasource}, {case.network}" for case in plan.cases)
    table.add_row("boot tests", Text(tests))
    for warning in plan.warnings:
        table.add_row("[yellow]warning[/]", Text(warning, style="yellow"))
    return table


def report_table(
    cases: Iterable[dict[str, Any]], comparisons: Iterable[dict[str, Any]] = ()
) -> Table:
    """Show each check of a boot test, and those of all boots together."""
    table = _table("boot", "check", "verdict", "what was seen")
    for case in cases:
        for check in case["checks"]:
            _check_row(table, case["name"], check)
        # A second boot counts from zero again.
        in_time = sorted(
            case["milestones"].items(), key=lambda item: (item[0].startswith(SECOND), item[1])
        )
        milestones = ", ".join(f"{name} {at:.1f} s" for name, at in in_time)
        table.add_row(case["name"], "[dim]milestones[/]", "", f"[dim]{milestones}[/]")
    for check in comparisons:
        _check_row(table, "all boots", check)
    return table


def _check_row(table: Table, boot: str, check: dict[str, Any]) -> None:
    style = _VERDICT_STYLE[check["verdict"]]
    table.add_row(
        escape(boot),
        escape(check["name"]),
        f"[{style}]{check['verdict']}[/]",
        Text(str(check["detail"]), overflow="fold"),
    )


def verdict_text(verdict: Verdict) -> str:
    """Tell as markup whether a build could be repeated, and what differs."""
    style = "green" if verdict.identical else "red"
    lines = [f"[{style}]{escape(verdict.in_words)}[/]"]
    lines += [f"  {escape(line)}" for line in verdict.differences[1:]]
    if verdict.changed:
        lines.append("changed since then (packages and template were taken as they were):")
        lines += [f"  {escape(line)}" for line in verdict.changed]
    if verdict.kept:
        lines.append(f"kept: {escape(str(verdict.kept))}")
    return "\n".join(lines)


def error_text(message: str, hint: str, log: object) -> str:
    """Return an error as markup: what failed, what to try, where the log is."""
    lines = [f"[bold red]error:[/] {escape(message)}"]
    if hint:
        lines.append(f"[bold]hint:[/]  {escape(hint)}")
    if log:
        lines.append(f"[bold]log:[/]   {escape(str(log))}")
    return "\n".join(lines)


def to_json(value: object) -> str:
    """Return JSON for programs to read."""
    return json.dumps(value, indent=2, sort_keys=True, default=str)


_NAMES = {"image", "architecture"}


def _table(*columns: str, show_header: bool = True) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        header_style="bold",
        show_header=show_header,
    )
    for column in columns:
        # Names tell rows apart: other columns are broken before a name is.
        table.add_column(column, no_wrap=column in _NAMES, overflow="fold")
    return table
