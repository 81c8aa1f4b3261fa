"""The minimal image's tree: chosen files of packages plus our own, and no foreign code is run."""

from __future__ import annotations

import posixpath
import tempfile
from pathlib import Path

from imagefactory import run
from imagefactory.errors import BuildError
from imagefactory.packages import deb, installed
from imagefactory.packages.tools import Tools
from imagefactory.plan import BuildPlan
from imagefactory.rootfs import elf
from imagefactory.rootfs.initramfs import add_initramfs
from imagefactory.rootfs.kernel import Kernel, Module, compressed, read_kernel
from imagefactory.rootfs.workshop import Workshop
from imagefactory.template import MinimalTree
from imagefactory.tree import Entry, RootTree, TreeBuilder, merged

_NOT_PROGRAMS = ("usr/lib/modules/", "boot/")
"""Where ELF files are the kernel's own."""

CONFIG = "etc/imagefactory/config"
"""Where the guest's scripts find what the template decided."""

BASE = "etc/imagefactory/base"
"""Where they find what the image was made from."""


def build_tree(plan: BuildPlan, shop: Workshop) -> RootTree:
    """Put the tree of a minimal image together.

    Raises:
        BuildError: A file, library or module is missing, or of another architecture.
        PackageError: A package lacks a file that the template takes from it.
    """
    files = {package.name: shop.package_file(package) for package in plan.image_packages}
    epoch = plan.epoch
    if epoch is None:
        epoch = max(deb.built_at(file) for file in files.values())
    tree = TreeBuilder()
    with deb.opened(files[plan.kernel.name]) as archive:
        recipe = _recipe(plan)
        kernel = read_kernel(archive, recipe.modules, recipe.optional_modules)
    tree.add_file(f"boot/{_kernel_name(kernel)}", _stored(kernel.image, plan, shop.cache))
    _add_modules(tree, kernel, shop.tools, shop.work)
    for name, patterns in _recipe(plan).packages.items():
        _add_package(tree, name, files[name], patterns)
    _add_own_files(tree, plan)
    _check_programs(tree, plan)
    initramfs = add_initramfs(tree, _initramfs_files(tree, plan, kernel))
    tar = shop.work / "root.tar"
    tree.write(tar, epoch)
    packages = tar.with_suffix(".packages")
    # It has no database, but what it is composed of.
    installed.write(installed.of_dpkg("\n".join(map(deb.control, files.values()))), packages)
    return RootTree(tar, f"boot/{_kernel_name(kernel)}", initramfs, epoch, packages=packages)


def _recipe(plan: BuildPlan) -> MinimalTree:
    if not isinstance(plan.template.recipe, MinimalTree):
        raise BuildError(f"the image {plan.template.name} is not of `builder: minimal`")
    return plan.template.recipe


def _stored(image: bytes, plan: BuildPlan, cache: Path) -> bytes:
    """Return the kernel as the template wants it stored on the disk."""
    if _recipe(plan).kernel_compression == "none":
        return image
    return compressed(image, cache)


def _add_modules(tree: TreeBuilder, kernel: Kernel, tools: Tools, work: Path) -> None:
    for module in kernel.modules:
        tree.add_file(_module_path(kernel, module), module.content)
    for name, content in _module_index(kernel, tools, work).items():
        tree.add_file(f"lib/modules/{kernel.version}/{name}", content)


def _kernel_name(kernel: Kernel) -> str:
    return f"vmlinuz-{kernel.version}"


def _module_path(kernel: Kernel, module: Module) -> str:
    return merged(f"lib/modules/{kernel.version}/{module.path}")


