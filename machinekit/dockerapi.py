"""Ask an engine over its API: TLS with the machine's certificates, plain TCP, or a unix socket.

HTTP/1.0 on a bare socket: one short answer, and importing an HTTP client costs more than the call.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from machinekit import store
from machinekit.errors import EngineError

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from typing import Any

PATIENCE = 5.0  # seconds for one answer, connecting and TLS included


def ping(url: str, tls: Path | None, patience: float = PATIENCE) -> None:
    """Hear the engine's OK at `url`, with the certificates of directory `tls`; raises EngineError."""
    get(url, "/_ping", tls, patience)


def version(url: str, tls: Path | None, patience: float = PATIENCE) -> str:
    """The engine's version, such as "26.1.5"; raises EngineError."""
    try:
        answer: dict[str, Any] = json.loads(get(url, "/version", tls, patience))
        return str(answer["Version"])
    except (ValueError, KeyError, TypeError):
        raise EngineError(f"{url} answers, but not as a Docker engine", "look at what listens there") from None


def get(url: str, path: str, tls: Path | None, patience: float) -> bytes:
    """The body of one GET."""
    deadline = time.monotonic() + patience
    try:
        with _connect(url, tls, patience) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n".encode())
            answer = _received(connection, deadline)
    except UnicodeError:
        raise EngineError(f"{url} has no name that a host can have", "check it") from None
    except OSError as error:  # ssl's errors are OSErrors too
        raise EngineError(f"the engine at {url} does not answer: {_reason(error)}", _hint(error)) from None
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        said = (head.split(b"\r\n")[0] or b"nothing").decode(errors="replace")
        raise EngineError(f"the engine at {url} answers {said} to {path}", "look at what listens there")
    return body


def _received(connection: socket.socket, deadline: float) -> bytes:
    """Everything until the other side closes; a deadline for each piece alone would let a slow drip go on for ever."""
    pieces: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        piece = connection.recv(65536)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
    raise TimeoutError


def _connect(url: str, tls: Path | None, patience: float) -> socket.socket:
    scheme, _, where = url.partition("://")
    if scheme == "unix":
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(patience)
        try:
            plain.connect(where)
        except OSError:
            plain.close()
            raise
        return plain
    host, _, port = where.rpartition(":")
    host = host.strip("[]")
    # a text would be put through the idna codec, whose import costs as much as the handshake
    place: Any = (host.encode() if host.isascii() else host, int(port))
    if tls is None:
        return socket.create_connection(place, patience)
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate CA of the user's own is trusted as it is
    context.load_verify_locations(tls / store.CA)
    context.load_cert_chain(tls / store.CLIENT_CERT, tls / store.CLIENT_KEY)
    return context.wrap_socket(socket.create_connection(place, patience), server_hostname=place[0])


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    # an ssl.SSLCertVerificationError has the readable part in verify_message
    return str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror or error)


def _hint(error: OSError) -> str:
    if getattr(error, "verify_message", ""):
        return 'renew its certificate with "machinekit regenerate-certs"'
    return 'see "machinekit status"; "machinekit provision" repairs the engine of a running machine'
