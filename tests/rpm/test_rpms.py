"""The makers of packages themselves, asked by rpm and by dnf."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagefactory.errors import CommandError
from imagefactory.run import need, run
from tests.debs import Key
from tests.rpm.rpms import RpmRepository, make_rpm, sign_rpms


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    return Key.make(home, "honest")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Key:
    home = tmp_path_factory.mktemp("gpg2")
    home.chmod(0o700)
    return Key.make(home, "stranger")


def dnf(repository: RpmRepository, work: Path, *words: str, arch: str = "aarch64") -> str:
    """Run dnf for an empty tree below a directory; return all that it says."""
    config = work / "dnf.conf"
    work.mkdir(exist_ok=True)
    config.write_text(
        "[main]\ngpgcheck=1\nreposdir=/nonexistent\npluginpath=/nonexistent\n"
        f"install_weak_deps=0\n[test]\nname=test\nbaseurl={repository.url}\ngpgcheck=1\n"
        f"repo_gpgcheck=1\ngpgkey=file://{repository.key_file}\n"
    )
    (work / ".rpmmacros").write_text("%_dbpath /usr/lib/sysimage/rpm\n")
    command: list[str | Path] = [need("dnf", "dnf"), "-y", "-c", config, f"--forcearch={arch}"]
    command += [f"--installroot={work}/root", "--releasever=44", f"--setopt=logdir={work}"]
    command += [f"--setopt=cachedir={work}/cache", *words]
    done = run(command, env={"HOME": str(work)}, timeout=120)
    return done.stdout + done.stderr


def test_a_package_says_what_it_was_told(tmp_path: Path) -> None:
    rpm = make_rpm(
        tmp_path,
        "kernel-core",
        {"usr/lib/a file with [brackets] 100%": b"x", "usr/bin/tool": b"y"},
        version="6.1",
        architecture="ppc64le",
        requires=["bash", "(pre) setup", "(dracut or initramfs)"],
        provides=["kernel = 6.1"],
        scripts={"post": "print('100%')"},
        owners={"usr/bin/tool": "chrony:systemd-journal"},
        recommends=("grubby",),
    )
    asked = "%{NEVRA}\\n[%{REQUIRES}\\n][%{PROVIDES} %{PROVIDEVERSION}\\n][%{RECOMMENDS}\\n]"
    asked += "[%{FILENAMES} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEMODES:perms}\\n]%{POSTIN}\\n"
    said = run(["rpm", "-qp", "--qf", asked, rpm]).stdout
    for line in (
        "kernel-core-6.1-1.ppc64le",
        "bash",
        "setup",
        "(dracut or initramfs)",
        "kernel 6.1",
        "grubby",
        "/usr/lib/a file with [brackets] 100% root:root -rwxr-xr-x",
        "/usr/bin/tool chrony:systemd-journal -rwxr-xr-x",
        "print('100%')",
    ):
        assert line in said.splitlines()


def test_the_same_package_has_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make_rpm(tmp_path / name, "same").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("arch", ["aarch64", "ppc64le", "x86_64"])
def test_an_honest_repository_is_installed_with_its_scripts(
    tmp_path: Path, key: Key, arch: str
) -> None:
    repository = RpmRepository(tmp_path / "repository", key)
    repository.add("library")
    write = "io.open('/ran', 'w'):write('it ran')"
    repository.add("program", architecture=arch, requires=["library"], scripts={"posttrans": write})
    repository.groups["core"] = ["program"]
    repository.publish()
    dnf(repository, tmp_path / "work", "install", "@core", arch=arch)
    assert (tmp_path / "work/root/usr/share/library").read_text() == "library"
    assert (tmp_path / "work/root/ran").read_text() == "it ran"


def test_dnf_takes_nothing_from_a_dishonest_repository(
    tmp_path: Path, key: Key, stranger: Key
) -> None:
    repository = RpmRepository(tmp_path / "repository", key)
    repository.add("good")
    repository.add("unsigned", sign=False)
    sign_rpms([repository.add("foreign", sign=False)], stranger)
    changed = repository.add("changed")
    absent = repository.add("absent")
    repository.publish()
    repository.damage(changed)
    repository.withhold(absent)
    for name, said in {
        "unsigned": "is not signed",
        "foreign": "Public key for .* is not installed|not correct",
        "changed": "incorrect checksum",
        "absent": "(?i)no such file|cannot open|No more mirrors|could not open",
    }.items():
        with pytest.raises(CommandError, match=said):
            dnf(repository, tmp_path / name, "install", name)
    dnf(repository, tmp_path / "good", "install", "good")


def test_dnf_believes_no_false_lists(tmp_path: Path, key: Key, stranger: Key) -> None:
    repository = RpmRepository(tmp_path / "repository", key)
    repository.add("good")
    repository.publish(signed_by=stranger)
    with pytest.raises(CommandError, match=r"GPG|repomd"):
        dnf(repository, tmp_path / "wrong", "install", "good")
    repository.publish()
    repository.lie("<name>good</name>", "<name>evil</name>")
    with pytest.raises(CommandError, match="checksum"):
        dnf(repository, tmp_path / "lied", "install", "good")
    repository.forget()
    with pytest.raises(CommandError, match=r"repomd\.xml"):
        dnf(repository, tmp_path / "forgotten", "install", "good")


def test_a_failing_script_is_only_told(tmp_path: Path, key: Key) -> None:
    repository = RpmRepository(tmp_path / "repository", key)
    repository.add("broken", scripts={"post": "error('no such thing')"})
    repository.publish()
    said = dnf(repository, tmp_path / "work", "install", "broken")
    assert "no such thing" in said
    assert "Complete!" in said
