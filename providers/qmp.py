"""QEMU's monitor protocol over its socket, and the certainty of who is at the other end.

https://qemu.readthedocs.io/en/latest/interop/qmp-spec.html
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import Any

PATIENCE = 5.0  # seconds for an answer


class Monitor:
    """A connection to a monitor; raises FileNotFoundError or ConnectionError when nobody is there.

    Without `greet` nothing is exchanged, so that even a process that hangs can be killed.
    """

    def __init__(self, path: Path, *, greet: bool = True) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        try:
            _connect(self._socket, path)
            self._file = self._socket.makefile("rw")
            if greet:
                self._receive()
                self.command("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def command(self, name: str, **arguments: Any) -> Any:
        """What the monitor returns; raises ConnectionError when it refuses."""
        self._file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise ConnectionError(f"{name}: {answer['error']['desc']}")

    def wait_for_end(self, patience: float) -> None:
        """Wait until the process is gone; raises TimeoutError."""
        self._socket.settimeout(max(0.1, patience))
        while self._file.readline():
            pass

    def kill(self) -> None:
        """Kill the process at the other end and wait until it is gone.

        The peer's pid may be recycled only after the peer has died. A connection that is still open
        after the pid was pinned proves that it had not.
        """
        pid, _, _ = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        try:
            pinned = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            hangup = select.poll()
            hangup.register(self._socket, select.POLLHUP)
            if not any(event & select.POLLHUP for _, event in hangup.poll(0)):
                signal.pidfd_send_signal(pinned, signal.SIGKILL)
            select.select([pinned], [], [], PATIENCE)
        except ProcessLookupError:
            pass
        finally:
            os.close(pinned)

    def _receive(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise ConnectionResetError("the monitor closed the connection")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _connect(connection: socket.socket, path: Path) -> None:
    # a socket's address holds 108 bytes; through a descriptor of its folder any path fits
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
