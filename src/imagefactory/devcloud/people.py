"""Who may do what in a Keystone of ours, and what its catalog names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openstack
from openstack.connection import Connection

from imagefactory.devcloud.configuration import REGION

ADMIN_PROJECT = {"project_name": "admin", "project_domain_id": "default"}


def entry(
    url: str, authority: Path, user: str, password: str, project: Mapping[str, str]
) -> dict[str, Any]:
    """Return a cloud of clouds.yaml.

    Args:
        url: Keystone's.
        authority: The certificate that it is to be believed by.
        user: Who logs in.
        password: With what.
        project: The keys that name the project.
    """
    auth = {"auth_url": url, "username": user, "password": password, "user_domain_id": "default"}
    return {"auth": {**auth, **project}, "region_name": REGION, "cacert": str(authority)}


def connect(cloud: Mapping[str, Any]) -> Connection:
    """Log in to a cloud, whatever else this user's files and environment say."""
    return openstack.connect(**cloud, load_yaml_config=False, load_envvars=False)


def populate(admin: Connection, users: Mapping[str, tuple[str, str]]) -> str:
    """Make a project with users in it; return its id.

    Args:
        admin: A connection of the administrator.
        users: Name -> password and role.
    """
    keystone: Any = admin.identity
    project = keystone.create_project(name="factory", domain_id="default")
    for user, (password, role) in users.items():
        person = keystone.create_user(
            name=user, password=password, domain_id="default", default_project_id=project.id
        )
        known = keystone.find_role(role, ignore_missing=False)
        keystone.assign_project_role_to_user(project.id, person.id, known.id)
    return str(project.id)


def announce_glance(admin: Connection, url: str) -> None:
    """Have the catalog name a Glance, and no other."""
    keystone: Any = admin.identity
    service = next(iter(keystone.services(type="image")), None)
    service = service or keystone.create_service(name="glance", type="image")
    wanted = {"service_id": service.id, "interface": "public", "region_id": REGION}
    for endpoint in keystone.endpoints(service_id=service.id):
        keystone.delete_endpoint(endpoint.id)
    keystone.create_endpoint(**wanted, url=url)
