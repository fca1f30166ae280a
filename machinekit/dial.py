"""Open a way to a host's SSH port: over TCP, or through the command of a proxy."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import subprocess
import tempfile
import threading
from typing import IO, TYPE_CHECKING

from machinekit.errors import ConnectError, UnreachableError, WrongAddressError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ENDING = 5.0  # seconds a proxy's command gets to end
# what ssh says around the reason of a failure, or because another ssh before it has failed
NO_REASON = ("@", "kex_exchange_identification:", "Connection closed by UNKNOWN")
GREETING = 255  # bytes: the length of a banner, RFC 4253 4.2


class Way(socket.socket):
    """An open way. Remembers what was heard first, and what a proxy's command said."""

    def __init__(
        self,
        connection: socket.socket,
        proxy: subprocess.Popen[bytes] | None = None,
        said: IO[bytes] | None = None,
    ) -> None:
        super().__init__(connection.family, connection.type, connection.proto, connection.detach())
        self._proxy = proxy
        self._said = said
        self._closing = threading.Lock()  # paramiko closes it from two threads
        self.heard = b""
        self.complaint = ""  # why the proxy's command failed, in its own words
        self.ended = False  # by the other side

    def recv(self, size: int, flags: int = 0) -> bytes:
        """What comes next; empty at the end."""
        try:
            piece = super().recv(size, flags)
        except ConnectionError:
            self.ended = True
            raise
        self.heard += piece[: GREETING - len(self.heard)]
        self.ended = not piece
        return piece

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Send some of it; returns how much."""
        try:
            return super().send(data, flags)
        except ConnectionError:
            self.ended = True
            raise

    def close(self) -> None:
        """End it, and the proxy's command with it, whose last words are kept as `complaint`."""
        super().close()
        with self._closing:
            self._hear_proxy_out()

    def _hear_proxy_out(self) -> None:
        if self._proxy and self._said and not self._said.closed:
            code = _ended(self._proxy, ENDING if self.ended else 0)
            self._said.seek(0)
            lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines()]
            words = [line for line in lines if line and not line.startswith(NO_REASON)]
            self.complaint = "; ".join(words[-2:]) or (f"exit code {code}" if self.ended and code else "")
            self._said.close()


def tcp(address: str, port: int, patience: float) -> Way:
    """Connect; raises WrongAddressError or UnreachableError."""
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        connection = socket.create_connection((address, port), patience)
    except (socket.gaierror, UnicodeError) as error:  # the latter for what cannot be a name at all
        raise _no_name(address, error) from None
    except TimeoutError:
        raise UnreachableError(
            f"{where} does not answer within {patience:g} s",
            "the address may be wrong, the host off, or a firewall drop the packets",
        ) from None
    except ConnectionRefusedError:
        raise UnreachableError(
            f"{where} refuses the connection", "the host is there: check that sshd runs, and its port"
        ) from None
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            raise UnreachableError(
                f"there is no route to {where}: {error.strerror}", "the host may be off, or its network not yours"
            ) from None
        raise UnreachableError(f"cannot reach {where}: {error.strerror}", "check the network") from None
    # Nagle costs 40 ms an execution; a peer that vanished must not hold us for TCP's 15 minutes
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return Way(connection)


def through(command: str) -> Way:
    """Start a proxy's command; that it fails shows when one talks to it, and in `complaint`."""
    ours, theirs = socket.socketpair()
    said = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the way)
    with theirs:
        words = ["sh", "-c", f"exec {command}"]
        proxy = subprocess.Popen(
            words, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=said, start_new_session=True
        )
    return Way(ours, proxy, said)


def expanded(command: str, *, address: str, port: int, user: str) -> str:
    """The command of a proxy with the tokens of ssh_config(5) replaced."""
    tokens = {"h": address, "n": address, "p": str(port), "r": user, "%": "%"}
    return re.sub("%(.)", lambda match: tokens.get(match[1], match[0]), command)


def _ended(process: subprocess.Popen[bytes], patience: float) -> int:
    """The exit code of a process that is given time to end, then asked to, then made to."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(patience)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(ENDING)
    process.kill()
    return process.wait()


def _no_name(address: str, error: Exception) -> ConnectError:
    reason = getattr(error, "strerror", "") or "not a host name"
    text = f"cannot resolve {address}: {reason}"
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return UnreachableError(text, "the name server does not answer: check the network")
    return WrongAddressError(text, "check the name")
