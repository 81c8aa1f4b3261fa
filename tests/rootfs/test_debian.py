"""Whole Debians, built for real: what is in the finished disk, and what is not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from filelock import FileLock

from imagefactory import template
from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, cache_directory, shipped_directory
from imagefactory.packages.apt import Apt
from imagefactory.run import run
from tests.debian_trees import EPOCH, FinishedRoot, Own
from tests.debs import Archive, Key, Member, forge_deb, make_deb
from tests.factory import (
    MINUTES,
    BuiltImage,
    Factory,
    HostState,
    as_root,
    ordinary_user,
    processes_with,
    wait_for_line,
)
from tests.test_main_job import wait_until_gone

pytestmark = [pytest.mark.system, pytest.mark.timeout(30 * MINUTES)]

SHIPPED = SearchPath((shipped_directory(),))
NATIVE = ArchProfiles.load(SHIPPED).get(os.uname().machine)
HASH = "$6$salt$xxxxxxxxxxxxxxxxxxxxxx"
AUTHORIZED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== anna"

CUSTOM = f"""\
name: custom
extends: debian-12
description: made for a test
disk_size: 1024
compression: fast
kernel: linux-image-factory
extra_repositories:
  - {{suite: stable, mirror: "file://@mirror@", keyring: @keyring@, label: Own, priority: 600}}
debian:
  packages: ["?essential", apt, init, initramfs-tools, locales, openssh-server, passwd, sudo,
             systemd-timesyncd, tzdata, zstd]
  architecture_packages: {{{NATIVE.name}: []}}
  extra_packages: [program, local-program]
  local_packages: debs
  overlay: over
  locale: de_DE.UTF-8
  timezone: Europe/Berlin
  predictable_names: false
  preseed: ["tzdata tzdata/Areas select Europe"]
  users:
    - name: anna
      groups: [adm, sudo]
      sudo: true
      authorized_keys: [{AUTHORIZED}]
    - {{name: b.ob, shell: /bin/sh, password_hash: {HASH}, sudo: true}}
customize:
  - copy: {{from: files/plain, to: opt/plain, mode: "0640", owner: "root:adm"}}
  - copy: {{from: files, to: opt/files, owner: "anna:anna"}}
  - script: files/step.sh
  - run: echo "$PWD $HOME" >/opt/run
  - enable: [systemd-networkd.service]
  - disable: [ssh.service]
  - mask: [apt-daily.timer]
"""


def native_kernel() -> Path:
    """Debian's own kernel of this machine, as a package's file."""
    repositories = template.load(SHIPPED, "debian-12")[0].repositories
    apt = Apt(repositories, NATIVE.names.deb, cache_directory())
    apt.refresh()
    kernel = apt.kernel(NATIVE.kernel["debian"])
    apt.fetch([kernel])
    return apt.pool.take(kernel)


def repacked(deb: Path, scratch: Path, target: Path) -> None:
    """The same kernel under a name and a version of one's own."""
    run(["dpkg-deb", "--raw-extract", deb, scratch])
    control = scratch / "DEBIAN/control"
    lines = control.read_text().splitlines()
    own = {"Package": "linux-image-factory", "Version": "9.9-1"}
    changed = [
        f"{name}: {own.get(name, line.partition(': ')[2])}" if line[:1] != " " else line
        for line in lines
        if (name := line.partition(":")[0])
    ]
    control.write_text("\n".join(changed) + "\n")
    run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", scratch, target])


