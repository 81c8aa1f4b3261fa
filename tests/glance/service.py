"""The program that serves the tests' Glance or Keystone; run by the Python of its own venv.

Usage: service.py glance|keystone DIRECTORY. It listens on a free port of the loopback and prints
it; with TLS where the directory holds a key.

Below Glance's /identity stands as much of Keystone's API as a login needs. Every user exists,
with the password ``NAME-password``; the roles are those of ROLES; a project's id is its name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

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


def glance() -> Application:
    """Return Glance, and the little of Keystone below /identity."""
    from glance.wsgi import api  # type: ignore[import-not-found,unused-ignore]

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        below_identity = environ["PATH_INFO"].startswith("/identity")
        return (login if below_identity else api.application)(environ, start)

    return application


def keystone() -> Application:
    """Return a real Keystone."""
    from keystone.wsgi import api  # type: ignore[import-not-found,unused-ignore]

    served: Application = api.application
    return served


SERVICES = {"glance": glance, "keystone": keystone}


def serve(service: str, directory: Path) -> None:
    """Serve a service from a directory that holds its configuration."""
    # The services' and gunicorn's option parsers read sys.argv; there is nothing for them in it.
    sys.argv[1:] = []
    os.environ[f"OS_{service.upper()}_CONFIG_DIR"] = str(directory)
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped,unused-ignore]

    class Server(BaseApplication):  # type: ignore[misc,unused-ignore]
        def load_config(self) -> None:
            options: dict[str, Any] = {
                "bind": "127.0.0.1:0",
                "worker_class": "gthread",  # see the docstring of cloud.py
                "threads": 8,
                "workers": 1,
                "timeout": 120,
                "graceful_timeout": 1,
                "control_socket_disable": True,
                "errorlog": str(directory / "gunicorn.log"),
                "when_ready": announce,
            }
            if (directory / "tls.key").exists():
                options["certfile"] = str(directory / "tls.crt")
                options["keyfile"] = str(directory / "tls.key")
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Application:
            return SERVICES[service]()

    Server().run()


def announce(arbiter: Any) -> None:
    """Print the port that the kernel chose, for the one who started us."""
    print(arbiter.LISTENERS[0].sock.getsockname()[1], flush=True)  # noqa: T201


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
