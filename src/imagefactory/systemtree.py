"""What a template says of any whole system, whatever its packages are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from imagefactory.arch import Name
from imagefactory.words import Beside, Locale, PasswordHash, TimeZone
from imagefactory.yamlfile import Model

Datasource = Literal[
    "AliYun",
    "AltCloud",
    "Akamai",
    "Azure",
    "Bigstep",
    "CloudCIX",
    "CloudSigma",
    "CloudStack",
    "ConfigDrive",
    "DigitalOcean",
    "Ec2",
    "Exoscale",
    "GCE",
    "Hetzner",
    "IBMCloud",
    "LXD",
    "MAAS",
    "NWCS",
    "NoCloud",
    "None",
    "OVF",
    "OpenNebula",
    "OpenStack",
    "Oracle",
    "RbxCloud",
    "Scaleway",
    "SmartOS",
    "UpCloud",
    "VMware",
    "Vultr",
    "WSL",
]
"""A datasource by the name that cloud-init's ``datasource_list`` knows; it passes over others."""


class User(Model):
    """An account that is in the image from the start."""

    name: Name
    groups: tuple[Name, ...] = ()
    shell: str = "/bin/bash"
    password_hash: PasswordHash | None = Field(
        default=None, description="crypt(5); unset: no password"
    )
    authorized_keys: tuple[str, ...] = ()
    sudo: bool = Field(default=False, description="may become root without a password")


class SystemTree(Model):
    """What is done to the packages of a system, besides installing them."""

    overlay: Beside | None = Field(
        default=None, description="directory beside the template, copied into the tree first"
    )
    extra_overlay: Beside | None = Field(
        default=None, description="one more, for templates that extend another one"
    )
    locale: Locale = "C.UTF-8"
    timezone: TimeZone = "Etc/UTC"
    groups: tuple[Name, ...] = Field(
        default=("adm", "sudo"), description="of the default user, whom cloud-init makes"
    )
    users: tuple[User, ...] = ()
    predictable_names: bool = Field(
        default=True, description="false: net.ifnames=0, network interfaces are called eth0 ..."
    )
    datasources: tuple[Datasource, ...] = Field(
        default=("ConfigDrive", "OpenStack", "NoCloud", "None"),
        description="cloud-init's datasource_list, in the order in which it asks them",
    )
    guest_repositories: bool = Field(
        default=True, description="tell the guest's package manager of the repositories"
    )