@pytest.fixture(scope="session")
def custom(shared_directory: Path, keys: tuple[Key, Key]) -> tuple[BuiltImage, FinishedRoot]:
    """Build the image with everything, once for all tests and workers, and read its disk."""
    place = shared_directory / "custom"
    with FileLock(f"{place}.lock"):
        own_directory = place / "own"
        if not own_directory.exists():
            own = Own.beside(Factory(place / "catalog"), own_directory)
            archive = Archive(place / "mirror", keys[0])
            archive.add("program", architecture="all", depends="library (>= 2)")
            archive.add("library", version="1:2.0", architecture="all")
            archive.add("local-program", version="9", architecture="all")
            archive.publish()
            own.deb("local-program", {"usr/bin/local-program": b"#!/bin/sh\n"}, architecture="all")
            debs = own.directory / "templates/debs"
            repacked(native_kernel(), place / "kernel", debs / "kernel.deb")
            ring = place / "own-key.gpg"
            shutil.copy(keys[0].ring, ring)
            text = CUSTOM.replace("@mirror@", str(archive.directory))
            own.put("custom.yaml", text.replace("@keyring@", str(ring)))
            own.put("over/etc/over", "over")
            own.put("over/etc/hosts", "127.0.0.1 localhost\n")
            own.put("files/plain", "plain")
            (own.directory / "templates/files/plain").chmod(0o600)
            script = own.put("files/step.sh", "#!/bin/sh\necho script >/opt/script\nsleep 900 &\n")
            script.chmod(0o755)
            # A careful person's umask must not become the image's.
            command = ("sh", "-c", 'umask 077; exec "$@"', "sh", *own.factory.command)
            careful = Factory(own.factory.catalog, own.factory.env, command)
            careful.run("build", "custom", "--arch", NATIVE.name, "--skip-test")
        (manifest,) = (place / "catalog").glob("*/*/*/manifest.json")
        build = BuiltImage.of(next(manifest.parent.glob("*.qcow2")))
        scratch = place / f"read-{os.getpid()}"
        scratch.mkdir()
        return build, FinishedRoot.of(build, scratch)


@pytest.fixture
def root(custom: tuple[BuiltImage, FinishedRoot]) -> FinishedRoot:
    return custom[1]


def test_what_the_template_puts_there_is_there(root: FinishedRoot) -> None:
    assert root.text("etc/over") == "over"
    assert (root.entries["opt/plain"].permissions, root.owner("opt/plain")) == ("0640", "root:adm")
    assert root.entries["opt/files"].permissions == "0755"
    assert root.entries["opt/files/plain"].permissions == "0644"
    assert root.entries["opt/files/step.sh"].permissions == "0755"
    assert root.owner("opt/files/plain") == "anna:anna"
    assert root.text("opt/script") == "script\n"
    assert root.text("opt/run") == "/ /root\n"
    assert root.text("usr/share/program") == "program"
    assert root.text("usr/share/library") == "library"


def test_the_package_beside_the_template_won_over_a_newer_one(root: FinishedRoot) -> None:
    assert "usr/bin/local-program" in root.entries
    assert "Package: local-program\nStatus: install ok installed" in root.text(
        "var/lib/dpkg/status"
    )


def test_the_guests_apt_knows_what_was_asked_for_and_what_came_with_it(root: FinishedRoot) -> None:
    stanzas = root.text("var/lib/apt/extended_states").split("\n\n")
    automatic = {
        stanza.splitlines()[0].removeprefix("Package: ")
        for stanza in stanzas
        if "Auto-Installed: 1" in stanza
    }
    assert {"library", "libc6"} <= automatic
    wanted = {"program", "local-program", "linux-image-factory", "locales", "sudo", "init"}
    assert automatic & wanted == set()


def test_the_guests_apt_prefers_what_the_build_preferred(root: FinishedRoot) -> None:
    told = root.text("etc/apt/preferences.d/imagefactory")
    assert told == "Package: *\nPin: release l=Own\nPin-Priority: 600\n"


def test_what_fstab_mounts_has_a_directory(root: FinishedRoot) -> None:
    points = [line.split()[1].strip("/") for line in root.text("etc/fstab").splitlines()]
    assert all((root.directory / point).is_dir() for point in points)


def test_units_are_as_the_template_says(root: FinishedRoot) -> None:
    units = root.directory / "etc/systemd/system"
    assert (units / "multi-user.target.wants/systemd-networkd.service").is_symlink()
    assert not (units / "multi-user.target.wants/ssh.service").is_symlink()
    assert (units / "apt-daily.timer").readlink() == Path("/dev/null")


def test_kernel_and_initramfs_are_where_debian_links_them(root: FinishedRoot) -> None:
    for link in ("vmlinuz", "initrd.img"):
        target = (root.directory / link).readlink()
        assert target.parent == Path("boot")
        assert target.name.startswith(f"{link}-")
        assert (root.directory / target).is_file()


