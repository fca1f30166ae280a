"""A publisher of images on loopback: ranges, ETags, and everything that goes wrong on the way."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import shutil
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from machinekit.catalogue import Entry

NAME = "test-1"
FILE = "test-1.img"


def disk(size: int = 300_000) -> bytes:
    """A raw disk image as far as a look at its boot sector goes; no part of it is like another."""
    body = b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(size // 32))
    return b"\0" * 510 + b"\x55\xaa" + body[512:]


@dataclass
class Publisher:
    """Serves `files` by path. The faults hold for paths that end with `faulty`, each until it is taken back.

    `cuts` are the numbers of bytes after which one answer each is cut off.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faulty: str = FILE
    cuts: list[int] = field(default_factory=list)
    status: int = 0
    stall_after: int = -1
    redirect: str = ""
    ranges: bool = True
    validator: str = "etag"  # or "date", or nothing
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and Range of every request
    context: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if self.context:
            self._server.socket = self.context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it is, with a slash at the end."""
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self._server.server_port}/"

    def entry(self, **changes: Any) -> Entry:
        """Its one image, unsigned unless told otherwise."""
        return Entry(**{"directory": self.url + "images/", "file": FILE, "checksums": "SHA256SUMS"} | changes)

    def publish(self, content: bytes, algorithm: str = "sha256") -> str:
        """Put the image and its list of checksums there; returns the digest."""
        digest = hashlib.new(algorithm, content).hexdigest()
        self.files[f"images/{FILE}"] = content
        self.files["images/SHA256SUMS"] = f"{'0' * 64} *other.img\n{digest} *{FILE}\n".encode()
        return f"{algorithm}:{digest}"

    def requests(self, name: str = FILE) -> list[str]:
        """The Range of each request for a file, empty for the whole of it."""
        return [given for path, given in self.asked if path.endswith(name)]

    def wait(self) -> None:
        """Say nothing until the end."""
        self._stop.wait(60)


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: Publisher
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self._answer()
        self.close_connection = True

    def _answer(self) -> None:
        publisher, path = self.owner, self.path.removeprefix("/")
        publisher.asked.append((path, self.headers.get("Range") or ""))
        content = publisher.files.get(path)
        faulty = path.endswith(publisher.faulty)
        if faulty and publisher.redirect:
            self.send_response(302)
            self.send_header("Location", publisher.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if content is None or (faulty and publisher.status):
            self.send_error(publisher.status if faulty and publisher.status else 404)
            return
        self._send(content, faulty)

    def _send(self, content: bytes, faulty: bool) -> None:
        publisher, start = self.owner, 0
        tag, date = f'"{hashlib.md5(content).hexdigest()}"', "Sat, 01 Nov 2025 10:00:00 GMT"  # noqa: S324
        wanted, unless = self.headers.get("Range"), self.headers.get("If-Range")
        if wanted and publisher.ranges and unless in (None, tag, date):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if publisher.validator == "etag":
            self.send_header("ETag", tag)
        elif publisher.validator == "date":
            self.send_header("Last-Modified", date)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        content = content[start:]
        if faulty and publisher.stall_after >= 0:
            self.wfile.write(content[: publisher.stall_after])
            publisher.wait()
        elif faulty and publisher.cuts:
            self.wfile.write(content[: publisher.cuts.pop(0)])
        else:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


class Signer:
    """A publisher's OpenPGP key, made for this test, in a place of its own."""

    def __init__(self, directory: Path, name: str = "publisher", *, subkey: bool = False) -> None:
        self.directory = directory / f"gpg-{name}"
        self.directory.mkdir(mode=0o700)
        self.user = f"{name}@test.example"
        usage = "cert" if subkey else "default"
        self._gpg("--passphrase", "", "--quick-generate-key", self.user, "ed25519", usage, "never")
        listed = self._gpg("--list-keys", "--with-colons").decode().splitlines()
        self.fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
        if subkey:
            self._gpg("--passphrase", "", "--quick-add-key", self.fingerprint, "ed25519", "sign", "never")

    def close(self) -> None:
        """End its agent and forget the key."""
        subprocess.run(["gpgconf", "--homedir", str(self.directory), "--kill", "all"], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)  # the agent takes its sockets away meanwhile

    def key(self, *, armored: bool = True) -> bytes:
        """The public key."""
        return self._gpg(*(["--armor"] if armored else []), "--export")

    def detached(self, text: bytes, *, armored: bool = False) -> bytes:
        """A signature beside the text."""
        return self._gpg(*(["--armor"] if armored else []), "--detach-sign", stdin=text)

    def inline(self, text: bytes) -> bytes:
        """The text inside its signature."""
        return self._gpg("--clear-sign", stdin=text)

    def _gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.directory), "--batch", "--quiet", "--pinentry-mode", "loopback", *words]
        return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout


def packed(content: bytes) -> bytes:
    """As some publishers pack their images."""
    return gzip.compress(content)
