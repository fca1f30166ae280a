"""Download a large file: with resume, progress, and a digest that must be right."""

from __future__ import annotations

import errno
import hashlib
import http
import os
import shutil
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machinekit import web
from machinekit.errors import MachinekitError, UntrustedError

CHUNK = 1 << 18


def large(url: str, target: Path, digest: str, part: Callable[[str], None]) -> None:
    """Have `target` with this digest (sha256:... or sha512:...), going on with what an earlier call left there.

    Raises DownloadError when it cannot be had; what came so far stays. Raises UntrustedError when the file
    is another one; then nothing stays.
    """
    transfer = _Transfer(url, target, digest, part)
    resumed = transfer.size > 0
    if not transfer.whole():
        transfer.run()
    if not transfer.whole() and resumed:  # the beginning may have been another file's
        transfer.start_over()
        transfer.run()
    if not transfer.whole():
        transfer.start_over()
        raise UntrustedError(
            f"{url} is not the file that its publisher's checksum is for ({digest})",
            "the publisher or a mirror may just be changing it: try again later; if it stays so, do not use it",
        )
    transfer.validator.unlink(missing_ok=True)


class _Transfer:
    """One file on its way: how much of it is here, and its digest so far."""

    def __init__(self, url: str, target: Path, digest: str, part: Callable[[str], None]) -> None:
        self.url, self.target, self.part = url, target, part
        self.validator = target.with_name(f"{target.name}.validator")  # which version of the file the beginning is of
        self.algorithm, _, self.wanted = digest.partition(":")
        self.fruitless = 0
        self.received = 0
        self.told = 0.0
        self.started = time.monotonic()
        self.digest = hashlib.new(self.algorithm)
        self.size = 0
        if target.exists():
            part("checking what is here already")
            with target.open("rb") as file:
                while piece := file.read(CHUNK):
                    self.digest.update(piece)
                    self.size += len(piece)

    def whole(self) -> bool:
        return self.digest.hexdigest() == self.wanted

    def start_over(self) -> None:
        self.target.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)
        self.digest, self.size = hashlib.new(self.algorithm), 0

    def run(self) -> None:
        web.retried(self._attempt, lambda _: self.fruitless >= web.TRIES, self.url)

    def _attempt(self) -> None:
        before = self.received
        try:
            self._go_on()
        except web.UnreachableError as error:
            if not self.received:  # it never worked: say so at once
                raise
            raise web.CutError(error.message) from None
        finally:
            self.fruitless = 0 if self.received > before else self.fruitless + 1

    def _go_on(self) -> None:
        headers: dict[str, str] = {}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self.validator.exists():
                headers["If-Range"] = self.validator.read_text()
        try:
            answer = web.opened(self.url, headers)
        except urllib.error.HTTPError as error:  # the one that is left to us: the range is not the server's
            error.close()
            self.start_over()
            raise web.CutError("the file is another one now") from None
        with answer:
            if self.size and not _starts_at(answer, self.size):
                self.start_over()
                if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
                    raise web.CutError("the server sent another part of the file than was asked for")
            total = self.size + answer.length if answer.length else 0
            with _told_of_space(self.target, total - self.size), self.target.open("ab") as file:
                self._remember(answer.headers)
                try:
                    while piece := web.reading(answer.read1, CHUNK):
                        file.write(piece)
                        self.digest.update(piece)
                        self.size += len(piece)
                        self.received += len(piece)
                        self._tell(total)
                finally:
                    file.flush()
                os.fsync(file.fileno())
        if self.size < total:
            raise web.CutError(f"the connection ended after {self.size} of {total} bytes")

    def _remember(self, headers: Any) -> None:
        """Keep what tells this version of the file from another: https://www.rfc-editor.org/rfc/rfc9110#field.if-range"""
        tag = headers.get("ETag") or ""
        if value := tag if tag.startswith('"') else headers.get("Last-Modified"):
            self.validator.write_text(value)

    def _tell(self, total: int) -> None:
        now = time.monotonic()
        if now - self.told >= 0.2 or self.size == total:  # noqa: PLR2004 (as often as an eye wants it)
            self.told = now
            self.part(amounts(self.size, total, self.received / max(now - self.started, 0.001)))


def amounts(done: int, total: int, rate: float) -> str:
    """How far a transfer is, in a person's words; a total of 0 is not known."""
    text = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
    text += f", {rate / 1e6:.1f} MB/s"
    if total and rate:
        minutes, seconds = divmod(round((total - done) / rate), 60)
        text += f", {minutes}:{seconds:02d} left"
    return text


def _starts_at(answer: http.client.HTTPResponse, size: int) -> bool:
    """Whether the answer goes on where we are; a server may send the whole file instead."""
    part = answer.headers.get("Content-Range") or ""
    return answer.status == http.HTTPStatus.PARTIAL_CONTENT and part.startswith(f"bytes {size}-")


class _told_of_space:  # noqa: N801 (used as a statement)
    """Refuse what the disk has no room for, before or while it is written."""

    def __init__(self, target: Path, needed: int) -> None:
        self.directory, self.needed = target.parent, needed

    def __enter__(self) -> None:
        free = shutil.disk_usage(self.directory).free
        if self.needed > free:
            raise full(self.directory, f": {self.needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(self.directory) from None


def full(directory: Path, figures: str = "") -> MachinekitError:
    """The error for a disk without room."""
    return MachinekitError(f"the disk of {directory} is full{figures}", "make room there; the same command goes on")