def test_users_have_what_they_were_given(root: FinishedRoot) -> None:
    shadow = {line.split(":")[0]: line.split(":")[1] for line in root.text("etc/shadow").split()}
    assert shadow["anna"] == "*"
    assert shadow["b.ob"] == HASH
    groups = {line.split(":")[0]: line.split(":")[3] for line in root.text("etc/group").split()}
    assert "anna" in groups["sudo"].split(",")
    assert "anna" in groups["adm"].split(",")
    keys = "home/anna/.ssh/authorized_keys"
    assert root.text(keys) == f"{AUTHORIZED}\n"
    assert (root.entries[keys].permissions, root.owner(keys)) == ("0600", "anna:anna")
    assert root.entries["home/anna/.ssh"].permissions == "0700"
    assert root.owner("home/anna/.ssh") == "anna:anna"
    assert root.entries["etc/sudoers.d/anna"].permissions == "0440"
    # sudo reads no file with a dot in its name
    assert root.text("etc/sudoers.d/b_ob").startswith("b.ob ALL=")


def test_language_zone_and_names_of_interfaces(root: FinishedRoot) -> None:
    assert root.text("etc/default/locale") == "LANG=de_DE.UTF-8\n"
    assert b"de_DE.utf8" in (root.directory / "usr/lib/locale/locale-archive").read_bytes()
    zone = root.directory / "etc/localtime"
    assert zone.readlink() == Path("/usr/share/zoneinfo/Europe/Berlin")
    assert root.text("etc/timezone") == "Europe/Berlin\n"
    assert "net.ifnames=0" in root.text("boot/grub/grub.cfg")
    assert "net.ifnames=0" in root.text("etc/default/grub.d/50_imagefactory.cfg")


def test_ones_own_kernel_is_the_one_that_boots(
    custom: tuple[BuiltImage, FinishedRoot], root: FinishedRoot
) -> None:
    assert custom[0].manifest["plan"]["kernel"] == "linux-image-factory=9.9-1"
    (kernel,) = (path for path in root.entries if path.startswith("boot/vmlinu"))
    assert f"/{kernel}" in root.text("boot/grub/grub.cfg")
    assert "Package: linux-image-6" not in root.text("var/lib/dpkg/status")


def test_the_guest_can_ask_the_added_repository(root: FinishedRoot, keys: tuple[Key, Key]) -> None:
    lines = root.text("etc/apt/sources.list").splitlines()
    assert "signed-by=/etc/apt/keyrings/own-key.gpg" in lines[-1]
    place = root.directory / "etc/apt/keyrings/own-key.gpg"
    assert place.stat().st_size > 0
    assert root.entries["etc/apt/keyrings/own-key.gpg"].permissions == "0644"
    for line in lines:
        keyring = line.partition("signed-by=")[2].partition("]")[0]
        assert keyring.lstrip("/") in root.entries


def test_every_package_is_whole(root: FinishedRoot) -> None:
    states = [
        line for line in root.text("var/lib/dpkg/status").splitlines() if line[:7] == "Status:"
    ]
    assert set(states) == {"Status: install ok installed"}
    assert not list((root.directory / "var/lib/dpkg/updates").iterdir())
    assert root.text("var/lib/dpkg/triggers/Unincorp") == ""


ABSENT = (
    *("etc/resolv.conf", "etc/hostname", "etc/ssh/ssh_host_*", "var/lib/dbus/machine-id"),
    *("var/lib/apt/lists/*", "var/cache/apt/*"),
    *("*/qemu-*-static", "*.dpkg-*", "*.ucf-*", "*-old", "etc/*-", "*~", "*.orig"),
    *("run/*", "dev/*", "proc/*", "sys/*", "tmp/*", "var/tmp/*", ".twin*", "root/.cache"),
    *("usr/sbin/policy-rc.d", "*start-stop-daemon.REAL", "*/apt.conf.d/*mmdebstrap*"),
    *("*/imagefactory-step", "root/.bash_history", "var/lib/systemd/random-seed"),
    *("var/lib/ucf/hashfile.*", "etc/.pwd.lock", "usr/lib/systemd/system/*.wants/ssh.service"),
    *("lost+found/*", "var/lib/cloud/*", "var/cache/ldconfig/aux-cache"),
)


@pytest.mark.parametrize("pattern", ABSENT)
def test_nothing_of_this_machine_and_this_build_is_left(root: FinishedRoot, pattern: str) -> None:
    assert [path for path in root.entries if fnmatchcase(path, pattern)] == []


def test_logs_begin_in_the_guest(root: FinishedRoot) -> None:
    logs = [path for path in root.entries if path.startswith("var/log/")]
    assert [path for path in logs if not stat.S_ISDIR(root.entries[path].mode)] == []


def test_the_machine_has_no_identity_yet(root: FinishedRoot) -> None:
    assert root.text("etc/machine-id") == ""


