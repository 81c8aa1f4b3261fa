"""The minimal image from inside: what it is used for, and what a cloud may do to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock

from imagefactory.arch import ArchProfiles
from imagefactory.boot.instance import InstanceData, config_drive, lookup
from tests.boot.guestlab import PATIENCE, SUMMARY, Lab, Server, Visitor
from tests.factory import MINUTES, BuiltImage, Factory

PROMPT = r"\$ (\x1b\[6n)?\Z"
"""The shell's prompt; its line editor may have asked the terminal where the cursor is."""

pytestmark = [pytest.mark.system, pytest.mark.timeout(20 * MINUTES)]

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


@pytest.fixture
def image(built: Callable[[str], BuiltImage]) -> BuiltImage:
    return built("x86_64")


@pytest.fixture
def lab(profiles: ArchProfiles, image: BuiltImage, tmp_path: Path) -> Lab:
    return Lab(profiles, image.properties, tmp_path / "lab")


# --- In CirrOS's place -----------------------------------------------------------------------

MAC, SECOND_MAC, SPOOFED_MAC = "fa:16:3e:0a:0b:0c", "fa:16:3e:0a:0b:0d", "fa:16:3e:0a:0b:0e"
VOLUME = "5f8c6f4e-3d0b-4a6e-9"
METADATA = "http://169.254.169.254"

# tempest.config, validation.ssh_shell_prologue
PROLOGUE = "set -eu -o pipefail; PATH=$PATH:/sbin:/usr/sbin; "

# tempest/common/utils/net_downtime.py, METADATA_SCRIPT
METER = """#!/bin/sh
echo $$ > /tmp/metadata_meter.pid
old_time=$(cut -d" " -f1 /proc/uptime)
while true; do
    curl http://169.254.169.254/latest/meta-data/hostname 2>/dev/null | grep -q `hostname`
    result=$?
    new_time=$(cut -d" " -f1 /proc/uptime)
    runtime=$(awk -v new=$new_time -v old=$old_time "BEGIN {print new-old}")
    old_time=$new_time
    if [ $result -eq 0 ]; then
        echo "PASSED $runtime"
    else
        echo "FAILED $runtime"
    fi
    sleep 0.2
done
"""


class Ask(NamedTuple):
    """A command, and what it must print; again and again where tempest repeats it."""

    command: str
    expected: str
    patient: bool = False


NOTHING = r"\A\Z"
ONE_ANSWER = "1 packets received"

