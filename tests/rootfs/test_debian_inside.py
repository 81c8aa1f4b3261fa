"""Steps on a tree of our own, run in a real namespace where that is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagefactory.rootfs import debian_inside
from imagefactory.rootfs.debian_inside import Base
from tests.sandbox.test_namespace import Inside, inside

__all__ = ["inside"]

HEADER = """
from imagefactory.rootfs import debian_inside
from imagefactory.rootfs.customising import clean
from imagefactory.sandbox.chroot import Chroot, rooted
tree = spec.with_name("tree")
chroot = Chroot(tree, {})
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


def put(tree: Path, *paths: str) -> None:
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)


def left(tree: Path) -> list[str]:
    return sorted(
        str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_symlink() or p.is_file()
    )


def leave_out(tree: Path, exclude: list[str], include: list[str] | None = None) -> None:
    """Patterns are absolute: below a directory of the test's they mean the same."""
    debian_inside._leave_out(
        Base(
            "",
            "",
            (),
            (),
            (),
            tuple(f"{tree}{pattern}" for pattern in exclude),
            tuple(f"{tree}{pattern}" for pattern in include or []),
        )
    )


def test_a_pattern_takes_all_below_but_what_is_included(tree: Path) -> None:
    put(tree, "usr/share/doc/a/copyright", "usr/share/doc/a/b/c", "usr/share/doc2/x", "usr/y")
    leave_out(tree, ["/usr/share/doc/*"], ["/usr/share/doc/*/copyright"])
    assert left(tree) == ["usr/share/doc/a/copyright", "usr/share/doc2/x", "usr/y"]
    assert not (tree / "usr/share/doc/a/b").exists()


def test_patterns_are_dpkgs(tree: Path) -> None:
    put(tree, "man/de/man1/x", "man/pt_BR/man1/x", "man/man1/x", "lib/linux-image-6/dtb", "lib/l")
    leave_out(tree, ["/man/??/*", "/man/??_*/*", "/lib/linux-image-*/*", "/none/*"])
    assert left(tree) == ["lib/l", "man/man1/x"]
    put(tree, "one", "two", "a1", "ab")
    leave_out(tree, ["/one", "/a[0-9]"])
    assert left(tree) == ["ab", "lib/l", "man/man1/x", "two"]


def test_links_are_removed_and_not_followed(tree: Path, tmp_path: Path) -> None:
    put(tmp_path, "outside/file")
    put(tree, "doc/x")
    (tree / "doc/link").symlink_to(tmp_path / "outside")
    leave_out(tree, ["/doc/*"])
    assert left(tree) == []
    assert (tmp_path / "outside/file").exists()


def test_the_locale_brings_its_character_set(tree: Path, inside: Inside, tmp_path: Path) -> None:
    put(tree, "usr/share/i18n/SUPPORTED")
    (tree / "usr/share/i18n/SUPPORTED").write_text(
        "ca_ES.UTF-8@valencia UTF-8\nde_DE ISO-8859-1\nde_DE.UTF-8 UTF-8\nsr_RS@latin UTF-8\n"
    )
    inside.run(
        HEADER + "from imagefactory.errors import BuildError\n"
        "with rooted(tree):\n"
        "    for name in ('ca_ES.UTF-8@valencia', 'de_DE', 'sr_RS@latin', 'de_XX.UTF-8'):\n"
        "        try:\n"
        "            tell('line', debian_inside._line_of_locale(name))\n"
        "        except BuildError as error:\n"
        "            tell('error', error.message)\n"
        "    Path('/usr/share/i18n/SUPPORTED').unlink()\n"
        "    try:\n"
        "        debian_inside._line_of_locale('de_DE')\n"
        "    except BuildError as error:\n"
        "        tell('error', error.message)\n"
    )
    lines = [text for event, text in inside.heard if event == "line"]
    assert lines == ["ca_ES.UTF-8@valencia UTF-8", "de_DE ISO-8859-1", "sr_RS@latin UTF-8"]
    unknown, lacking = (text for event, text in inside.heard if event == "error")
    assert "no locale 'de_XX.UTF-8'" in unknown
    assert "package `locales`" in lacking


def test_the_database_of_packages_is_the_trees_own(inside: Inside, tree: Path) -> None:
    """Behind a link that would lead out of the tree, too."""
    put(tree, "var/lib/elsewhere/status")
    (tree / "var/lib/dpkg").symlink_to("/var/lib/elsewhere")
    status = "Package: ours\nVersion: 1\nStatus: install ok installed\nMaintainer: M\xfcller\n"
    (tree / "var/lib/elsewhere/status").write_bytes(status.encode("latin-1"))
    inside.run(
        HEADER + "for package in debian_inside._installed(tree):\n"
        "    tell('package', f'{package.name} {package.supplier}')\n"
        "(tree / 'var/lib/dpkg').unlink()\n"
        "tell('package', str(debian_inside._installed(tree)))\n"
    )
    assert inside.heard == [("package", "ours M\ufffdller"), ("package", "None")]


def test_cleaning_takes_this_machine_and_this_build_away(inside: Inside, tree: Path) -> None:
    leftovers = [
        *("etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "etc/hostname"),
        *("etc/resolv.conf", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed"),
        *("root/.bash_history", "root/.cache/a/b", "run/x", "tmp/x/y", "var/tmp/x"),
        *("var/lib/apt/lists/a_Packages", "var/cache/apt/pkgcache.bin"),
        *("var/cache/debconf/config.dat-old", "var/lib/dpkg/status-old", "etc/passwd-"),
        *("etc/shadow-", "etc/.pwd.lock", "var/log/dpkg.log", "var/log/apt/history.log"),
        *("var/cache/ldconfig/aux-cache", "var/lib/ucf/hashfile.0"),
    ]
    kept = [
        *("etc/ssh/sshd_config", "etc/passwd", "var/lib/dpkg/status", "var/lib/ucf/hashfile"),
        *("var/cache/debconf/config.dat", "root/.bashrc"),
    ]
    put(tree, *leftovers, *kept)
    (tree / "etc/machine-id").write_text("0123\n")
    inside.run(f"{HEADER}clean(tree, debian_inside._LEFTOVERS)\n")
    assert left(tree) == sorted([*kept, "etc/machine-id"])
    assert (tree / "etc/machine-id").read_text() == ""
    assert (tree / "var/log/apt").is_dir()


def test_names_are_resolved_where_there_is_a_resolver(inside: Inside, tree: Path) -> None:
    put(tree, "usr/lib/systemd/systemd-resolved", "etc/machine-id")
    inside.run(f"{HEADER}clean(tree, debian_inside._LEFTOVERS)\n")
    assert (tree / "etc/resolv.conf").readlink() == Path("../run/systemd/resolve/stub-resolv.conf")