def test_no_text_names_a_place_of_the_build(
    custom: tuple[BuiltImage, FinishedRoot], root: FinishedRoot
) -> None:
    catalog = custom[0].disk.parents[3]
    words = (str(catalog), str(cache_directory()), "mmdebstrap", os.uname().nodename)
    telling = [word.encode() for word in words if len(word) > 4]
    known = {"etc/apt/sources.list"}  # the template's own repository lies beside the catalog
    found = [
        (path, word)
        for path, entry in root.entries.items()
        if path.startswith(("etc/", "var/", "boot/grub/", "root/"))
        and stat.S_ISREG(entry.mode)
        and path not in known
        for word in telling
        if word in (root.directory / path).read_bytes()
    ]
    assert found == []


UNOWNED = {
    "*.pyc": "compiled at the package's installation",
    "usr/lib/locale/locale-archive": "locale-gen",
    "usr/lib/modules/*/modules.*": "depmod",
    "usr/lib/udev/hwdb.bin": "systemd-hwdb",
    "usr/local/*": "base-files makes it for the administrator",
    "usr/lib/*/gconv/gconv-modules.cache": "iconvconfig",
}
"""Files below /usr that no package has, and who made them; beside them there are alternatives."""


def test_every_file_below_usr_is_a_packages(root: FinishedRoot) -> None:
    owned = {
        line.lstrip("/")
        for file in (root.directory / "var/lib/dpkg/info").glob("*.list")
        for line in file.read_text("utf-8").splitlines()
    }
    owned |= {f"usr/{path}" for path in owned}
    strangers = [
        path
        for path, entry in root.entries.items()
        if path.startswith("usr/")
        and not stat.S_ISDIR(entry.mode)
        and path not in owned
        and not any(fnmatchcase(path, pattern) for pattern in UNOWNED)
        and not (
            stat.S_ISLNK(entry.mode)
            and str((root.directory / path).readlink()).startswith("/etc/alternatives/")
        )
    ]
    assert strangers == []


def test_nobody_but_its_owner_writes_to_a_file(root: FinishedRoot) -> None:
    for_all = {
        path: entry.permissions
        for path, entry in root.entries.items()
        if entry.mode & 0o002 and not stat.S_ISLNK(entry.mode)
    }
    assert for_all == {"tmp": "1777", "var/tmp": "1777"}
    assert root.entries["etc/shadow"].permissions == "0640"
    assert root.owner("etc/shadow") == "root:shadow"
    kinds = {entry.kind for entry in root.entries.values()}
    assert kinds == {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}


def test_no_account_has_an_empty_or_a_known_password(root: FinishedRoot) -> None:
    words = {line.split(":")[0]: line.split(":")[1] for line in root.text("etc/shadow").split()}
    assert [name for name, word in words.items() if not word.startswith(("*", "!"))] == ["b.ob"]
    accounts = [line.split(":") for line in root.text("etc/passwd").splitlines()]
    assert {fields[1] for fields in accounts} == {"x"}
    assert [fields[0] for fields in accounts if fields[2] == "0"] == ["root"]


