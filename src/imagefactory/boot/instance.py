"""One instance as the cloud knows it, and every form in which a guest can read it.

``InstanceData`` is the single source: the metadata service, the config drive and the NoCloud
seed are three renderings of it. Paths and contents follow nova/api/metadata/base.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EC2_VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
)
OPENSTACK_VERSIONS = (
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2025-04-04",
)
GRIZZLY, HAVANA, LIBERTY, NEWTON_ONE, NEWTON_TWO, VICTORIA = (
    OPENSTACK_VERSIONS.index(version)
    for version in (
        "2013-04-04",
        "2013-10-17",
        "2015-10-15",
        "2016-06-30",
        "2016-10-06",
        "2020-10-14",
    )
)
CONFIG_DRIVE_EC2_VERSIONS = (EC2_VERSIONS[-1], "latest")
"""nova's [api]/config_drive_skip_versions leaves out all others."""

KEY_NAME = "boot-test"
GATEWAY, DNS = "10.0.2.2", "10.0.2.3"
DHCP_ADDRESS, STATIC_ADDRESS = "10.0.2.15", "10.0.2.50"
IPV6_PREFIX = "fd00:6966::"
STATIC_IPV6 = f"{IPV6_PREFIX}50"
STATIC_MTU = 1400

Tree = dict[str, "Tree | str | bytes"]


@dataclass(frozen=True)
class InstanceData:
    """What the cloud tells a guest about itself."""

    uuid: str
    hostname: str
    public_key: str
    mac: str
    user_data: str
    vendor_data: dict[str, str] = field(default_factory=dict)
    network: Literal["dhcp", "static"] = "dhcp"

    @property
    def address(self) -> str:
        """The IPv4 address that the guest is given."""
        return STATIC_ADDRESS if self.network == "static" else DHCP_ADDRESS

    @property
    def ec2_id(self) -> str:
        """The EC2 form of the instance's identity, i-xxxxxxxx."""
        return f"i-{self.uuid[:8]}"

    def network_data(self) -> dict[str, Any]:
        """Return network_data.json, as nova.virt.netutils.get_network_metadata."""
        link = {
            "id": "tap0",
            "vif_id": self.uuid,
            "type": "ovs",
            # With a DHCP server nova leaves the MTU to it.
            "mtu": STATIC_MTU if self.network == "static" else None,
            "ethernet_mac_address": self.mac,
        }
        common = {"link": "tap0", "network_id": "da5bb487-5193-4a65-a3df-4a0055a8c0d7"}
        dns = [{"type": "dns", "address": DNS}]
        if self.network == "dhcp":
            networks: list[dict[str, Any]] = [{"id": "network0", "type": "ipv4_dhcp", **common}]
            return {"links": [link], "networks": networks, "services": dns}
        four = {
            "id": "network0",
            "type": "ipv4",
            "ip_address": STATIC_ADDRESS,
            "netmask": "255.255.255.0",
            "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": GATEWAY}],  # noqa: S104
            "services": dns,
        }
        six = {
            "id": "network1",
            "type": "ipv6",
            "ip_address": STATIC_IPV6,
            "netmask": "ffff:ffff:ffff:ffff::",
            "routes": [{"network": "::", "netmask": "::", "gateway": f"{IPV6_PREFIX}2"}],
            "services": [],
        }
        return {"links": [link], "networks": [four | common, six | common], "services": dns}


def lookup(instance: InstanceData, path: str) -> tuple[bytes, str] | None:
    """Answer one request of the metadata service with content and type, as nova would."""
    tokens = posixpath.normpath("/" + path.lstrip("/")).split("/")[1:]
    if tokens == ["openstack"]:
        return "\n".join([*OPENSTACK_VERSIONS, "latest"]).encode(), "text/plain"
    if tokens[0] == "openstack":
        return _openstack(instance, tokens[1], "/".join(tokens[2:]))
    if tokens[0] == "ec2":
        tokens = tokens[1:]
    if tokens in ([], [""]):
        return "\n".join([*EC2_VERSIONS, "latest"]).encode(), "text/plain"
    if tokens[0] not in (*EC2_VERSIONS, "latest"):
        return None
    return _ec2(instance, tokens[1:])


def config_drive(instance: InstanceData) -> dict[str, bytes]:
    """Return the files of a config drive (nova: metadata_for_config_drive)."""
    files = {}
    for version in CONFIG_DRIVE_EC2_VERSIONS:
        files[f"ec2/{version}/user-data"] = instance.user_data.encode()
        meta = _without_names(_ec2_metadata(instance))
        files[f"ec2/{version}/meta-data.json"] = json.dumps(meta).encode()
    for version in (*OPENSTACK_VERSIONS, "latest"):
        for name in _openstack_names(version):
            answer = _openstack(instance, version, name)
            if answer is not None and name != "password":
                files[f"openstack/{version}/{name}"] = answer[0]
    return files


