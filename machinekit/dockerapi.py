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
OK = 200  # HTTP's own number


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
    said, body = _exchange(url, f"GET {path}", tls, b"", patience)
    if _status(said) != OK:
        raise EngineError(f"the engine at {url} answers {said or 'nothing'} to {path}", "look at what listens there")
    return body


def call(url: str, method: str, path: str, tls: Path | None, *, body: object = None, patience: float = PATIENCE) -> Any:
    """The JSON that the engine answers to one request with a `body` of JSON; None when it answers nothing.

    Raises EngineError: when the engine refuses, with its own words and the `status`.
    """
    content = b"" if body is None else json.dumps(body).encode()
    said, answer = _exchange(url, f"{method} {path}", tls, content, patience)
    status, told = _status(said), _parsed(answer)
    if status // 100 == OK // 100 and told is not answer:
        return told
    if isinstance(told, dict) and "message" in told:
        raise EngineError(f"the engine at {url} refuses: {told['message']}", status=status)
    where = f"{method} {path.partition('?')[0]}"
    raise EngineError(f"the engine at {url} answers {said or 'nothing'} to {where}", "look at what listens there")


def _parsed(answer: bytes) -> Any:
    """An answer's JSON, None for nothing; what is no JSON as it is."""
    try:
        return json.loads(answer) if answer.strip() else None
    except ValueError:
        return answer


def _exchange(url: str, what: str, tls: Path | None, content: bytes, patience: float) -> tuple[str, bytes]:
    """The first line and the body of the answer to one request."""
    deadline = time.monotonic() + patience
    head = f"{what} HTTP/1.0\r\nHost: engine\r\n"
    if content:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    try:
        with _connect(url, tls, patience) as connection:
            connection.sendall(f"{head}\r\n".encode() + content)
            answer = _received(connection, deadline)
    except UnicodeError:
        raise EngineError(f"{url} has no name that a host can have", "check it") from None
    except OSError as error:  # ssl's errors are OSErrors too
        raise EngineError(f"the engine at {url} does not answer: {_reason(error)}", _hint(error)) from None
    said, _, body = answer.partition(b"\r\n\r\n")
    return said.split(b"\r\n")[0].decode(errors="replace"), body


def _status(said: str) -> int:
    """The number in an answer's first line; 0 when it has none."""
    number = said.split(" ", 2)[1:2]
    return int(number[0]) if number and number[0].isdecimal() else 0


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
