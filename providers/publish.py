"""Ports of a machine that are reachable on this computer: [ADDRESS:]PORT:MACHINE-PORT[/tcp|/udp]."""

from __future__ import annotations

import re
from dataclasses import dataclass

FORM = re.compile(r"(?:(?P<address>[0-9.]+):)?(?P<port>[0-9]{1,5}):(?P<inner>[0-9]{1,5})(?:/(?P<protocol>tcp|udp))?")
LAST_PORT = 65535


@dataclass(frozen=True)
class Published:
    """A port of this computer and the machine's port behind it. Without an address only this computer reaches it."""

    address: str
    port: int
    inner: int
    protocol: str


def parse(text: str) -> Published:
    """Read one; raises ValueError."""
    match = FORM.fullmatch(text)
    if not match or not all(1 <= int(match[part]) <= LAST_PORT for part in ("port", "inner")):
        raise ValueError(f"{text!r} is not [ADDRESS:]PORT:MACHINE-PORT[/udp], with ports from 1 to {LAST_PORT}")
    return Published(
        match["address"] or "127.0.0.1", int(match["port"]), int(match["inner"]), match["protocol"] or "tcp"
    )


def check(texts: tuple[str, ...], flag: str) -> None:
    """Raise ValueError, naming the flag, when one cannot be read."""
    for text in texts:
        try:
            parse(text)
        except ValueError as error:
            raise ValueError(f"{flag} {error}") from None
