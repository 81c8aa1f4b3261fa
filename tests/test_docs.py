"""What the documentation tells people to type works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from imagefactory.cli import main
from tests.factory import MINUTES, Factory
from tests.glance.cloud import GlanceCloud

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(imagefactory [^`]+)`")


def commands_of(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    told = [line.removeprefix("$ ") for line in lines]
    return [line for line in (*told, *INLINE.findall(text)) if line.startswith("imagefactory ")]


ALL = [(page.name, command) for page in PAGES for command in commands_of(page)]


def test_the_documentation_has_commands() -> None:
    assert len(ALL) > 10


@pytest.mark.parametrize(("page", "command"), ALL)
def test_each_command_and_option_exists(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    if set(words) & {"COMMAND", "...", "…"}:
        words = ["--help"]
    context = click.Context(main)
    _, rest, _ = main.make_parser(context).parse_args(list(words))
    if not rest:
        return
    name, chosen, arguments = main.resolve_command(context, rest)
    assert chosen is not None, f"{page}: {command}"
    options = [word for word in arguments if word not in {"--help", "-h"}]
    chosen.make_parser(click.Context(chosen, info_name=name)).parse_args(options)


@pytest.mark.system
@pytest.mark.timeout(20 * MINUTES)
def test_the_first_five_minutes_of_the_readme(factory: Factory, glance_cloud: GlanceCloud) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Five minutes to an image in your cloud", 1)[1]
    lines = BLOCK.findall(section)[0].splitlines()
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line.replace("mycloud", "member"), comments=True)
        assert words[0] == "imagefactory"
        factory.run(*words[1:])

    (image,) = [
        image for image in glance_cloud.images() if image.get("imagefactory_arch") == "aarch64"
    ]
    assert image["imagefactory_tested"] == "yes"
    assert image["hw_firmware_type"] == "uefi"
    assert json.loads(factory.run("show", "minimal", "-a", "arm64", "--json").stdout)
