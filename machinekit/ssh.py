"""Log in to a host with a pinned host key, and tell apart every way in which that fails."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import paramiko
import tenacity

from machinekit import dial
from machinekit.errors import (
    ConnectError,
    HostKeyError,
    LoginError,
    MachinekitError,
    UnreachableError,
    WrongAddressError,
)
from machinekit.host import Host
from machinekit.login import Keys
from machinekit.remote import Connection
from machinekit.secret import Ask, nobody

__all__ = ["Connection", "Host", "connect", "fingerprint", "scan", "wait_connect", "wait_scan"]

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its tracebacks say nothing that our errors do not

CONNECT = 10.0  # seconds for each of: TCP, banner, key exchange, login
HOPS = 3.0  # times as long where a proxy stands in between, which does all of that before
KEEPALIVE = 15
SPOKEN = (b"SSH-2.0-", b"SSH-1.99-")  # the banners of version 2, RFC 4253 4.2 and 5.1
# one for each kind of key a host may have, in the order in which OpenSSH prefers them
KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")


def connect(host: Host, ask: Ask = nobody, patience: float = CONNECT) -> Connection:
    """Log in once; raises UnreachableError, WrongAddressError, HostKeyError or LoginError.

    `ask` puts a question to a person, `patience` is how many seconds each stage of a login may take.
    """
    with contextlib.closing(Keys(str(host), host.user, host.key_file, host.access, ask)) as keys:
        pinned = _pinned(host)
        way = _dial(host, patience)
        transport = paramiko.Transport(way)
        try:
            with _explained(host, transport, way, patience):
                _handshake(transport, pinned[0].get_name(), patience * (HOPS if host.access.proxy else 1))
            shown = transport.get_remote_server_key()
            if shown not in pinned:
                raise HostKeyError(
                    f"{host} shows another host key than the pinned one: {shown.fingerprint}",
                    "another host may have its address now, or someone is in between; "
                    f"if the host was reinstalled, remove {host.known_hosts} and run create or provision again",
                )
            transport.auth_timeout = patience
            keys.authenticate(transport)
        except BaseException:
            transport.close()
            raise
    transport.set_keepalive(KEEPALIVE)
    return Connection(transport, host, ask, patience)


def wait_connect(
    host: Host,
    patience: float,
    *,
    newborn: bool,
    ask: Ask = nobody,
    told: Callable[[MachinekitError], None] = lambda why: None,
) -> Connection:
    """Log in as soon as the host allows; raises the last reason when `patience` seconds are over.

    A `newborn` may refuse the key until its first boot has put it in; any other refusal is final. `told` hears why
    it has not come to it yet, after each try.
    """
    passing = (UnreachableError, LoginError) if newborn else UnreachableError

    def tell(state: tenacity.RetryCallState) -> None:
        why = state.outcome and state.outcome.exception()
        if isinstance(why, MachinekitError):
            told(why)

    return _waiting(patience, passing).copy(before_sleep=tell)(connect, host, ask)


def scan(host: Host, wanted: tuple[str, ...] = (), patience: float = CONNECT) -> str:
    """The host key the host shows now, as "type base64"; with fingerprints (SHA256:...) the one that has one of them.

    Raises UnreachableError or WrongAddressError, and HostKeyError when no key of the host has such a fingerprint.
    """
    seen = []
    for key_type in KEY_TYPES:
        way = _dial(host, patience)
        transport = paramiko.Transport(way)
        try:
            with _explained(host, transport, way, patience):
                transport.get_security_options().key_types = (key_type,)
                _handshake(transport, "", patience * (HOPS if host.access.proxy else 1))
            key = transport.get_remote_server_key()
        except _NothingInCommonError:
            continue
        finally:
            transport.close()
        if not wanted or key.fingerprint in wanted:
            return f"{key.get_name()} {key.get_base64()}"
        seen.append(f"{key.get_name()} {key.fingerprint}")
    raise HostKeyError(
        f"{host} has no host key {' or '.join(wanted) or 'of a kind that we know'}"
        + (f"; it shows {', '.join(seen)}" if seen else ""),
        "compare with `ssh-keygen -lf` on the host itself",
    )


def wait_scan(host: Host, wanted: tuple[str, ...], patience: float) -> str:
    """`scan` as soon as the host answers."""
    return _waiting(patience, UnreachableError)(scan, host, wanted)


def fingerprint(key: str) -> str:
    """The SHA256:... fingerprint of a "type base64" key, as ssh-keygen -l prints it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class _NothingInCommonError(WrongAddressError):
    """An SSH server with which no algorithm is shared."""


