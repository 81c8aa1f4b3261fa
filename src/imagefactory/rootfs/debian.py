"""A whole Debian as a tree: mmdebstrap installs it, the template's customisation finishes it."""

from __future__ import annotations

import hashlib
import json
import textwrap
from dataclasses import replace
from pathlib import Path

from imagefactory.cache import Store
from imagefactory.data import sha256_of
from imagefactory.errors import BuildError
from imagefactory.packages import deb
from imagefactory.packages.local import write_index
from imagefactory.packages.pool import Package
from imagefactory.plan import BuildPlan
from imagefactory.rootfs import cloud
from imagefactory.rootfs.customising import Action, WholeFile
from imagefactory.rootfs.debian_inside import SPEC, Base, Spec
from imagefactory.rootfs.workshop import Workshop, finished
from imagefactory.sandbox import foreign, twin
from imagefactory.sandbox.execution import Execution
from imagefactory.template import DebianTree
from imagefactory.tree import RootTree

_TIMEOUT = 3600.0
"""Seconds for a whole tree; plain emulation of a large one takes twenty minutes."""


def build_tree(plan: BuildPlan, shop: Workshop) -> RootTree:
    """Install a Debian and customise it, in namespaces of its own.

    Raises:
        HostError: This host gives no namespaces, or cannot run the architecture's programs.
        BuildError: A package could not be installed, or a step of the customisation failed.
        PackageError: A package's file is damaged.
    """
    recipe = _recipe(plan)
    work, announce = shop.work, shop.announce
    files = {package: shop.package_file(package) for package in plan.image_packages}
    epoch = plan.epoch
    if epoch is None:
        epoch = max(deb.built_at(file) for file in files.values())
    execution = execution_of(plan, shop)
    repository = work / "repository"
    spec = Spec(
        tree=str(work / "tree"),
        base=Base(
            repository=str(repository),
            architecture=plan.profile.names.deb,
            packages=tuple(package.name for package in plan.image_packages),
            wanted=plan.wanted,
            preseed=recipe.preseed,
            exclude=recipe.exclude,
            include=recipe.include,
        ),
        epoch=epoch,
        actions=(*_keyrings(plan), *cloud.actions(plan, recipe)),
        files=_generated_files(plan, recipe),
        accounts=cloud.accounts(recipe),
        locale=recipe.locale,
        timezone=recipe.timezone,
        result=str(work / "root.tar"),
        execution=execution,
    )
    trees = Store(shop.cache, "trees")
    key = f"{_base_key(plan, recipe, epoch)}.tar"
    with trees.making(key) as found:
        if found is not None:
            said = _run(replace(spec, known_base=str(found)), shop)
        else:
            announce("tree", f"installing {len(files)} packages")
            _write_repository(files, repository)
            with trees.scratch() as scratch:
                made = scratch / key
                said = _run(replace(spec, new_base=str(made)), shop)
                trees.add(key, made)
    return finished(said, spec.result, epoch, execution.describe(plan.profile.name))


def execution_of(plan: BuildPlan, shop: Workshop) -> Execution:
    """Decide how the tree's programs are run, and make their twin where they are foreign.

    Raises:
        HostError: This host cannot run them at all.
        PackageError: The twin's packages cannot be had.
    """
    way = foreign.choose(plan.profile, shop.host, shop.cache, accelerate=shop.accelerate)
    made = None
    if way.mechanism == "accelerated":
        versions = {package.name: package.version for package in plan.image_packages}
        shop.announce("tree", "the twin")
        made = twin.make(
            versions,
            shop.sources.boot_tools.repositories,  # as this machine's architecture finds them
            shop.host,
            plan.profile,
            shop.cache,
            offline=shop.sources.boot_tools.offline,
        )
    return Execution.of(way, made)


def _run(spec: Spec, shop: Workshop) -> dict[str, str]:
    return shop.build_inside("imagefactory.rootfs.debian_inside", SPEC.dump_json(spec), _TIMEOUT)


def _recipe(plan: BuildPlan) -> DebianTree:
    if not isinstance(plan.template.recipe, DebianTree):
        raise BuildError(f"the image {plan.template.name} is not of `builder: debian`")
    return plan.template.recipe


def _base_key(plan: BuildPlan, recipe: DebianTree, epoch: int) -> str:
    """Digest of all that decides the tree before its customisation."""
    content = {
        "packages": [package.sha256 for package in plan.image_packages],
        "wanted": plan.wanted,
        "preseed": recipe.preseed,
        "exclude": [recipe.exclude, recipe.include],
        "epoch": epoch,
        "code": [
            sha256_of(Path(__file__).with_name(name))
            for name in ("debian_inside.py", "customising.py")
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _write_repository(files: dict[Package, Path], directory: Path) -> None:
    """Show the plan's packages, and no others, to apt as a repository of files."""
    directory.mkdir()
    shown = {}
    for package, file in files.items():
        version = package.version.replace(":", "%3a")
        link = directory / f"{package.name}_{version}_{package.architecture}.deb"
        link.symlink_to(file)
        shown[link] = package.sha256
    write_index(shown, directory)


def _keyrings(plan: BuildPlan) -> tuple[Action, ...]:
    return tuple(
        Action("copy", str(file), path.lstrip("/")) for path, file in plan.guest_keyrings.items()
    )


def _generated_files(plan: BuildPlan, recipe: DebianTree) -> tuple[WholeFile, ...]:
    """What a tree says of its disk, its cloud and its repositories."""
    files = {
        "etc/default/grub.d/50_imagefactory.cfg": _grub_defaults(plan),
        # Even if it is empty: mmdebstrap left one that names this build's directory.
        "etc/apt/sources.list": plan.sources_list,
    }
    if plan.apt_preferences:
        files["etc/apt/preferences.d/imagefactory"] = plan.apt_preferences
    # Debian's cloud-init leaves sources.list alone, Ubuntu's would write its own.
    apt = {"apt": {"preserve_sources_list": True}} if plan.sources_list else {}
    return (
        *cloud.files(plan, recipe, **apt),
        *(WholeFile(path, content) for path, content in files.items()),
    )


def _grub_defaults(plan: BuildPlan) -> str:
    """What the guest's own update-grub needs to write the configuration that we wrote first."""
    return textwrap.dedent(f"""\
        # Written by imagefactory.
        GRUB_CMDLINE_LINUX="{" ".join(plan.kernel_arguments)}"
        GRUB_CMDLINE_LINUX_DEFAULT=""
        GRUB_TERMINAL="console serial"
        GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
        GRUB_DISABLE_OS_PROBER=true
        GRUB_TIMEOUT=0
        """)
