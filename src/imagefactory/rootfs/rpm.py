"""A whole system of RPM packages as a tree: dnf installs it, the customisation finishes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from imagefactory import run
from imagefactory.cache import Store
from imagefactory.data import sha256_of
from imagefactory.errors import BuildError, PackageError
from imagefactory.packages import rpm as package_files
from imagefactory.packages.pool import Package
from imagefactory.plan import BuildPlan, boot_files, fill, grub_stub
from imagefactory.rootfs import cloud, rpm_repositories
from imagefactory.rootfs.customising import WholeFile
from imagefactory.rootfs.rpm_inside import SPEC, Accounts, Base, Core, Spec
from imagefactory.rootfs.workshop import Workshop, finished
from imagefactory.rpmtree import RpmTree
from imagefactory.sandbox import foreign, rpmtwin
from imagefactory.sandbox.execution import Execution
from imagefactory.template import GrubModules, UefiFiles
from imagefactory.tree import RootTree

_TIMEOUT = 7200.0
"""Seconds for a whole tree; dracut under plain emulation alone takes minutes."""

_NO_DISK = "root=UUID=00000000-0000-0000-0000-000000000000"
"""In the boot entries of a base tree: which disk it will be on is not decided yet."""

_ESP = "boot/efi/"
"""Where packages find it mounted."""

_MODULES = (
    *("part_gpt", "ext2", "search", "search_fs_uuid", "normal", "configfile", "echo", "linux"),
    *("test", "loadenv", "minicmd", "gzio"),
)
"""What a GRUB needs to read our disk and start Linux; the signed one has them all built in."""

_READ_ENTRIES = ("blscfg", "blsuki")
"""The module that reads boot entries: Fedora's, or GRUB's own since 2.14."""

_PLATFORMS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "prep": ("powerpc-ieee1275", (), ()),
    "bios": ("i386-pc", ("biosdisk", "serial", "terminal"), ("boot.img",)),
}
"""Boot method -> GRUB's platform, more modules, and files of GRUB that the disk needs."""


def build_tree(plan: BuildPlan, shop: Workshop) -> RootTree:
    """Install packages and customise the tree, in namespaces of its own.

    Raises:
        HostError: This host gives no namespaces, or cannot run the architecture's programs.
        BuildError: A package or a scriptlet failed, or a step of the customisation did.
        PackageError: A package's file is damaged.
    """
    recipe = _recipe(plan)
    files = _shown(plan, shop)
    epoch = plan.epoch
    if epoch is None:
        epoch = _newest(files)
    execution = execution_of(plan, shop)
    keys = [
        plan.beside(key.file) for repository in recipe.all_repositories for key in repository.keys
    ]
    boot_files = shop.work / "boot-files"
    spec = Spec(
        tree=str(shop.work / "tree"),
        base=Base(
            files=tuple(map(str, files)),
            keys=tuple(dict.fromkeys(map(str, keys))),
            signed=recipe.signed,
            architecture=plan.profile.names.rpm,
            release=plan.template.distribution.release,
            database=recipe.database,
            rewrite_database=recipe.rewrite_database,
            early_files=_whole(recipe.early_files),
            command_line=" ".join((_NO_DISK, *plan.kernel_arguments)),
            accounts=_accounts(files, shop),
        ),
        epoch=epoch,
        actions=cloud.actions(plan, recipe),
        files=_files(plan, recipe),
        accounts=cloud.accounts(recipe),
        timezone=recipe.timezone,
        locale=recipe.locale,
        command_line=plan.command_line,
        cores=_cores(plan),
        loaders=_loaders(plan),
        modules=_modules(plan),
        kernel=recipe.kernel_files.get(plan.profile.name, recipe.kernel_file),
        initramfs=recipe.initramfs_file,
        boot_files=str(boot_files),
        result=str(shop.work / "root.tar"),
        execution=execution,
    )
    trees = Store(shop.cache, "trees")
    key = f"{_base_key(plan, epoch)}.tar"
    with trees.making(key) as found:
        if found is not None:
            said = _run(replace(spec, known_base=str(found)), shop)
        else:
            with trees.scratch() as scratch:
                made = scratch / key
                said = _run(replace(spec, new_base=str(made)), shop)
                trees.add(key, made)
    how = execution.describe(plan.profile.name)
    return finished(said, spec.result, epoch, how, boot_files)


def execution_of(plan: BuildPlan, shop: Workshop) -> Execution:
    """Decide how the tree's programs are run, and make their twin where they are foreign.

    Where the distribution does not exist for this machine, every program is emulated.

    Raises:
        HostError: This host cannot run them at all.
    """
    way = foreign.choose(plan.profile, shop.host, shop.cache, accelerate=shop.accelerate)
    if way.mechanism != "accelerated":
        return Execution.of(way, None)
    shop.announce("tree", "the twin")
    versions = {package.name: package.version for package in plan.image_packages}
    lists = shop.sources.rpm.elsewhere(shop.host.names.rpm)
    try:
        made = rpmtwin.make(versions, lists, shop.host, plan.profile, shop.cache)
    except PackageError as error:
        shop.announce("tree", f"no twin: {error.message.splitlines()[0]}")
        slow = foreign.choose(plan.profile, shop.host, shop.cache, accelerate=False)
        why = f"the packages of {shop.host.name} cannot be had: {error.message.splitlines()[0]}"
        return Execution.of(replace(slow, reason=why), None)
    return Execution.of(way, made)


