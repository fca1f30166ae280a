"""The state on disk: one directory per machine, atomic writes, one kernel lock per machine.

Only this module and `record` know file names. Reading never writes and never locks.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from machinekit import record
from machinekit.errors import NoSuchMachineError, StoreError, UsageError, nearest
from machinekit.files import PLACE, remove_tree, reported, settle, sync, write
from machinekit.record import RECORD

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from machinekit.machine import Machine

LOCK_PATIENCE = 300.0  # seconds to wait for another process that works on the machine

# Docker Machine's rule for a machine's name, at most a host name's 63 characters
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-.]{0,62}")
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
HOST_KEY_NEXT = "ssh_host_ed25519_key.next"  # what takes its place, until the host shows it
KNOWN_HOSTS = "known_hosts"
ID = "store-id"
ID_DRAFT = ".store-id-"  # and something unique
DRAFT = ".draft-"  # and the machine's name: not yet a machine


def home(given: str = "") -> Path:
    """Where the store is: given, $MACHINEKIT_HOME, $MACHINE_STORAGE_PATH, or the platform's data directory."""
    chosen = given or os.environ.get("MACHINEKIT_HOME") or os.environ.get("MACHINE_STORAGE_PATH")
    if chosen:
        try:
            return Path(chosen).expanduser().absolute()
        except RuntimeError:  # ~somebody
            raise UsageError(f"{chosen!r}: there is no such user", PLACE) from None
    from platformdirs import user_data_path

    return user_data_path("machinekit")