def _module_index(kernel: Kernel, tools: Tools, work: Path) -> dict[str, bytes]:
    """Let depmod write the text index that busybox's modprobe reads."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        root = Path(scratch) / "lib/modules" / kernel.version
        contents = {module.path: module.content for module in kernel.modules} | kernel.index
        for name, content in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        run.run([*tools.command("kmod", "depmod"), "-b", scratch, kernel.version])
        names = ("modules.dep", "modules.alias", "modules.builtin")
        return {name: (root / name).read_bytes() for name in names if (root / name).exists()}


def _add_package(tree: TreeBuilder, name: str, file: Path, patterns: tuple[str, ...]) -> None:
    with deb.opened(file) as archive:
        members = archive.getmembers()
        for pattern in patterns:
            for member in deb.matching(members, pattern, name):
                if member.issym():
                    tree.add_link(member.name, member.linkname)
                elif member.isfile() or member.islnk():
                    tree.add_file(member.name, deb.read(archive, member), member.mode & 0o7777)
                else:
                    raise BuildError(f"{name}: {member.name} is neither a file nor a link")


def _add_own_files(tree: TreeBuilder, plan: BuildPlan) -> None:
    recipe = _recipe(plan)
    for name in recipe.applets:
        tree.add_link(f"usr/bin/{name}", "busybox")
    for name in recipe.directories:
        tree.add_directory(name)
    overlay = plan.beside(recipe.overlay)
    for path in sorted(overlay.rglob("*")):
        name = str(path.relative_to(overlay))
        if path.is_symlink():
            tree.add_link(name, str(path.readlink()))
        elif path.is_file():
            # Only the executable bit is the repository's; the rest would be the umask's.
            executable = path.stat().st_mode & 0o100
            tree.add_file(name, path.read_bytes(), 0o755 if executable else 0o644)
    for name, target in recipe.links.items():
        tree.add_link(name, target)
    tree.add_file(CONFIG, _guest_config(tree, plan))
    distribution = plan.template.distribution
    tree.add_file(BASE, f"{distribution.id} {distribution.release}\n".encode())
    for name, mode in recipe.modes.items():
        tree.set_mode(name, int(mode, 8))


def _guest_config(tree: TreeBuilder, plan: BuildPlan) -> bytes:
    """Fill the template's decisions into the guest's configuration, a file of KEY=value."""
    values = {
        "DEFAULT_USER": plan.template.default_user,
        "CONSOLE_PASSWORD_HASH": _recipe(plan).console_password or "",
    }
    entry = tree.entries.get(CONFIG, Entry(0o644, content=b""))
    lines = (entry.content or b"").decode().splitlines()
    kept = [line for line in lines if line.partition("=")[0] not in values]
    ours = [f"{key}={value}" for key, value in values.items()]
    return ("\n".join([*kept, *ours]) + "\n").encode()


def _check_programs(tree: TreeBuilder, plan: BuildPlan) -> None:
    """Every program and library is of the image's architecture and finds what it links to."""
    present = {posixpath.basename(path) for path in tree.entries}
    wanted = plan.profile.elf
    mistakes = []
    for path, content in tree.files():
        if not content.startswith(elf.MAGIC) or path.startswith(_NOT_PROGRAMS):
            continue
        try:
            program = elf.inspect(content)
        except BuildError as error:
            mistakes.append(f"{path}: {error.message}")
            continue
        # PowerPC has one machine number for both byte orders.
        if (program.machine, program.bits, program.endian) != (
            wanted.machine,
            wanted.bits,
            wanted.endian,
        ):
            mistakes.append(
                f"{path} is a {program.bits}-bit {program.endian}-endian program for "
                f"ELF machine {program.machine}"
            )
        mistakes += [f"{path} needs {name}" for name in program.needed if name not in present]
        if program.loader and tree.resolve(program.loader) is None:
            mistakes.append(f"{path} needs {program.loader}")
    if mistakes:
        raise BuildError("the tree is not whole: " + "; ".join(sorted(mistakes)))


def _initramfs_files(
    tree: TreeBuilder, plan: BuildPlan, kernel: Kernel
) -> tuple[tuple[str, str], ...]:
    """Name the files of the initramfs: (path inside it, path of the real file in the tree)."""
    recipe = _recipe(plan)
    pairs = {"init": merged(recipe.initramfs_script)}
    for program in recipe.initramfs_programs:
        _add_with_libraries(pairs, tree, program)
    for number, module in enumerate(kernel.closure(recipe.initramfs_modules)):
        pairs[f"modules/{number:02}-{module.name}.ko"] = _module_path(kernel, module)
    return tuple(pairs.items())


def _add_with_libraries(pairs: dict[str, str], tree: TreeBuilder, path: str) -> None:
    """Add a program, its loader and libraries, at the paths where the loader looks for them."""
    source = tree.resolve(path)
    content = tree.entries[source].content if source else None
    if source is None or content is None:
        raise BuildError(f"the initramfs needs {path}, which is not in the tree")
    if path.lstrip("/") in pairs:  # libraries may need each other
        return
    pairs[path.lstrip("/")] = source
    if not content.startswith(elf.MAGIC):
        return  # a script
    program = elf.inspect(content)
    if program.loader:
        _add_with_libraries(pairs, tree, program.loader)
    for name in program.needed:
        found = (
            entry
            for entry in sorted(tree.entries)
            if entry.startswith("usr/lib") and posixpath.basename(entry) == name
        )
        _add_with_libraries(pairs, tree, next(found, name).removeprefix("usr/"))
