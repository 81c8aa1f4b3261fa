"""Installing a distribution's packages into a tree, inside namespaces, as a builder does it.

``install`` is called outside; ``python -m tests.rpm.installing SPEC`` is what runs inside.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from imagefactory.errors import BuildError, ImageFactoryError
from imagefactory.run import run
from imagefactory.sandbox.chroot import mounted
from imagefactory.sandbox.execution import Execution
from imagefactory.sandbox.namespace import run_inside, tell
from tests.rpm.rpms import RpmRepository

_TIMEOUT = 1800.0
_PATH = "/usr/sbin:/usr/bin"
_DATABASE = "/usr/lib/sysimage/rpm"

_FAILURE = re.compile(
    r"^.*(scriptlet failed|Error in \S+ scriptlet|dracut\[[A-Z]\]: FAILED|[Ff]ailed to).*$",
    re.MULTILINE,
)
"""How it sounds when something fails that dnf calls complete."""


@dataclass(frozen=True)
class Spec:
    """What is installed where; paths are the host's."""

    tree: str
    work: str
    config: str
    packages: tuple[str, ...]
    architecture: str
    execution: Execution
    checks: tuple[str, ...] = field(default=())
    """Commands of a shell that are run in the tree afterwards; what they say is told."""


SPEC = TypeAdapter(Spec)


def install(
    tree: Path,
    repositories: Sequence[RpmRepository],
    packages: Sequence[str],
    architecture: str,
    execution: Execution,
    checks: Sequence[str] = (),
    cmdline: str = "root=LABEL=root rw",
) -> str:
    """Install packages and return what was said, dnf's words and those of the checks.

    Raises:
        BuildError: dnf refuses, or a scriptlet fails.
    """
    work = tree.parent / f"{tree.name}.work"
    work.mkdir(exist_ok=True)
    tree.mkdir(exist_ok=True)
    # A kernel's script takes the command line of this machine otherwise.
    (tree / "etc/kernel").mkdir(parents=True, exist_ok=True)
    (tree / "etc/kernel/cmdline").write_text(f"{cmdline}\n")
    config = work / "dnf.conf"
    sections = "".join(
        f"[test{number}]\nname=test\nbaseurl={repository.url}\ngpgcheck=1\nrepo_gpgcheck=1\n"
        f"gpgkey=file://{repository.key_file}\n"
        for number, repository in enumerate(repositories)
    )
    config.write_text(
        "[main]\nreposdir=/nonexistent\npluginpath=/nonexistent\ninstall_weak_deps=0\n"
        f"gpgcheck=1\ntsflags=\n{sections}"
    )
    (work / ".rpmmacros").write_text(
        f"%_dbpath {_DATABASE}\n%_netsharedpath /proc:/sys:/dev\n%_pkgverify_level digest\n"
    )
    spec = Spec(
        *(str(tree), str(work), str(config), tuple(packages), architecture, execution),
        tuple(checks),
    )
    told = work / "spec.json"
    told.write_bytes(SPEC.dump_json(spec))
    log = work / "log"
    log.unlink(missing_ok=True)
    root = Path(__file__).resolve().parents[2]
    run_inside(
        "tests.rpm.installing",
        told,
        log=log,
        timeout=_TIMEOUT,
        listen=lambda *_: None,
        env={"PYTHONPATH": str(root), "HOME": str(work)},
    )
    said = log.read_text(errors="replace")
    if failures := [found[0] for found in _FAILURE.finditer(said)]:
        raise BuildError("\n".join(failures), log=log)
    return said


def _inside(spec: Spec) -> None:
    tree, work = Path(spec.tree), Path(spec.work)
    spec.execution.begin()
    with contextlib.ExitStack() as stack:
        stack.enter_context(spec.execution.attached(tree))
        # Not /run and /tmp: what the package filesystem says of them would be told to a mount.
        stack.enter_context(mounted(tree / "proc", "-t", "proc", "proc"))
        stack.enter_context(mounted(tree / "sys", "-t", "sysfs", "sysfs"))
        stack.enter_context(mounted(tree / "dev", "-t", "tmpfs", "-o", "mode=755", "tmpfs"))
        for name in ("null", "zero", "full", "random", "urandom"):
            (tree / "dev" / name).touch()
            stack.enter_context(mounted(tree / "dev" / name, "--bind", f"/dev/{name}"))
        (tree / "dev/fd").symlink_to("/proc/self/fd")
        words: list[str | Path] = ["dnf", "-y", "-c", spec.config, f"--installroot={tree}"]
        words += [f"--forcearch={spec.architecture}", "--releasever=44"]
        words += [f"--setopt=cachedir={work}/cache", f"--setopt=logdir={work}"]
        run([*words, "install", *spec.packages], timeout=_TIMEOUT, into=sys.stderr)
        for check in spec.checks:
            sys.stderr.write(f"# {check}\n")
            sys.stderr.flush()
            shell: list[str | Path] = ["chroot", tree, "/bin/sh", "-c", check]
            run(shell, timeout=_TIMEOUT, into=sys.stderr, env={"HOME": "/root", "PATH": _PATH})


def main() -> int:
    """Do what the spec says; a failure is told to the process outside."""
    os.umask(0o022)
    try:
        _inside(SPEC.validate_json(Path(sys.argv[1]).read_bytes()))
    except ImageFactoryError as error:
        tell("failure", error.message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
