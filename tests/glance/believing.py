"""Glance with a stand-in for Keystone, which believes what a token says.

Usage: believing.py DIRECTORY SOCKET, like imagefactory.devcloud.service, which it is built upon.

Below Glance's /identity stands as much of Keystone's API as a login needs. Every user exists,
with the password ``NAME-password``; the roles are those of ROLES; a project's id is its name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from imagefactory.devcloud.service import Application, glance, serve

ROLES = {"admin": "admin,member,reader"}
COMMON_ROLES = "member,reader"


def login(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as Keystone does: its version, and tokens for users that know their password."""
    here = f"http://{environ['HTTP_HOST']}"
    headers = [("Content-Type", "application/json")]
    if environ["REQUEST_METHOD"] != "POST":
        links = [{"rel": "self", "href": f"{here}/identity/v3"}]
        start("200 OK", headers)
        return [_json({"version": {"id": "v3.14", "status": "stable", "links": links}})]
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    auth = json.loads(body)["auth"]
    user = auth["identity"]["password"]["user"]
    name, project = user["name"], auth["scope"]["project"]["name"]
    if user["password"] != f"{name}-password":
        start("401 Unauthorized", headers)
        message = "The request you have made requires authentication."
        return [_json({"error": {"code": 401, "title": "Unauthorized", "message": message}})]
    roles = ROLES.get(name, COMMON_ROLES)
    domain = {"id": "default", "name": "Default"}
    image = {"interface": "public", "region": "here", "region_id": "here", "url": here, "id": "1"}
    token = {
        "methods": ["password"],
        "user": {"id": name, "name": name, "domain": domain},
        "project": {"id": project, "name": project, "domain": domain},
        "roles": [{"id": role, "name": role} for role in roles.split(",")],
        "issued_at": "2020-01-01T00:00:00.000000Z",
        "expires_at": "2999-01-01T00:00:00.000000Z",
        "catalog": [{"type": "image", "name": "glance", "id": "1", "endpoints": [image]}],
    }
    start("201 Created", [*headers, ("X-Subject-Token", f"{name}:{project}:{roles}")])
    return [_json({"token": token})]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def identity(_configuration: dict[str, str], **_options: str) -> Callable[[Application], Any]:
    """Stand in for keystonemiddleware: the token says who comes, ``user:project:role,role``."""

    def wrap(application: Application) -> Application:
        def filtered(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            parts = environ.get("HTTP_X_AUTH_TOKEN", "").split(":")
            if len(parts) != 3:
                start("401 Unauthorized", [("Content-Type", "text/plain")])
                return [b"The request you have made requires authentication."]
            user, project, roles = parts
            environ |= {
                "HTTP_X_IDENTITY_STATUS": "Confirmed",
                "HTTP_X_USER_ID": user,
                "HTTP_X_PROJECT_ID": project,
                "HTTP_X_ROLES": roles,
            }
            return application(environ, start)

        return filtered

    return wrap


def believing() -> Application:
    """Return Glance, and the little of Keystone below /identity."""
    real = glance()

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        below_identity = environ["PATH_INFO"].startswith("/identity")
        return (login if below_identity else real)(environ, start)

    return application


if __name__ == "__main__":
    serve("glance", believing, Path(sys.argv[1]), int(sys.argv[2]))
