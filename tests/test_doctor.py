import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from imagefactory import doctor, run
from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.doctor import Finding, Host, State
from imagefactory.errors import HostError
from imagefactory.template import ImageTemplate, Repository

PROFILES = ArchProfiles.load(SearchPath((shipped_directory(),))).profiles
DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def find(findings: Sequence[Finding], what: str) -> Finding:
    (found,) = [finding for finding in findings if finding.what == what]
    return found


def image(*keyrings: str | Path) -> ImageTemplate:
    repositories = tuple(
        Repository(suite="s", mirror="http://mirror", keyring=str(keyring)) for keyring in keyrings
    )
    fields: dict[str, Any] = {"repositories": repositories, "tool_repositories": repositories}
    return ImageTemplate.model_construct(**fields, name="minimal")


@pytest.fixture
def fake_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program before all others on the search path."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    return make


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_search_path", lambda: str(tmp_path / "empty"))


@pytest.mark.system
def test_this_host_can_build_and_boot_every_shipped_architecture() -> None:
    findings = doctor.examine(PROFILES, [image(DEBIAN_KEYS)])
    blocking = [f"{found.what}: {found.detail}" for found in findings if found.blocking]
    assert doctor.sufficient(findings), "; ".join(blocking)


@pytest.mark.usefixtures("nothing_installed")
def test_on_an_empty_host_every_tool_is_missing_by_name_and_package() -> None:
    findings = doctor.examine(PROFILES)
    assert not doctor.sufficient(findings)
    for tool in doctor.TOOLS:
        found = find(findings, tool.program)
        assert (found.state, found.package) == (State.MISSING, tool.package)
    for profile in PROFILES:
        found = find(findings, profile.hypervisor.qemu)
        assert found.needed_for == f"boot test of {profile.name}"
        assert found.package == profile.hypervisor.qemu_package
    assert {"apt", "qemu-system-ppc", "util-linux"} <= {*doctor.packages_to_install(findings)}


def test_only_the_asked_architectures_count(fake_program: Callable[[str, str], None]) -> None:
    by_name = {profile.name: profile for profile in PROFILES}
    fake_program("qemu-system-ppc64", "echo broken >&2; exit 127")
    assert doctor.sufficient(doctor.examine([by_name["x86_64"]]))
    findings = doctor.examine([by_name["ppc64le"]])
    assert not doctor.sufficient(findings)
    assert "does not run" in find(findings, "qemu-system-ppc64").detail
    assert "broken" in find(findings, "qemu-system-ppc64").detail


def test_a_tool_too_old_for_what_is_asked_of_it_is_missing(
    fake_program: Callable[[str, str], None],
) -> None:
    fake_program("qemu-img", "echo qemu-img version 4.2.1")
    found = find(doctor.examine(()), "qemu-img")
    assert found.state is State.MISSING
    assert found.detail.startswith("4.2.1, ")
    assert found.detail.endswith("older than 5.1")


def test_an_emulator_older_than_any_tried_is_no_reason_to_give_up(
    fake_program: Callable[[str, str], None],
) -> None:
    fake_program("qemu-system-ppc64", "echo QEMU emulator version 6.2.0")
    profile = next(profile for profile in PROFILES if profile.name == "ppc64le")
    found = find(doctor.examine([profile]), "qemu-system-ppc64")
    assert (found.state, found.blocking) == (State.LIMITED, False)


def test_a_machine_whose_firmware_is_gone_does_not_power_on(
    fake_program: Callable[[str, str], None],
) -> None:
    profile = next(profile for profile in PROFILES if profile.name == "ppc64le")
    emulator = run.which(profile.hypervisor.qemu)
    fake_program(profile.hypervisor.qemu, f'exec {emulator} -bios /nonexistent/slof.bin "$@"')
    found = find(doctor.examine([profile]), "QEMU machine pseries")
    assert found.blocking
    assert "slof.bin" in found.detail


def descriptor(code: Path, architecture: str = "aarch64", interface: str = "uefi") -> str:
    return json.dumps(
        {
            "interface-types": [interface],
            "mapping": {"device": "flash", "executable": {"filename": str(code), "format": "raw"}},
            "targets": [{"architecture": architecture, "machines": ["virt-*"]}],
        }
    )


@pytest.fixture
def firmware(tmp_path: Path) -> Host:
    host = Host(firmware=(tmp_path / "first", tmp_path / "second"))
    for directory in host.firmware:
        directory.mkdir()
    (tmp_path / "code.fd").touch()
    return host


