"""Kernel locks on files, which end with their holder and with every program that it has started meanwhile.

A process that was killed may leave a program that still works: a docker client, qemu-img. Programs inherit the
descriptors of our locks (see programs.run), so whoever comes next waits for them as for their parent.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from machinekit.errors import LockedError, StoreError

POLL = 0.05  # seconds between two tries
# A lock's descriptor is at least this: the low ones are the programs', since a shell may know those of one digit only
# (POSIX, Shell Command Language 2.7), which mmdebstrap's needs one of
HIGH = 64


@contextmanager
def held(
    path: Path,
    what: str,
    doing: str,
    *,
    patience: float,
    waiting: Callable[[str], None] = lambda holder: None,
    needed: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Hold the lock of `what` while `doing`; `waiting` is told once who holds it meanwhile.

    The file is deleted at the end when it is not `needed` any more. `waiting` is not told without `patience`.
    Raises LockedError after that many seconds.
    """
    descriptor = _acquired(path, what, patience, waiting)
    try:
        os.set_inheritable(descriptor, True)
        _sign(descriptor, doing)
        yield
    finally:
        try:
            if not needed() and _is_at(path, descriptor):
                path.unlink()
            _sign(descriptor, "")
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would leave it to programs of other threads
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock now."""
    try:
        descriptor = _tried(path) if path.exists() else -1
    except StoreError:
        return False  # what cannot be locked is held by nobody
    if descriptor is not None and descriptor >= 0:
        os.close(descriptor)
    return descriptor is None


def is_abandoned(path: Path) -> bool:
    """Whether the holder has ended, so that only programs of it can hold the lock."""
    holder = _holder(path)
    return holder is not None and holder.is_gone


@dataclass(frozen=True)
class _Holder:
    doing: str
    pid: int
    born: str
    host: str
    since: str

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def is_gone(self) -> bool:
        return self.is_here and _born(self.pid) != self.born

    def __str__(self) -> str:
        if self.is_gone:
            return f"a program that {self.doing} (pid {self.pid}, which has ended) started, since {self.since}"
        place = "" if self.is_here else f" on {self.host}"
        return f"{self.doing} (pid {self.pid}{place}) since {self.since}"


def _acquired(path: Path, what: str, patience: float, waiting: Callable[[str], None]) -> int:
    deadline = time.monotonic() + patience
    told = False
    while (descriptor := _tried(path)) is None:
        holder = _holder(path)
        text = f"{what} is held by {holder or 'another process'}"
        if patience and not told:
            waiting(text)
            told = True
        if time.monotonic() >= deadline:
            can_be_ended = holder and holder.is_here and not holder.is_gone
            end = f", or end it: kill {holder.pid}" if holder and can_be_ended else ""
            raise LockedError(text, f"wait for it to end{end}")
        time.sleep(POLL)
    return descriptor


def _tried(path: Path) -> int | None:
    """The descriptor that holds the lock, or None when another one does."""
    try:
        if not path.parent.is_dir():
            path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # `parents` get another mode
            path.parent.mkdir(mode=0o700, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, descriptor):
                    return _moved(descriptor)
            except BlockingIOError:
                if _is_at(path, descriptor):
                    os.close(descriptor)
                    return None
            os.close(descriptor)  # its holder has deleted it: the next one to come makes it anew
    except OSError as error:
        raise StoreError(f"cannot lock {path}: {error.strerror}", "check the disk's space and permissions") from None


def _moved(descriptor: int) -> int:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int, doing: str) -> None:
    """Let others know who holds it. The lock holds without that, so a full disk is no obstacle."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        if doing:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            holder = _Holder(doing, os.getpid(), _our_birth(os.getpid()), socket.gethostname(), since)
            os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def _holder(path: Path) -> _Holder | None:
    try:
        return _Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None  # it has not signed yet


def _born(pid: int) -> str:
    """When a process began, which tells it from a later one with its pid; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # proc(5)
    except OSError:
        return ""


_our_birth = functools.cache(_born)  # by pid: a fork is another process