def _run(spec: Spec, shop: Workshop) -> dict[str, str]:
    return shop.build_inside("imagefactory.rootfs.rpm_inside", SPEC.dump_json(spec), _TIMEOUT)


def _recipe(plan: BuildPlan) -> RpmTree:
    if not isinstance(plan.template.recipe, RpmTree):
        raise BuildError(f"the image {plan.template.name} is not of `builder: rpm`")
    return plan.template.recipe


def _accounts(files: Sequence[Path], shop: Workshop) -> Accounts | None:
    lines = package_files.accounts(files)
    if not lines:
        return None
    first = package_files.bringing("/etc/passwd", files)
    return Accounts(lines, tuple(map(str, first)), shop.tools.command("systemd-sysusers"))


def _shown(plan: BuildPlan, shop: Workshop) -> list[Path]:
    """Show the plan's packages under the names by which dnf takes files for packages."""
    directory = shop.work / "packages"
    directory.mkdir()
    links = []
    for package in plan.image_packages:
        link = directory / f"{package.name}-{_in_a_name(package)}.{package.architecture}.rpm"
        link.symlink_to(shop.package_file(package))
        links.append(link)
    return links


def _in_a_name(package: Package) -> str:
    """Return the version as files' names have it: without the epoch."""
    return package.version.rpartition(":")[2]


def _newest(files: list[Path]) -> int:
    """Return when the newest of some packages was built, seconds since 1970."""
    rpm = run.need("rpm", "rpm")
    said = run.run([rpm, "--query", "--queryformat", "%{BUILDTIME}\n", "--package", *files])
    return max(map(int, said.stdout.split()))


def _base_key(plan: BuildPlan, epoch: int) -> str:
    """Digest of all that decides the tree before its customisation."""
    recipe = _recipe(plan)
    content = {
        "packages": [package.checksum[1] for package in plan.image_packages],
        "kernel arguments": plan.kernel_arguments,
        "database": [recipe.database, recipe.rewrite_database],
        "early files": recipe.early_files,
        # The tree's rpm knows the keys; and who has to have signed what differs by template.
        "keys": [
            sha256_of(plan.beside(key.file)) for one in recipe.all_repositories for key in one.keys
        ],
        "signed": recipe.signed,
        "epoch": epoch,
        "code": [
            sha256_of(Path(__file__).with_name(name))
            for name in ("rpm_inside.py", "customising.py")
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _files(plan: BuildPlan, recipe: RpmTree) -> tuple[WholeFile, ...]:
    """What a tree says of its disk, its cloud and its bootloader."""
    grub = plan.template.bootloader
    own = recipe.files_for(plan.profile.name, " ".join(plan.kernel_arguments))
    files = (
        *cloud.files(plan, recipe),
        *rpm_repositories.files(plan, recipe),
        *_whole(own),
    )
    if grub.menu != "bls":
        return files  # the disk stage writes what is started
    menu = WholeFile(f"{grub.directory}/grub.cfg", _grub_configuration(grub.directory))
    return (*files, menu)


def _whole(files: Mapping[str, str]) -> tuple[WholeFile, ...]:
    return tuple(WholeFile(path, content) for path, content in files.items())


def _grub_configuration(directory: str) -> str:
    """Return a grub.cfg that reads the boot entries which kernel-install writes.

    `blscfg` is Fedora's command and, since 2.14, GRUB's own. A kernel that the guest installs
    becomes the default by ``saved_entry`` (UPDATEDEFAULT in /etc/sysconfig/kernel).
    """
    return (
        "# Written by imagefactory; grub2-mkconfig may write another one.\n"
        "if [ $grub_platform = pc ]; then\n"
        "  serial --unit=0 --speed=115200\n"
        "  terminal_output console serial\n"
        "fi\n"
        f"if [ -s /{directory}/grubenv ]; then\n"
        f"  load_env -f /{directory}/grubenv\n"
        "fi\n"
        'set default="${saved_entry}"\n'
        "set timeout=0\n"
        "blscfg\n"
    )


def _cores(plan: BuildPlan) -> tuple[Core, ...]:
    cores = []
    for method in plan.boot:
        if method not in _PLATFORMS:
            continue  # signed, and on the ESP as the packages bring it
        target, modules, beside = _PLATFORMS[method]
        grub = plan.template.bootloader
        files = boot_files(grub, method)
        if not isinstance(files, GrubModules):
            raise BuildError(f"`bootloader: {method}:` must name modules")
        cores.append(
            Core(
                method,
                target,
                (*_MODULES, *modules),
                _READ_ENTRIES if grub.menu == "bls" else (),
                beside,
                grub_stub(plan),
                directory=fill(files.modules, plan.profile),
                home=grub.directory,
            )
        )
    return tuple(cores)


def _modules(plan: BuildPlan) -> tuple[tuple[str, str], ...]:
    """Name the directories of modules, and their places where a menu may load any of them."""
    grub = plan.template.bootloader
    if grub.menu == "bls":
        return ()  # ours loads none
    every = (boot_files(grub, method).modules for method in plan.boot)
    paths = [fill(modules, plan.profile) for modules in every if modules]
    return tuple((path, f"{grub.directory}/{PurePosixPath(path).name}") for path in paths)


def _loaders(plan: BuildPlan) -> tuple[str, ...]:
    """Name what goes to the ESP and is not there already, by the packages' doing."""
    every = (boot_files(plan.template.bootloader, method) for method in plan.boot)
    named = (path for files in every if isinstance(files, UefiFiles) for path in files.sources)
    paths = (fill(path, plan.profile) for path in named)
    return tuple(path for path in paths if not path.startswith(_ESP))
