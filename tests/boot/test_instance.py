from __future__ import annotations

import json

import pytest

from imagefactory.boot.instance import (
    EC2_VERSIONS,
    OPENSTACK_VERSIONS,
    InstanceData,
    config_drive,
    lookup,
    nocloud,
)


def text(instance: InstanceData, path: str) -> str:
    answer = lookup(instance, path)
    assert answer is not None, path
    return answer[0].decode()


def test_the_root_lists_ec2_versions(instance: InstanceData) -> None:
    assert text(instance, "/").splitlines() == [*EC2_VERSIONS, "latest"]


@pytest.mark.parametrize("path", ["/openstack", "/openstack/", "openstack"])
def test_openstack_lists_its_versions(instance: InstanceData, path: str) -> None:
    assert text(instance, path).splitlines() == [*OPENSTACK_VERSIONS, "latest"]


def test_meta_data_names_the_instance(instance: InstanceData) -> None:
    meta = json.loads(text(instance, "/openstack/latest/meta_data.json"))
    assert meta["uuid"] == instance.uuid
    assert meta["hostname"] == instance.hostname
    assert meta["public_keys"] == {"boot-test": instance.public_key}
    assert meta["keys"][0]["data"] == instance.public_key
    assert len(meta["random_seed"]) > 600


@pytest.mark.parametrize(
    ("version", "absent"),
    [
        ("2012-08-10", {"random_seed", "project_id", "devices", "dedicated_cpus"}),
        ("2013-04-04", {"project_id", "devices", "dedicated_cpus"}),
        ("2015-10-15", {"devices", "dedicated_cpus"}),
        ("2018-08-27", {"dedicated_cpus"}),
        ("2020-10-14", set()),
    ],
)
def test_older_versions_know_less(instance: InstanceData, version: str, absent: set[str]) -> None:
    meta = json.loads(text(instance, f"/openstack/{version}/meta_data.json"))
    later = {"random_seed", "project_id", "devices", "dedicated_cpus"}
    assert later - meta.keys() == absent


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("2012-08-10", {"meta_data.json", "user_data"}),
        ("2013-10-17", {"meta_data.json", "user_data", "password", "vendor_data.json"}),
        (
            "latest",
            {
                "meta_data.json",
                "user_data",
                "password",
                "vendor_data.json",
                "network_data.json",
                "vendor_data2.json",
            },
        ),
    ],
)
def test_a_version_lists_what_it_has(instance: InstanceData, version: str, names: set[str]) -> None:
    assert set(text(instance, f"/openstack/{version}/").splitlines()) == names
    for name in names:
        assert lookup(instance, f"/openstack/{version}/{name}") is not None


@pytest.mark.parametrize(
    "path",
    [
        "/openstack/2011-01-01/meta_data.json",
        "/openstack/2012-08-10/network_data.json",
        "/openstack/latest/nothing",
        "/2000-01-01/meta-data",
        "/latest/meta-data/nothing",
        "/latest/meta-data/hostname/deeper",
        "/latest/dynamic/instance-identity",
        "/../../etc/passwd",
    ],
)
def test_what_nova_does_not_have_is_not_there(instance: InstanceData, path: str) -> None:
    assert lookup(instance, path) is None


def test_user_data_is_passed_on_as_it_is(instance: InstanceData) -> None:
    for path in ("/openstack/latest/user_data", "/latest/user-data", "/ec2/2009-04-04/user-data"):
        assert text(instance, path) == instance.user_data


def test_vendor_data_stands_alone_and_under_static(instance: InstanceData) -> None:
    one = json.loads(text(instance, "/openstack/latest/vendor_data.json"))
    two = json.loads(text(instance, "/openstack/latest/vendor_data2.json"))
    assert two == {"static": one}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/latest", "meta-data/\nuser-data"),
        ("/latest/meta-data/hostname", "boot-a1b2c3"),
        ("/latest/meta-data/instance-id", "i-0f3c1d52"),
        ("/latest/meta-data/local-ipv4", "10.0.2.15"),
        ("/latest/meta-data/public-keys/", "0=boot-test"),
        ("/latest/meta-data/public-keys/0/", "openssh-key"),
        ("/latest/meta-data/placement/availability-zone", "nova"),
    ],
)
def test_the_ec2_tree_reads_as_novas(instance: InstanceData, path: str, expected: str) -> None:
    assert text(instance, path) == expected


def test_the_ec2_key_is_where_every_guest_looks(instance: InstanceData) -> None:
    path = "/2009-04-04/meta-data/public-keys/0/openssh-key"
    assert text(instance, path) == instance.public_key


def test_a_dhcp_network_leaves_the_mtu_to_dhcp(instance: InstanceData) -> None:
    network = instance.network_data()
    assert [each["type"] for each in network["networks"]] == ["ipv4_dhcp"]
    assert network["links"][0]["mtu"] is None
    assert network["links"][0]["ethernet_mac_address"] == instance.mac


def test_a_static_network_says_everything(static_instance: InstanceData) -> None:
    network = static_instance.network_data()
    four, six = network["networks"]
    assert (four["type"], four["ip_address"], four["netmask"]) == (
        "ipv4",
        "10.0.2.50",
        "255.255.255.0",
    )
    assert four["routes"][0]["gateway"] == "10.0.2.2"
    assert (six["type"], six["ip_address"]) == ("ipv6", "fd00:6966::50")
    assert network["links"][0]["mtu"] == 1400
    assert network["services"] == [{"type": "dns", "address": "10.0.2.3"}]
    assert static_instance.address == "10.0.2.50"


def test_a_config_drive_holds_every_version_as_nova_writes_it(instance: InstanceData) -> None:
    files = config_drive(instance)
    assert {path for path in files if path.startswith("openstack/latest/")} == {
        f"openstack/latest/{name}"
        for name in (
            "meta_data.json",
            "user_data",
            "vendor_data.json",
            "network_data.json",
            "vendor_data2.json",
        )
    }
    assert {path.split("/")[1] for path in files if path.startswith("openstack/")} == {
        *OPENSTACK_VERSIONS,
        "latest",
    }
    ec2 = json.loads(files["ec2/latest/meta-data.json"])
    assert ec2["public-keys"]["0"] == {"openssh-key": instance.public_key}
    assert files["ec2/2009-04-04/user-data"].decode() == instance.user_data


def test_the_drive_and_the_service_agree(static_instance: InstanceData) -> None:
    for path, content in config_drive(static_instance).items():
        if path.startswith("openstack/"):
            assert text(static_instance, path) == content.decode()


def test_a_nocloud_seed_holds_the_same_facts(static_instance: InstanceData) -> None:
    files = nocloud(static_instance)
    assert set(files) == {"meta-data", "user-data", "vendor-data", "network-config"}
    assert f"local-hostname: {static_instance.hostname}" in files["meta-data"].decode()
    assert static_instance.public_key in files["meta-data"].decode()
    assert json.loads(files["network-config"])["ethernets"]["net0"]["mtu"] == 1400


def test_with_dhcp_a_nocloud_seed_says_nothing_of_the_network(instance: InstanceData) -> None:
    assert "network-config" not in nocloud(instance)
