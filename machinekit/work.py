"""What the verbs share: a machine being worked on, and the runner of steps."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from machinekit import drivers, reference
from machinekit.carry import Carried
from machinekit.engine import Facts
from machinekit.errors import BrokenError, MachinekitError, StoreError
from machinekit.machine import Instance, Machine, Phase
from machinekit.provider import Driver
from machinekit.record import LOST
from machinekit.setup import parse_setup
from machinekit.spec import Spec, parse_spec
from machinekit.store import KNOWN_HOSTS, SSH_KEY, Store

if TYPE_CHECKING:
    from machinekit.ssh import Connection, Host

COMEBACK = 180.0  # seconds a host gets to be back after a connection was cut: a reboot takes a minute or two
UNFINISHED = "run the same machinekit create again, or machinekit rm"

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Tells a person how the work goes."""

    def step(self, machine: str, text: str) -> None:
        """A step begins."""

    def done(self, machine: str, seconds: float) -> None:
        """The step has ended well."""

    def part(self, machine: str, text: str) -> None:
        """How far the present step is."""

    def note(self, machine: str, text: str) -> None:
        """Something worth knowing, which stays on the screen."""

    def confirm(self, machine: str, question: str) -> bool:
        """Whether a person agrees; raises UsageError, with the question in it, where there is nobody to ask."""

    def ask(self, question: str) -> str | None:
        """A secret that a person types unseen; None when there is nobody to ask."""


