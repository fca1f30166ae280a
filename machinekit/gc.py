"""Find what carries our mark and no record knows, and remove it.

A machine that is just being created is never taken for garbage: its record is on disk before anything of it is
made, and the records are read after the provider was asked. They are read again, under the machine's lock, right
before something is removed. A record that cannot be read protects everything that carries its machine's name.
"""

from __future__ import annotations

import dataclasses
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from machinekit import dockercontext, drivers
from machinekit.errors import MachinekitError
from machinekit.images import Images
from machinekit.machine import Machine
from machinekit.provider import Options
from machinekit.store import NAME, Store
from machinekit.work import unfinished


@dataclass(frozen=True)
class Garbage(ABC):
    """One thing that no record knows: the machine it was of, and the id of the store that made it."""

    kind: ClassVar[str]
    machine: str
    store: str

    @property
    @abstractmethod
    def what(self) -> str:
        """What it is, in words."""

    @abstractmethod
    def known(self, store: Store) -> bool:
        """Whether a record knows it, or may know it."""

    @abstractmethod
    def remove(self, store: Store) -> None:
        """Remove it; success when it is gone."""


@dataclass(frozen=True)
class Orphan(Garbage):
    """An instance, or what was made beside one."""

    kind = "instance"
    record: Machine
    options: Options

    @property
    def what(self) -> str:
        """As the driver tells it."""
        beside = [f"{resource.kind} {resource.name}" for resource in self.record.resources]
        return ", ".join([f"driver {self.record.driver}", *beside])

    def known(self, store: Store) -> bool:
        """By uid."""
        return _known(store, self.record)

    def remove(self, store: Store) -> None:
        """As `rm` does, but in no directory: the one of that name may be another machine's by now."""
        # what the driver found of the orphan counts more than what it was asked with
        options = dataclasses.replace(self.options, **self.record.options)
        with tempfile.TemporaryDirectory(prefix="machinekit-") as directory:
            driver = drivers.load(self.record.driver)(self.record, options, Path(directory), lambda: None)
            driver.destroy()
            for resource in reversed(self.record.resources):
                driver.release(resource)


@dataclass(frozen=True)
class Context(Garbage):
    """A docker context."""

    kind = "context"
    uid: str

    @property
    def what(self) -> str:
        """There is one of a name at most."""
        return "docker context"

    def known(self, store: Store) -> bool:
        """By uid."""
        return _known(store, Machine(self.machine, self.uid, "", self.store, ""))

    def remove(self, store: Store) -> None:
        """Remove it from the docker client's configuration."""
        dockercontext.remove(self.machine, self.uid)


@dataclass(frozen=True)
class Leftover(Garbage):
    """A file or directory of a command that was killed. `machine` is empty for what is of no machine."""

    kind = "file"
    path: Path
    sweep: Callable[[Path], None]

    @property
    def what(self) -> str:
        """Where it is."""
        return str(self.path)

    def known(self, store: Store) -> bool:
        """Under the lock nobody else may be using it; a lock file is garbage only without its machine."""
        return self.path not in (path for _, path in store.leftovers())

    def remove(self, store: Store) -> None:
        """Delete it."""
        self.sweep(self.path)


@dataclass
class Findings:
    """What was found. `foreign` is what other stores made.

    Of `unfinished` machines a command was killed and must be run again; `silent` drivers could not be asked.
    """

    garbage: list[Garbage] = field(default_factory=list)
    foreign: list[Garbage] = field(default_factory=list)
    unfinished: dict[str, MachinekitError] = field(default_factory=dict)
    silent: dict[str, MachinekitError] = field(default_factory=dict)


def find(store: Store, sources: Sequence[tuple[str, Options]], maker: str = "") -> Findings:
    """Look for what the store with the id `maker` made, this one if none is given, and no record of this one knows.

    Each driver in `sources` is asked with its options. Raises StoreError when this store cannot be read.
    """
    found = Findings()
    wanted = maker or store.known_identity()
    candidates: list[Garbage] = list(_contexts(store))
    for name, options in sources:
        try:
            candidates += _orphans(store, name, options)
        except MachinekitError as error:
            found.silent[name] = error
    for garbage in candidates:
        (found.garbage if wanted and garbage.store == wanted else found.foreign).append(garbage)
    if maker in ("", store.known_identity()):
        found.garbage += _leftovers(store, wanted)
        found.unfinished |= _unfinished(store)
    return found


def accounts(store: Store, sources: Mapping[str, Options]) -> list[tuple[str, Options]]:
    """The sources that there is anybody to ask of, and every account or region that a record of the store is in."""
    loaded = {name: drivers.load(name) for name in sources}
    found = {
        (name, loaded[name].account(options)): options
        for name, options in sources.items()
        if loaded[name].is_set_up(options)
    }
    for name in store.names():
        with suppress(MachinekitError):  # `ls` and `doctor` tell of such a record
            machine = store.load(name)
            driver = drivers.bind(machine, store.directory(name))
            found.setdefault((machine.driver, driver.account(driver.options)), driver.options)
    return [(name, options) for (name, _), options in found.items()]


def remove(store: Store, garbage: Garbage) -> bool:
    """Remove it; False when a record knows it by now. Raises LockedError while another process works on its machine."""
    if not garbage.machine:
        garbage.remove(store)
        return True
    with store.lock(garbage.machine, "gc", lambda _: None, patience=0):
        if garbage.known(store):
            return False
        garbage.remove(store)
        return True


def _orphans(store: Store, name: str, options: Options) -> Iterable[Garbage]:
    records: list[tuple[set[str], set[str]]] = []

    def known(machine: Machine) -> bool:
        if not records:
            records.append(store.known_uids())  # only now, when the provider has answered
        uids, unreadable = records[0]
        return machine.uid in uids or machine.name in unreadable

    for record in drivers.load(name).orphans(options, known):
        if NAME.fullmatch(record.name):  # or it is somebody else's label
            yield Orphan(record.name, record.store, record, options)


def _contexts(store: Store) -> Iterable[Garbage]:
    for name, uid, maker in dockercontext.ours():
        context = Context(name, maker, uid)
        if NAME.fullmatch(name) and not context.known(store):
            yield context


def _leftovers(store: Store, identity: str) -> Iterable[Garbage]:
    for name, path in store.leftovers():
        if not name or (NAME.fullmatch(name) and not store.held(name)):
            yield Leftover(name, identity, path, store.sweep)
    library = Images(store.images)
    for path in library.leftovers():
        yield Leftover("", identity, path, library.sweep)


def _unfinished(store: Store) -> Iterable[tuple[str, MachinekitError]]:
    for name in store.names():
        try:
            error = unfinished(store.load(name))
        except MachinekitError:
            continue  # `ls` and `doctor` tell
        if error and not store.held(name):
            yield name, error


def _known(store: Store, machine: Machine) -> bool:
    uids, unreadable = store.known_uids()
    return machine.uid in uids or machine.name in unreadable