def firmware_of_aarch64(host: Host) -> Finding:
    profile = next(profile for profile in PROFILES if profile.name == "aarch64")
    return find(doctor.examine([profile], host=host), "UEFI firmware aarch64")


def test_firmware_is_what_a_descriptor_names_and_exists(firmware: Host, tmp_path: Path) -> None:
    (firmware.firmware[1] / "50.json").write_text(descriptor(tmp_path / "code.fd"))
    found = firmware_of_aarch64(firmware)
    assert (found.state, found.detail) == (State.OK, str(tmp_path / "code.fd"))


@pytest.mark.parametrize(
    "content",
    [
        descriptor(Path("/nonexistent/code.fd")),
        descriptor(Path("/etc/passwd"), architecture="x86_64"),
        descriptor(Path("/etc/passwd"), interface="bios"),
        "",
        "[]",
        '{"targets": 5}',
        '{"targets": [], "mapping": [], "interface-types": []}',
    ],
)
def test_other_descriptors_do_not_help_and_do_not_hurt(firmware: Host, content: str) -> None:
    (firmware.firmware[0] / "50.json").write_text(content)
    found = firmware_of_aarch64(firmware)
    assert (found.state, found.package) == (State.MISSING, "qemu-efi-aarch64")


def test_a_broken_descriptor_is_named_for_the_boot_test_would_stumble(firmware: Host) -> None:
    (firmware.firmware[0] / "50.json").write_text("no json")
    found = firmware_of_aarch64(firmware)
    assert (found.state, found.package) == (State.MISSING, "qemu-efi-aarch64")
    assert "50.json is not JSON" in found.detail


def test_an_empty_descriptor_hides_its_namesake(firmware: Host, tmp_path: Path) -> None:
    (firmware.firmware[0] / "50.json").touch()
    (firmware.firmware[1] / "50.json").write_text(descriptor(tmp_path / "code.fd"))
    assert firmware_of_aarch64(firmware).state is State.MISSING


@pytest.mark.parametrize(
    ("switch", "value", "told"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns is 1",
        ),
        ("kernel/apparmor_restrict_unprivileged_userns", "0", "no known sysctl forbids it"),
    ],
)
def test_refused_namespaces_are_told_with_the_reason_and_the_remedy(
    tmp_path: Path,
    fake_program: Callable[[str, str], None],
    switch: str,
    value: str,
    told: str,
) -> None:
    fake_program("unshare", "echo 'unshare failed: Operation not permitted' >&2; exit 1")
    path = tmp_path / "proc" / "sys" / switch
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    found = find(doctor.examine((), host=Host(proc=tmp_path / "proc")), "user namespaces")
    assert found.blocking
    assert told in found.detail
    assert "Operation not permitted" in found.detail
    assert found.hint.startswith(("as root: sysctl ", "not in a chroot; in a container"))


def test_a_missing_keyring_names_the_package_that_ships_it() -> None:
    path = "/usr/share/keyrings/some-archive-keyring.gpg"
    found = find(doctor.examine((), [image(path)]), "keyring some-archive-keyring.gpg")
    assert found.blocking
    assert found.package == "some-archive-keyring"
    assert found.needed_for == "build of minimal"


def test_a_keyring_that_only_some_images_need_does_not_make_the_host_insufficient() -> None:
    path = "/usr/share/keyrings/some-archive-keyring.gpg"
    other = image(DEBIAN_KEYS, path).model_copy(update={"name": "other"})
    found = find(
        doctor.examine((), [image(DEBIAN_KEYS), other]), "keyring some-archive-keyring.gpg"
    )
    assert (found.state, found.blocking, found.package) == (State.MISSING, False, "")
    assert found.needed_for == "build of other"
    assert "ubuntu-keyring" in found.hint


def test_a_missing_keyring_of_ones_own_has_no_package(tmp_path: Path) -> None:
    found = find(doctor.examine((), [image(tmp_path / "mine.gpg")]), "keyring mine.gpg")
    assert (found.blocking, found.package) == (True, "")


