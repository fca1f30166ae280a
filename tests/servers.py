"""Small real servers on loopback: an engine that answers over TLS, and an SSH server that runs scripts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import re
import shlex
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import paramiko

from machinekit import keys
from machinekit.engine import DAEMON_JSON
from machinekit.remote import _pump
from machinekit.settings import COMPANIONS
from machinekit.ssh import Host
from machinekit.store import CA, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, SERVER_KEY

ENGINE_VERSION = "29.1.2"
BODIES = {"/_ping": b"OK", "/version": b'{"Version": "' + ENGINE_VERSION.encode() + b'"}'}
Serve = Callable[[socket.socket], None]
Shell = Callable[[paramiko.Channel, str], None]


class Server:
    """Gives each connection to `serve`, in a thread of its own, from `with` on until its end."""

    def __init__(self, serve: Serve, listener: socket.socket | None = None) -> None:
        self._serve = serve
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def port(self) -> int:
        """The free port that it got."""
        return int(self._listener.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many came so far."""
        return len(self._open)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        self._threads[0].join()
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(10)
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(connection)
            thread = threading.Thread(target=self._one, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _one(self, connection: socket.socket) -> None:
        # a client that leaves is no news here
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException), connection:
            self._serve(connection)


class Certificates:
    """A CA of its own with a client's and a server's certificate, in a machine's file names."""

    def __init__(self, directory: Path, names: tuple[str, ...] = ("127.0.0.1", "localhost")) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        ca = keys.authority("test")
        client, server = keys.client(ca, "test"), keys.server(ca, names)
        for file, content in (
            (CA, ca.cert),
            (CLIENT_CERT, client.cert),
            (CLIENT_KEY, client.key),
            (SERVER_CERT, server.cert),
            (SERVER_KEY, server.key),
        ):
            (directory / file).write_bytes(content)

    @property
    def client_files(self) -> tuple[Path, Path, Path]:
        """What a client needs: CA, certificate, key."""
        return self.directory / CA, self.directory / CLIENT_CERT, self.directory / CLIENT_KEY

    def context(self) -> ssl.SSLContext:
        """The server's side."""
        return server_context(self.directory)


