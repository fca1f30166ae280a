"""Real clients of a machine: docker and Compose as a shell starts them, a terminal, HTTP and TLS by hand."""

from __future__ import annotations

import fcntl
import http.client
import os
import pty
import select
import socket
import ssl
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.e2e.lab import Cli, run

PATIENCE = 60  # seconds; the computer may be busy with other things
DETACH = "\x10\x11"  # ctrl-p ctrl-q


@dataclass
class Client:
    """A program pointed at one machine."""

    command: tuple[str, ...]
    environment: dict[str, str]

    def __call__(self, *words: str, cwd: Path | None = None) -> str:
        """Run it; the test fails with its output when it fails."""
        return run(*self.command, *words, env=self.environment, cwd=cwd)

    def fail(self, *words: str, code: int) -> str:
        """Run it where it must fail with this exit code; returns stderr."""
        result = subprocess.run(
            [*self.command, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == code, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result.stderr

    def terminal(self, *words: str) -> Terminal:
        """Run it on a terminal."""
        return Terminal([*self.command, *words], self.environment)


def pointed(cli: Cli, way: str, name: str, program: str = "docker") -> Client:
    """A client pointed at a machine by `env`, by `use` or by `config`, in the words of the user's shell."""
    if way == "env":
        return Client((program,), _shell(cli.client(name)))
    if way == "use":
        cli("use", name)
        return Client((program,), _shell(cli.environment))
    assert way == "config"
    script = f'{program} $({sys.executable} -m machinekit config {name}) "$@"'
    return Client(("bash", "-euc", script, program), _shell(cli.environment))


def _shell(environment: dict[str, str]) -> dict[str, str]:
    # in Compose 1 and Docker's SDK for Python these override every engine's own CA, whoever made it:
    # https://github.com/docker/docker-py/issues/2433
    ours = {key: value for key, value in environment.items() if key not in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}
    # without buildx the client says at each build that the old builder will go one day; this keeps it quiet
    return ours | {"DOCKER_BUILDKIT": "0"}


class Terminal:
    """A program on a pseudo terminal of 33 rows and 99 columns."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.said = ""
        self._ours, theirs = pty.openpty()
        try:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
            self.process = subprocess.Popen(
                command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
            )
        except BaseException:
            os.close(self._ours)
            raise
        finally:
            os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, keys: str) -> None:
        """Press keys; Enter is a carriage return."""
        os.write(self._ours, keys.encode())

    def read(self, text: str) -> None:
        """Read until the text has come."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            assert time.monotonic() < deadline, f"no {text!r} in {self.said!r}"
            assert self._read(), f"ended without {text!r}: {self.said!r}"
        self.said = self.said.partition(text)[2]

    def end(self) -> int:
        """Read on until the program ends; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < deadline, f"does not end: {self.said!r}"
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        """Take in what there is within a second; False when the program has closed its side."""
        if select.select([self._ours], [], [], 1)[0]:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # Linux's EOF of a terminal
                return False
            self.said += data.decode(errors="replace")
            return bool(data)
        return True


def fetch(address: str, port: int, path: str = "/index.html") -> str:
    """A page, as soon as it is served."""
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection(address, port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            assert answer.status == http.HTTPStatus.OK, f"{answer.status} {body}"
            return body
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        finally:
            connection.close()


def ping(address: str, context: ssl.SSLContext) -> tuple[str, str]:
    """Ask an engine for /_ping: the version of TLS that was spoken, and the whole answer."""
    with (
        socket.create_connection((address, 2376), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=address) as connection,
    ):
        with suppress(OSError):  # in TLS 1.3 an engine that refuses has perhaps hung up; why is still to be read
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return str(connection.version()), answer.decode()