@pytest.mark.parametrize(
    ("available", "ceiling", "state"),
    [
        (8192, "max", State.OK),
        (8192, str(300 << 20), State.MISSING),
        (600, "max", State.LIMITED),
        (100, "max", State.MISSING),
    ],
)
def test_memory_is_what_is_available_within_the_containers_ceiling(
    tmp_path: Path, available: int, ceiling: str, state: State
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {available * 1024} kB\n")
    (tmp_path / "memory.max").write_text(f"{ceiling}\n")
    host = Host(proc=tmp_path, cgroup=tmp_path)
    assert find(doctor.examine(PROFILES[:1], host=host), "memory").state is state


def test_room_is_looked_for_where_a_directory_will_be_made(tmp_path: Path) -> None:
    found = find(doctor.examine((), host=Host(directory=tmp_path / "a" / "b")), "disk space")
    assert found.detail.endswith(f" MiB free in {tmp_path}")


def test_kvm_and_clouds_are_worth_knowing_and_never_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    findings = doctor.examine((), host=Host(kvm=tmp_path / "kvm"))
    assert find(findings, str(tmp_path / "kvm")).state is State.LIMITED
    assert find(findings, "clouds.yaml").required is False
    (tmp_path / "clouds.yaml").touch()
    (tmp_path / "kvm").touch()
    findings = doctor.examine((), host=Host(kvm=tmp_path / "kvm"))
    assert find(findings, "clouds.yaml").state is State.OK
    assert "only after a real guest" in find(findings, str(tmp_path / "kvm")).detail


LACKS = Finding("thing", State.MISSING, "build", "not installed [yet]", "some-package")


@pytest.mark.parametrize(
    ("finding", "enough"),
    [
        (LACKS, False),
        (Finding("thing", State.LIMITED, "build", "old"), True),
        (Finding("thing", State.OK, "build", "new"), True),
        (Finding("thing", State.MISSING, "comfort", "none", required=False), True),
    ],
)
def test_only_missing_and_required_things_make_a_host_insufficient(
    finding: Finding, enough: bool
) -> None:
    assert doctor.sufficient([finding]) is enough


def test_findings_are_drawn_with_their_remedy() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(doctor.render([LACKS]))
    found, remedy = console.export_text().splitlines()[1:]
    assert " ".join(found.split()) == "✗ thing not installed [yet] build"
    assert remedy.strip() == "install some-package"


def test_programs_read_the_same_as_json() -> None:
    told = json.loads(doctor.to_json([LACKS]))
    assert told["sufficient"] is False
    assert told["packages_to_install"] == ["some-package"]
    assert told["findings"][0]["state"] == "missing"


def test_every_package_that_the_doctor_names_is_in_the_one_list() -> None:
    lines = (shipped_directory() / "host-packages.txt").read_text().splitlines()
    listed = {line.split()[0] for line in lines if line and line[0] not in "#["}
    named = {tool.package for tool in (*doctor.TOOLS, doctor.BOOTSTRAPPER)} | {"uidmap"}
    named |= {profile.hypervisor.qemu_package for profile in PROFILES}
    named |= {name for p in PROFILES for name in p.hypervisor.firmware_packages.values()}
    assert named <= listed


@pytest.mark.usefixtures("nothing_installed")
def test_without_mmdebstrap_and_uidmap_only_debian_images_are_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    findings = doctor.examine(PROFILES)
    for what, package in (("mmdebstrap", "mmdebstrap"), ("subordinate user numbers", "uidmap")):
        found = find(findings, what)
        assert (found.state, found.package) == (State.MISSING, package)
        assert (found.needed_for, found.blocking) == ("Debian images", False)


def test_an_ordinary_user_without_numbers_is_told_the_command(
    monkeypatch: pytest.MonkeyPatch, fake_program: Callable[[str, str], None]
) -> None:
    fake_program("newuidmap", "")

    def none(kind: str) -> int:
        raise HostError(f"no {kind}", hint="usermod --add-subuids")

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("imagefactory.sandbox.namespace.subordinate", none)
    found = doctor._user_numbers()
    assert (found.state, found.hint) == (State.MISSING, "usermod --add-subuids")
    monkeypatch.setattr("imagefactory.sandbox.namespace.subordinate", lambda kind: 100000)
    assert doctor._user_numbers().state is State.OK


def test_root_needs_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert doctor._user_numbers().state is State.OK


def test_a_python_without_venv_is_told_and_only_the_devcloud_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find(doctor.examine([]), "Python's venv").state is State.OK
    monkeypatch.setattr("sys.executable", "/bin/false")
    found = find(doctor.examine([]), "Python's venv")
    assert (found.state, found.package) == (State.MISSING, "python3-venv")
    assert not found.blocking
