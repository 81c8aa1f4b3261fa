from __future__ import annotations

from pathlib import Path

import pytest

from imagefactory.data import SearchPath
from imagefactory.errors import ConfigError
from imagefactory.packages.mirrors import Mirrors
from imagefactory.template import ImageTemplate, Repository, load

MAIN, SECURITY = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "imagefactory"


def template(*mirrors: str, tools: tuple[str, ...] = ()) -> ImageTemplate:
    item, _ = load(SearchPath.default(), "minimal")

    def made(addresses: tuple[str, ...]) -> tuple[Repository, ...]:
        return tuple(Repository(suite="s", mirror=text, keyring="/k") for text in addresses)

    update = {"repositories": made(mirrors), "tool_repositories": made(tools)}
    return item.model_copy(update=update)


def rewritten(words: list[str], *mirrors: str) -> list[str]:
    image, tools = Mirrors.parse(words).of(template(*mirrors), "amd64")
    assert tools == image
    return [repository.mirror for repository in image]


@pytest.mark.parametrize(
    ("word", "main", "security"),
    [
        ("http://my", "http://my/debian", "http://my/debian-security"),
        ("http://my/", "http://my/debian", "http://my/debian-security"),
        ("http://my/debian", "http://my/debian", "http://my/debian-security"),
        ("https://my/debian/", "https://my/debian", "https://my/debian-security"),
        ("http://my/debian-security", "http://my/debian", "http://my/debian-security"),
        ("http://my:8080/pub/debian", "http://my:8080/pub/debian", "http://my:8080/pub/debian-security"),
        ("file:///srv/mirror", "file:///srv/mirror/debian", "file:///srv/mirror/debian-security"),
    ],
)  # fmt: skip
def test_one_address_stands_for_what_lies_side_by_side(word: str, main: str, security: str) -> None:
    assert rewritten([word], MAIN, SECURITY) == [main, security]


def test_what_lies_elsewhere_stays() -> None:
    other = "https://download.example.com/debian"
    assert rewritten(["http://my/debian"], MAIN, other) == ["http://my/debian", other]


def test_http_and_https_are_one_host() -> None:
    secure = SECURITY.replace("http:", "https:")
    assert rewritten(["http://my"], MAIN, secure)[1] == "http://my/debian-security"


def test_old_is_replaced_by_new_and_by_whole_names_only() -> None:
    assert rewritten([f"{MAIN}=http://my/d"], MAIN, SECURITY) == ["http://my/d", SECURITY]
    assert rewritten(["http://deb.debian.org/=file:///m/"], MAIN) == ["file:///m/debian"]


def test_the_first_rule_that_fits_counts_and_no_rule_follows_another() -> None:
    words = [f"{SECURITY}=http://my/updates", "http://my/debian", "http://my=http://never"]
    assert rewritten(words, MAIN, SECURITY) == ["http://my/debian", "http://my/updates"]


def test_the_tools_come_from_there_too() -> None:
    image, tools = Mirrors.parse(["http://my"]).of(template(MAIN, tools=(SECURITY,)), "amd64")
    assert [item.mirror for item in (*image, *tools)] == [
        "http://my/debian",
        "http://my/debian-security",
    ]


def test_an_archive_that_is_a_host_of_its_own() -> None:
    assert rewritten(["http://my/x"], "http://deb.example.org") == ["http://my/x"]


PORTS = Repository(
    suite="noble",
    mirror="http://ports.ubuntu.com/ubuntu-ports",
    mirrors={"amd64": "http://archive.ubuntu.com/ubuntu"},
    keyring="/k",
)


@pytest.mark.parametrize(
    ("words", "architecture", "mirror"),
    [
        ([], "amd64", "http://archive.ubuntu.com/ubuntu"),
        ([], "arm64", "http://ports.ubuntu.com/ubuntu-ports"),
        (["http://my"], "amd64", "http://my/ubuntu"),
        (["http://my/ubuntu"], "amd64", "http://my/ubuntu"),
        (["http://my/ubuntu"], "arm64", "http://my/ubuntu-ports"),
        (["http://my/ubuntu-ports"], "amd64", "http://my/ubuntu"),
        (["http://ports.ubuntu.com=http://my"], "amd64", "http://archive.ubuntu.com/ubuntu"),
        (["http://ports.ubuntu.com=http://my"], "arm64", "http://my/ubuntu-ports"),
    ],
)
def test_an_architecture_may_have_a_mirror_of_its_own(
    words: list[str], architecture: str, mirror: str
) -> None:
    item = template(MAIN, tools=(MAIN,)).model_copy(update={"repositories": (PORTS,)})
    image, tools = Mirrors.parse(words).of(item, architecture)
    assert [repository.mirror for repository in image] == [mirror]
    assert [repository.mirror for repository in tools] == [MAIN]


def test_without_mirrors_nothing_changes() -> None:
    assert rewritten([], MAIN, SECURITY) == [MAIN, SECURITY]


@pytest.mark.parametrize("word", ["", "my.mirror", "http://", "a=http://b", "http://a=b", "x://y"])
def test_what_is_no_mirror_is_told(word: str) -> None:
    with pytest.raises(ConfigError, match="is not a mirror") as caught:
        Mirrors.parse([word])
    assert "http://deb.debian.org/debian=http://my.mirror/debian" in caught.value.hint


def test_the_users_file_counts_after_what_was_asked_for(configuration: Path) -> None:
    configuration.mkdir()
    (configuration / "mirrors.yaml").write_text("mirrors: ['http://home/debian']\n")
    assert Mirrors.chosen(["http://here"]).rules == (
        (None, "http://here"),
        (None, "http://home/debian"),
    )
    (configuration / "mirrors.yaml").write_text("mirrors: [home]\n")
    with pytest.raises(ConfigError, match=r"'home' is not a mirror \(.*mirrors\.yaml\)"):
        Mirrors.chosen([])
    (configuration / "mirrors.yaml").write_text("mirror: [home]\n")
    with pytest.raises(ConfigError, match="did you mean 'mirrors'"):
        Mirrors.chosen([])


def test_without_a_file_there_are_no_lasting_mirrors() -> None:
    assert Mirrors.chosen([]).rules == ()
