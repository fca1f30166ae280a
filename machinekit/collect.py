"""Look at many machines at once: state, engine version, which one is active. Reads only."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from machinekit import dockerapi, drivers
from machinekit.errors import EngineError, MachinekitError, NoSuchMachineError
from machinekit.machine import Instance, Machine, State
from machinekit.provider import Driver
from machinekit.store import Store

THREADS = 512  # they only wait: a hundred machines that do not answer take as long as one


@dataclass
class Row:
    """What `ls` shows of one machine."""

    name: str
    active: bool = False
    driver: str = ""
    state: State = State.NONE
    url: str = ""
    engine: str = ""
    error: str = ""


def records(store: Store) -> tuple[dict[str, Machine], dict[str, MachinekitError]]:
    """Every record that can be read, and why the others cannot, by name; one removed meanwhile is in neither."""
    found: dict[str, Machine] = {}
    broken: dict[str, MachinekitError] = {}
    for name in store.names():
        try:
            found[name] = store.load(name)
        except NoSuchMachineError:
            continue
        except MachinekitError as error:
            broken[name] = error
    return found, broken


def state(store: Store, name: str) -> State:
    """What the driver says of a machine now."""
    machine = store.load(name)
    found = drivers.bind(machine, store.directory(name)).find()
    return found.state if found else State.NOT_FOUND


def rows(store: Store, names: Iterable[str], patience: float, *, engines: bool = True) -> list[Row]:
    """One row a machine that is there, in order; one that cannot be read or asked has the reason in `error`.

    Each provider is asked once for all of its machines; engines are asked in parallel for at most
    `patience` seconds, or not at all without `engines`.
    """
    table = {name: Row(name) for name in names}
    machines = []
    for row in list(table.values()):
        try:
            machines.append(store.load(row.name))
        except NoSuchMachineError:
            del table[row.name]  # removed meanwhile
        except MachinekitError as error:
            row.state, row.error = State.ERROR, error.message
    for machine in machines:
        row = table[machine.name]
        row.driver, row.url, row.active = machine.driver, machine.url, active(machine)
    for name, found in instances(store, machines).items():
        if isinstance(found, MachinekitError):
            table[name].state, table[name].error = State.ERROR, found.message
        else:
            table[name].state = found.state if found else State.NOT_FOUND
    if not engines:
        return list(table.values())
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        running = [machine for machine in machines if table[machine.name].state is State.RUNNING and machine.url]
        list(pool.map(lambda machine: _engine(store, machine, table[machine.name], patience), running))
    return list(table.values())


def instances(store: Store, machines: Iterable[Machine]) -> dict[str, Instance | MachinekitError | None]:
    """What the providers say of the machines, by name: each is asked once for all of its own, all at once."""
    found: dict[str, Instance | MachinekitError | None] = {}
    bound: dict[str, list[Driver[Any]]] = {}
    for machine in machines:
        try:
            driver = drivers.bind(machine, store.directory(machine.name))
            bound.setdefault(machine.driver, []).append(driver)
        except MachinekitError as error:
            found[machine.name] = error

    def ask(mine: list[Driver[Any]]) -> None:
        try:
            answers: dict[str, Instance | None] = type(mine[0]).find_all(mine)
        except MachinekitError as error:
            if len(mine) > 1:  # one account's or one engine's trouble is not the others'
                list(map(ask, ([driver] for driver in mine)))
            else:
                found[mine[0].machine.name] = error
            return
        found.update({driver.machine.name: answers.get(driver.machine.uid) for driver in mine})

    if bound:
        with concurrent.futures.ThreadPoolExecutor(len(bound)) as pool:
            list(pool.map(ask, bound.values()))
    return found


def strangers(store: Store) -> list[Row]:
    """A row for each thing among the machines that is none."""
    error = f"no machine of ours: move it out of {store.machines}"
    return [Row(ascii(name)[1:-1], state=State.ERROR, error=error) for name in store.strangers()]


def active(machine: Machine) -> bool:
    """Whether DOCKER_HOST points to the machine."""
    return bool(machine.url) and os.environ.get("DOCKER_HOST") == machine.url


def _engine(store: Store, machine: Machine, row: Row, patience: float) -> None:
    try:
        row.engine = dockerapi.version(machine.url, store.directory(machine.name) if machine.tls else None, patience)
    except EngineError as error:
        row.error = error.message
