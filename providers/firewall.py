"""Who may reach a machine: by default this computer alone."""

from __future__ import annotations

import ipaddress
import os
import socket

from machinekit.errors import PreCheckError

SEEN_FROM = "https://checkip.amazonaws.com/"  # answers with the address that it sees
PATIENCE = 10.0
EVERYBODY = ("0.0.0.0/0", "::/0")


def network(text: str) -> str:
    """An option's check: an address or network in its usual form; raises ValueError."""
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError:
        raise ValueError(f"{text!r} is no address and no network such as 203.0.113.0/24") from None


def networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The same for several."""
    return tuple(dict.fromkeys(network(text) for text in texts))


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


def remarks(allowed: tuple[str, ...], given: tuple[str, ...], flag: str) -> list[str]:
    """What a person should know of who gets in, a line each; `given` are the networks that the `flag` named."""
    told = ", ".join(allowed)
    if set(EVERYBODY) & set(allowed):
        return [f"SSH and the engine can be reached from everywhere ({told})"]
    return [f"only {told} may reach it; {flag} names others"] if allowed and not given else []


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
