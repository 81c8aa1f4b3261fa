"""What writes into a tree stays in it; run in a real namespace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagefactory.errors import BuildError
from tests.sandbox.test_namespace import Inside, inside

__all__ = ["inside"]

HEADER = """
from imagefactory.errors import CommandError
from imagefactory.sandbox.chroot import entered, follow, rooted
tree = spec.with_name("tree")
"""

SHELL = """
import shutil
for word in ("bin", "lib", "lib64", "usr"):
    if Path("/", word).is_symlink():
        (tree / word).symlink_to(Path("/", word).readlink())
    elif Path("/", word).is_dir():
        (tree / word).mkdir()
        subprocess.run(["mount", "--rbind", f"/{word}", tree / word], check=True)
"""
"""A tree with the programs of this machine, for what asks for a shell and no more."""


def test_links_out_of_the_tree_lead_into_it(inside: Inside, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/x").symlink_to(outside / "file")
    (tmp_path / "tree/etc/d").symlink_to(outside)
    inside.run(
        HEADER + "with rooted(tree):\n"
        "    tell('exists', str(Path('/etc/x').exists()))\n"
        "    try:\n"
        "        Path('/etc/x').write_text('written through')\n"
        "    except FileNotFoundError:\n"
        "        tell('refused', 'x')\n"
        f"    Path({str(outside)!r}).mkdir(parents=True)\n"
        "    Path('/etc/d/new').write_text('in the tree')\n"
        "tell('back', str(Path(spec).exists()))\n"
    )
    assert inside.heard == [("exists", "False"), ("refused", "x"), ("back", "True")]
    assert (outside / "file").read_text() == "kept"
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (tmp_path / f"tree{outside}/new").read_text() == "in the tree"


def test_the_way_back_is_found_after_a_failure_too(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    code = "try:\n    with rooted(tree):\n        raise KeyError\nexcept KeyError:\n"
    inside.run(f"{HEADER}{code}    tell('back', spec.read_text())\n")
    assert inside.heard == [("back", "told")]


def test_a_program_of_the_tree_learns_only_what_it_must(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    inside.run(
        HEADER + SHELL + "os.environ['SECRET'] = 'x'\n"
        "with entered(tree, {'SOURCE_DATE_EPOCH': '7'}) as chroot:\n"
        "    chroot.run(['/bin/sh', '-c', 'env; ls /dev /; echo null >/dev/null; id -u'])\n"
        "    (tree / 'run/left').touch(); (tree / 'tmp/left').touch()\n"
        "tell('left', ' '.join(sorted(str(p.relative_to(tree)) for d in ('dev', 'run', 'tmp',"
        " 'proc', 'sys') for p in (tree / d).iterdir())))\n"
    )
    assert inside.heard == [("left", "")]
    log = inside.log.read_text()
    assert "SOURCE_DATE_EPOCH=7\n" in log
    assert "SYSTEMD_OFFLINE=1\n" in log
    assert "SECRET" not in log
    assert str(tmp_path) not in log


def test_a_program_that_fails_is_told_by_name_with_its_words_and_all_of_them_kept(
    inside: Inside, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    inside.run(
        HEADER + SHELL + "import json\nwith entered(tree, {}) as chroot:\n"
        "    chroot.run(['echo', 'before'])\n"
        "    for words, called in ((['sh', '-c', 'seq 100; exit 3'], 'the script x'),"
        " (['false'], ''), (['no-such'], '')):\n"
        "        try:\n"
        "            chroot.run(words, called=called)\n"
        "        except CommandError as error:\n"
        "            tell('error', error.message)\n"
    )
    errors = [text.splitlines() for _, text in inside.heard]
    assert errors[0] == ["the script x failed with status 3:", *map(str, range(89, 101))]
    assert errors[1] == ["false failed with status 1"]
    assert errors[2][0] == "no-such failed with status 127:"
    assert "no-such" in errors[2][1]
    log = inside.log.read_text().splitlines()
    assert log[:2] == ["# echo before", "before"]
    assert {*map(str, range(1, 101))} <= {*log}


def test_a_daemon_that_a_program_leaves_holds_nobody_up_and_does_not_survive(
    inside: Inside, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    inside.run(
        HEADER + SHELL + "with entered(tree, {}) as chroot:\n"
        "    chroot.run(['setsid', '--fork', 'sh', '-c', 'echo started; exec sleep 500'])\n"
        "    chroot.run(['sh', '-c', 'sleep 501 &'])\n"
        "alive = lambda p: p.read_text().rpartition(') ')[2][0] not in 'ZX'\n"
        "stats = [p / 'stat' for p in Path('/proc').iterdir() if p.name.isdigit()]\n"
        "import json\n"
        "tell('alive', json.dumps([str(p) for p in stats if alive(p)]))\n",
        timeout=120.0,
    )
    assert json.loads(dict(inside.heard)["alive"]) == ["/proc/1/stat"]


def test_progress_is_told_as_it_comes_and_a_failure_with_its_last_words(
    inside: Inside, tmp_path: Path
) -> None:
    script = (
        "echo out; echo 'I: unpacking things...' >&2; echo 'I: done' >&2; echo 'E: why' >&2; exit 9"
    )
    with pytest.raises(BuildError, match="sh failed with status 9") as caught:
        inside.run(
            f"{HEADER}try:\n    follow(['sh', '-c', {script!r}], env={{}})\n"
            "except CommandError as error:\n    tell('failure', error.message); sys.exit(1)\n"
        )
    assert inside.heard == [("progress", "unpacking things")]
    assert "E: why" in caught.value.message
    assert "out\n" in inside.log.read_text()


def test_what_dpkg_complains_of_is_told_before_a_whole_command_line(inside: Inside) -> None:
    said = (
        "dpkg: error processing package x (--configure):",
        " installed x package post-installation script subprocess returned error exit status 1",
        "Processing triggers for y",
        f"E: apt-get {'name ' * 200}failed",
        "I: main() received signal PIPE: waiting for setup...",
    )
    script = "".join(f"echo '{line}' >&2; " for line in said) + "exit 25"
    with pytest.raises(BuildError, match="status 25: dpkg: error processing package x") as caught:
        inside.run(
            f"{HEADER}try:\n    follow(['sh', '-c', {script!r}], env={{}})\n"
            "except CommandError as error:\n    tell('failure', error.message); sys.exit(1)\n"
        )
    assert inside.heard == []
    assert caught.value.message.splitlines()[1:] == [said[1].strip()]
