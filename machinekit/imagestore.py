"""The system images on disk, by kind and name: whole or not there at all, and read-only.

disk/debian-12/disk.qcow2, image.json     an image: its files, and where it is from
disk/.pull-debian-12-0123456789ab/        a download that goes on next time
disk/.lock-debian-12                      held by the kernel while a process makes the image
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import shlex
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from machinekit import bootstrap, files, locks
from machinekit.errors import LockedError, MachinekitError, UntrustedError, UsageError
from machinekit.machine import Image

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
DISK, ROOTFS = "disk", "rootfs"
ABOUT = "image.json"
DRAFT = ".draft-"  # and the image's name, and some characters
LOCK = ".lock-"  # and the image's name
DOWNLOAD = "download"  # in the draft of a pull, until it is verified
BUILT = "built"
ENDING = 30.0  # seconds for the programs of a build that was killed to end


class ImageStore:
    """The images under one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Image]:
        """Every image that can be used, by kind and name."""
        found = [found for found in self._found() if isinstance(found, Image)]
        return sorted(found, key=lambda image: (image.kind, image.name))

    def broken(self) -> list[MachinekitError]:
        """What is wrong with those that cannot be used."""
        return [found for found in self._found() if isinstance(found, MachinekitError)]

    def _found(self) -> Iterator[Image | MachinekitError | None]:
        for path in self.directory.glob(f"*/*/{ABOUT}"):
            try:
                yield self.find(path.parent.parent.name, path.parent.name)
            except MachinekitError as error:
                yield error

    def find(self, kind: str, name: str) -> Image | None:
        """The image, or None."""
        path = self.directory / kind / name
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not a name for an image", "such as debian-12")
        try:
            about = _about(path)
        except FileNotFoundError:
            return None
        source, digest = about.get("source", BUILT), about.get("digest", "")
        return Image(name, kind, path, about["build"], about["created"], source, digest)

    def verify(self, image: Image) -> None:
        """Raise UntrustedError when the file of a pulled image is not the one that was verified then.

        Size, time and inode tell that nobody wrote to it; only where they differ all of it is read. An image
        that was built here has no publisher to compare with.
        """
        if not image.digest:
            return
        about = _about(image.path)
        file = image.path / about["file"]
        if file.exists() and stamp_of(file) == about.get("stamp"):
            return
        if not file.exists() or digest_of(file, image.digest) != image.digest:
            raise UntrustedError(
                f"the file of image {image.name} is not what it was when it was verified: {file}",
                f"machinekit image rm {image.name}, then pull it again",
            )
        with contextlib.suppress(OSError):  # a cache that was copied: spare the next reading
            _write_about(image.path, about | {"stamp": stamp_of(file)})

    def remove(self, kind: str, name: str) -> None:
        """Delete an image's files, and what unfinished downloads left of it; nothing when there are none."""
        for path in (self.directory / kind / name, *self.drafts(kind, name)):
            bootstrap.remove(path)

    @contextlib.contextmanager
    def alone(self, kind: str, name: str, doing: str, say: Callable[[str], None]) -> Iterator[Path]:
        """The image's directory, while no other process makes the same image."""
        target = self.directory / kind / name
        with _lock(target, doing, patience=math.inf, say=say):
            yield target

    def leftovers(self) -> list[Path]:
        """The drafts of builds that were killed: nobody holds the lock of their image."""
        return [path for path in sorted(self.directory.glob(f"*/{DRAFT}*")) if not _is_being_built(path)]

    def sweep(self, left: Path) -> None:
        """Delete a draft, unless somebody builds that image again meanwhile."""
        target = _built_from(left)
        patience = ENDING if locks.is_abandoned(_lock_of(target)) else 0
        with contextlib.suppress(LockedError), _lock(target, "remove", patience=patience):
            bootstrap.remove(left)

    def drafts(self, kind: str, name: str) -> list[Path]:
        """What unfinished downloads left of an image."""
        ours = re.compile(rf"\.pull-{re.escape(name)}-[0-9a-f]{{12}}")
        return [path for path in (self.directory / kind).glob(".pull-*") if ours.fullmatch(path.name)]

    def draft(self, name: str, digest: str) -> Path:
        """A place to download a file with this digest to; what an earlier download of it left is there still."""
        draft = self.directory / DISK / f".pull-{name}-{digest.partition(':')[2][:12]}"
        for left in self.drafts(DISK, name):
            if left != draft:  # the publisher has a newer one
                shutil.rmtree(left)
        draft.mkdir(mode=0o700, exist_ok=True)
        for renamed in draft.glob("disk.*"):  # of one that was killed just before its end
            renamed.rename(draft / DOWNLOAD)
        return draft

    def settle(self, draft: Path, kind: str, name: str, about: Mapping[str, object]) -> Image:
        """Make the draft the image, read-only and on the disk."""
        target = self.directory / kind / name
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _write_about(draft, {"build": uuid.uuid4().hex[:12], "created": created, **about})
        for file in draft.iterdir():
            file.chmod(0o444)
            files.sync(file)
        bootstrap.remove(target)
        draft.rename(target)
        files.sync(target.parent)
        image = self.find(kind, name)
        assert image is not None  # noqa: S101 (just renamed into place)
        return image


def _is_being_built(draft: Path) -> bool:
    lock = _lock_of(_built_from(draft))
    return locks.is_held(lock) and not locks.is_abandoned(lock)


def _built_from(draft: Path) -> Path:
    """What a draft would become."""
    return draft.with_name(draft.name.removeprefix(DRAFT).rpartition("-")[0])


def _lock_of(target: Path) -> Path:
    return target.with_name(f"{LOCK}{target.name}")


def _lock(
    target: Path, doing: str, *, patience: float, say: Callable[[str], None] = lambda text: None
) -> contextlib.AbstractContextManager[None]:
    what, lock = f"image {target.name}", _lock_of(target)
    return locks.held(lock, what, doing, patience=patience, waiting=lambda holder: say(f"waiting: {holder}"))


def size(image: Image) -> int:
    """The bytes an image takes on the disk."""
    return sum(file.stat().st_blocks * 512 for file in image.path.iterdir())


def digest_of(file: Path, like: str) -> str:
    """The digest of a file, by the algorithm of another one."""
    algorithm = like.partition(":")[0]
    with file.open("rb") as content:
        return f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"


def stamp_of(file: Path) -> list[int]:
    """What changes when somebody writes to a file or replaces it."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _about(directory: Path) -> dict[str, Any]:
    """What is known of an image; raises FileNotFoundError where there is none."""
    try:
        about = json.loads((directory / ABOUT).read_bytes())
        texts = ("build", "created", *(("file",) if about.get("digest") else ()))
        if not all(isinstance(about.get(key), str) for key in texts):
            raise ValueError
    except (ValueError, AttributeError):
        hint = f"rm -r {shlex.quote(str(directory))}"
        raise MachinekitError(f"{directory / ABOUT} cannot be read", hint) from None
    return dict(about)


def _write_about(directory: Path, about: dict[str, object]) -> None:
    draft = directory / f".{ABOUT}.draft"
    draft.write_text(json.dumps(about))
    draft.chmod(0o444)
    draft.replace(directory / ABOUT)
