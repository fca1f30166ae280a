"""QEMU's monitor protocol over its socket.

https://qemu.readthedocs.io/en/latest/interop/qmp-spec.html
"""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

PATIENCE = 5.0  # seconds for an answer


class Monitor:
    """A connection to a monitor, which serves one at a time; others wait.

    Raises FileNotFoundError or ConnectionError when nobody is there, another OSError when nobody answers.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            _connect(self._socket, path)
            self._socket.settimeout(PATIENCE)
            self._file = self._socket.makefile("rw")
            self._receive()
            self.command("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
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

    def _receive(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line.endswith("\n"):
            raise ConnectionResetError("the monitor closed the connection")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _connect(connection: socket.socket, path: Path) -> None:
    # Python's own timeout would give up at once when another connection is being served
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(PATIENCE), 0))
    # a socket's address holds 108 bytes; through a descriptor of its folder any path fits
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
