"""The state on disk: one directory per machine, atomic writes, one kernel lock per machine.

Only this module knows file names. Reading never writes and never locks.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from machinekit.errors import LockedError, NoSuchMachineError, StoreError

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from machinekit.machine import Machine

LOCK_PATIENCE = 300.0  # seconds to wait for another process that works on the machine

ESSENTIAL = {"name", "address", "url", "tls"}  # what is read without loading the whole record
RECORD = "machine.json"
TIME = "%Y-%m-%dT%H:%M:%SZ"  # how a record has its times, in UTC: they sort as texts
CA = "ca.pem"
CLIENT_CERT = "cert.pem"
CLIENT_KEY = "key.pem"
CA_KEY = "ca-key.pem"
SERVER_CERT = "server.pem"
SERVER_KEY = "server-key.pem"
SSH_KEY = "id_ed25519"
SSH_KEY_PUBLIC = "id_ed25519.pub"
HOST_KEY = "ssh_host_ed25519_key"
HOST_KEY_PUBLIC = "ssh_host_ed25519_key.pub"
KNOWN_HOSTS = "known_hosts"


def home(given: str = "") -> Path:
    """Where the store is: given, $MACHINEKIT_HOME, $MACHINE_STORAGE_PATH, or the platform's data directory."""
    chosen = given or os.environ.get("MACHINEKIT_HOME") or os.environ.get("MACHINE_STORAGE_PATH")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("machinekit")