TEMPEST = [
    # tempest/common/utils/linux/remote_client.py
    Ask("lsblk -lb --nodeps", r"(?m)^vda +\S+ +0 +1073741824 +0 +disk"),
    Ask("cut -f1 -d. /proc/uptime", r"\A\d+$"),
    Ask('sudo sh -c "echo \\"tempest was here\\" >/dev/console"', NOTHING),
    Ask("ip addr | awk '/ether/ {print $2}'", rf"\A{MAC}\n{SECOND_MAC}\n\Z"),
    Ask("ip addr show eth0 | awk '/ether/ {print $2}'", rf"\A{MAC}\n\Z"),
    Ask(f"ip -o link | awk '/{MAC}/ {{print $2}}'", r"\Aeth0:\n\Z"),
    Ask("ip -o addr | awk '/10.0.2.15/ {print $2}'", r"\Aeth0\n\Z"),
    Ask("ip -o addr | awk '/eth0/ {print $4}'", r"(?m)\A10\.0\.2\.15/24\n(.*\n)*^fe80::"),
    Ask("ip -4 -o addr | awk '/eth0/ {print $4}'", r"\A10\.0\.2\.15/24\n\Z"),
    Ask("cat /etc/resolv.conf", r"(?m)^nameserver 10\.0\.2\.3$"),
    # ... renewing the lease: the address stays
    Ask("cat /var/run/udhcpc.eth0.pid", r"\A\d+\n\Z"),
    Ask("sudo /bin/kill -USR1 $(cat /var/run/udhcpc.eth0.pid)", NOTHING),
    Ask("grep -c 'lease of 10.0.2.15 obtained' /var/log/imagefactory.log", r"\A2\n", patient=True),
    Ask("ip -4 -o addr | awk '/eth0/ {print $4}'", r"\A10\.0\.2\.15/24\n\Z"),
    Ask("sudo kill -0 $(cat /var/run/udhcpc.eth0.pid)", NOTHING),
    # ... listeners that answer everybody, one after the other
    Ask("sudo nc  -p 8080 -lk -e echo foolish &", NOTHING),
    *[Ask('echo "bar" | nc -w 1  10.0.2.15 8080', r"\Afoolish\n\Z", patient=True)] * 3,
    Ask("sudo nc -u -p 8081 -lk -e echo foolish &", NOTHING),
    *[Ask('echo "bar" | nc -w 1 -u 10.0.2.15 8081', r"\Afoolish\n\Z", patient=True)] * 3,
    # tempest/lib/common/utils/linux/remote_client.py
    Ask("ping -c1 -w1 -s56 10.0.2.2", ONE_ANSWER, patient=True),
    Ask("ping6 -c1 -w1 -s56 fd00:6966::2", ONE_ANSWER, patient=True),
    Ask("blkid -L config-2 -o device", r"\A/dev/sr0\n\Z"),
    Ask("sudo mount /dev/sr0 /mnt", NOTHING),
    Ask("sudo lsblk --fs --ascii", r"(?m)^sr0 +iso9660 +config-2 "),
    Ask("sudo cat /mnt/openstack/latest/meta_data.json", '"meta": {"boot-test": "yes"}'),
    Ask("sudo cat /mnt/openstack/latest/network_data.json", '"services": '),
    Ask("sudo umount /mnt", NOTHING),
    # tempest/scenario/manager.py: create_timestamp, get_timestamp, for both kinds of filesystems
    *[
        Ask(command, expected)
        for kind, name in (("ext4", "ext4"), ("vfat", "vfat"))
        for command, expected in (
            (f"sudo mkfs -t {kind} /dev/vdb", ""),
            ("sudo mkdir -p /mnt/vdb", NOTHING),
            ("sudo mount /dev/vdb /mnt/vdb", NOTHING),
            ("grep /mnt/vdb /proc/mounts", rf"\A/dev/vdb /mnt/vdb {name} "),
            ('sudo sh -c "date > /mnt/vdb/timestamp; sync"', NOTHING),
            ("sudo cat /mnt/vdb/timestamp", r"\A\w{3} \w{3} .* 20\d\d\n\Z"),
            ("sudo umount /mnt/vdb", NOTHING),
            ("sudo mount /dev/vdb /mnt/vdb", NOTHING),
            ("sudo cat /mnt/vdb/timestamp", r"\A\w{3} \w{3} .* 20\d\d\n\Z"),
            ("sudo umount /mnt/vdb", NOTHING),
        )
    ],
    # tempest/scenario/test_instances_with_cinder_volumes.py, api/compute/volumes
    Ask("lsblk --nodeps --noheadings --output NAME", r"\Asr0\nvda\nvdb\n\Z"),
    Ask("cat /sys/block/vdb/serial", rf"\A{VOLUME}\n?\Z"),
    Ask("grep -c -E [vs]d.$ /proc/partitions", r"\A2\n\Z"),
    Ask("lsblk -S", r"\ANAME.*\nsr0 .* QEMU "),
    # tempest/scenario/test_network_basic_ops.py: a port that was plugged in, a spoofed address
    Ask("ip a", r"(?m)^\d+: eth1: "),
    Ask("sudo ip addr add 10.0.3.77/24 dev eth1", NOTHING),
    Ask("sudo ip link set eth1 up", NOTHING),
    Ask("ip address", r" 10\.0\.3\.77/24 "),
    Ask("sudo ping -I eth1 -c1 -w1 -s56 10.0.3.2", ONE_ANSWER, patient=True),
    Ask(
        "sudo start-stop-daemon -K -x /sbin/dhcpcd -p /var/run/dhcpcd/pid -o || true; "
        f"sudo ip link set eth1 down;sudo ip link set dev eth1 address {SPOOFED_MAC};"
        "sudo ip link set eth1 up;sudo ip address flush dev eth1;"
        "sudo ip addr add 10.0.3.78/24 dev eth1;",
        "",
    ),
    Ask("ip addr show eth1 | awk '/ether/ {print $2}'", rf"\A{SPOOFED_MAC}\n\Z"),
    Ask("ip -4 -o addr | awk '/eth1/ {print $4}'", r"\A10\.0\.3\.78/24\n\Z"),
    # tempest/scenario/test_network_v6.py
    Ask('test -d /etc/sysconfig/network-scripts/ || echo "False"', r"\AFalse\n\Z"),
    Ask("ip address", r"\bfd00:6966::f816:3eff:fe0a:b0c/64\b"),
    # neutron's trunk ports
    Ask("sudo ip link add link eth0 name eth0.100 type vlan id 100", NOTHING),
    Ask("ip -o link | awk '/eth0.100/ {print $2}'", r"\Aeth0\.100@eth0:\n\Z"),
    # tempest/api/compute, scenario/test_server_basic_ops.py
    Ask("grep -c ^processor /proc/cpuinfo", r"\A2\n\Z"),
    Ask("hostname", r"\Atempest-server\n\Z"),
    Ask("sync", NOTHING),
    Ask("touch test_file", NOTHING),
    Ask("curl -V", "http"),
    Ask(f"curl {METADATA}/latest/meta-data/local-ipv4", r"\A10\.0\.2\.15\Z"),
    Ask(f"curl {METADATA}/openstack/latest/meta_data.json", '"hostname": "tempest-server"'),
    Ask(f"curl -X POST -d secret {METADATA}/openstack/2013-10-17/password", ""),
    # tempest/common/utils/net_downtime.py
    Ask(f"echo '{METER}' > /tmp/meter.sh;chmod +x /tmp/meter.sh", NOTHING),
    Ask("/tmp/meter.sh > /tmp/metadata_meter.log &", NOTHING),
    Ask("cat /tmp/metadata_meter.log", r"\APASSED [\d.]+\nPASSED ", patient=True),
    Ask("kill $(cat /tmp/metadata_meter.pid)", NOTHING),
]