def server_context(directory: Path) -> ssl.SSLContext:
    """A server that asks for a client certificate of its own CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / SERVER_CERT, directory / SERVER_KEY)
    context.load_verify_locations(directory / CA)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def engine(connection: socket.socket) -> None:
    """Answer one request as an engine does."""
    path = _request(connection).split(b" ")[1].decode()
    status = b"200 OK" if path in BODIES else b"404 Not Found"
    connection.sendall(b"HTTP/1.0 " + status + b"\r\n\r\n" + BODIES.get(path, b"page not found"))


def saying(answer: bytes) -> Serve:
    """Answer any request with these bytes."""

    def serve(connection: socket.socket) -> None:
        _request(connection)
        connection.sendall(answer)

    return serve


def silent(connection: socket.socket) -> None:
    """Read, and never say a word."""
    while connection.recv(4096):
        pass


def encrypted(serve: Serve, context: ssl.SSLContext) -> Serve:
    """The same over TLS."""

    def handshake(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            serve(wrapped)

    return handshake


def _request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(4096)
        if not piece:
            raise EOFError
        request += piece
    return request


class Proxy(Server):
    """A TCP link to a port of this computer that is slow, and stalls or is cut when told to.

    `delay` is in seconds, for each way; `limit` is after how many bytes from the server it stalls or, without
    `stalls`, is cut; with `resets` a cut sends a RST.
    """

    def __init__(
        self, port: int, *, delay: float = 0, limit: int = -1, stalls: bool = False, resets: bool = False
    ) -> None:
        super().__init__(self._carry)
        self._target = port
        self._delay, self._limit, self._stalls, self._resets = delay, limit, stalls, resets
        self._stalled, self._away, self._over = threading.Event(), threading.Event(), threading.Event()
        self._targets: list[socket.socket] = []

    def stall(self) -> None:
        """Carry nothing from now on, and keep the connections."""
        self._stalled.set()

    def cut(self) -> None:
        """End the connections that there are."""
        for connection in self._open:
            self._end(connection)

    def leave(self) -> None:
        """End the connections, and every new one at once, until `come_back`."""
        self._away.set()
        self.cut()

    def come_back(self) -> None:
        """Take connections again."""
        self._away.clear()

    def lead_to(self, port: int) -> None:
        """Lead new connections elsewhere."""
        self._target = port

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._over.set()
        for server in self._targets:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
        super().__exit__(kind, error, trace)

    def _end(self, client: socket.socket) -> None:
        if self._resets:  # SO_LINGER of 0 seconds: close sends a RST; shutdown ends reading in the other thread
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RD if self._resets else socket.SHUT_RDWR)
        if self._resets:
            client.close()

    def _carry(self, client: socket.socket) -> None:
        if self._away.is_set():
            return
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._targets.append(server)
            upward = threading.Thread(target=self._one_way, args=(client, server, -1))
            upward.start()
            self._one_way(server, client, self._limit)
            if self._stalled.is_set():
                self._over.wait()
            self._end(client)
            server.shutdown(socket.SHUT_RDWR)
            upward.join()

    def _one_way(self, source: socket.socket, target: socket.socket, limit: int) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                self._over.wait(self._delay)
                if limit >= 0:
                    piece = piece[: limit - passed]
                    passed += len(piece)
                if self._stalled.is_set():
                    return
                target.sendall(piece)
                if passed == limit:
                    if self._stalls:
                        self.stall()
                    return
            target.shutdown(socket.SHUT_WR)


class SshServer(Server):
    """An SSH server that accepts one public key and gives each command, with its channel, to `shell`."""

    def __init__(self, shell: Shell | None = None) -> None:
        super().__init__(self._session)
        self.shell = shell or real_shell
        self.forwarded: list[tuple[str, int]] = []  # where clients asked to be led
        self.before_exec: Callable[[], None] = lambda: None  # what happens before a command is answered
        self.private, self.public = keys.ssh_key("user")
        host_private, self.host_key = keys.ssh_key("host")
        self._host_key = paramiko.Ed25519Key.from_private_key(io.StringIO(host_private.decode()))

    def host(self, directory: Path, *, user: str = "root", host_key: str | None = None) -> Host:
        """How to log in, with the right key and the right pinned host key unless told otherwise."""
        key_file, known_hosts = directory / "id", directory / "known_hosts"
        key_file.write_bytes(self.private)
        key_file.chmod(0o600)
        known_hosts.write_text(f"the-uid {host_key or self.host_key}\n")
        return Host("127.0.0.1", self.port, user, "the-uid", known_hosts, key_file)

    def _session(self, connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(self._host_key)
        try:
            transport.start_server(server=_Login(self, transport))
            transport.join()
        finally:
            transport.close()


class _Login(paramiko.ServerInterface):
    def __init__(self, server: SshServer, transport: paramiko.Transport) -> None:
        self._server = server
        self._transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        accepted = self._server.public.split()[1] == key.get_base64()
        return paramiko.common.AUTH_SUCCESSFUL if accepted else paramiko.common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        self._server.forwarded.append(destination)
        try:
            target = socket.create_connection(destination)
        except OSError:
            return paramiko.common.OPEN_FAILED_CONNECT_FAILED
        threading.Thread(target=self._forward, args=(chanid, target), daemon=True).start()
        return paramiko.common.OPEN_SUCCEEDED

    def _forward(self, chanid: int, target: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException), target:
            while (channel := self._transport._channels.get(chanid)) is None:  # type: ignore[attr-defined]
                self._transport.join(0.01)
            with contextlib.closing(channel):
                _pump(target, channel)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._server.before_exec()
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException), contextlib.closing(channel):
            self._server.shell(channel, command)


def script_of(channel: paramiko.Channel) -> bytes:
    """What the client sends until it closes its side."""
    return b"".join(iter(lambda: channel.recv(65536), b""))


def real_shell(channel: paramiko.Channel, command: str) -> None:
    """Run the command here with the client's script."""
    script = script_of(channel)
    result = subprocess.run(shlex.split(command), input=script, capture_output=True, check=False)
    channel.sendall(result.stdout + result.stderr)
    channel.send_exit_status(result.returncode)


def sudo(*passwords: str, asks: bool = True, tries: int = 3, then: Shell = real_shell) -> Shell:
    """sudo -S, as far as our command line goes: it asks for a password on stderr, and takes these."""

    def shell(channel: paramiko.Channel, command: str) -> None:
        words = shlex.split(command)
        assert words[:5] == ["env", "LC_ALL=C", "sudo", "-S", "-p"]
        for attempt in range(tries if asks else 0):
            channel.sendall(words[5].encode())
            if line_of(channel) in passwords:
                break
            again = b"Sorry, try again.\n" if attempt < tries - 1 else b"sudo: 3 incorrect password attempts\n"
            channel.sendall(again)
        else:
            if asks:
                channel.send_exit_status(1)
                return
        channel.sendall(b"machinekit:root\n")
        then(channel, "sh -s")

    return shell


