"""Run scripts as root over an open login, one execution each.

Scripts and secrets travel through stdin, never in an argument list.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paramiko

from machinekit.errors import BrokenError, LoginError, RemoteError, UnreachableError
from machinekit.host import Host
from machinekit.secret import Ask, advice, nobody, reveal

log = logging.getLogger(__name__)

PIECE = 64 * 1024  # paramiko's sendall of one big buffer is quadratic
TAIL = 20  # lines of a failed script that an error shows
LIMIT = 16 * 1024 * 1024  # bytes that a script may say: far more than any of ours does
OURS = "machinekit:"  # what lines for programs begin with
STARTED = "machinekit:started"
BUSY = "machinekit:busy"
ROOT = b"machinekit:root\n"
PROMPT = b"machinekit:password"
# sudo asks only when it wants to, in one language, and says when we are root; any login shell can read this
SUDO = f"env LC_ALL=C sudo -S -p {PROMPT.decode()} sh -c 'echo {ROOT.decode().strip()}; exec sh -s'"

# What a host says instead of running a shell as root: the error's text and hint
NO_ROOT = (
    (r"must have a tty", "its sudoers ask for a terminal", "add to its sudoers: Defaults:{user} !requiretty"),
    (
        r"not in the sudoers|not allowed|may not run sudo",
        "{user} may not use sudo there",
        "add to its sudoers: {user} ALL=(ALL) ALL",
    ),
    (r"sudo.*(not found|No such file)", "there is no sudo", "install it, or use root"),
    (r"incorrect password|Sorry, try again", "sudo refuses the password", "check it"),
    (r"[Pp]assword (has expired|change required)", "the password of {user} has expired", "log in and change it"),
    (r"no new privileges|setuid|effective uid", "sudo does not work there", "mend it, or use root"),
    (r"not available|nologin", "{user} has no login shell", "give the user one: chsh -s /bin/sh {user}"),
)

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


class Connection:
    """An open login. `executions` counts the commands that were run."""

    def __init__(self, transport: paramiko.Transport, host: Host, ask: Ask = nobody, patience: float = 10.0) -> None:
        self._transport = transport
        self._ask = ask
        self._patience = patience  # for what every host does in a moment
        self.host = host
        self.executions = 0

    def run(self, script: str, *, patience: float, heard: Callable[[str], None] = lambda line: None) -> list[str]:
        """Run a shell script as root and return its output lines, stderr among them.

        `heard` is told each line as it comes. The script arrives through stdin and starts only when
        it is there whole, so a cut connection cannot run half a line. A script whose caller was killed or cut off may
        still run: one waits for it. Raises RemoteError, LoginError when there is no way to be root, BrokenError when
        the connection is cut, UnreachableError when the script takes longer than `patience` seconds.
        """
        self.executions += 1
        started = time.monotonic()
        text = _ALONE.format(started=STARTED, script=script, busy=BUSY, seconds=int(patience * 0.8))
        lines: list[str] = []
        with self._channel() as channel:
            rest = self._begin(channel, "sh -s") if self.host.user == "root" else self._become_root(channel)
            with self._within(patience):
                data = text.encode()
                with contextlib.suppress(OSError):  # no shell took it: what was said instead tells why
                    for start in range(0, len(data), PIECE):
                        channel.sendall(data[start : start + PIECE])
                    channel.shutdown_write()
                for line in self._lines(channel, rest):
                    lines.append(line)
                    heard(line)
                code = self._exit_code(channel)
        log.debug("ssh %s: exit %s after %.2f s, %d lines", self.host, code, time.monotonic() - started, len(lines))
        if BUSY in lines:
            raise RemoteError(
                f"an earlier script still runs on {self.host}", "it ends by itself; run the command again"
            )
        if STARTED not in lines:
            raise self._no_root("\n".join(lines), code)
        lines = lines[lines.index(STARTED) + 1 :]
        if code != 0:
            said = [line for line in lines if not line.startswith(OURS)]  # theirs may have credentials in Base64
            raise RemoteError(f"a script on {self.host} failed with exit code {code}:\n" + "\n".join(said[-TAIL:]))
        return lines

    def _lines(self, channel: paramiko.Channel, rest: bytes) -> Iterator[str]:
        said = len(rest)
        while piece := channel.recv(PIECE):
            said += len(piece)
            if said > LIMIT:
                raise RemoteError(f"{self.host} does not stop talking", "log in and look what is the matter there")
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
        if rest:
            yield rest.decode(errors="replace")

    @contextmanager
    def forwarded(self, address: str, port: int) -> Iterator[int]:
        """A port of 127.0.0.1 that leads to an address and port as the host sees them, for one client after the other.

        A target that the host refuses ends each client's connection at once.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=self._forward, args=(listener, address, port))
            thread.start()
            try:
                yield int(listener.getsockname()[1])
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
                thread.join()

    def close(self) -> None:
        """End the login."""
        self._transport.close()

    @contextmanager
    def _channel(self) -> Iterator[paramiko.Channel]:
        try:
            with self._within(self._patience):
                channel = self._transport.open_session(timeout=self._patience)
            with contextlib.closing(channel):
                channel.set_combine_stderr(True)
                yield channel
        except (paramiko.SSHException, OSError, EOFError) as error:
            reason = str(error) or "closed"
            raise BrokenError(f"the connection to {self.host} broke: {reason}", "run the command again") from None

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Cut the connection when the time is over: paramiko waits for some answers without any deadline."""
        over = threading.Event()

        def cut() -> None:
            over.set()
            self._transport.close()

        timer = threading.Timer(seconds, cut)
        timer.start()
        try:
            yield
        except (paramiko.SSHException, OSError, EOFError):
            if not over.is_set():
                raise
        finally:
            timer.cancel()
        if over.is_set():
            raise UnreachableError(
                f"no answer from {self.host} within {seconds:g} s", "the host or the network may be overloaded"
            )

    def _begin(self, channel: paramiko.Channel, command: str) -> bytes:
        with self._within(self._patience):
            try:
                channel.exec_command(command)
            except paramiko.SSHException:  # "Channel closed": by a host that runs nothing; what it said can be read
                if not self._transport.is_active():
                    raise
        return b""

    def _become_root(self, channel: paramiko.Channel) -> bytes:
        """Start a shell through sudo, with the password if it asks for one; returns what came after."""
        rest = self._begin(channel, SUDO)
        wrong: str | None = None
        until = time.monotonic() + self._patience
        while ROOT not in rest:
            if rest.endswith(PROMPT):
                password = self._password(rest, wrong)
                with self._within(self._patience):
                    channel.sendall(os.fsencode(password) + b"\n")
                rest, wrong = rest.removesuffix(PROMPT), password
                until = time.monotonic() + self._patience
            with self._within(max(until - time.monotonic(), 0)):
                piece = channel.recv(PIECE)
                code = self._exit_code(channel) if not piece else 0
            if not piece:
                raise self._no_root(rest.decode(errors="replace"), code)
            rest += piece
        return rest.partition(ROOT)[2]

    def _password(self, said: bytes, wrong: str | None) -> str:
        source, user = self.host.access.sudo, self.host.user
        password = reveal(f"sudo password of {user} on {self.host.address}", source, self._ask, wrong=wrong)
        if password is not None:
            return password
        if wrong is not None:
            raise self._no_root("Sorry, try again.", 1)
        hint = "allow the user sudo without a password" + (f", or {more}" if (more := advice(source)) else "")
        raise LoginError(f"sudo on {self.host} asks for the password of {user}", hint)

    def _no_root(self, said: str, code: int) -> LoginError:
        text = " ".join(said.split("\n")[-4:]).strip() or f"exit code {code}"
        hint = "the login must give a shell, and sudo must work in it"
        if known := next((row for row in NO_ROOT if re.search(row[0], said)), None):
            what, hint = (part.format(user=self.host.user) for part in known[1:])
            text = f"{what} ({text})"
        return LoginError(f"cannot become root on {self.host}: {text}", hint)

    def _exit_code(self, channel: paramiko.Channel) -> int:
        channel.status_event.wait()
        if channel.exit_status == -1:
            self._transport.join(0.2)  # it may be about to notice that the other side is gone
            if not self._transport.is_active():
                raise EOFError  # not the script's end but the connection's
        return channel.exit_status

    def _forward(self, listener: socket.socket, address: str, port: int) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    target = ("direct-tcpip", (address, port), client.getpeername())
                    with contextlib.closing(self._transport.open_channel(*target, timeout=self._patience)) as channel:
                        _pump(client, channel)
                except (paramiko.SSHException, OSError, EOFError) as error:
                    log.debug("ssh %s: no way to %s:%s: %s", self.host, address, port, error)


def _pump(client: socket.socket, channel: paramiko.Channel) -> None:
    """Carry bytes both ways until one side has ended."""
    ways: tuple[tuple[Any, Any], ...] = ((client, channel), (channel, client))
    while True:
        ready, _, _ = select.select([client, channel], [], [])  # type: ignore[type-var]  # it has a fileno
        for source, target in ways:
            if source in ready:
                piece = source.recv(PIECE)
                if not piece:
                    return
                target.sendall(piece)
