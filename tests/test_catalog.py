from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from imagefactory.catalog import MANIFEST, Catalog, now, read_build
from imagefactory.data import sha256_of
from imagefactory.errors import ConfigError


def manifest(**changes: Any) -> dict[str, Any]:
    plan = {"image": "tiny", "architecture": "aarch64", "digest": "d" * 64, "properties": {}}
    whole = {
        "built": now(),
        "plan": plan,
        "disk": {"file": "tiny.qcow2", "size": 4},
        "seconds": {},
        "boot_test": {"verdict": "passed", "cases": []},
    }
    return whole | changes


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "my images")


def add(catalog: Catalog, content: dict[str, Any] | None = None) -> Path:
    with catalog.workspace("tiny-aarch64") as work:
        result = work / "result"
        result.mkdir()
        (result / "tiny.qcow2").write_bytes(b"disk")
        return catalog.add(result, content or manifest()).directory


def leftovers(catalog: Catalog) -> list[str]:
    return [path.name for path in (catalog.directory / ".work").glob("tiny*")]


def test_a_build_is_listed_once_it_is_whole(catalog: Catalog) -> None:
    with catalog.workspace("tiny-aarch64") as work:
        result = work / "result"
        result.mkdir()
        (result / "tiny.qcow2").write_bytes(b"disk")
        assert catalog.builds("tiny", "aarch64") == ()
        catalog.add(result, manifest())
    (build,) = catalog.builds("tiny", "aarch64")
    assert build.disk.read_bytes() == b"disk"
    assert build == catalog.latest("tiny", "aarch64")
    assert leftovers(catalog) == []


def test_the_newest_and_the_newest_good_are_told_apart(catalog: Catalog) -> None:
    good = add(catalog)
    bad = add(catalog, manifest(boot_test=None))
    latest, latest_good = (
        catalog.latest("tiny", "aarch64"),
        catalog.latest_good("tiny", "aarch64"),
    )
    assert latest
    assert latest_good
    assert (latest.directory, latest.verdict) == (bad, "untested")
    assert latest_good.directory == good


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"plan": 1}',
        "{" * 5000,
        "[" * 100_000,
        json.dumps(manifest(plan={"image": "tiny"})),
        json.dumps(manifest(disk=None)),
        json.dumps(manifest(sbom=1)),
        json.dumps(manifest(sbom={"spdx": 1})),
        json.dumps(manifest(sbom={"spdx": {}})),
        json.dumps(manifest(boot_test={"verdict": "perhaps"})),
        json.dumps(manifest(boot_test={"verdict": "passed", "cases": [{}]})),
    ],
)
def test_a_manifest_that_is_none_of_ours_is_left_out(catalog: Catalog, text: str) -> None:
    whole = add(catalog)
    other = whole.with_name("00000000T000000000000Z-other")
    other.mkdir()
    (other / MANIFEST).write_text(text)
    (whole.with_name("empty")).mkdir()
    assert read_build(other) is None
    assert [build.directory for build in catalog.builds("tiny", "aarch64")] == [whole]


def test_a_manifest_that_is_not_text_is_left_out(catalog: Catalog) -> None:
    whole = add(catalog)
    (whole / MANIFEST).write_bytes(b"\xff\xfe")
    assert catalog.latest("tiny", "aarch64") is None


def test_documents_of_what_is_in_it_belong_to_a_build(catalog: Catalog) -> None:
    older = read_build(add(catalog))
    assert older
    assert older.sbom == {}
    with catalog.workspace("tiny-aarch64") as work:
        result = work / "result"
        result.mkdir()
        told: dict[str, Any] = {"packages": 1}
        for standard, name in (("cyclonedx", "tiny.cdx.json"), ("spdx", "tiny.spdx.json")):
            (result / name).write_text("{}")
            told[standard] = {"file": name, "size": 2, "sha256": sha256_of(result / name)}
        (result / "tiny.qcow2").write_bytes(b"disk")
        disk = {"file": "tiny.qcow2", "size": 4, "sha256": sha256_of(result / "tiny.qcow2")}
        build = catalog.add(result, manifest(sbom=told, disk=disk))
    assert build.changed_files() == ()
    assert {name: file.name for name, file in build.sbom.items()} == {
        "cyclonedx": "tiny.cdx.json",
        "spdx": "tiny.spdx.json",
    }
    build.sbom["cyclonedx"].write_text("[]")
    build.sbom["spdx"].unlink()
    assert build.changed_files() == ("tiny.cdx.json", "tiny.spdx.json")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_workspace_vanishes_with_an_error(catalog: Catalog, error: type[BaseException]) -> None:
    def work() -> None:
        with catalog.workspace("tiny-aarch64") as directory:
            (directory / "large").touch()
            raise error

    with pytest.raises(error):
        work()
    assert leftovers(catalog) == []


WORKER = """
    import sys
    from pathlib import Path
    from imagefactory.catalog import Catalog
    with Catalog(Path(sys.argv[1])).workspace("tiny-aarch64") as work:
        (work / "scratch").mkdir()
        print(work, flush=True)
        sys.stdin.read()
"""


def worker(catalog: Catalog) -> tuple[subprocess.Popen[str], Path]:
    """Another process that works in the catalog until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), catalog.directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_dead_workspaces_are_swept_and_living_ones_kept(catalog: Catalog) -> None:
    (dead, dead_work), (living, living_work) = worker(catalog), worker(catalog)
    dead.kill()
    dead.wait()
    assert dead_work.exists()
    with catalog.workspace("tiny-aarch64"):
        assert not dead_work.exists()
        assert (living_work / "scratch").exists()
    living.communicate("")
    assert living.returncode == 0
    with catalog.workspace("tiny-aarch64") as work:
        assert sorted(leftovers(catalog)) == [work.name, f"{work.name}.lock"]


def test_nobodys_workspace_is_swept_at_its_birth(catalog: Catalog) -> None:
    def work(_: int) -> bool:
        with catalog.workspace("tiny-aarch64") as mine:
            (mine / "file").touch()
            return (mine / "file").exists()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))
    assert leftovers(catalog) == []


def test_a_catalog_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    catalog = Catalog(tmp_path / "file/catalog")
    with (
        pytest.raises(ConfigError, match="cannot be written to: Not a directory") as caught,
        catalog.workspace("tiny"),
    ):
        pass
    assert "--catalog" in caught.value.hint


def test_the_last_evidence_is_kept(catalog: Catalog, tmp_path: Path) -> None:
    for number in range(2):
        evidence = tmp_path / "boot"
        evidence.mkdir()
        (evidence / "console.log").write_text(str(number))
        kept = catalog.keep_evidence(evidence, "tiny-aarch64")
    assert (kept / "console.log").read_text() == "1"
    assert [path.name for path in kept.parent.iterdir()] == ["tiny-aarch64"]


@pytest.mark.parametrize("useless", ["", "relative/path"])
def test_an_empty_or_relative_data_home_is_ignored(
    monkeypatch: pytest.MonkeyPatch, useless: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", useless)
    monkeypatch.setenv("HOME", "/home/some body")
    assert Catalog.default().directory == Path("/home/some body/.local/share/imagefactory")


def test_a_private_umask_does_not_matter(catalog: Catalog) -> None:
    old = os.umask(0o077)
    try:
        assert read_build(add(catalog))
    finally:
        os.umask(old)