@dataclass
class Work:
    """One machine being worked on, under its lock.

    `previous` are the engine's settings that the machine was given last, where others are wanted now. `agreed` says
    that nobody needs to be asked. `changed` collects what was done to the machine, in words; empty means
    that it was as it should be.
    """

    store: Store
    machine: Machine
    progress: Progress
    agreed: bool = False
    changed: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    carried: Carried = field(default_factory=Carried)
    connection: Connection | None = None
    previous: Spec | None = None

    def __post_init__(self) -> None:
        self.driver: Driver[Any] = drivers.bind(self.machine, self.directory, self.save)
        self.spec = parse_spec(self.machine.spec)
        self.setup = parse_setup(self.machine.setup)

    @property
    def newborn(self) -> bool:
        """Whether the first boot may still go on."""
        return self.driver.capabilities.births and self.machine.phase is Phase.CREATING

    @property
    def directory(self) -> Path:
        """The machine's own directory."""
        return self.store.directory(self.machine.name)

    def save(self) -> None:
        """Put the record on disk."""
        self.store.save(self.machine)

    def write(self, file: str, content: bytes) -> None:
        """Put one file of the machine on disk."""
        self.write_all({file: content})

    def write_all(self, files: dict[str, bytes]) -> None:
        """Put files of the machine on disk, in this order."""
        self.store.write_all(self.machine.name, files)

    def delete(self, file: str) -> None:
        """Delete one file of the machine; success when there is none."""
        self.store.delete(self.machine.name, file)

    def read(self, file: str) -> bytes:
        """One file of the machine; raises StoreError."""
        try:
            return (self.directory / file).read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {self.directory / file}: {error.strerror}", LOST) from None

    def note(self, text: str) -> None:
        """Say something worth knowing."""
        self.progress.note(self.machine.name, reference.redacted(text))

    def part(self, text: str) -> None:
        """Say how far the present step is."""
        self.progress.part(self.machine.name, reference.redacted(text))

    def heard(self, line: str) -> None:
        """Tell what a script waits for, when it says so in this line."""
        if line.startswith("machinekit:waiting="):
            self.note(f"waiting {line.partition('=')[2]}")

    def place(self, instance: Instance) -> None:
        """Remember where the instance answers."""
        machine = self.machine
        before = copy.copy(machine)
        machine.address, port = self.located(instance)
        machine.peer_address = instance.peer_address
        if self.driver.capabilities.ssh:
            machine.ssh_port = port
            machine.ssh_user, machine.ssh_key = self.driver.ssh_user, self.driver.ssh_key
        host = f"[{machine.address}]" if ":" in machine.address else machine.address
        machine.url = self.driver.engine_url or f"tcp://{host}:{instance.engine_port}"
        if machine != before:
            self.save()

    def located(self, instance: Instance) -> tuple[str, int]:
        """The address and SSH port to connect to: a server that was there before may be known by another name."""
        access = self.driver.access
        return access.address or instance.address, access.port or instance.ssh_port

    def connected(self) -> Connection:
        """The one connection to the host; raises what `ssh.connect` raises."""
        from machinekit import ssh

        if self.connection is None:
            self.connection = ssh.connect(self.host, self.progress.ask)
        return self.connection

    def execute(self, script: str, patience: float, heard: Callable[[str], None] = lambda line: None) -> list[str]:
        """Run a script as root over the one connection, and return what it said.

        When the connection is cut, by a reboot of the host or by the network, it is made again once and the script
        runs again: every script can, and the host lets no two run at the same time.
        """
        with self.redacting():
            return self._execute(script, patience, heard)

    @contextmanager
    def redacting(self, reveal: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Let an error show no secret, whatever the host said; `reveal` finds out first what there is to hide."""
        try:
            yield
        except MachinekitError as error:
            reveal()
            error.message = reference.redacted(error.message)
            error.args = (error.message,)
            raise

    def _execute(self, script: str, patience: float, heard: Callable[[str], None]) -> list[str]:
        from machinekit import ssh

        connection = self.connected()
        try:
            return connection.run(script, patience=patience, heard=heard)
        except BrokenError as error:
            self.note(f"{error.message}; waiting for the host to come back")
            connection.close()
            self.connection = ssh.wait_connect(self.host, COMEBACK, newborn=False, ask=self.progress.ask)
            return self.connection.run(script, patience=patience, heard=heard)

    @property
    def host(self) -> Host:
        """Where and how to log in."""
        return ssh_host(self.store, self.machine, self.driver)


def ssh_host(store: Store, machine: Machine, driver: Driver[Any] | None = None) -> Host:
    """Where and how to log in to a machine."""
    from machinekit.ssh import Host

    directory = store.directory(machine.name)
    access = (driver or drivers.bind(machine, directory)).access
    own = directory / SSH_KEY
    key = Path(machine.ssh_key) if machine.ssh_key else own if own.exists() else None
    known_hosts = directory / KNOWN_HOSTS
    return Host(machine.address, machine.ssh_port, machine.ssh_user, machine.uid, known_hosts, key, access)


Step = Callable[[Work], None]


def run(work: Work, steps: Iterable[Step]) -> None:
    """Run the steps in order.

    The first line of a step's docstring is what a person reads meanwhile, the rest is the hint when it
    fails. The connection, if a step opened one, is closed at the end.
    """
    try:
        for step in steps:
            text, _, hint = (step.__doc__ or step.__name__).partition("\n")
            work.progress.step(work.machine.name, text)
            started = time.monotonic()
            try:
                step(work)
                work.progress.done(work.machine.name, time.monotonic() - started)
            except MachinekitError as error:
                error.hint = error.hint or " ".join(hint.split())
                raise
            finally:
                log.debug("%s: %s: %.2f s", work.machine.name, step.__name__, time.monotonic() - started)
    finally:
        if work.connection:
            work.connection.close()


@contextmanager
def working_on(
    store: Store, name: str, doing: str, progress: Progress, *, patience: float | None = None
) -> Iterator[Work]:
    """Lock a machine and load it; raises MachinekitError when it is not whole, LockedError as
    `Store.lock` does."""
    if not store.exists(name):
        store.load(name)  # says that there is none
    with store.lock(name, doing, lambda holder: progress.note(name, f"waiting: {holder}"), patience):
        store.tidy(name)
        machine = store.load(name)
        if error := unfinished(machine):
            raise error
        yield Work(store, machine, progress)


def to_finish(machine: Machine) -> str:
    """What to do when a machine's create did not end."""
    return "run machinekit apply again" if machine.fleet else UNFINISHED


def unfinished(machine: Machine) -> MachinekitError | None:
    """What is the matter with a machine whose create or rm did not end, None when it is whole."""
    if machine.phase is Phase.CREATING:
        return MachinekitError(f'machine "{machine.name}" was not created to the end', to_finish(machine))
    if machine.phase is Phase.REMOVING:
        return MachinekitError(f'machine "{machine.name}" was not removed to the end', f"machinekit rm {machine.name}")
    return None
