"""A small foreign tree, its twin, and both ways to run its programs, in a real namespace."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from imagefactory import run, template
from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.data import SearchPath, cache_directory, shipped_directory
from imagefactory.packages.apt import Apt
from imagefactory.sandbox import foreign, twin

pytestmark = pytest.mark.system

SHIPPED = SearchPath((shipped_directory(),))
PROFILES = ArchProfiles.load(SHIPPED)
HOST = PROFILES.get(os.uname().machine)
OTHERS = [profile for profile in PROFILES.profiles if profile != HOST]
PACKAGES = ("dash", "coreutils", "sed", "mawk", "perl-base", "dpkg", "util-linux", "kmod")

INSIDE = """
import json, subprocess, sys
from pathlib import Path
from imagefactory.sandbox import attachment

registration, mountpoint, tree, interpreter, twin, trace, commands = json.loads(sys.argv[1])
tree = Path(tree)
before = sorted(tree.rglob("*"))
Path(mountpoint).mkdir()
attachment.register(registration.encode("latin-1"), Path(mountpoint))
Path(trace).touch()
attachment.attach(tree, Path(interpreter), twin and Path(twin), Path(trace))
said = []
for command in commands:
    done = subprocess.run(["chroot", tree, *command], capture_output=True, text=True, env={
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    said.append([done.returncode, done.stdout, done.stderr])
attachment.detach(tree)
assert "twin" not in Path("/proc/self/mountinfo").read_text()
left = sorted(str(path) for path in set(tree.rglob("*")) ^ set(before))
print(json.dumps([said, left]))
"""

SAME = (
    ["sh", "-c", 'echo "$0" "$@"', "name", "a b", ""],
    ["sh", "-c", "printf 'b\\na\\n' | sort | sed s/a/x/ | tr x y"],
    ["awk", "BEGIN { print substr(ARGV[0], 1) }"],
    ["perl", "-MPOSIX=floor", "-e", 'print "$0 ", floor(2.5)'],
    ["script", "one"],
    ["dpkg", "--print-architecture"],
    ["dpkg", "--version"],
    ["dpkg", "--compare-versions", "1.0~1", "lt", "1.0"],
    ["dpkg-query", "--showformat=${binary:Package} ${Architecture}\\n", "--show"],
    ["uname", "-m"],
    ["modinfo", "--version"],
    ["sh", "-c", "exit 7"],
    ["no-such-program"],
)


@dataclass(frozen=True)
class Case:
    profile: ArchProfile
    tree: Path
    twin: Path
    way: foreign.Foreign
    directory: Path

    def run(
        self, commands: tuple[list[str], ...], twin: Path | None
    ) -> tuple[list[list[object]], list[str], list[str]]:
        """What the commands say, what attach and detach left in the tree, and the trace."""
        assert self.way.registration is not None
        name = "accelerated" if twin else "plain"
        mountpoint, trace = self.directory / f"binfmt-{name}", self.directory / f"trace-{name}"
        asked = [
            self.way.registration.decode("latin-1"),
            str(mountpoint),
            str(self.tree),
            str(self.way.interpreter),
            twin and str(twin),
            str(trace),
            commands,
        ]
        command = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"]
        done = run.run([*command, sys.executable, "-c", INSIDE, json.dumps(asked)])
        said, left = json.loads(done.stdout.splitlines()[-1])
        return said, left, trace.read_text().splitlines()


@pytest.fixture(scope="session")
def case(shared_directory: Path) -> Callable[[ArchProfile], Case]:
    repositories = template.load(SHIPPED, "minimal")[0].repositories
    cache = cache_directory()

    def make(profile: ArchProfile) -> Case:
        directory = shared_directory / f"foreign-{profile.name}"
        with FileLock(f"{directory}.lock"):
            way = foreign.choose(profile, HOST, cache)
            if way.mechanism != "accelerated":
                pytest.skip(way.reason)
            apt = Apt(repositories, profile.names.deb, cache)
            apt.refresh()
            packages = apt.resolve(PACKAGES)
            tree = directory / "tree"
            if not tree.exists():
                apt.fetch(packages)
                unpack(tree, [apt.pool.take(package) for package in packages], profile)
            versions = {package.name: package.version for package in packages}
            made = twin.make(versions, repositories, HOST, profile, cache)
            assert made.left_out == ()
            return Case(profile, tree, made.directory, way, directory)

    return make


def unpack(tree: Path, debs: list[Path], profile: ArchProfile) -> None:
    """Files without maintainer scripts, and what those would have done for us."""
    tree.mkdir(parents=True)
    for deb in debs:
        run.run(["dpkg-deb", "--extract", deb, tree])
    (tree / "usr/bin/awk").symlink_to("mawk")
    script = tree / "usr/bin/script"
    script.unlink(missing_ok=True)
    script.write_text('#!/bin/sh -e\necho "$0" "$1"\n')
    script.chmod(0o755)
    (tree / "var/lib/dpkg").mkdir(parents=True, exist_ok=True)
    (tree / "var/lib/dpkg/status").write_text(
        "".join(
            f"Package: {name}\nStatus: install ok installed\nMaintainer: x\nVersion: 1\n"
            f"Architecture: {arch}\nMulti-Arch: same\nDescription: x\n\n"
            for name, arch in (("one", profile.names.deb), ("two", HOST.names.deb))
        )
    )
    (tree / "var/lib/dpkg/arch").write_text(f"{profile.names.deb}\n{HOST.names.deb}\n")


@pytest.mark.parametrize("profile", OTHERS, ids=[profile.name for profile in OTHERS])
def test_a_twin_says_what_the_emulated_program_says(
    case: Callable[[ArchProfile], Case], profile: ArchProfile
) -> None:
    made = case(profile)
    plain, left_by_plain, plain_trace = made.run(SAME, None)
    accelerated, left, trace = made.run(SAME, made.twin)
    assert accelerated == plain
    assert (left_by_plain, left) == ([], [])
    assert all(line.startswith("emulated ") for line in plain_trace)
    native = {line.split()[1] for line in trace if line.startswith("native ")}
    assert {Path(path).name for path in native} >= {"sh", "sort", "sed", "awk", "perl", "dpkg"}
    # The expected answers, so that both cannot be wrong alike.
    assert plain[5][1] == f"{profile.names.deb}\n"
    assert plain[4][1] == "/usr/bin/script one\n"
    assert any("uname" in line for line in trace if line.startswith("emulated "))
