"""What the documentation tells people to type works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from openstack.config import OpenStackConfig
from ruamel.yaml import YAML

from imagefactory import template
from imagefactory.arch import ArchProfiles
from imagefactory.cli import main
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.packages.mirrors import Mirrors
from imagefactory.settings import Settings
from imagefactory.template import ImageTemplate
from tests.factory import MINUTES, Factory
from tests.glance.cloud import GlanceCloud

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"# ~/\.config/imagefactory/(\w+)/(\S+)\.yaml\n")
BASES = {"minimal": "minimal", "rpm": "centos-stream-10"}
"""Section of a builder -> what a part of a template that has it is taken to extend."""
INLINE = re.compile(r"`(imagefactory [^`]+)`")


def commands_of(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for block in BLOCK.findall(text)]
    lines = [line for block in blocks for line in block.splitlines()]
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


def examples_of(page: Path) -> list[str]:
    return YAML_BLOCK.findall(page.read_text(encoding="utf-8"))


EXAMPLES = [(page.name, example) for page in PAGES for example in examples_of(page)]


@pytest.mark.parametrize(("page", "example"), EXAMPLES)
def test_each_example_in_yaml_is_what_the_program_reads(
    page: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = SearchPath((tmp_path, shipped_directory()))
    named = NAMED_FILE.match(example)
    content = YAML(typ="safe").load(example)
    if named:
        kind, name = named.groups()
        write(tmp_path / kind / f"{name}.yaml", example)
        templates, mistakes = template.load_each(path)
        assert mistakes == (), page
        assert name in (templates if kind == "templates" else ArchProfiles.load(path).names), page
    elif "mirrors" in content:
        write(tmp_path / "imagefactory/mirrors.yaml", example)
        assert Mirrors.chosen([]).rules
    elif example.startswith("# ~/.config/imagefactory/factory.yaml\n"):
        write(tmp_path / "imagefactory/factory.yaml", example)
        assert set(Settings.read().targets(["all"])) == set(content["clouds"])
    elif "clouds" in content:
        write(tmp_path / "clouds.yaml", example)
        files = OpenStackConfig(config_files=[str(tmp_path / "clouds.yaml")])
        assert files.get_one("mycloud").get_auth_args()["auth_url"]
    else:  # a part of a template: a mapping, or one of its tests
        part = {"tests": content} if isinstance(content, list) else content
        extended = next((BASES[key] for key in BASES if key in part), "debian-12")
        whole = {"name": "part", "extends": extended, "description": "a part", **part}
        write(tmp_path / "templates/part.yaml", json.dumps(whole))
        template.load(path, "part")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_every_key_of_a_template_is_documented() -> None:
    told = (ROOT / "docs/templates.md").read_text(encoding="utf-8")
    schema = ImageTemplate.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    keys = {key for part in parts for key in part.get("properties", {})}
    assert {
        key for key in keys if not re.search(rf"`[^`]*\b{re.escape(key)}\b[^`]*`", told)
    } == set()


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
