"""Namespaces in which a boot cannot reach the host's network, nor outlive its parent."""

from __future__ import annotations

import os

from imagefactory.errors import HostError
from imagefactory.run import need, run

NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
UNPRIVILEGED = ("--user", "--map-root-user")


def isolation() -> tuple[str, ...]:
    """Find out how namespaces can be had here: as root directly, else in a user namespace.

    Raises:
        HostError: In neither way.
    """
    need("unshare", "util-linux")
    need("ip", "iproute2")
    ways: list[tuple[str, ...]] = [(*UNPRIVILEGED, *NAMESPACES)]
    if os.geteuid() == 0:
        # Root inside a user namespace could not read other users' images.
        ways.insert(0, NAMESPACES)
    for way in ways:
        tried = run(["unshare", *way, "true"], accept=range(-64, 256))
        if not tried.stderr.strip():
            return ("unshare", *way)
    raise HostError(
        f"this host gives no private namespaces: {tried.stderr.strip()}",
        hint="allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or "
        "kernel.apparmor_restrict_unprivileged_userns=0), or run as root",
    )
