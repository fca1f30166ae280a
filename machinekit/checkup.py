"""One machine, looked at from its record to its engine; a part only where the ones before let it.

Changes nothing.
"""

from __future__ import annotations

import logging
import os
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from machinekit import certificates, converge, dockerapi, engine, keys, outfit
from machinekit.errors import MachinekitError
from machinekit.machine import State
from machinekit.provider import Check, Level
from machinekit.record import LOST, RECORD
from machinekit.store import (
    CA,
    CA_KEY,
    CLIENT_CERT,
    CLIENT_KEY,
    HOST_KEY,
    KNOWN_HOSTS,
    SERVER_CERT,
    SERVER_KEY,
    SSH_KEY,
    Store,
)
from machinekit.work import Work, unfinished

log = logging.getLogger(__name__)

SOON = 30  # days: a certificate that is not ours to renew should be seen to
RENEWABLE = {CA, CA_KEY, SERVER_CERT, SERVER_KEY, CLIENT_CERT, CLIENT_KEY}

Part = Callable[[], Iterable[Check]]


def machine(store: Store, name: str) -> list[Check]:
    """Everything about one machine, as far as it can be seen."""
    return [check for part in _Checkup(store, name).parts() for check in looked(name, part)]


def looked(subject: str, part: Part) -> list[Check]:
    """What a part finds, up to an error, which is then the last thing it found."""
    found: list[Check] = []
    try:
        found.extend(part())  # keeps what came before an error
    except MachinekitError as error:
        found.append(Check(Level.PROBLEM, subject, error.message, error.hint))
    except Exception as error:  # whatever lies in a store must not end the look at the rest
        log.debug("%s", subject, exc_info=True)
        found.append(
            Check(Level.PROBLEM, subject, f"{type(error).__name__}: {error}", "machinekit -D doctor tells more")
        )
    return found


def private(subject: str, path: Path) -> Iterator[Check]:
    """Nothing where only the owner can reach a file or directory, and that is us."""
    about, quoted = path.stat(), shlex.quote(str(path))
    if about.st_uid != os.geteuid():
        owned = f"{path} belongs to another user (uid {about.st_uid})"
        yield Check(Level.PROBLEM, subject, owned, f"chown -R {os.geteuid()} {quoted}")
    mode = stat.S_IMODE(about.st_mode)
    if mode & 0o077:
        right = "700" if path.is_dir() else "600"
        yield Check(
            Level.PROBLEM, subject, f"{path} can be reached by others (mode {mode:o})", f"chmod {right} {quoted}"
        )


class Nobody:
    """A Progress that nobody watches."""

    def step(self, machine: str, text: str) -> None:
        """Not told."""

    def part(self, machine: str, text: str) -> None:
        """Not told."""

    def done(self, machine: str, seconds: float) -> None:
        """Not told."""

    def note(self, machine: str, text: str) -> None:
        """Not told."""

    def confirm(self, machine: str, question: str) -> bool:
        """Nobody agrees to anything."""
        return False

    def ask(self, question: str) -> str | None:
        """Nobody knows a secret."""
        return None


