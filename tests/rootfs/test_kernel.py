from __future__ import annotations

import lzma
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

from imagefactory.errors import BuildError
from imagefactory.packages import deb
from imagefactory.rootfs.kernel import Kernel, compressed, read_kernel
from tests.debs import forge_deb
from tests.rootfs.elves import module

BUILTIN = b"kernel/lib/crc16.ko\nkernel/drivers/virtio/virtio-ring.ko\n"


class Package:
    """A kernel package under construction."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "kernel.deb"
        self.members: list[tuple[str, bytes]] = [
            ("./boot/vmlinuz-6.1", b"the kernel"),
            ("./lib/modules/6.1/modules.builtin", BUILTIN),
        ]

    def module(self, name: str, suffix: str = "", **modinfo: str) -> None:
        content = module(name=name, **modinfo)
        if suffix == ".xz":
            content = lzma.compress(content)
        elif suffix == ".zst":
            content = zstandard.ZstdCompressor().compress(content)
        self.member(f"./lib/modules/6.1/kernel/drivers/{name}.ko{suffix}", content)

    def member(self, name: str, content: bytes) -> None:
        self.members.append((name, content))

    def read(self, required: Iterable[str], optional: Iterable[str] = ()) -> Kernel:
        with deb.opened(forge_deb(self.file, self.members)) as archive:
            return read_kernel(archive, required, optional)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


def names(kernel: Kernel) -> list[str]:
    return [module.name for module in kernel.modules]


def test_each_module_comes_after_all_it_needs(package: Package) -> None:
    package.module("ext4", depends="jbd2,mbcache,crc16")
    package.module("jbd2", depends="")
    package.module("mbcache")
    package.module("virtio_net", depends="net-failover,virtio_ring")
    package.module("net_failover", depends="failover")
    package.module("failover")
    package.module("unwanted")
    kernel = package.read(["virtio_net", "ext4"])
    assert names(kernel) == ["failover", "net_failover", "virtio_net", "jbd2", "mbcache", "ext4"]
    assert [m.name for m in kernel.closure(["ext4"])] == ["jbd2", "mbcache", "ext4"]
    assert (kernel.version, kernel.image) == ("6.1", b"the kernel")


def test_dash_and_underscore_are_one(package: Package) -> None:
    package.module("virtio-pci", depends="virtio_modern_dev")
    package.module("virtio-modern-dev")
    kernel = package.read(["virtio-pci"], ["virtio-ring"])
    assert names(kernel) == ["virtio_modern_dev", "virtio_pci"]
    assert len(kernel.closure(["virtio-pci"])) == 2


def test_built_in_modules_need_no_file(package: Package) -> None:
    assert names(package.read(["crc16", "virtio_ring"])) == []


def test_optional_modules_are_taken_where_they_are(package: Package) -> None:
    package.module("ibmveth")
    assert names(package.read([], ["ibmveth", "rpaphp"])) == ["ibmveth"]


def test_soft_dependencies_come_first_and_may_be_missing(package: Package) -> None:
    package.module("ext4", softdep="pre: crc32c nothing post: later")
    package.module("crc32c")
    package.module("later")
    assert names(package.read(["ext4"])) == ["crc32c", "ext4"]


def test_modules_that_need_each_other_end(package: Package) -> None:
    package.module("one", depends="two")
    package.module("two", softdep="pre: one")
    assert sorted(names(package.read(["one"]))) == ["one", "two"]


def test_a_missing_module_is_named(package: Package) -> None:
    with pytest.raises(BuildError, match=r"6\.1 has no module a, b") as caught:
        package.read(["b", "crc16", "a"])
    assert "optional_modules" in caught.value.hint


def test_a_missing_dependency_is_named(package: Package) -> None:
    package.module("ext4", depends="jbd2,crc16")
    with pytest.raises(BuildError, match="ext4 needs jbd2, which is nowhere"):
        package.read(["ext4"])


@pytest.mark.parametrize("suffix", ["", ".xz", ".zst"])
def test_compressed_modules_are_stored_plain(package: Package, suffix: str) -> None:
    package.module("ext4", suffix)
    (found,) = package.read(["ext4"]).modules
    assert found.path == "kernel/drivers/ext4.ko"
    assert found.content == module(name="ext4")


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("", b"rubbish"),
        (".xz", b"rubbish"),
        (".xz", lzma.compress(module())[:-20]),
        (".zst", b"rubbish"),
        (".zst", zstandard.ZstdCompressor().compress(module())[:-10]),
    ],
)
def test_a_damaged_module_is_named(package: Package, suffix: str, content: bytes) -> None:
    package.member(f"./lib/modules/6.1/kernel/fs/ext4.ko{suffix}", content)
    with pytest.raises(BuildError, match=r"the kernel module kernel/fs/ext4\.ko is damaged"):
        package.read(["ext4"])


def test_a_package_without_a_kernel_is_told(tmp_path: Path) -> None:
    with (
        deb.opened(forge_deb(tmp_path / "x.deb", [("./boot/vmlinuz-a/b", b"")])) as archive,
        pytest.raises(BuildError, match="holds no /boot/vmlinu"),
    ):
        read_kernel(archive, [], [])


def test_a_compressed_kernel_is_kept_and_the_same_each_time(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = compressed(b"kernel" * 1000, cache)
    assert lzma.decompress(first) == b"kernel" * 1000
    (stored,) = (cache / "kernels").iterdir()
    assert stored.read_bytes() == first
    assert compressed(b"kernel" * 1000, cache) == first
    assert compressed(b"other", cache) != first


def test_grub_can_read_what_is_compressed(tmp_path: Path) -> None:
    header = compressed(b"kernel", tmp_path)[:14]
    assert header[7] == 1  # CRC32 (xz file format 2.1.1.2); GRUB checks no other
    assert header[13] & 3 == 0  # one filter


@pytest.mark.parametrize("damage", [b"", b"rubbish", lzma.compress(b"another kernel")])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    first = compressed(b"kernel", tmp_path)
    (stored,) = (tmp_path / "kernels").iterdir()
    stored.write_bytes(damage)
    assert compressed(b"kernel", tmp_path) == first
    assert stored.read_bytes() == first
