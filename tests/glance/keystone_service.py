"""The program that serves the tests' Keystone; run by the Python of Keystone's own venv.

Usage: keystone_service.py DIRECTORY. It speaks TLS on a free port of the loopback, and prints it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def serve(directory: Path) -> None:
    """Serve Keystone from a directory that holds its configuration and its certificate."""
    # Keystone hands sys.argv to oslo.config; there is nothing for it in it.
    sys.argv[1:] = []
    os.environ["OS_KEYSTONE_CONFIG_DIR"] = str(directory)
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped,unused-ignore]

    class Server(BaseApplication):  # type: ignore[misc,unused-ignore]
        def load_config(self) -> None:
            options = {
                "bind": "127.0.0.1:0",
                "worker_class": "gthread",  # see the docstring of cloud.py
                "threads": 8,
                "workers": 1,
                "timeout": 120,
                "graceful_timeout": 1,
                "control_socket_disable": True,
                "certfile": str(directory / "tls.crt"),
                "keyfile": str(directory / "tls.key"),
                "errorlog": str(directory / "gunicorn.log"),
                "when_ready": announce,
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            from keystone.wsgi import api  # type: ignore[import-not-found,unused-ignore]

            return api.application

    Server().run()


def announce(arbiter: Any) -> None:
    """Print the port that the kernel chose, for the one who started us."""
    print(arbiter.LISTENERS[0].sock.getsockname()[1], flush=True)  # noqa: T201


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
