"""Who may reach a machine, and where: by default this computer alone."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from machinekit.errors import PreCheckError
from machinekit.provider import ENGINE_PORT, option

SEEN_FROM = "https://checkip.amazonaws.com/"  # answers with the address that it sees
PATIENCE = 10.0
EVERYBODY = ("0.0.0.0/0", "::/0")
HOST_PORTS = (("tcp", 22), ("tcp", ENGINE_PORT))
SWARM_PORTS = (("tcp", 2377), ("tcp", 7946), ("udp", 7946), ("udp", 4789))  # https://docs.docker.com/engine/swarm/


@dataclass(frozen=True)
class Door:
    """A port, and the networks that get in there."""

    protocol: str
    port: int
    networks: Sequence[str]


def doors(allowed: Sequence[str], peers: Sequence[str]) -> list[Door]:
    """What a machine's own group opens: SSH and the engine to who is `allowed`, a Swarm's ports to its `peers`."""
    every = [(HOST_PORTS, allowed), (SWARM_PORTS, peers)]
    return [Door(*port, networks) for ports, networks in every for port in ports if networks]


def network(text: str) -> str:
    """An option's check: an address or network in its usual form; raises ValueError."""
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError:
        raise ValueError(f"{text!r} is no address and no network such as 203.0.113.0/24") from None


def networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The same for several."""
    return tuple(dict.fromkeys(network(text) for text in texts))


def peers() -> Any:
    """The option of every cloud whose machines get a group of their own."""
    text = "address or network of machines that may reach the ports of a Swarm; nobody without one"
    return option(text, default=(), check=networks)


def check_groups(groups: Sequence[str], flag: str, given: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError where the `flag` names groups of the user's own, and another one who gets into ours."""
    if groups and (other := next((name for name, networks in given.items() if networks), "")):
        raise ValueError(f"{other} goes with the group that machinekit makes, not with {flag}")


def caller(towards: str, flag: str) -> str:
    """The network of this computer's address alone, as `towards` sees it; raises PreCheckError naming the `flag`.

    Towards a private address that is one of its own, towards any other or none the one seen on the internet.
    """
    if not towards or not ipaddress.ip_address(towards).is_private:
        return network(_seen(flag))
    with socket.socket(socket.AF_INET6 if ":" in towards else socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect((towards, 9))  # sends nothing
            return network(str(way.getsockname()[0]))
        except OSError as error:
            raise PreCheckError(
                f"there is no way to {towards}: {error.strerror}", f"see to it, or give {flag}"
            ) from None


def remarks(allowed: Sequence[str], given: Sequence[str], flag: str, peers: Sequence[str]) -> list[str]:
    """What a person should know of who gets in, a line each; `given` are the networks that the `flag` named."""
    open_to_all = [("SSH and the engine", allowed), ("the Swarm's ports", peers)]
    said = [
        f"{what} can be reached from everywhere ({', '.join(networks)})"
        for what, networks in open_to_all
        if set(EVERYBODY) & set(networks)
    ]
    if allowed and not given:
        said.append(f"only {', '.join(allowed)} may reach it; {flag} names others")
    return said


def _seen(flag: str) -> str:
    import requests

    url = os.environ.get("MACHINEKIT_ADDRESS_SERVICE") or SEEN_FROM
    try:
        answer = requests.get(url, timeout=PATIENCE)
        answer.raise_for_status()
        return str(ipaddress.ip_address(answer.text.strip()))
    except (requests.RequestException, ValueError):
        raise PreCheckError(
            f"cannot find out from {url} which address this computer has on the internet",
            f"name the networks that may reach the machine: {flag} 203.0.113.7",
        ) from None