def _waiting(patience: float, passing: type[Exception] | tuple[type[Exception], ...]) -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(passing),
        wait=tenacity.wait_exponential(multiplier=0.1, max=2, exp_base=1.5),
        stop=tenacity.stop_after_delay(patience),
        reraise=True,
    )


def _dial(host: Host, patience: float) -> dial.Way:
    if not host.access.proxy:
        return dial.tcp(host.address, host.port, patience)
    return dial.through(dial.expanded(host.access.proxy, address=host.address, port=host.port, user=host.user))


def _pinned(host: Host) -> list[paramiko.PKey]:
    """The keys that are accepted: two of one kind while one takes the other's place."""
    known = []
    try:
        for line in host.known_hosts.read_text().splitlines():
            with contextlib.suppress(paramiko.SSHException):  # no key: of no use, and no harm
                entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
                if entry and entry.key and host.alias in (entry.hostnames or ()):
                    known.append(entry.key)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, paramiko.hostkeys.InvalidHostKey) as error:
        raise HostKeyError(
            f"cannot read the pinned host key: {error}",
            "restore the file from a backup; without it, provision pins the key that it sees",
        ) from None
    if not known:
        raise HostKeyError(f"no host key of {host} is pinned", "run create again")
    return known


def _handshake(transport: paramiko.Transport, key_type: str, patience: float) -> None:
    transport.banner_timeout = patience
    if key_type:
        options = transport.get_security_options()
        first = [kind for kind in options.key_types if _same_key(kind, key_type)]
        options.key_types = (*first, *(kind for kind in options.key_types if kind not in first))
    transport.start_client(timeout=patience)
    if not transport.initial_kex_done:  # it returns as if all were well
        raise TimeoutError(f"no answer within {patience:g} s")


def _same_key(algorithm: str, key_type: str) -> bool:
    return algorithm == key_type or (key_type == "ssh-rsa" and algorithm.startswith("rsa-sha2"))


@contextmanager
def _explained(host: Host, transport: paramiko.Transport, way: dial.Way, patience: float) -> Iterator[None]:
    """Turn what paramiko raises before a login into what has happened."""
    try:
        yield
    except (paramiko.SSHException, OSError, EOFError) as error:
        transport.close()
        way.close()  # which the transport's thread may be at; only then has a proxy's command said why
        raise _explanation(host, way, patience, error) from None


def _explanation(host: Host, way: dial.Way, patience: float, error: Exception) -> ConnectError:
    """Judged by what was heard, since paramiko has one error for all of it."""
    if host.access.proxy and not way.heard:
        return _proxy_failed(host, way)
    if not way.heard and way.ended:
        return UnreachableError(
            f"{host} closes the connection at once",
            "it may be starting, have too many logins (MaxStartups), or have banned this address (fail2ban)",
        )
    if not way.heard:
        return UnreachableError(
            f"{host} takes the connection and says nothing within {patience:g} s", "it may hang, or be no SSH server"
        )
    banner = next((line for line in way.heard.splitlines() if line.startswith(b"SSH-")), b"")
    if not banner.startswith(SPOKEN) and not b"SSH-2.0-".startswith(way.heard):
        said = (banner or way.heard.splitlines()[0]).decode(errors="replace")[:80]
        return WrongAddressError(f"{host} answers, but not as an SSH server of ours: {said!r}", "check the port")
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return _NothingInCommonError(
            f"{host} and we share no algorithm: {error}", "its sshd may be too old, or too strict"
        )
    how = "stalls" if isinstance(error, TimeoutError) and not way.ended else "breaks off"
    return UnreachableError(f"{host} {how} during the key exchange", "try again; the network may be bad")


def _proxy_failed(host: Host, way: dial.Way) -> ConnectError:
    said = way.complaint or ("nothing comes through" if not way.ended else "closed without a word")
    text = f"cannot reach {host} through {host.access.through}: {said}"
    if "strict checking" in said or "Host key verification failed" in said:
        return HostKeyError(text, "a jump host must be in your own known_hosts: log in to it once with ssh")
    if "Permission denied" in said or "Too many authentication" in said:
        return LoginError(text, "log in to the jump host with ssh; nobody is asked here, so ssh-add its key")
    if "not found" in said or "Could not resolve" in said:
        return WrongAddressError(text, "check the name and the command")
    return UnreachableError(text, "try it with ssh alone")