class Store:
    """The machines under one home directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.machines = home / "machines"
        self.images = home / "images"

    # --- reading

    def names(self) -> list[str]:
        """Every machine's name, numbers in natural order; directories that start with a dot are not machines."""
        try:
            found = [entry.name for entry in os.scandir(self.machines) if entry.name[0] != "." and entry.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(found, key=_natural)

    def exists(self, name: str) -> bool:
        """Whether the name is taken."""
        return name in self.names()  # so that "", ".." and paths are none

    def directory(self, name: str) -> Path:
        """The machine's own directory, which is also its DOCKER_CERT_PATH."""
        return self.machines / name

    def read(self, name: str) -> dict[str, Any]:
        """The record as plain data, without loading it whole; raises NoSuchMachineError or StoreError."""
        data = self._parse(name)
        if not data.keys() >= ESSENTIAL:
            raise StoreError(f"{self.directory(name) / RECORD} is not a record that this version reads")
        return data

    def _parse(self, name: str) -> dict[str, Any]:
        path = self.directory(name) / RECORD
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            if name and path.parent.is_dir():
                raise StoreError(f"{path.parent} is no machine of ours: it has no {RECORD}", "move it away") from None
            raise self._missing(name) from None
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path}: {error}", "restore it from a backup") from None
        if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
            raise StoreError(f"{path} is not a machinekit record")
        return data

    def load(self, name: str) -> Machine:
        """The record; raises NoSuchMachineError or StoreError."""
        from machinekit.machine import SCHEMA, Machine

        data = self._parse(name)
        if data["schema"] > SCHEMA:
            raise StoreError(f'machine "{name}" was written by a newer machinekit', "upgrade machinekit")
        try:
            return Machine.from_json(data)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self.directory(name) / RECORD} is not a machinekit record: {error}") from None

    def identity(self) -> str:
        """This store's own id, written into what we make so that stores never take each other's things for orphans."""
        path = self.home / "store-id"
        if not path.exists():
            import contextlib
            import tempfile
            import uuid

            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (
                tempfile.NamedTemporaryFile(dir=self.home, prefix=".store-id-") as draft,
                _reported(f"cannot write {path}"),
            ):
                draft.write(uuid.uuid4().hex.encode())
                draft.flush()
                os.fsync(draft.fileno())
                with contextlib.suppress(FileExistsError):  # the first process wins
                    os.link(draft.name, path)
        return path.read_text()

    # --- writing, under the machine's lock

    def reserve(self, machine: Machine) -> None:
        """Take the name: the record is on disk when this returns. Built aside and renamed, so never half there."""
        draft = self.machines / f".draft-{machine.name}"
        with _reported(f'cannot write the record of "{machine.name}"'):
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)  # `parents` get another mode
            self.machines.mkdir(mode=0o700, exist_ok=True)
            for left in (draft, *self.machines.glob(".removed-*")):  # of commands that were killed
                _remove_tree(left)
            draft.mkdir(mode=0o700)
            _write(draft / RECORD, _encode(machine), 0o600)
            draft.rename(self.directory(machine.name))
            _sync_directory(self.machines)

    def save(self, machine: Machine) -> None:
        """Replace the record."""
        self.write(machine.name, RECORD, _encode(machine))

    def write(self, name: str, file: str, content: bytes) -> None:
        """Replace one file of a machine, wholly or not at all."""
        path = self.directory(name) / file
        with _reported(f"cannot write {path}"):
            draft = path.with_name(f".{file}.draft")
            _write(draft, content, 0o600)
            draft.replace(path)
            _sync_directory(path.parent)

    def remove(self, name: str) -> None:
        """Forget a machine and every file of it."""
        with _reported(f"cannot remove {self.directory(name)}"):
            grave = self.machines / f".removed-{name}"
            _remove_tree(grave)  # of a remove that was killed
            if self.exists(name):
                self.directory(name).rename(grave)
                _sync_directory(self.machines)
                _remove_tree(grave)

    def lock(
        self, name: str, doing: str, waiting: Callable[[str], None], patience: float | None = None
    ) -> AbstractContextManager[None]:
        """Hold the machine's kernel lock while `doing`; `waiting` is told once who holds it meanwhile.

        The kernel releases it when the process dies. Raises LockedError after `patience` seconds, LOCK_PATIENCE if
        none are given.
        """
        from contextlib import contextmanager

        from filelock import FileLock, Timeout

        path = self.home / "locks" / name
        patience = LOCK_PATIENCE if patience is None else patience

        @contextmanager
        def held() -> Iterator[None]:
            with _reported(f"cannot lock {path}"):
                self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.parent.mkdir(mode=0o700, exist_ok=True)
            lock = FileLock(path, mode=0o600)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if patience:
                    waiting(_holder(path, name))
                try:
                    lock.acquire(timeout=patience, poll_interval=0.1)
                except Timeout:
                    raise LockedError(_holder(path, name), "wait for it to end, or end that process") from None
            try:
                path.write_text(f"{doing} (pid {os.getpid()}) since {time.strftime('%H:%M:%S')}")
                yield
            finally:
                if not self.exists(name):
                    path.unlink(missing_ok=True)  # filelock notices an unlinked file and tries again
                lock.release()

        return held()

    def _missing(self, name: str) -> NoSuchMachineError:
        import difflib

        near = difflib.get_close_matches(name, self.names(), 1)
        return NoSuchMachineError(
            f'machine "{name}" does not exist' + (f"; did you mean {near[0]}?" if near else ""),
            'see "machinekit ls", or make it with "machinekit create"',
        )


def _encode(machine: Machine) -> bytes:
    return json.dumps(machine.to_json(), indent=2).encode() + b"\n"


def _holder(path: Path, name: str) -> str:
    try:
        who = path.read_text() or "another process"
    except OSError:
        who = "another process"
    return f'machine "{name}" is held by {who}'


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name.casefold())]


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_tree(path: Path) -> None:
    import shutil

    if path.exists():
        shutil.rmtree(path, ignore_errors=True)  # another process may sweep it too


class _reported:  # noqa: N801 (used as a statement; contextlib is too heavy for the way to `env`)
    """Turn an OSError into a StoreError that says what could not be done."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StoreError(f"{self.what}: {error.strerror or error}", "check the disk's space and permissions")
