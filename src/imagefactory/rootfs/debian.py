"""A whole Debian as a tree: mmdebstrap installs it, the template's customisation finishes it."""

from __future__ import annotations

import hashlib
import itertools
import json
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from imagefactory.cache import Store
from imagefactory.data import sha256_of
from imagefactory.errors import BuildError
from imagefactory.packages import deb
from imagefactory.packages.local import write_index
from imagefactory.packages.pool import Package
from imagefactory.plan import BuildPlan
from imagefactory.rootfs.customising import Account, Action, WholeFile
from imagefactory.rootfs.debian_inside import SPEC, Base, Spec
from imagefactory.rootfs.workshop import Workshop
from imagefactory.sandbox import foreign, twin
from imagefactory.sandbox.execution import Execution
from imagefactory.sandbox.namespace import run_inside
from imagefactory.template import DebianTree, Step, User
from imagefactory.tree import RootTree

_TIMEOUT = 3600.0
"""Seconds for a whole tree; plain emulation of a large one takes twenty minutes."""

_CLOUD_CONFIG = "etc/cloud/cloud.cfg.d/90_imagefactory.cfg"

_DETECTION = """\
# Written by imagefactory.
# nova tells a guest that it is one by SMBIOS, which ppc64le has not, and aarch64 not in every
# cloud. cloud-init from 25.1.3 (CVE-2024-6174) then switches itself off unless there is a config
# drive; an image for OpenStack shall ask the metadata service there, as it always did.
policy: search,found=all,maybe=all,notfound=disabled
"""
"""Of cloud-init's ds-identify, which chooses among the datasources before anything has run."""


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
        actions=(*_keyrings(plan), *(_action(step, plan) for step in _steps(plan, recipe))),
        files=_generated_files(plan, recipe),
        accounts=tuple(
            Account(user.name, user.groups, user.shell, user.password_hash or "*")
            for user in recipe.users
        ),
        locale=recipe.locale,
        timezone=recipe.timezone,
        result=str(work / "root.tar"),
        execution=execution,
    )
    trees = Store(shop.cache, "trees")
    key = f"{_base_key(plan, recipe, epoch)}.tar"
    with trees.making(key) as found:
        if found is not None:
            said = _run(replace(spec, known_base=str(found)), work, announce)
        else:
            announce("tree", f"installing {len(files)} packages")
            _write_repository(files, repository)
            with trees.scratch() as scratch:
                made = scratch / key
                said = _run(replace(spec, new_base=str(made)), work, announce)
                trees.add(key, made)
    how = execution.describe(plan.profile.name)
    return RootTree(Path(spec.result), said["kernel"], (said["initramfs"],), epoch, how)


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


def _run(spec: Spec, work: Path, announce: Callable[[str, str], None]) -> dict[str, str]:
    told = work / "tree.json"
    told.write_bytes(SPEC.dump_json(spec))
    said: dict[str, str] = {}

    def listen(event: str, text: str) -> None:
        said[event] = text
        if event == "progress":
            announce("tree", text)

    run_inside(
        "imagefactory.rootfs.debian_inside",
        told,
        log=work / "tree.log",
        timeout=_TIMEOUT,
        listen=listen,
    )
    return said


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


def _steps(plan: BuildPlan, recipe: DebianTree) -> tuple[Step, ...]:
    overlays = [name for name in (recipe.overlay, recipe.extra_overlay) if name]
    copies = [Step.model_validate({"copy": {"from": name, "to": "."}}) for name in overlays]
    return (*copies, *plan.template.customize)


def _keyrings(plan: BuildPlan) -> tuple[Action, ...]:
    return tuple(
        Action("copy", str(file), path.lstrip("/")) for path, file in plan.guest_keyrings.items()
    )


def _action(step: Step, plan: BuildPlan) -> Action:
    if step.copy_:
        source = plan.beside(step.copy_.source)
        mode = int(step.copy_.mode, 8) if step.copy_.mode else None
        return Action("copy", str(source), step.copy_.to, mode, step.copy_.owner)
    if step.script:
        return Action("script", str(plan.beside(step.script)))
    if step.run:
        return Action("run", step.run)
    verb = next(name for name in ("enable", "disable", "mask") if getattr(step, name))
    return Action("systemctl", verb, " ".join(getattr(step, verb)))


def _generated_files(plan: BuildPlan, recipe: DebianTree) -> tuple[WholeFile, ...]:
    """What a tree says of its disk, its cloud and its repositories."""
    files = {
        "etc/fstab": plan.fstab,
        "etc/default/grub.d/50_imagefactory.cfg": _grub_defaults(plan),
        _CLOUD_CONFIG: _cloud_config(plan, recipe),
        "etc/cloud/ds-identify.cfg": _DETECTION,
    }
    # Even if it is empty: mmdebstrap left one that names this build's directory.
    files["etc/apt/sources.list"] = plan.sources_list
    if plan.apt_preferences:
        files["etc/apt/preferences.d/imagefactory"] = plan.apt_preferences
    return (
        *(WholeFile(path, content) for path, content in files.items()),
        *itertools.chain.from_iterable(map(_files_of_user, recipe.users)),
    )


def _files_of_user(user: User) -> list[WholeFile]:
    files = []
    if user.authorized_keys:
        keys = "".join(f"{key}\n" for key in user.authorized_keys)
        files.append(WholeFile(f"home/{user.name}/.ssh/authorized_keys", keys, 0o600, user.name))
    if user.sudo:
        rule = f"{user.name} ALL=(ALL) NOPASSWD:ALL\n"
        # sudoers(5): a file whose name has a dot is not read.
        files.append(WholeFile(f"etc/sudoers.d/{user.name.replace('.', '_')}", rule, 0o440))
    return files


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


def _cloud_config(plan: BuildPlan, recipe: DebianTree) -> str:
    """The default user and the order of datasources, for cloud-init; JSON is YAML too."""
    user = {
        "name": plan.template.default_user,
        "lock_passwd": True,
        "gecos": "Cloud user",
        "groups": list(recipe.groups),
        "sudo": ["ALL=(ALL) NOPASSWD:ALL"],
        "shell": "/bin/bash",
    }
    settings: dict[str, object] = {
        "datasource_list": list(recipe.datasources),
        "system_info": {"default_user": user},
    }
    if plan.sources_list:  # Debian's cloud-init leaves it alone, Ubuntu's would write its own
        settings["apt"] = {"preserve_sources_list": True}
    return f"# Written by imagefactory.\n{json.dumps(settings, indent=2)}\n"