class _Checkup:
    """The look at one machine. `work` and `state` are known once the parts that find them are through."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.work: Work | None = None
        self.state = State.NONE

    def parts(self) -> Iterator[Part]:
        """The parts; whether there is another one is decided when the last one is through."""
        yield lambda: private(self.name, self.store.directory(self.name))
        yield self._record
        if work := self.work:
            yield lambda: self._files(work)
            yield lambda: self._certificates(work)
            yield lambda: self._instance(work)
            if self.state is State.RUNNING:
                if work.driver.capabilities.ssh:
                    yield lambda: self._host(work)
                yield lambda: self._engine(work)

    def _check(self, level: Level, text: str, do: str = "") -> Check:
        return Check(level, self.name, text, do)

    @property
    def _provision(self) -> str:
        return f"machinekit provision {self.name}"

    def _record(self) -> Iterator[Check]:
        record = self.store.load(self.name)
        error = unfinished(record)
        if error and self.store.held(self.name):
            yield self._check(Level.OK, "another process works on it now")
        elif error:
            yield self._check(Level.WARNING, error.message, error.hint)
        else:
            self.work = Work(self.store, record, Nobody())
            yield self._check(Level.OK, "the record can be read")

    def _files(self, work: Work) -> Iterator[Check]:
        """The files that a finished machine has: there, and nobody else's to read."""
        lost = []
        for file in _expected(work):
            path = work.directory / file
            if path.is_file():
                yield from private(self.name, path)
            else:
                lost.append(file)
        if lost:
            renewable = work.driver.capabilities.ssh and RENEWABLE.issuperset(lost)
            yield self._check(Level.PROBLEM, f"missing: {', '.join(lost)}", self._provision if renewable else LOST)

    def _certificates(self, work: Work) -> Iterator[Check]:
        pairs: list[tuple[str, str, list[str]]] = [(CA, CA_KEY, []), (CLIENT_CERT, CLIENT_KEY, [])]
        ours = work.driver.capabilities.ssh
        if ours:
            pairs.append((SERVER_CERT, SERVER_KEY, certificates.server_names(work)))
        do = self._provision if ours else "ask whoever runs the engine for new ones, then remove and create the machine"
        for cert, key, names in pairs:
            if (work.directory / cert).is_file():
                level, text = _certificate(work, cert, key, names)
                yield self._check(level, f"{cert}: {text}", "" if level is Level.OK else do)

    def _instance(self, work: Work) -> Iterator[Check]:
        """The driver's word on it."""
        record, found = work.machine, work.driver.find()
        if found is None:
            do = f"machinekit rm {self.name}, then create it again"
            yield self._check(Level.PROBLEM, "its instance does not exist any more", do)
            return
        self.state = found.state
        broken = found.state in (State.ERROR, State.TIMEOUT)
        do = f"machinekit restart {self.name}" if broken and work.driver.capabilities.power else ""
        yield self._check(Level.PROBLEM if broken else Level.OK, str(found.state), do)
        address, port = work.located(found)
        port = port if work.driver.capabilities.ssh else record.ssh_port
        if found.state is State.RUNNING and (address, port) != (record.address, record.ssh_port):
            moved = f"it is at {address} port {port} now, not at {record.address} port {record.ssh_port}"
            yield self._check(Level.PROBLEM, moved, self._provision)

    def _host(self, work: Work) -> Iterator[Check]:
        """The login, and what is on the host against what we configured."""
        converge.look(work)
        yield self._check(Level.OK, f"SSH: logged in as {work.host}, whose host key is the pinned one")
        if not work.facts.dockerd:
            yield self._check(Level.PROBLEM, "there is no engine on the host", self._provision)
            return
        if work.facts.active != "yes":
            yield self._check(Level.PROBLEM, "the engine does not run", self._provision)
        if work.facts.pending == "yes":
            yield self._check(Level.PROBLEM, "a change of the engine's settings was cut off", self._provision)
        if engine.owned_by_another(work.facts, work.machine.uid):
            yield self._check(Level.WARNING, "another machine of machinekit was made of this server", self._provision)
        try:
            wanted = converge.wanted_files(work)
        except keys.UNREADABLE:
            return  # a certificate that is broken was told before
        drifted = [file.path for file in engine.to_change(wanted, work.facts)]
        drifted += outfit.differences(work)
        if drifted:
            yield self._check(Level.WARNING, f"not as configured: {', '.join(drifted)}", self._provision)
        else:
            yield self._check(Level.OK, "the host is as configured")

    def _engine(self, work: Work) -> Iterator[Check]:
        version = dockerapi.version(work.machine.url, work.directory if work.machine.tls else None)
        yield self._check(Level.OK, f"the engine answers{' over TLS' if work.machine.tls else ''}, version {version}")


def _expected(work: Work) -> list[str]:
    if not work.driver.capabilities.ssh:
        return [RECORD, *((CA, CLIENT_CERT, CLIENT_KEY) if work.machine.tls else ())]
    authority = [CA] if work.spec.tls_ca_cert else [CA, CA_KEY]
    born = [SSH_KEY] if work.driver.capabilities.births else []
    born += [HOST_KEY] if born and not work.driver.capabilities.exposed_birth and work.driver.carries_host_key else []
    return [RECORD, *authority, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, SERVER_KEY, KNOWN_HOSTS, *born]


def _certificate(work: Work, file: str, key: str, names: list[str]) -> tuple[Level, str]:
    """Whether a certificate is this key's, this CA's, and good for these names, and for how long."""
    cert, ca = work.read(file), work.read(CA)
    # somebody else's authority may hang from another one, and need not be one for both sides
    ours = work.driver.capabilities.ssh and not (file == CA and work.spec.tls_ca_cert)
    try:
        left, lacking = keys.days_left(cert), keys.missing_names(cert, names)
        matches = not (work.directory / key).is_file() or keys.is_pair(cert, work.read(key))
        issued = not ours or keys.is_issued_by(cert, ca)
        due = keys.must_renew(cert, ca, names) if ours else left < SOON
    except keys.UNREADABLE as error:
        return Level.PROBLEM, f"cannot be read, or {key}, or {CA}: {error}"
    if left < 0:
        return Level.PROBLEM, f"ended {-left} days ago"
    if not matches:
        return Level.PROBLEM, f"{key} is another certificate's"
    if not issued:
        return Level.PROBLEM, f"not issued by {CA}"
    if lacking:
        return Level.PROBLEM, f"not for {', '.join(lacking)}"
    return Level.WARNING if due else Level.OK, f"{left} days left"
