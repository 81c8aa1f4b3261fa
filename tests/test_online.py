"""What mirrors are asked before the first build: real repositories, good and bad ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner

from imagefactory import cli
from imagefactory.errors import ConfigError, PackageError
from tests.debs import Archive, Key
from tests.rpm import rpms
from tests.rpm.images import fingerprint, write_template
from tests.samples import small_template

pytestmark = pytest.mark.system

NOT_FOUND = PackageError.exit_code

Validate = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home" / name))


@pytest.fixture
def repository(keys: tuple[Key, Key], tmp_path: Path) -> rpms.RpmRepository:
    made = rpms.RpmRepository(tmp_path / "repository", keys[0])
    made.add("program", requires=["library"])
    made.add("library")
    made.add("kernel-core", architecture="x86_64")
    made.publish()
    return made


@pytest.fixture
def write(repository: rpms.RpmRepository, archive: Archive, tmp_path: Path) -> Callable[..., None]:
    """Write a template of the repository; its tools are a small archive's."""

    def write_one(**rpm: Any) -> None:
        write_template(
            tmp_path,
            "small",
            repository,
            architectures=["x86_64"],
            boot={"x86_64": ["bios"]},
            bootloader={"bios": {"packages": [], "modules": "usr/lib/grub"}},
            tool_packages=["program"],
            tool_repositories=[archive.repository().model_dump(mode="json")],
            disk_size=64,
            tests=[{"name": "boot", "datasource": "none"}],
            rpm={"packages": ["program"], **rpm},
        )

    write_one()
    return write_one


@pytest.fixture
def validate(tmp_path: Path) -> Validate:
    """Run the command, and return what it tells of the only template and architecture."""

    def run(*words: str, status: int = 0) -> Any:
        argv = ["--path", str(tmp_path), "validate", "--online", "--json", *words]
        done = CliRunner().invoke(cli.main, argv)
        assert done.exit_code == status, done.output
        (told,) = json.loads(done.stdout)
        assert told["well"] == (status == 0)
        return told

    return run


def forget_that_lists_are_fresh(tmp_path: Path) -> None:
    for stamp in (tmp_path / "home").rglob("refreshed"):
        stamp.unlink()


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve a directory to this machine."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def metalink(repomd: Path, url: str, content: bytes | None = None) -> str:
    """Write a metalink as MirrorManager does, for a repository's repomd.xml."""
    content = repomd.read_bytes() if content is None else content
    return f"""<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" generator="a test">
 <files>
  <file name="repomd.xml">
   <size>{len(content)}</size>
   <verification><hash type="sha256">{hashlib.sha256(content).hexdigest()}</hash></verification>
   <resources maxconnections="1">
    <url protocol="http" type="http" location="US" preference="100">{url}</url>
   </resources>
  </file>
 </files>
</metalink>
"""


def test_a_template_whose_repositories_keys_and_names_are_right(
    write: Callable[..., None], validate: Validate
) -> None:
    told = validate("small")
    assert told["packages"] == 3
    assert [source["name"] for source in told["sources"]] == ["fedora", "stable"]
    assert all(source["wrong"] == "" for source in told["sources"])


def test_people_are_told_in_a_line(
    write: Callable[..., None], tmp_path: Path, repository: rpms.RpmRepository
) -> None:
    argv = ["--path", str(tmp_path), "validate", "--online", "small"]
    done = CliRunner().invoke(cli.main, argv)
    assert "small x86_64: right, 3 packages of 2 repositories" in done.stdout
    repository.forget()
    forget_that_lists_are_fresh(tmp_path)
    write(extra_repositories=[{"id": "gone", "baseurl": "file:///nowhere", "trusted": True}])
    done = CliRunner().invoke(cli.main, argv)
    assert done.exit_code == NOT_FOUND
    assert "small x86_64: to be corrected\n  fedora (file:" in done.stdout
    assert "\n  gone (file:///nowhere, x86_64): " in done.stdout
    assert "Traceback" not in done.stdout


def test_each_repository_that_cannot_be_reached_is_named_and_the_others_are_not(
    write: Callable[..., None], validate: Validate, archive: Archive
) -> None:
    gone = {"id": "gone", "baseurl": "http://127.0.0.1:9/$basearch", "trusted": True}
    write(extra_repositories=[gone])
    told = validate("small", status=NOT_FOUND)
    wrong = {source["name"]: source["wrong"] for source in told["sources"]}
    assert "gone" in wrong["gone"]
    assert wrong["fedora"] == wrong["stable"] == ""
    assert told["sources"][1]["address"] == "http://127.0.0.1:9/x86_64"
    assert told["wrong"] == []


def test_a_repository_that_is_not_required_is_a_warning(
    write: Callable[..., None], validate: Validate
) -> None:
    gone = {"id": "gone", "baseurl": "file:///nowhere", "trusted": True, "required": False}
    write(extra_repositories=[gone])
    assert "gone (x86_64) left out" in validate("small")["warnings"][0]