SECOND_DISK_AND_NIC = (
    *("-drive", "if=none,id=volume,format=raw,file={volume}"),
    *("-device", f"virtio-blk-pci,drive=volume,serial={VOLUME}"),
    *("-netdev", "user,id=net2,net=10.0.3.0/24"),
    *("-device", f"virtio-net-pci,netdev=net2,mac={SECOND_MAC},romfile="),
)


async def as_tempest(visitor: Visitor) -> dict[str, Any]:
    summary = await visitor.sees(SUMMARY)
    answers = [await ask(visitor, row) for row in TEMPEST]
    await visitor.sees("tempest was here", summary)
    asked = await visitor.logs_in("cloud", "cubswin:)")
    await visitor.sees("Login incorrect", asked)
    return {
        "answers": answers,
        "console": visitor.printed(),
        "host_key": visitor.host_key,
        "shadow": await visitor.read("sudo grep ^cloud: /etc/shadow"),
    }


async def ask(visitor: Visitor, row: Ask) -> tuple[int, str, str]:
    deadline = visitor.boot.now + PATIENCE
    while True:
        done = await visitor.run(PROLOGUE + row.command)
        good = done.status == 0 and re.search(row.expected, done.stdout)
        if good or not row.patient or visitor.boot.now > deadline:
            return done.status, done.stdout, done.stderr


