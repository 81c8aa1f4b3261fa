"""The kernel of an image: the modules it needs, found by what each says of itself."""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import re
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import zstandard
from elftools.elf.elffile import ELFFile

from imagefactory.cache import Store
from imagefactory.data import write_whole
from imagefactory.errors import BuildError
from imagefactory.packages import deb
from imagefactory.rootfs.elf import DAMAGE

_DICTIONARY = 1 << 20
"""Bytes of xz's dictionary: 1 MiB is within 2 % of the best."""

_MODULE = re.compile(r"lib/modules/([^/]+)/(kernel/.+/([^/]+)\.ko)(?:\.(xz|zst))?$")


@dataclass(frozen=True)
class Module:
    """One kernel module: its path below lib/modules/VERSION and its uncompressed content."""

    name: str
    path: str
    content: bytes
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel with the modules that were asked for.

    Attributes:
        image: The kernel's content.
        modules: In an order in which each comes after all that it needs.
        index: modules.builtin, modules.builtin.modinfo and modules.order, for depmod.
    """

    version: str
    image: bytes
    modules: tuple[Module, ...]
    index: dict[str, bytes]

    def closure(self, names: Iterable[str]) -> tuple[Module, ...]:
        """Return modules and all they need, in loading order; built-in ones need no file."""
        by_name = {module.name: module for module in self.modules}
        return _in_order(names, by_name.get)


def read_kernel(
    archive: tarfile.TarFile, required: Iterable[str], optional: Iterable[str]
) -> Kernel:
    """Take a kernel and some of its modules out of a package.

    Raises:
        BuildError: A required module, or one that it depends on, is neither there nor built
            in; or a module is damaged; or there is no kernel.
    """
    members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
    files: dict[str, tuple[str, str, tarfile.TarInfo]] = {}
    index: dict[str, bytes] = {}
    version, image = "", b""
    for name, member in members.items():
        if match := _MODULE.search(name):
            files[_plain(match[3])] = (match[2], match[4] or "", member)
        elif match := re.match(r"boot/vmlinu[xz]-([^/]+)$", name):
            version, image = match[1], deb.read(archive, member)
        elif PurePosixPath(name).name in {"modules.builtin", "modules.builtin.modinfo"}:
            index[PurePosixPath(name).name] = deb.read(archive, member)
    if not version:
        raise BuildError("the kernel package holds no /boot/vmlinu*")
    builtin = _builtin_names(index.get("modules.builtin", b""))

    wanted = [_plain(name) for name in required]
    absent = [name for name in wanted if name not in files and name not in builtin]
    if absent:
        raise BuildError(
            f"the kernel {version} has no module {', '.join(sorted(absent))}",
            hint="the template's `minimal: modules:` names it; "
            "`optional_modules:` is for those that only some architectures have",
        )
    wanted += [_plain(name) for name in optional if _plain(name) in files]
    return Kernel(version, image, _in_order(wanted, _loader(archive, files, builtin)), index)


def _loader(
    archive: tarfile.TarFile, files: dict[str, tuple[str, str, tarfile.TarInfo]], builtin: set[str]
) -> Callable[[str], Module | None]:
    """Return what reads a module of the package by its name; None stands for: not in a file."""

    def load(name: str) -> Module | None:
        if name not in files:
            return None
        path, compression, member = files[name]
        try:
            content = _expand(deb.read(archive, member), compression)
            depends, softdeps = _needs(content)
        except (lzma.LZMAError, zstandard.ZstdError, *DAMAGE) as error:
            raise BuildError(f"the kernel module {path} is damaged: {error}") from None
        absent = [need for need in depends if need not in files and need not in builtin]
        if absent:
            raise BuildError(f"the module {name} needs {', '.join(absent)}, which is nowhere")
        return Module(name, path, content, (*depends, *softdeps))

    return load


def compressed(image: bytes, cache: Path) -> bytes:
    """Compress a kernel as GRUB can read it; ten seconds the first time, then from the cache.

    GRUB's reader knows CRC32 and no filter but LZMA2; its memory grows with the dictionary.
    """
    settings = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": _DICTIONARY}
    key = hashlib.sha256(f"{settings}\0".encode() + image).hexdigest()
    store = Store(cache, "kernels")
    with contextlib.suppress(OSError, lzma.LZMAError):
        known = stored.read_bytes() if (stored := store.get(f"{key}.xz")) else b""
        if lzma.decompress(known) == image:
            return known
    packed = lzma.compress(image, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=[settings])
    write_whole(store.path(f"{key}.xz"), packed)
    return packed


def _in_order(names: Iterable[str], find: Callable[[str], Module | None]) -> tuple[Module, ...]:
    ordered: dict[str, Module] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        name = _plain(name)
        if name in ordered or name in above:
            return
        module = find(name)
        if module is None:  # built in, or a soft dependency that this kernel lacks
            return
        for need in module.needs:
            visit(need, (*above, name))
        ordered[name] = module

    for name in names:
        visit(name, ())
    return tuple(ordered.values())


def _needs(content: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read `depends` and `softdep ... pre:` from a module's .modinfo section."""
    section = ELFFile(io.BytesIO(content)).get_section_by_name(".modinfo")
    entries = section.data().split(b"\0") if section else []
    depends: list[str] = []
    softdeps: list[str] = []
    for entry in entries:
        key, _, value = entry.decode("utf-8", "replace").partition("=")
        if key == "depends":
            depends += [_plain(name) for name in value.split(",") if name]
        elif key == "softdep":
            before = re.search(r"pre:\s*(.*?)(?=\bpost:|$)", value)
            softdeps += [_plain(name) for name in before[1].split()] if before else []
    return tuple(depends), tuple(softdeps)


def _plain(name: str) -> str:
    """The kernel takes - and _ in a module's name for the same."""
    return name.replace("-", "_")


def _builtin_names(listing: bytes) -> set[str]:
    names = (PurePosixPath(line).stem for line in listing.decode().splitlines())
    return {_plain(name) for name in names}


def _expand(content: bytes, compression: str) -> bytes:
    match compression:
        case "xz":
            return lzma.decompress(content)
        case "zst":
            # zstd's own call wants a size in the header, which a stream need not have.
            stream = zstandard.ZstdDecompressor().decompressobj()
            plain = stream.decompress(content)
            if not stream.eof:
                raise zstandard.ZstdError("it ends too early")
            return plain
        case _:
            return content