def test_packages_that_another_key_signed_are_told_though_the_list_is_not_signed(
    write: Callable[..., None],
    validate: Validate,
    repository: rpms.RpmRepository,
    keys: tuple[Key, Key],
) -> None:
    rpms.sign_rpms(repository.rpms, keys[1])
    repository.publish()
    told = validate("small", status=NOT_FOUND)
    assert all(source["wrong"] == "" for source in told["sources"])
    (wrong,) = told["wrong"]
    assert wrong.startswith("fedora: ")
    assert "SIGNATURES NOT OK" in wrong


def test_a_package_that_was_fetched_under_another_key_is_told(
    write: Callable[..., None], validate: Validate, tmp_path: Path, keys: tuple[Key, Key]
) -> None:
    validate("small")
    other = rpms.armoured(keys[1])
    (tmp_path / "templates/key").write_bytes(other.read_bytes())
    file = tmp_path / "templates/small.yaml"
    described = json.loads(file.read_text())
    (key,) = described["rpm"]["repositories"][0]["keys"]
    key["fingerprint"] = fingerprint(other)
    file.write_text(json.dumps(described))
    (wrong,) = validate("small", status=NOT_FOUND)["wrong"]
    assert "SIGNATURES NOT OK" in wrong


def test_every_package_that_does_not_exist_is_named(
    write: Callable[..., None], validate: Validate
) -> None:
    write(packages=["program", "progam", "@cor"])
    told = validate("small", status=NOT_FOUND)
    (wrong,) = told["wrong"]
    assert "progam" in wrong
    assert "cor" in wrong
    assert told["packages"] == 0


def test_a_key_that_is_not_the_one_that_was_meant_is_told_without_a_network(
    write: Callable[..., None], validate: Validate, tmp_path: Path, keys: tuple[Key, Key]
) -> None:
    (tmp_path / "templates/key").write_bytes(rpms.armoured(keys[1]).read_bytes())
    told = validate("small", status=NOT_FOUND)
    assert "holds the key" in told["sources"][0]["wrong"]
    done = CliRunner().invoke(cli.main, ["--path", str(tmp_path), "validate", "small"])
    assert done.exit_code == ConfigError.exit_code
    assert "small x86_64: to be corrected\n  key: " in done.stdout
    assert "holds the key" in done.stdout
    (tmp_path / "templates/key").unlink()
    done = CliRunner().invoke(cli.main, ["--path", str(tmp_path), "validate", "small", "--json"])
    (told,) = json.loads(done.stdout)
    assert "does not exist" in told["keys"][0]


def test_a_metalink_leads_to_the_mirror_and_a_lying_one_does_not(
    write: Callable[..., None], validate: Validate, repository: rpms.RpmRepository
) -> None:
    with served(repository.directory.parent) as url:
        repomd = repository.directory / "repodata/repomd.xml"
        link = repository.directory.parent / "metalink"
        link.write_text(metalink(repomd, f"{url}/repository/repodata/repomd.xml"))
        key = {"file": "key", "fingerprint": fingerprint(repository.key_file)}
        source = {
            "id": "linked",
            "metalink": f"{url}/metalink?repo=test-$releasever&arch=$basearch",
            "baseurl": "http://127.0.0.1:9/",  # is not asked
            "keys": [key],
        }
        write(repositories=[source])
        told = validate("small")
        assert told["packages"] == 3
        assert told["sources"][0]["address"] == f"{url}/metalink?repo=test-44&arch=x86_64"

        link.write_text(metalink(repomd, f"{url}/repository/repodata/repomd.xml", b"a lie"))
        write(repositories=[{**source, "id": "lying"}])
        told = validate("small", status=NOT_FOUND)
        assert "lying" in told["sources"][0]["wrong"]


def test_a_mirrorlist_and_another_mirror_are_taken(
    write: Callable[..., None], validate: Validate, repository: rpms.RpmRepository
) -> None:
    with served(repository.directory.parent) as url:
        (repository.directory.parent / "list").write_text(f"{url}/repository/\n")
        key = {"file": "key", "fingerprint": fingerprint(repository.key_file)}
        source = {
            "id": "listed",
            "mirrorlist": f"{url}/list",
            "baseurl": "http://127.0.0.1:9/pub/x86_64",
            "keys": [key],
        }
        write(repositories=[source])
        assert validate("small")["packages"] == 3
        moved = f"http://127.0.0.1:9/pub/x86_64={url}/repository"
        told = validate("small", "--mirror", moved)
        assert told["sources"][0]["address"] == f"{url}/repository"


def test_debian_templates_are_asked_in_the_same_way(
    archive: Archive, validate: Validate, tmp_path: Path, keys: tuple[Key, Key]
) -> None:
    small_template(tmp_path, archive)
    told = validate("small", "--arch", "x86_64")
    assert {source["name"] for source in told["sources"]} == {"stable"}
    archive.publish(signed_by=keys[1])
    forget_that_lists_are_fresh(tmp_path)
    told = validate("small", "--arch", "x86_64", status=NOT_FOUND)
    assert "NO_PUBKEY" in told["sources"][0]["wrong"]


def test_a_mistake_in_a_template_is_one_of_the_template(
    write: Callable[..., None], validate: Validate, tmp_path: Path
) -> None:
    write(overlay="nowhere")
    told = validate("small", status=ConfigError.exit_code)
    assert "nowhere is not a directory" in told["wrong"][0]
