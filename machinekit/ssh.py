"""Log in to a host and run scripts there: one connection, a pinned host key, few executions.

Scripts and the secrets in them travel through stdin, never in an argument list.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import tenacity

from machinekit.errors import HostKeyError, LoginError, RemoteError, UnreachableError

log = logging.getLogger(__name__)
logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its tracebacks say nothing that our errors do not

CONNECT = 10.0  # seconds for each of: TCP, banner, key exchange, login
PIECE = 64 * 1024  # paramiko's sendall of one big buffer is quadratic
TAIL = 20  # lines of a failed script that an error shows
STARTED = "machinekit:started"
BUSY = "machinekit:busy"
KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")  # one for each kind of key a host may have

# One script at a time. The lock of a folder leaves no file behind, and is the shell's alone: a daemon that the script
# starts cannot keep it. busybox's flock has no -w.
_ALONE = """machinekit() {{
echo {started}
{script}
}}
if [ -d /run ] && command -v flock >/dev/null; then
  exec 9</run
  machinekit_tries={seconds}
  until flock -n 9; do
    machinekit_tries=$((machinekit_tries - 1))
    if [ "$machinekit_tries" -le 0 ]; then echo {busy}; exit 1; fi
    sleep 1
  done
fi
machinekit </dev/null 2>&1 9>&-
exit $?
"""


@dataclass(frozen=True)
class Host:
    """Where to log in, as whom, and the key the host must show.

    `alias` stands for the host in `known_hosts`, so that an address may change. Without `key_file`
    the agent and the user's own default keys are tried.
    """

    address: str
    port: int
    user: str
    alias: str
    known_hosts: Path
    key_file: Path | None

    def __str__(self) -> str:
        return f"{self.user}@{self.address}:{self.port}"

    def openssh_options(self) -> list[str]:
        """The options that make OpenSSH's clients log in with the same key and the same pinned host key."""
        options = [
            f"HostKeyAlias={self.alias}",
            f"UserKnownHostsFile={_ssh_quoted(self.known_hosts)}",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "PasswordAuthentication=no",
            "ConnectTimeout=10",
            "ServerAliveInterval=60",
            "LogLevel=ERROR",
        ]
        if self.key_file:
            options += [f"IdentityFile={_ssh_quoted(self.key_file)}", "IdentitiesOnly=yes"]
        return options


class Connection:
    """An open login. `executions` counts the commands that were run."""

    def __init__(self, client: paramiko.SSHClient, host: Host) -> None:
        self._client = client
        self.host = host
        self.executions = 0

    def run(self, script: str, *, patience: float, heard: Callable[[str], None] = lambda line: None) -> list[str]:
        """Run a shell script as root and return its output lines, stderr among them.

        `heard` is told each line as it comes. The script arrives through stdin and starts only when
        it is there whole, so a cut connection cannot run half a line. A script whose caller was killed may still
        run: one waits for it. Raises RemoteError, LoginError when sudo asks for a password, UnreachableError when
        the connection dies.
        """
        self.executions += 1
        started = time.monotonic()
        shell = "sh -s" if self.host.user == "root" else "sudo -n sh -s"
        text = _ALONE.format(started=STARTED, script=script, busy=BUSY, seconds=int(patience * 0.8))
        lines: list[str] = []
        try:
            with contextlib.closing(self._open(patience)) as channel:
                channel.set_combine_stderr(True)
                channel.exec_command(shell)
                data = text.encode()
                for start in range(0, len(data), PIECE):
                    channel.sendall(data[start : start + PIECE])
                channel.shutdown_write()
                for line in _lines(channel, started + patience):
                    lines.append(line)
                    heard(line)
                code = self._exit_code(channel, started + patience)
        except (paramiko.SSHException, OSError, EOFError) as error:
            what = f"no answer within {patience:g} s" if isinstance(error, TimeoutError) else str(error) or "closed"
            raise UnreachableError(f"the connection to {self.host} broke: {what}", "run the command again") from None
        log.debug("ssh %s: exit %s after %.2f s, %d lines", self.host, code, time.monotonic() - started, len(lines))
        if BUSY in lines:
            raise RemoteError(
                f"an earlier script still runs on {self.host}", "it ends by itself; run the command again"
            )
        if STARTED not in lines:
            said = " ".join(lines[-3:]) or f"exit code {code}"
            raise LoginError(f"cannot become root on {self.host}: {said}", "allow the user sudo without a password")
        lines = lines[lines.index(STARTED) + 1 :]
        if code != 0:
            raise RemoteError(f"a script on {self.host} failed with exit code {code}:\n" + "\n".join(lines[-TAIL:]))
        return lines

    def close(self) -> None:
        """End the login."""
        self._client.close()

    def _exit_code(self, channel: paramiko.Channel, deadline: float) -> int:
        if not channel.status_event.wait(max(0.1, deadline - time.monotonic())):
            raise TimeoutError
        transport = self._client.get_transport()
        if channel.exit_status == -1 and transport:
            transport.join(0.2)  # it may be about to notice that the other side is gone
            if not transport.is_active():
                raise EOFError  # not the script's end but the connection's
        return channel.exit_status

    def _open(self, patience: float) -> paramiko.Channel:
        transport = self._client.get_transport()
        if transport is None:
            raise paramiko.SSHException("not connected")
        channel = transport.open_session(timeout=CONNECT)
        channel.settimeout(patience)
        return channel


