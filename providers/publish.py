"""Ports of a machine that are reachable on this computer: [ADDRESS:]PORT:MACHINE-PORT[/tcp|/udp]."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from machinekit.errors import PreCheckError

FORM = re.compile(r"(?:(?P<address>[0-9.]+):)?(?P<port>[0-9]{1,5}):(?P<inner>[0-9]{1,5})(?:/(?P<protocol>tcp|udp))?")
LAST_PORT = 65535
ANY = "0.0.0.0"  # noqa: S104 (a name for it)


@dataclass(frozen=True)
class Published:
    """A port of this computer and the machine's port behind it. Without an address only this computer reaches it."""

    address: str
    port: int
    inner: int
    protocol: str

    def collides(self, other: Published) -> bool:
        """Whether both want one port of this computer."""
        same = (self.port, self.protocol) == (other.port, other.protocol)
        return same and (self.address == other.address or ANY in (self.address, other.address))


def parse(text: str) -> Published:
    """Read one; raises ValueError."""
    match = FORM.fullmatch(text)
    if not match or not all(1 <= int(match[part]) <= LAST_PORT for part in ("port", "inner")):
        raise ValueError(f"{text!r} is not [ADDRESS:]PORT:MACHINE-PORT[/udp], with ports from 1 to {LAST_PORT}")
    address = match["address"] or "127.0.0.1"
    try:
        socket.inet_pton(socket.AF_INET, address)
    except OSError:
        raise ValueError(f"{text!r}: {address} is not an IPv4 address") from None
    return Published(address, int(match["port"]), int(match["inner"]), match["protocol"] or "tcp")


def check(texts: tuple[str, ...]) -> tuple[str, ...]:
    """An option's check: each can be read, and no two want one port; raises ValueError."""
    ports = [parse(text) for text in texts]
    for number, port in enumerate(ports):
        for before, text in zip(ports[:number], texts, strict=False):
            if port.collides(before):
                raise ValueError(f"{text!r} and {texts[number]!r} take the same port of this computer")
    return texts


def check_free(texts: Sequence[str], *, ours: bool) -> None:
    """Raise PreCheckError when a port is taken, its address is another computer's, or it is not `ours` to open.

    A port that another program opens in the end, such as an engine, may be one that we must not open.
    """
    for text in texts:
        port = parse(text)
        kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:  # a connection that has just ended holds no port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.address, port.port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PreCheckError(
                        f"cannot publish {text}: port {port.port}/{port.protocol} of this computer is taken",
                        "free it, or publish another",
                    ) from None
                if error.errno == errno.EADDRNOTAVAIL:
                    raise PreCheckError(
                        f"cannot publish {text}: {port.address} is not an address of this computer",
                        "see ip address; 0.0.0.0 stands for all of them",
                    ) from None
                if error.errno == errno.EACCES and ours:
                    raise PreCheckError(
                        f"cannot publish {text}: port {port.port} is for root alone", "publish one from 1024 on"
                    ) from None