class Store:
    """The machines under one home directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.machines = home / "machines"
        self.removed = home / "removed"  # no machines any more; empty but for a moment, so that sweeping it is cheap
        self.images = home / "images"
        self.locks = home / "locks"
        self.fleets = home / "fleets"  # locks too

    # --- reading

    def names(self) -> list[str]:
        """Every machine's name, numbers in natural order."""
        return sorted((entry.name for entry in _entries(self.machines) if _is_machine(entry)), key=_natural)

    def strangers(self) -> list[str]:
        """What else lies among the machines and is not ours: files, and names that no machine can have."""
        return sorted(
            entry.name for entry in _entries(self.machines) if entry.name[0] != "." and not _is_machine(entry)
        )

    def exists(self, name: str) -> bool:
        """Whether the name is taken."""
        if not NAME.fullmatch(name):  # so that "", ".." and paths are none
            return False
        try:
            return stat.S_ISDIR(self.directory(name).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StoreError(f"cannot read {self.directory(name)}: {error.strerror}", PLACE) from None

    def directory(self, name: str) -> Path:
        """The machine's own directory, which is also its DOCKER_CERT_PATH."""
        return self.machines / name

    def read(self, name: str) -> dict[str, Any]:
        """The record as plain data, without loading it whole; raises NoSuchMachineError or StoreError."""
        return record.essentials(self._existing(name))

    def fleet_of(self, name: str) -> str | None:
        """The fleet that a record names, even one that cannot be loaded; None when it does not tell."""
        try:
            fleet = record.parse(self._existing(name)).get("fleet", "")
        except (NoSuchMachineError, StoreError):
            return None
        return fleet if isinstance(fleet, str) else None

    def has_record(self, name: str) -> bool:
        """Whether there is one, readable or not."""
        return self.exists(name) and os.path.lexists(self.directory(name) / RECORD)

    def _existing(self, name: str) -> Path:
        if self.exists(name):
            return self.directory(name)
        raise NoSuchMachineError(
            f'machine "{name}" does not exist{nearest(name, self.names())}',
            'see "machinekit ls", or make it with "machinekit create"',
        )

    def load(self, name: str) -> Machine:
        """The record; raises NoSuchMachineError or StoreError."""
        return record.load(self._existing(name))

    def known_uids(self) -> tuple[set[str], set[str]]:
        """The uids of every record, and the names of the machines whose record does not tell its uid."""
        uids, unreadable = set(), set()
        for name in self.names():
            try:
                uids.add(str(record.parse(self._existing(name))["uid"]))
            except NoSuchMachineError:
                continue  # removed meanwhile
            except (StoreError, KeyError):
                unreadable.add(name)
        return uids, unreadable

    def known_identity(self) -> str:
        """This store's own id; empty while nothing was ever made."""
        path = self.home / ID
        try:
            identity = path.read_text().strip()
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path}: {error}", "restore it from a backup") from None
        if not identity:
            raise StoreError(f"{path} is empty", "restore it from a backup; what was made carries its text as a label")
        return identity

    def leftovers(self) -> list[tuple[str, Path]]:
        """What killed commands left, each with the name of the machine whose lock guards it; empty for nobody's."""
        names = {entry.name.removeprefix(DRAFT) for entry in _entries(self.machines)}
        names |= {entry.name for folder in (self.removed, self.locks) for entry in _entries(folder)}
        found = [(name, path) for name in names for path in self.leftovers_of(name)]
        return sorted(found + [("", path) for path in self._drafts_of_id()])

    def leftovers_of(self, name: str) -> list[Path]:
        """What killed commands left of one machine."""
        found = [self.machines / f"{DRAFT}{name}", self.removed / name]
        found += self.directory(name).glob(".*.draft") if self.exists(name) else [self.locks / name]
        return [path for path in found if path.exists()]

    def _drafts_of_id(self) -> list[Path]:
        return list(self.home.glob(f"{ID_DRAFT}*"))  # whoever is about to use one makes another

    def held(self, name: str) -> bool:
        """Whether another process works on the machine now."""
        from machinekit import locks

        return locks.is_held(self.locks / name)

    # --- writing

    def identity(self) -> str:
        """This store's own id, written into what we make so that stores never take each other's things for orphans."""
        while not (identity := self.known_identity()):
            import uuid

            path, draft = self.home / ID, self.home / f"{ID_DRAFT}{uuid.uuid4().hex}"
            settle(self.home)
            with reported(f"cannot write {path}"):
                try:
                    write(draft, uuid.uuid4().hex.encode(), 0o600)
                    os.link(draft, path)
                except (FileExistsError, FileNotFoundError):
                    pass  # the first process wins, and what it finds of another one it may sweep
                finally:
                    draft.unlink(missing_ok=True)
        return identity

    # under the machine's lock

    def reserve(self, machine: Machine) -> None:
        """Take the name: the record is on disk when this returns. Built aside and renamed, so never half there."""
        draft = self.machines / f"{DRAFT}{machine.name}"
        settle(self.home, self.machines)
        with reported(f'cannot write the record of "{machine.name}"'):
            for left in (draft, *map(Path, _entries(self.removed))):  # of commands that were killed
                remove_tree(left)
            draft.mkdir(mode=0o700)
            try:
                write(draft / RECORD, record.encode(machine), 0o600)
                draft.rename(self.directory(machine.name))
            except OSError:
                remove_tree(draft)
                raise
            sync(self.machines)

    def save(self, machine: Machine) -> None:
        """Replace the record."""
        self.write(machine.name, RECORD, record.encode(machine))

    def write(self, name: str, file: str, content: bytes) -> None:
        """Replace one file of a machine, wholly or not at all."""
        self.write_all(name, {file: content})

    def write_all(self, name: str, files: dict[str, bytes]) -> None:
        """Replace files of a machine in this order, each wholly or not at all; on the disk when this returns."""
        directory = self.directory(name)
        for file, content in files.items():
            with reported(f"cannot write {directory / file}"):
                draft = directory / f".{file}.draft"
                try:
                    write(draft, content, 0o600)
                except OSError:
                    draft.unlink(missing_ok=True)  # a full disk has no room for half a file
                    raise
                draft.replace(directory / file)
        with reported(f"cannot write {directory}"):
            sync(directory)

    def delete(self, name: str, file: str) -> None:
        """Delete one file of a machine; success when there is none."""
        path = self.directory(name) / file
        with reported(f"cannot delete {path}"):
            path.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Forget a machine and every file of it."""
        settle(self.home, self.removed)
        with reported(f"cannot remove {self.directory(name)}"):
            grave = self.removed / name
            remove_tree(grave)  # of a remove that was killed
            if self.exists(name):
                self.directory(name).rename(grave)
                sync(self.machines)
                remove_tree(grave)

    def tidy(self, name: str) -> bool:
        """Delete what killed commands left of a machine; returns whether one of them had removed it already."""
        left = [path for path in self.leftovers_of(name) if path.parent != self.locks]
        for path in [*left, *self._drafts_of_id()]:
            self.sweep(path)
        return self.removed / name in left

    def sweep(self, left: Path) -> None:
        """Delete one of the `leftovers`; success when it is gone."""
        with reported(f"cannot remove {left}"):
            if left.is_dir() and not left.is_symlink():
                remove_tree(left)
            else:
                left.unlink(missing_ok=True)

    def lock(
        self, name: str, doing: str, waiting: Callable[[str], None], patience: float | None = None
    ) -> AbstractContextManager[None]:
        """Hold the machine's kernel lock while `doing`; `waiting` is told once who holds it meanwhile.

        The kernel releases it when the process and the programs that it runs have ended. Raises LockedError after
        `patience` seconds, LOCK_PATIENCE if none are given.
        """
        from machinekit import locks

        settle(self.home, self.locks)
        return locks.held(
            self.locks / name,
            f'machine "{name}"',
            doing,
            patience=LOCK_PATIENCE if patience is None else patience,
            waiting=waiting,
            needed=lambda: self.exists(name),
        )

    def lock_fleet(
        self, name: str, doing: str, waiting: Callable[[str], None], patience: float
    ) -> AbstractContextManager[None]:
        """The same for a fleet of machines."""
        from machinekit import locks

        settle(self.home, self.fleets)
        return locks.held(
            self.fleets / name, f'fleet "{name}"', doing, patience=patience, waiting=waiting, needed=lambda: False
        )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:  # an empty answer would make orphans of all that the store knows
        raise StoreError(f"cannot read {folder}: {error.strerror}", PLACE) from None


def _is_machine(entry: os.DirEntry[str]) -> bool:
    return NAME.fullmatch(entry.name) is not None and entry.is_dir()


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name.casefold())]
