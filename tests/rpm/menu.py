"""Packages that make the test distribution boot as openSUSE does: by a menu, and no boot entries.

What they do was read in suse-module-tools (kernel-scriptlets/rpm-script), update-bootloader
(pbl.sh, grub2/config) and grub2.spec of openSUSE: a kernel in /usr/lib/modules with a link in
/boot, an ``initrd-*``, a menu that grub2-mkconfig writes, GRUB's files below /usr/share.
"""

from __future__ import annotations

from pathlib import Path

from tests.rpm.rpms import make_rpm

LAYOUT = "boot-menu"
KERNEL = "kernel-default"

_MOVE = """\
set -e
mkdir -p /usr/share/grub2 /usr/share/efi/x86_64
mv /usr/lib/grub/* /usr/share/grub2/
mv /boot/efi/EFI/fedora/grubx64.efi /usr/share/grub2/x86_64-efi/grub.efi
ln -s ../../grub2/x86_64-efi/grub.efi /usr/share/efi/x86_64/grub.efi
mv /boot/efi/EFI/fedora/shimx64.efi /usr/share/efi/x86_64/shim-signed.efi
ln -s shim-signed.efi /usr/share/efi/x86_64/shim.efi
rm -r /boot/efi/EFI /etc/grub.d/10_linux
"""

_INSTALLED = """\
set -e
[ -f /etc/fstab ] || exit 0
version=$(ls /usr/lib/modules)
ln -s "../usr/lib/modules/$version/vmlinuz" "/boot/vmlinuz-$version"
dracut --force --kver "$version" "/boot/initrd-$version"
/usr/sbin/update-bootloader
"""

_UPDATE_BOOTLOADER = b"""\
#!/bin/sh
. /etc/sysconfig/bootloader
case $LOADER_TYPE in
    grub2 | grub2-efi) exec grub2-mkconfig -o /boot/grub2/grub.cfg ;;
esac
"""

_ENTRIES = b"""\
#!/bin/sh
# Of grub-mkconfig's: all kernels in /boot, the newest first; the modules are loaded as it does it.
set -e
. /usr/share/grub/grub-mkconfig_lib
for kernel in $(ls -rv /boot/vmlinuz-*); do
    echo "menuentry 'Linux ${kernel#*-}' {"
    prepare_grub_to_access_device "$GRUB_DEVICE_BOOT" | grub_add_tab
    echo "  insmod gzio"
    echo "  linux $kernel root=UUID=$GRUB_DEVICE_UUID $GRUB_CMDLINE_LINUX_DEFAULT"
    echo "  initrd /boot/initrd-${kernel#*-}"
    echo "}"
done
"""


def make_packages(directory: Path) -> None:
    """Make the packages, unsigned; `LAYOUT` and `KERNEL` are their names."""
    files = {"usr/sbin/update-bootloader": _UPDATE_BOOTLOADER, "etc/grub.d/11_linux": _ENTRIES}
    grub = ["shim-x64", "grub2-efi-x64-modules", "grub2-pc", "grub2-tools"]
    # Before the kernel's, as rpm goes by what is required.
    shell = "/bin/sh"
    make_rpm(
        directory, LAYOUT, files, requires=grub, scripts={"posttrans": _MOVE}, interpreter=shell
    )
    make_rpm(
        directory,
        KERNEL,
        {},
        requires=["kernel-core", LAYOUT],
        scripts={"posttrans": _INSTALLED},
        interpreter=shell,
    )