def connect(host: Host) -> Connection:
    """Log in once; raises UnreachableError, HostKeyError or LoginError."""
    client = paramiko.SSHClient()
    try:
        client.load_host_keys(str(host.known_hosts))
    except (OSError, ValueError, paramiko.SSHException, paramiko.hostkeys.InvalidHostKey) as error:
        raise HostKeyError(
            f"cannot read the pinned host key: {error}",
            "restore the file from a backup; without it, provision pins the key that it sees",
        ) from None
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        client.connect(
            host.alias,
            username=host.user,
            key_filename=str(host.key_file) if host.key_file else None,
            allow_agent=host.key_file is None,
            look_for_keys=host.key_file is None,
            sock=_tcp(host.address, host.port),
            banner_timeout=CONNECT,
            auth_timeout=CONNECT,
            channel_timeout=CONNECT,
        )
    except paramiko.BadHostKeyException as error:
        client.close()
        raise HostKeyError(
            f"{host} shows another host key than the pinned one: {error.key.fingerprint}",
            f"if the host was reinstalled, remove its line from {host.known_hosts}; if not, someone is in between",
        ) from None
    except paramiko.AuthenticationException as error:
        client.close()
        raise LoginError(f"{host} refuses the login: {error}", "check the user and the key") from None
    except (paramiko.SSHException, OSError, EOFError) as error:
        transport = client.get_transport()
        usable = transport is not None and transport.is_active() and transport.initial_kex_done
        client.close()
        if "not found in known_hosts" in str(error):
            raise HostKeyError(f"no host key of {host} is pinned", "run create again") from None
        if usable:
            raise LoginError(f"cannot log in to {host}: {error}", "check the private key's file") from None
        raise UnreachableError(
            f"{host} answers, but not as an SSH server: {error}", "wait, or check the port"
        ) from None
    transport = client.get_transport()
    if transport is not None:
        transport.set_keepalive(15)
    return Connection(client, host)


def wait_connect(host: Host, patience: float, *, newborn: bool) -> Connection:
    """Log in as soon as the host allows; raises the last reason when `patience` seconds are over.

    A `newborn` may refuse the key until its first boot has put it in; any other refusal is final.
    """
    passing = (UnreachableError, LoginError) if newborn else UnreachableError
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(passing),
        wait=tenacity.wait_exponential(multiplier=0.1, max=2, exp_base=1.5),
        stop=tenacity.stop_after_delay(patience),
        reraise=True,
    )
    return retrying(connect, host)


def scan(address: str, port: int, wanted: str = "") -> str:
    """The host key the host shows now, as "type base64"; with a fingerprint (SHA256:...) the one that has it.

    Raises UnreachableError, and HostKeyError when no key of the host has that fingerprint.
    """
    seen = []
    for key_type in KEY_TYPES:
        transport = paramiko.Transport(_tcp(address, port))
        try:
            transport.banner_timeout = CONNECT
            transport.get_security_options().key_types = (key_type,)
            transport.start_client(timeout=CONNECT)
            key = transport.get_remote_server_key()
        except paramiko.ssh_exception.IncompatiblePeer:
            continue
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise UnreachableError(
                f"{address}:{port} answers, but not as an SSH server: {error}", "check the port"
            ) from None
        finally:
            transport.close()
        if wanted in ("", key.fingerprint):
            return f"{key.get_name()} {key.get_base64()}"
        seen.append(f"{key.get_name()} {key.fingerprint}")
    raise HostKeyError(
        f"{address}:{port} has no host key {wanted or 'of a kind that we know'}"
        + (f"; it shows {', '.join(seen)}" if seen else ""),
        "compare with `ssh-keygen -lf` on the host itself",
    )


def fingerprint(key: str) -> str:
    """The SHA256:... fingerprint of a "type base64" key, as ssh-keygen -l prints it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def wait_scan(address: str, port: int, wanted: str, patience: float) -> str:
    """`scan` as soon as the host answers."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(UnreachableError),
        wait=tenacity.wait_exponential(multiplier=0.1, max=2, exp_base=1.5),
        stop=tenacity.stop_after_delay(patience),
        reraise=True,
    )
    return retrying(scan, address, port, wanted)


def _tcp(address: str, port: int) -> socket.socket:
    try:
        connection = socket.create_connection((address, port), CONNECT)
    except (socket.gaierror, UnicodeError) as error:  # the latter for what cannot be a name at all
        reason = getattr(error, "strerror", "") or "not a host name"
        raise UnreachableError(f"cannot resolve {address}: {reason}", "check the name") from None
    except TimeoutError:
        raise UnreachableError(
            f"{address}:{port} does not answer within {CONNECT:.0f} s", "a firewall may drop the packets"
        ) from None
    except ConnectionRefusedError:
        raise UnreachableError(f"{address}:{port} refuses the connection", "check that sshd runs on it") from None
    except OSError as error:
        raise UnreachableError(f"cannot reach {address}:{port}: {error.strerror}", "check the network") from None
    # Nagle costs 40 ms an execution; a peer that vanished must not hold us for TCP's 15 minutes
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return connection


def _lines(channel: Any, deadline: float) -> Iterator[str]:
    rest = b""
    while piece := channel.recv(PIECE):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
        if time.monotonic() > deadline:  # a script that never stops talking
            raise TimeoutError
        channel.settimeout(max(0.1, deadline - time.monotonic()))
    if rest:
        yield rest.decode(errors="replace")


def _ssh_quoted(path: Path) -> str:
    # ssh_config(5): a quoted argument may hold escaped quotes, and % starts a token
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'