def line_of(channel: paramiko.Channel) -> str:
    """One line that the client sends; nothing after it is taken."""
    line = b""
    while not line.endswith(b"\n") and (byte := channel.recv(1)):
        line += byte
    return os.fsdecode(line).rstrip("\n")


def refusing(text: str, code: int) -> Shell:
    """Say this at once and take nothing, as a login that gives no shell."""

    def shell(channel: paramiko.Channel, command: str) -> None:
        channel.sendall(text.encode())
        channel.send_exit_status(code)

    return shell


def shell_saying(text: str, code: int) -> Shell:
    """Take the script and answer this instead of running it."""

    def shell(channel: paramiko.Channel, command: str) -> None:
        script_of(channel)
        channel.sendall(text.encode())
        channel.send_exit_status(code)

    return shell


class FakeHost(SshServer):
    """A host with an engine, as far as our scripts go: it answers the probe, keeps the files, serves TLS with them.

    `facts` is what the probe says of everything but the files; `scripts` is every script it was sent.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(self._execute)
        self.directory = directory
        self.facts = {"os_id": "debian", "os_version": "12", "init": "systemd", "active": "no", "dockerd": ""}
        self.files: dict[str, bytes] = {}
        self.scripts: list[str] = []
        self.fails = ""  # a script with this text in it fails
        self.last_words = "it failed"  # of a script that fails
        self.said: dict[str, list[str]] = {}  # by a text in a script what it says
        self.extra: list[str] = []  # what the probe says beside the facts
        self.offers: list[str] = []  # the versions of the engine's package, newest first
        self.broken = ""  # the version whose engine does not start
        self.engine = Server(self._engine)

    def __enter__(self) -> Self:
        self.engine.__enter__()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self.engine.__exit__(None, None, None)

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        script = script_of(channel).decode()
        self.scripts.append(script)
        failed = bool(self.fails) and self.fails in script
        lines = ["machinekit:started"]
        if "apt-get" in script and not failed:
            self.facts["dockerd"] = "/usr/bin/dockerd"
        for line in script.splitlines():
            match line.split():
                case ["put", path, _, content]:
                    self.files[shlex.split(path)[0]] = base64.b64decode(shlex.split(content)[0])
                case ["if", "!", "restart;", "then"] | ["if", "!", "engine_start;", *_]:
                    self.facts["active"] = "yes"
        if "packages_candidate docker" in script:
            lines += [f"machinekit:offer={version}" for version in self.offers]
        lists = re.findall(r"^packages_install (.* ?[^ =]+=.*)$", script, re.MULTILINE)  # with a way back: two
        installs = [re.findall(r"([^ =]+)=(\S+)", words) for words in lists]
        if installs and installs[0][0][1] == self.broken:
            failed = failed or len(installs) == 1
            lines += ["its journal", "machinekit:back=yes"]
        elif installs and not failed:
            self.facts["package"] = " ".join(installs[0][0])
            self.facts |= {f"companion {name}": version for name, version in installs[0] if name in COMPANIONS}
        if "say os_id" in script and not failed:
            lines += self._probe()
        if "carried file" in script:
            lines += self.extra
        for text, said in self.said.items():
            lines += said if text in script else []
        channel.sendall("".join(f"{line}\n" for line in [*lines, *([self.last_words] if failed else [])]).encode())
        channel.send_exit_status(1 if failed else 0)

    def _probe(self) -> list[str]:
        facts = dict(self.facts)
        if DAEMON_JSON in self.files:
            facts["daemon_json"] = base64.b64encode(self.files[DAEMON_JSON]).decode()
        facts |= {f"sha256 {path}": hashlib.sha256(content).hexdigest() for path, content in self.files.items()}
        return [f"machinekit:{key}={value}" for key, value in facts.items()]

    def _engine(self, connection: socket.socket) -> None:
        if self.facts["active"] != "yes":
            return
        for file, path in ((CA, "ca.pem"), (SERVER_CERT, "server.pem"), (SERVER_KEY, "server-key.pem")):
            (self.directory / file).write_bytes(self.files[f"/etc/docker/{path}"])
        encrypted(engine, server_context(self.directory))(connection)