def nocloud(instance: InstanceData) -> dict[str, bytes]:
    """Return the files of a NoCloud seed (cloud-init's documentation, NoCloud)."""
    meta = (
        f"instance-id: {instance.uuid}\n"
        f"local-hostname: {instance.hostname}\n"
        f"public-keys:\n  - {instance.public_key}\n"
    )
    files = {"meta-data": meta.encode(), "user-data": instance.user_data.encode()}
    vendor = instance.vendor_data.get("cloud-init")
    if vendor:
        files["vendor-data"] = vendor.encode()
    if instance.network == "static":
        files["network-config"] = json.dumps(_netplan(instance), indent=1).encode()
    return files


def _openstack(instance: InstanceData, version: str, name: str) -> tuple[bytes, str] | None:
    if version not in (*OPENSTACK_VERSIONS, "latest"):
        return None
    if name == "":
        return "\n".join(_openstack_names(version)).encode(), "text/plain"
    if name not in _openstack_names(version):
        return None
    if name == "user_data":
        return instance.user_data.encode(), "text/plain"
    if name == "password":
        return b"", "text/plain"
    if name == "vendor_data.json":
        content: dict[str, Any] = dict(instance.vendor_data)
    elif name == "vendor_data2.json":
        content = {"static": instance.vendor_data}
    elif name == "network_data.json":
        content = instance.network_data()
    else:
        content = _metadata(instance, _age(version))
    return json.dumps(content).encode(), "application/json"


def _openstack_names(version: str) -> list[str]:
    age = _age(version)
    names = ["meta_data.json", "user_data"]
    names += ["password"] if age >= GRIZZLY else []
    names += ["vendor_data.json"] if age >= HAVANA else []
    names += ["network_data.json"] if age >= LIBERTY else []
    names += ["vendor_data2.json"] if age >= NEWTON_TWO else []
    return names


def _age(version: str) -> int:
    return len(OPENSTACK_VERSIONS) if version == "latest" else OPENSTACK_VERSIONS.index(version)


def _metadata(instance: InstanceData, age: int) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "uuid": instance.uuid,
        "meta": {"boot-test": "yes"},
        "public_keys": {KEY_NAME: instance.public_key},
        "keys": [{"name": KEY_NAME, "type": "ssh", "data": instance.public_key}],
        "hostname": instance.hostname,
        "name": instance.hostname,
        "launch_index": 0,
        "availability_zone": "nova",
    }
    if age >= GRIZZLY:
        # 512 bytes as nova sends; derived, so that one instance always renders the same.
        seed = hashlib.shake_256(instance.uuid.encode()).digest(512)
        meta["random_seed"] = base64.b64encode(seed).decode()
    if age >= LIBERTY:
        meta["project_id"] = hashlib.sha256(b"boot test").hexdigest()[:32]
    if age >= NEWTON_ONE:
        meta["devices"] = []
    if age >= VICTORIA:
        meta["dedicated_cpus"] = []
    return meta


def _ec2(instance: InstanceData, tokens: list[str]) -> tuple[bytes, str] | None:
    node: Tree | str | bytes = {
        "meta-data": _ec2_metadata(instance),
        "user-data": instance.user_data,
    }
    for token in tokens:
        if not isinstance(node, dict) or token not in node:
            return None
        node = node[token]
    if isinstance(node, dict):
        node = "\n".join(_ec2_line(key, value) for key, value in sorted(node.items()))
    return node if isinstance(node, bytes) else node.encode(), "text/plain"


def _ec2_line(key: str, value: Tree | str | bytes) -> str:
    # base.ec2_md_print: a key is listed as "0=name", without the slash of other directories.
    if not isinstance(value, dict):
        return key
    return f"{key}={KEY_NAME}" if "openssh-key" in value else f"{key}/"


def _ec2_metadata(instance: InstanceData) -> Tree:
    return {
        "ami-id": "ami-00000001",
        "ami-launch-index": "0",
        "ami-manifest-path": "FIXME",  # nova's own word
        "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "hostname": instance.hostname,
        "instance-action": "none",
        "instance-id": instance.ec2_id,
        "instance-type": "m1.tiny",
        "local-hostname": instance.hostname,
        "local-ipv4": instance.address,
        "placement": {"availability-zone": "nova"},
        "public-hostname": instance.hostname,
        "public-ipv4": "",
        "public-keys": {"0": {"openssh-key": instance.public_key}},
        "reservation-id": f"r-{instance.uuid[:8]}",
        "security-groups": "default",
    }


def _without_names(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {**meta, "ami-launch-index": 0, "security-groups": ["default"]}


def _netplan(instance: InstanceData) -> dict[str, Any]:
    return {
        "version": 2,
        "ethernets": {
            "net0": {
                "match": {"macaddress": instance.mac},
                "addresses": [f"{STATIC_ADDRESS}/24", f"{STATIC_IPV6}/64"],
                "gateway4": GATEWAY,
                "gateway6": f"{IPV6_PREFIX}2",
                "nameservers": {"addresses": [DNS]},
                "mtu": STATIC_MTU,
            }
        },
    }
