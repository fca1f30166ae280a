"""Files and folders of this computer as one text that a script can carry, the same for the same content."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

LIMIT = 8 * 1024 * 1024  # bytes: it travels inside a script


def content(path: Path) -> bytes:
    """What is in a file; raises ValueError that says why it cannot be carried."""
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(about.st_mode):  # a pipe or a device may never end, or say something else the next time
            raise ValueError(f"{path} is not a file")
        if about.st_size > LIMIT:
            raise ValueError(f"{path} has more than {LIMIT >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


def folder(path: Path) -> bytes:
    """A folder as a gzipped tar, without times and owners; raises ValueError that says why it cannot be carried."""
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder")
    held = io.BytesIO()
    try:
        with tarfile.open(fileobj=held, mode="w") as archive:
            for inside in sorted(path.rglob("*")):
                if ".git" not in inside.relative_to(path).parts:
                    _add(archive, inside, str(inside.relative_to(path)))
                if held.tell() > LIMIT:
                    raise ValueError(f"{path} has more than {LIMIT >> 20} MB")
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: {error.strerror}") from None
    return gzip.compress(held.getvalue(), mtime=0)


def digest(content: bytes) -> str:
    """Its SHA-256."""
    return hashlib.sha256(content).hexdigest()


def absolute(text: str, base: Path | None) -> str:
    """The path, a relative one taken from `base`; raises ValueError when there is none."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text!r}: there is no such user") from None
    if not path.is_absolute() and base is None:
        raise ValueError(f"{text!r} must be an absolute path")
    return os.path.normpath(base / path if base else path)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    about = tarfile.TarInfo(name)  # of no time and no owner
    if path.is_symlink():
        about.type, about.linkname, about.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        archive.addfile(about)
    elif path.is_dir():
        about.type, about.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(about)
    elif path.is_file():
        held = content(path)
        about.size, about.mode = len(held), 0o755 if path.stat().st_mode & 0o100 else 0o644
        archive.addfile(about, io.BytesIO(held))
    else:
        raise ValueError(f"{path} is neither a file nor a folder nor a link")
