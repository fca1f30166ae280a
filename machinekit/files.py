"""Files on the disk: written to its surface, removed, and errors that say what could not be done."""

from __future__ import annotations

import os

from machinekit.errors import StoreError

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from pathlib import Path


PLACE = "machines are kept where -s, $MACHINEKIT_HOME or $MACHINE_STORAGE_PATH says: a directory of your own"


def settle(home: Path, *folders: Path) -> None:
    """Have the store's home directory and folders of it, for their owner alone."""
    if folders and all(map(os.path.isdir, folders)):
        return
    with reported(f"cannot keep machines in {home}", PLACE):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)  # `parents` get another mode
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file; it is on the disk when this returns, but may be half there when it does not."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Have what was renamed into or out of a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Delete a directory as far as that is possible; of a link only the link."""
    import shutil

    if path.is_symlink():
        path.unlink(missing_ok=True)
    elif path.exists():
        shutil.rmtree(path, ignore_errors=True)  # another process may sweep it too


class reported:  # noqa: N801 (used as a statement; contextlib is too heavy for the way to `env`)
    """Turn an OSError into a StoreError that says what could not be done."""

    def __init__(self, what: str, hint: str = "check the disk's space and permissions") -> None:
        self.what, self.hint = what, hint

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StoreError(f"{self.what}: {error.strerror or error}", self.hint)
