"""A proxy in front of HTTP APIs that injects faults, hides what is new from lists, and counts the calls.

Each API gets a port of its own on loopback; their URLs are exchanged in every answer, so that a client that starts
with one of ours, such as Keystone's, is led through us by the service catalog.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

ENDLESS = 3600.0
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server", "host"}


@dataclass
class Fault:
    """What happens to the next `count` calls whose method and path (without its query) match fully.

    The client waits for `delay` seconds, and is then answered with `status`, or with nothing at all where that is 0:
    its connection is closed. With `applied` the API has done what was asked for before.
    """

    method: str
    path: str
    status: int = 0
    count: int = 1
    applied: bool = False
    delay: float = 0
    headers: dict[str, str] = field(default_factory=dict)

    def hits(self, call: Call) -> bool:
        """Whether it is for this call."""
        return self.count > 0 and call.matches(self.method, self.path)


def throttled(method: str, path: str, *, after: int = 1, count: int = 1) -> Fault:
    """429, with the seconds after which to come again."""
    return Fault(method, path, 429, count, headers={"Retry-After": str(after)})


def hanging(method: str, path: str, *, applied: bool = False, count: int = 1) -> Fault:
    """No answer at all, for longer than any client waits."""
    return Fault(method, path, 0, count, applied, ENDLESS)


def lost(method: str, path: str, *, status: int = 0, count: int = 1) -> Fault:
    """Applied, but the answer is lost: the connection is closed, or a gateway says 504."""
    return Fault(method, path, status, count, applied=True)


@dataclass(frozen=True)
class Call:
    """One call: what a client sent."""

    method: str
    path: str

    def matches(self, method: str, path: str) -> bool:
        """Whether both regular expressions match the whole of it."""
        return bool(re.fullmatch(method, self.method) and re.fullmatch(path, urlsplit(self.path).path))


class Faults:
    """The proxy: from `with` on until its end. `unlisted` is for how many seconds lists leave out what is new."""

    def __init__(self, upstreams: Iterable[str]) -> None:
        self._servers = [_Server(self, upstream.rstrip("/")) for upstream in upstreams]
        self._lock = threading.Lock()
        self._born: dict[str, float] = {}  # the id or the name of what was made through us, and when
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.unlisted = 0.0
        self.over = threading.Event()

    def __enter__(self) -> Self:
        for server in self._servers:
            server.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.over.set()
        for server in self._servers:
            server.shutdown()
            server.thread.join()
            server.server_close()

    def url(self, upstream: str) -> str:
        """The same URL through us."""
        return self.exchanged(upstream.encode()).decode()

    def inject(self, *faults: Fault) -> None:
        """Let these happen from now on, in this order where a call matches several."""
        with self._lock:
            self.faults.extend(faults)

    def clear(self) -> None:
        """Forget faults, calls and what is new."""
        with self._lock:
            self.faults, self.calls, self.unlisted = [], [], 0.0
            self._born.clear()

    def count(self, method: str = ".*", path: str = ".*") -> int:
        """How many calls matched."""
        with self._lock:
            return sum(call.matches(method, path) for call in self.calls)

    # --- what the servers ask

    def fault_of(self, call: Call) -> Fault | None:
        """Count the call; the fault that is for it, used up by one."""
        with self._lock:
            self.calls.append(call)
            found = next((fault for fault in self.faults if fault.hits(call)), None)
            if found:
                found.count -= 1
            return found

    def exchanged(self, body: bytes) -> bytes:
        """Our URLs in place of the APIs' own."""
        for server in self._servers:
            body = re.sub(re.escape(server.upstream.encode()) + rb"(?!\d)", server.url.encode(), body)
        return body

    def filtered(self, method: str, body: bytes) -> bytes:
        """Remember what a POST has made; leave what is too new out of the lists that a GET gives."""
        with suppress(ValueError):
            answer = json.loads(body)
            if method == "POST":
                self._remember(answer)
            elif method == "GET" and self.unlisted:
                return json.dumps(self._without_new(answer)).encode()
        return body

    def _remember(self, answer: Any) -> None:
        made = next(iter(answer.values()), None) if isinstance(answer, dict) and len(answer) == 1 else answer
        if isinstance(made, dict) and (name := _identity(made)):
            self._born[name] = time.monotonic()

    def _without_new(self, answer: Any) -> Any:
        if not isinstance(answer, dict):
            return answer
        return {
            key: [each for each in value if not self._is_new(each)] if isinstance(value, list) else value
            for key, value in answer.items()
        }

    def _is_new(self, item: Any) -> bool:
        inner = next(iter(item.values())) if isinstance(item, dict) and len(item) == 1 else item
        item = inner if isinstance(inner, dict) else item  # {"keypair": {...}} within a list
        if not isinstance(item, dict):
            return False
        since = time.monotonic() - self.unlisted
        return any(self._born.get(name, 0) > since for name in (_identity(item), item.get("device_id")) if name)


def _identity(item: dict[str, Any]) -> str:
    """What an object is known by: a key pair has no id."""
    found = item.get("id") or item.get("name")
    return found if isinstance(found, str) else ""


class _Server(ThreadingHTTPServer):
    """One API's door."""

    daemon_threads = True

    def __init__(self, proxy: Faults, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy, self.upstream = proxy, upstream
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: _Server
    headers: Message

    def handle_one_request(self) -> None:
        """Whatever the method is."""
        with suppress(ConnectionError, socket.timeout):
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _serve(self, body: bytes) -> None:
        proxy = self.server.proxy
        fault = proxy.fault_of(Call(self.command, self.path))
        answer = _Answer(200, (), b"")
        if not fault or fault.applied:
            answer = self._forward(body)
        if fault:
            proxy.over.wait(fault.delay)
            if not fault.status:
                self.close_connection = True
                return
            said = json.dumps({"error": {"code": fault.status, "message": "injected", "title": "injected"}})
            answer = _Answer(
                fault.status, [("Content-Type", "application/json"), *fault.headers.items()], said.encode()
            )
        self._send(answer)

    def _forward(self, body: bytes) -> _Answer:
        where = urlsplit(self.server.upstream)
        upstream = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
            upstream.request(
                self.command, where.path + self.path, body or None, {**headers, "Accept-Encoding": "identity"}
            )
            answer = upstream.getresponse()
            content = answer.read()
            kept = [(key, value) for key, value in answer.getheaders() if key.lower() not in HOP_BY_HOP]
        finally:
            upstream.close()
        proxy = self.server.proxy
        content = proxy.exchanged(proxy.filtered(self.command, content) if answer.status < 300 else content)
        return _Answer(answer.status, [(key, proxy.exchanged(value.encode()).decode()) for key, value in kept], content)

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
