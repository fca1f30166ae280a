"""The kernel lock of a machine: a file that is held while a command works on it, and let go when its process dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from machinekit.errors import LockedError
from machinekit.files import reported


@contextmanager
def hold(
    path: Path, doing: str, waiting: Callable[[str], None], patience: float, wanted: Callable[[], bool]
) -> Iterator[None]:
    """Hold the lock `path`, named like its machine, and delete it at the end unless it is still `wanted`.

    `waiting` is told once who holds it meanwhile. Raises LockedError after `patience` seconds.
    """
    lock = FileLock(path, mode=0o600)
    with reported(f"cannot lock {path}"):
        path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # `parents` get another mode
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if patience:
                waiting(_holder(path))
            try:
                lock.acquire(timeout=patience, poll_interval=0.1)
            except Timeout:
                raise LockedError(_holder(path), "wait for it to end, or end that process") from None
    try:
        with suppress(OSError):  # a full disk must not keep anybody from removing a machine
            path.write_text(f"{doing} (pid {os.getpid()}) since {time.strftime('%H:%M:%S')}")
        yield
    finally:
        try:
            if not wanted():
                path.unlink(missing_ok=True)  # filelock notices an unlinked file and tries again
        finally:
            lock.release()


def is_held(path: Path) -> bool:
    """Whether another process holds the lock now."""
    try:
        if path.exists():
            with FileLock(path, mode=0o600, timeout=0):
                return False
    except Timeout:
        return True
    except OSError:
        pass  # what cannot be locked is held by nobody
    return False


def _holder(path: Path) -> str:
    try:
        who = path.read_text() or "another process"
    except OSError:
        who = "another process"
    return f'machine "{path.name}" is held by {who}'