def test_nothing_is_newer_than_the_epoch(root: FinishedRoot) -> None:
    newer = [
        path
        for path in root.entries
        if not (root.directory / path).is_symlink()
        and (root.directory / path).stat().st_mtime > EPOCH
    ]
    assert newer == []
    # shadow(5): days since 1970 when the password was last changed
    days = {line.split(":")[2] for line in root.text("etc/shadow").split()}
    assert all(int(day) <= EPOCH // 86400 for day in days if day)


def test_no_disk_is_named_by_its_device(root: FinishedRoot) -> None:
    assert all(line.startswith("UUID=") for line in root.text("etc/fstab").splitlines())
    assert "/dev/" not in root.text("boot/grub/grub.cfg").replace("/dev/null", "")


@pytest.fixture
def own(factory: Factory, tmp_path: Path) -> Own:
    return Own.beside(factory, tmp_path / "own")


def build_fails(own: Own, status: int, architecture: str = NATIVE.name) -> str:
    """Build what cannot be built; return what was said, when nothing was left of it."""
    before = HostState.now(str(own.factory.catalog))
    words = ("build", "tiny", "--arch", architecture, "--skip-test")
    said = own.factory.run(*words, status=status).stderr
    assert "Traceback" not in said
    assert own.factory.builds() == []
    assert own.factory.work() == []
    assert HostState.now(str(own.factory.catalog)).new_since(before) == []
    return said


def kept_log(own: Own) -> str:
    (log,) = (path for path in (own.factory.catalog / ".failed").rglob("*") if path.is_file())
    return log.read_text(encoding="utf-8", errors="replace")


def test_a_script_that_fails_is_named_with_its_words_and_its_log_is_kept(own: Own) -> None:
    own.tiny("[{script: files/broken.sh}]")
    lines = "echo first words; seq 50 >&2; echo last words >&2; exit 3"
    own.put("files/broken.sh", f"#!/bin/sh\n{lines}\n").chmod(0o755)
    said = build_fails(own, 6)
    assert "the script broken.sh failed with status 3" in said
    assert "last words" in said
    log = kept_log(own)
    assert "first words" in log
    assert "last words" in log


def test_a_maintainer_script_that_fails_is_told(own: Own) -> None:
    own.tiny(more=", failing")
    scripts = {"postinst": "#!/bin/sh\necho the reason >&2\nexit 1\n"}
    own.deb("failing", {"usr/share/failing": b"x"}, architecture="all", scripts=scripts)
    said = build_fails(own, 6)
    assert "mmdebstrap failed with status 25: dpkg: error processing package failing" in said
    assert "post-installation script" in said
    log = kept_log(own)
    assert "the reason" in log
    assert "failing" in log


def test_a_package_that_does_not_exist_is_told_before_anything_is_made(own: Own) -> None:
    said = build_fails(own.tiny(more=", no-such-package"), 5)
    assert "no-such-package" in said


def test_a_package_that_is_damaged_is_told(own: Own) -> None:
    own.tiny(more=", damaged")
    debs = own.directory / "templates/debs"
    deb = make_deb(debs, "damaged", {"usr/share/x": os.urandom(4096)}, architecture="all")
    content = bytearray(deb.read_bytes())
    content[-10240:-8704] = b"x" * 1536  # the first headers of data.tar, 10240 bytes at the end
    deb.write_bytes(content)
    said = build_fails(own, 6)
    assert "damaged" in said


def test_a_file_of_the_cache_that_is_damaged_is_thrown_away(own: Own) -> None:
    own.tiny(more=", mine")
    deb = own.deb("mine", {"usr/share/mine": os.urandom(64)}, architecture="all")
    import hashlib

    pooled = cache_directory() / "pool" / f"{hashlib.sha256(deb.read_bytes()).hexdigest()}.deb"
    pooled.parent.mkdir(parents=True, exist_ok=True)
    pooled.write_bytes(deb.read_bytes() + b"x")
    said = build_fails(own, 5)
    assert "damaged and has been removed" in said
    assert not pooled.exists()


@pytest.mark.parametrize("way", ["dots", "link"])
def test_a_package_cannot_write_outside_of_the_tree(own: Own, tmp_path: Path, way: str) -> None:
    import tarfile

    outside = tmp_path / "outside"
    outside.mkdir()
    own.tiny(more=", hostile")
    tree = own.directory / "templates/debs/hostile"
    good = own.deb("hostile", {"usr/share/hostile": b"x"}, architecture="all")
    scratch = tmp_path / "parts"
    scratch.mkdir()
    link = tarfile.TarInfo("./opt/out")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    up = "../" * 30 + str(outside).lstrip("/")
    members: list[Member] = (
        [link, ("./opt/out/file", b"x")] if way == "link" else [(f"./{up}/file", b"x")]
    )
    forged = forge_deb(scratch / "forged.deb", members)
    run(["ar", "x", "--output", scratch, forged, "data.tar"])
    run(["ar", "r", good, scratch / "data.tar"])
    assert not tree.exists()
    words = own.factory.argv("build", "tiny", "--arch", NATIVE.name, "--skip-test")
    subprocess.run(words, env={**os.environ, **own.factory.env}, check=False, capture_output=True)
    assert list(outside.iterdir()) == []
    assert own.factory.work() == []


def begun(own: Own) -> subprocess.Popen[str]:
    """A build in the middle of mmdebstrap; its packages are new each time, so nothing is cached."""
    own.tiny(more=", fresh")
    own.deb("fresh", {"usr/share/fresh": os.urandom(64)}, architecture="all")
    process = own.factory.start("build", "tiny", "--arch", NATIVE.name, "--skip-test")
    wait_for_line(process, "installing essential packages")
    return process


def test_an_interruption_in_the_middle_leaves_nothing(own: Own) -> None:
    before = HostState.now(str(own.factory.catalog))
    process = begun(own)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert (own.factory.builds(), own.factory.work()) == ([], [])
    assert HostState.now(str(own.factory.catalog)).new_since(before) == []
    assert "mmdebstrap" not in " ".join(processes_with(str(own.factory.catalog)))


def test_kill_9_in_the_middle_leaves_a_work_directory_that_the_next_start_removes(
    own: Own,
) -> None:
    before = HostState.now(str(own.factory.catalog))
    temporary = {*Path("/tmp").glob("mmdebstrap*")}
    process = begun(own)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until_gone(str(own.factory.catalog))
    assert processes_with(str(own.factory.catalog)) == []
    assert HostState.now(str(own.factory.catalog)).new_since(before) == []
    assert {*Path("/tmp").glob("mmdebstrap*")} <= temporary
    (work,) = own.factory.work()
    assert not any((work / "scratch/tree").iterdir())
    own.factory.run("build", "tiny", "--arch", NATIVE.name, "--skip-test")
    assert own.factory.work() == []


def test_kill_9_ends_a_step_that_would_never_end(own: Own) -> None:
    own.tiny("[{run: 'exec sleep 7000'}]")
    process = own.factory.start("build", "tiny", "--arch", NATIVE.name, "--skip-test")
    wait_for_line(process, "customising")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until_gone(str(own.factory.catalog))
    wait_until_gone("sleep 7000")


def test_a_tree_that_is_too_large_for_its_disk_is_told(own: Own) -> None:
    own.tiny(size=128)
    done = own.factory.run("build", "tiny", "--arch", NATIVE.name, "--skip-test", status=6)
    assert "does not fit into the root filesystem of" in done.stderr
    assert "`disk_size:`" in done.stderr


def test_an_ordinary_user_builds_the_same_bytes(own: Own, installed_for_all: Path) -> None:
    user = ordinary_user()
    for kind in ("uid", "gid"):
        lines = Path(f"/etc/sub{kind}").read_text(encoding="utf-8").splitlines()
        if not any(line.startswith(f"{user.pw_name}:") for line in lines):
            numbers = f"--add-sub{kind}s"
            as_root(["/usr/sbin/usermod", numbers, "1000000-1065535", user.pw_name])
    own.tiny("[{run: 'chown 1:65534 /etc/motd'}]")
    sums = []
    for name in ("root", user.pw_name):
        home = Path("/var/tmp") / f"debian-of-{os.getpid()}-{name}"
        as_root(["install", "-d", "-o", name, "-m", "0700", str(home)])
        try:
            as_root(["cp", "-r", str(own.directory), str(home / "own")])
            as_root(["chown", "-R", name, str(home)])
            words = [f"HOME={home}", f"SOURCE_DATE_EPOCH={EPOCH}", str(installed_for_all)]
            words += ["--path", str(home / "own"), "build", "tiny", "-a", NATIVE.name]
            switch = ["runuser", "-u", name, "--", "env", "-C", "/", *words]
            sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
            clean = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "TMPDIR"))}
            done = subprocess.run(
                [*sudo, *switch, "--skip-test", "--json"],
                capture_output=True,
                text=True,
                check=False,
                env=clean,
            )
            assert done.returncode == 0, done.stderr
            (row,) = json.loads(done.stdout)
            said = subprocess.run(
                [*sudo, "sha256sum", row["disk"]], capture_output=True, text=True, check=True
            )
            sums.append(said.stdout.split()[0])
        finally:
            as_root(["rm", "-rf", str(home)])
    assert sums[0] == sums[1]


def test_a_kernel_is_named_by_its_package(own: Own) -> None:
    """And another one than the profile's: planned only, it is the same way as above."""
    own.tiny()
    text = (own.directory / "templates/tiny.yaml").read_text()
    generic = f"linux-image-{NATIVE.names.deb}"
    own.put("tiny.yaml", text.replace("linux-image-tiny", generic))
    done = own.factory.run("plan", "tiny", "--arch", NATIVE.name, "--json")
    plan = json.loads(done.stdout)
    plan = plan[0] if isinstance(plan, list) else plan
    assert plan["kernel"].startswith("linux-image-6.1")
    assert "cloud" not in plan["kernel"]
