"""The way into a running guest: SSH with a key made for this one boot."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Literal

import asyncssh

BANNER_TIMEOUT = 4.0
"""Seconds in which a listening sshd says its first word. QEMU's network accepts every
connection at once and then asks the guest less and less often: a fresh one is answered sooner."""

LOGIN_TIMEOUT = 60.0
"""Seconds for key exchange and login, which an emulated guest takes its time for."""

_HOST_KEYS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256", "ssh-rsa")
"""The quick ones first: some servers make an RSA key only when asked, slow under emulation."""

Refusal = Literal["unreachable", "key refused"]


@dataclass(frozen=True)
class Output:
    """What a script in the guest printed."""

    status: int
    stdout: str
    stderr: str


class UnreachableError(Exception):
    """The guest did not let us in (yet)."""

    def __init__(self, kind: Refusal, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Guest:
    """An open connection."""

    connection: asyncssh.SSHClientConnection

    async def script(self, text: str, timeout: float) -> Output:
        """Run a POSIX shell script in the guest."""
        return await self.command("sh -s", timeout, text)

    async def command(self, text: str, timeout: float, stdin: str = "") -> Output:
        """Let the user's login shell run one command."""
        done = await asyncio.wait_for(self.connection.run(text, input=stdin), timeout)
        return Output(
            status=done.exit_status if done.exit_status is not None else -1,
            stdout=str(done.stdout or ""),
            stderr=str(done.stderr or ""),
        )

    @property
    def host_key(self) -> str:
        """The algorithm and fingerprint of the key that the guest shows."""
        key = self.connection.get_server_host_key()
        return f"{key.get_algorithm()} {key.get_fingerprint()}" if key else ""

    async def close(self) -> None:
        """End the connection; a guest that is gone already is no error."""
        self.connection.abort()
        await self.connection.wait_closed()


def new_key() -> tuple[str, str]:
    """Make an ed25519 key pair: private in OpenSSH's format, and the public line."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="imagefactory boot test")
    return key.export_private_key().decode(), key.export_public_key().decode().strip()


async def connect(port: int, user: str, private_key: str) -> Guest:
    """Try once to log in.

    Raises:
        UnreachableError: Nobody answered, or the key was refused.
    """
    channel = await _answered(port)
    try:
        connection = await asyncssh.connect(
            sock=channel,
            username=user,
            client_keys=[asyncssh.import_private_key(private_key)],
            known_hosts=None,  # the guest makes its host keys at this very boot
            server_host_key_algs=_HOST_KEYS,
            config=None,
            agent_path=None,
            preferred_auth="publickey",
            login_timeout=LOGIN_TIMEOUT,
        )
    except asyncssh.PermissionDenied as error:
        channel.close()
        raise UnreachableError("key refused", f"the user {user!r}: {error}") from error
    except (TimeoutError, asyncssh.Error, OSError) as error:
        channel.close()
        raise UnreachableError("unreachable", str(error) or type(error).__name__) from error
    except asyncio.CancelledError:
        channel.close()
        raise
    return Guest(connection)


async def _answered(port: int) -> socket.socket:
    """Open a connection on which the guest has begun to speak; nothing is read from it."""
    loop = asyncio.get_running_loop()
    channel = socket.socket()
    channel.setblocking(False)
    spoken = asyncio.Event()
    try:
        await loop.sock_connect(channel, ("127.0.0.1", port))
        loop.add_reader(channel, spoken.set)
        try:
            await asyncio.wait_for(spoken.wait(), BANNER_TIMEOUT)
        finally:
            loop.remove_reader(channel)
        closed = not channel.recv(1, socket.MSG_PEEK)
    except (TimeoutError, OSError) as error:
        channel.close()
        raise UnreachableError("unreachable", str(error) or "nobody answers on port 22") from error
    except asyncio.CancelledError:
        channel.close()
        raise
    if closed:
        channel.close()
        raise UnreachableError("unreachable", "port 22 is closed")
    return channel