@pytest.fixture
def tempest_visit(lab: Lab, image: BuiltImage, shared_directory: Path) -> dict[str, Any]:
    """Visit one guest as tempest does, once for all tests that look at the answers."""
    kept = shared_directory / "tempest.json"
    with FileLock(shared_directory / "tempest.lock"):
        if not kept.exists():
            disk = lab.disk(image.disk)
            volume = lab.directory / "volume.raw"
            with volume.open("wb") as stream:
                stream.truncate(64 << 20)
            server = Server.new("tempest-server", mac=MAC)
            hardware = tuple(word.replace("{volume}", str(volume)) for word in SECOND_DISK_AND_NIC)
            drive = config_drive(server.data)
            seen = lab.visit(
                disk, server, as_tempest, drive=drive, service=lookup, hardware=hardware
            )
            kept.write_text(json.dumps(seen), encoding="utf-8")
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def test_each_command_that_tempest_runs_in_a_guest_does_what_tempest_expects(
    tempest_visit: dict[str, Any],
) -> None:
    rows = zip(TEMPEST, tempest_visit["answers"], strict=True)
    wrong = [
        f"$ {row.command}\nwanted {row.expected!r}, status {status}:\n{out}{err}"
        for row, (status, out, err) in rows
        if status != 0 or not re.search(row.expected, out)
    ]
    assert not wrong, f"{len(wrong)} of {len(TEMPEST)} commands:\n" + "\n".join(wrong)


def test_tempest_finds_the_disks_in_the_column_named_type(tempest_visit: dict[str, Any]) -> None:
    """RemoteClient.get_disks looks below the heading, letter by letter."""
    heading, *lines = tempest_visit["answers"][0][1].splitlines()
    place = heading.find("TYPE")
    disks = [line.split()[0] for line in lines if line[place : place + 4] == "disk"]
    assert disks == ["vda", "vdb"]


def test_the_summary_and_the_prompt_fit_on_a_screen(tempest_visit: dict[str, Any]) -> None:
    lines = tempest_visit["console"].splitlines()
    ours = lines[next(i for i, line in enumerate(lines) if "imagefactory minimal" in line) :]
    assert [line for line in ours if len(line) >= 80] == []
    summary = re.search(r"ok=(\d+) warn=(\d+) failed=(\d+) ", tempest_visit["console"])
    assert summary
    assert summary[3] == "0", tempest_visit["console"]


def test_without_a_console_password_the_account_is_locked(tempest_visit: dict[str, Any]) -> None:
    assert tempest_visit["shadow"].startswith("cloud:$5$locked$*:")
    assert 'Log in as "cloud" by SSH' in tempest_visit["console"]
    assert "Login incorrect" in tempest_visit["console"]


# --- One instance and the next ---------------------------------------------------------------

LEAVES_A_TRACE = '#!/bin/sh\necho "$INSTANCE_ID" >>/var/lib/traces\n'


async def look_around(visitor: Visitor) -> dict[str, Any]:
    await visitor.sees(SUMMARY)
    return {
        "hostname": await visitor.read("hostname"),
        "traces": (await visitor.read("cat /var/lib/traces")).split(),
        "host_key": visitor.host_key,
        "authorized": await visitor.read("cut -d' ' -f2 .ssh/authorized_keys"),
        "status": json.loads(await visitor.read("cat /run/imagefactory/status.json")),
    }


def only_ec2(instance: InstanceData, path: str) -> tuple[bytes, str] | None:
    """A cloud that has EC2's metadata and nothing of OpenStack's."""
    return None if path.startswith("/openstack") else lookup(instance, path)


def test_an_instance_is_set_up_once_and_a_copy_of_it_becomes_another(
    lab: Lab, image: BuiltImage, tempest_visit: dict[str, Any]
) -> None:
    disk = lab.disk(image.disk)
    one = Server.new("one", user_data=LEAVES_A_TRACE)
    other = Server.new("other", user_data=LEAVES_A_TRACE)

    first = lab.visit(disk, one, look_around, drive=config_drive(one.data))
    again = lab.visit(disk, one, look_around, drive=config_drive(one.data))
    # Known only after the network is up: its keys must not be those of the copied server.
    copy = lab.visit(disk, other, look_around, service=only_ec2)

    assert first["traces"] == [one.data.uuid]
    assert again["traces"] == first["traces"], "user-data ran a second time"
    assert again["host_key"] == first["host_key"]
    assert again["hostname"] == first["hostname"] == "one"

    assert copy["status"]["checks"]["datasource"]["text"] == "EC2 metadata service"
    assert copy["traces"] == [one.data.uuid, other.data.ec2_id]
    assert copy["hostname"] == "other"
    assert copy["authorized"] == other.data.public_key.split()[1]

    keys = {tempest_visit["host_key"], first["host_key"], copy["host_key"]}
    assert len(keys) == 3, f"servers share their host keys: {keys}"


