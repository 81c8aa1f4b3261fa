"""What dnf's own Python is asked, run by the interpreter of the host's distribution.

``/usr/bin/python3 -I dnf_query.py REQUEST``: the module ``dnf`` is no package of PyPI's, so this
file is a program of its own that imports nothing of ours. It reads what `dnf makecache` has
fetched, says what would be installed, or fetches packages; it prints JSON on standard output and
ends with status 1 and a message when dnf cannot do it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import dnf
import dnf.exceptions
import dnf.module.module_base
import dnf.repo
import dnf.rpm
import hawkey


def main() -> int:
    """Answer one request."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        with dnf.Base() as base:
            _configure(base, request)
            json.dump(_ANSWERS[request["question"]](base, request), sys.stdout)
    except (dnf.exceptions.Error, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _configure(base: Any, request: dict[str, Any]) -> None:
    conf = base.conf
    conf.read(request["config"])
    conf.installroot = request["root"]
    conf.ignorearch = True
    architecture = request["architecture"]
    conf.substitutions.update(
        arch=architecture,
        basearch=dnf.rpm.basearch(architecture),
        releasever=request["release"],
    )
    base.read_all_repos()
    for repo in base.repos.iter_enabled():
        # What was fetched is what counts; only packages are still asked for.
        repo._repo.setSyncStrategy(dnf.repo.SYNC_ONLY_CACHE)
    base.fill_sack(load_system_repo=False)


def _resolve(base: Any, request: dict[str, Any]) -> dict[str, Any]:
    base.conf.install_weak_deps = request["weak"]
    if request["modules"]:
        dnf.module.module_base.ModuleBase(base).enable(request["modules"])
    if any(name.startswith("@") for name in request["names"]):
        base.read_comps(arch_filter=True)
    base.install_specs(request["names"], exclude=request["exclude"])
    base.resolve()
    chosen = sorted(base.transaction.install_set)
    return {
        "packages": [_told(package) for package in chosen],
        "repositories": sorted(repo.id for repo in base.repos.iter_enabled()),
    }


def _told(package: Any) -> dict[str, Any]:
    kind, digest = package.returnIdSum()
    return {
        "name": package.name,
        "version": package.evr,
        "architecture": package.arch,
        "checksum": f"{kind}:{digest}",
        "size": package.downloadsize,
        "repository": package.repoid,
    }


def _fetch(base: Any, request: dict[str, Any]) -> dict[str, tuple[str, str]]:
    base.conf.destdir = request["directory"]
    found = _found(base, request)
    base.download_packages(list(found.values()))
    return {key[3]: (package.localPkg(), package.repoid) for key, package in found.items()}


def _origins(base: Any, request: dict[str, Any]) -> dict[str, str]:
    return {key[3]: package.repoid for key, package in _found(base, request).items()}


def _found(base: Any, request: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    wanted = {tuple(one) for one in request["packages"]}
    found: dict[tuple[str, ...], Any] = {}
    # All there is: a stream that was enabled for the choice is not enabled any more.
    for package in base.sack.query(flags=hawkey.IGNORE_EXCLUDES):
        key = (package.name, package.evr, package.arch, ":".join(package.returnIdSum()))
        if key in wanted:
            found[key] = package
    missing = wanted - found.keys()
    if missing and not request.get("missing_ok"):
        names = ", ".join(sorted("-".join(one[:3]) for one in missing))
        raise dnf.exceptions.Error(f"no repository has these packages any more: {names}")
    return found


_ANSWERS = {"resolve": _resolve, "fetch": _fetch, "origins": _origins}

if __name__ == "__main__":
    sys.exit(main())