# --- What may go wrong -----------------------------------------------------------------------

BROKEN = b'{"uuid": "5f8c6f4e", "links": [{"id"'


def broken_network_data(instance: InstanceData, path: str) -> tuple[bytes, str] | None:
    if path.endswith("network_data.json"):
        return BROKEN, "application/json"
    return lookup(instance, path)


async def read_summary(visitor: Visitor) -> dict[str, Any]:
    await visitor.sees(r"login: ", await visitor.sees(SUMMARY))
    return {
        "checks": json.loads(await visitor.read("cat /run/imagefactory/status.json"))["checks"],
        "console": visitor.printed(),
    }


def test_broken_json_is_told_and_holds_nothing_up(lab: Lab, image: BuiltImage) -> None:
    """The config drive is unreadable; the service in its place has no readable network."""
    server = Server.new("unlucky")
    drive = config_drive(server.data) | {"openstack/latest/meta_data.json": BROKEN}

    seen = lab.visit(
        lab.disk(image.disk), server, read_summary, drive=drive, service=broken_network_data
    )

    assert seen["checks"]["metadata"]["verdict"] == "failed"
    assert seen["checks"]["network-data"]["verdict"] == "failed"
    assert seen["checks"]["datasource"]["text"] == "OpenStack metadata service"
    assert re.search(r"(?m)^ metadata +meta_data\.json: .* failed\r?$", seen["console"])
    assert re.search(r"(?m)^ network-data +network_data\.json: .* failed\r?$", seen["console"])


# --- The console password --------------------------------------------------------------------

PASSWORD = "cubswin"
HASHED = (  # openssl passwd -6 -salt guestlab cubswin
    "$6$guestlab$zEwZkmbDhJdj15aK40mFmlCimIJVVMexl7PIt6voC/2p8w16Rie29Dqe3Y1U0mbQbzuKKHr."
    "nmjiL9hBFxjr/."
)


async def log_in_at_the_console(visitor: Visitor) -> dict[str, Any]:
    asked = await visitor.logs_in("cloud", PASSWORD)
    await visitor.sees(PROMPT, asked)
    await visitor.types(
        "id -un; sed -n 's/ boot: done, .*/ s to the prompt/p' /var/log/imagef*.log"
    )
    end = await visitor.sees(r"(?m)^cloud\r?\n[\d.]+ s to the prompt", asked)
    return {"console": visitor.printed()[:end]}


def test_a_console_password_opens_the_console_soon_and_without_any_cloud(
    lab: Lab, factory: Factory, tmp_path: Path
) -> None:
    own = tmp_path / "own" / "templates"
    own.mkdir(parents=True)
    text = (TEMPLATES / "minimal.yaml").read_text(encoding="utf-8")
    text = text.replace("\nminimal:\n", f"\nminimal:\n  console_password: '{HASHED}'\n")
    (own / "minimal.yaml").write_text(text, encoding="utf-8")
    (own / "minimal").symlink_to(TEMPLATES / "minimal")
    mine = Factory(factory.catalog, command=(*factory.command, "--path", str(own.parent)))
    done = mine.run("build", "minimal", "--arch", "x86_64", "--skip-test", "--json")
    disk = lab.disk(Path(json.loads(done.stdout)[0]["disk"]))

    seen = lab.visit(disk, Server.new("nobody"), log_in_at_the_console, login=False)

    assert 'Log in as "cloud" with the console password.' in seen["console"]
    prompt = re.search(r"([\d.]+) s to the prompt", seen["console"])
    assert prompt
    # By the guest's own clock. 10 s are the aim on an idle machine; emulation beside other tests
    # gets a fraction of a processor (11 s were seen there).
    assert float(prompt[1]) < 30
