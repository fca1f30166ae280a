"""Make a fleet's machines as its file wants them: the plan, and what carries it out for one machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import dotenv

from machinekit import (
    collect,
    converge,
    create,
    drift,
    fleetfile,
    fleetform,
    lifecycle,
    outfit,
    packages,
    pinning,
    plan,
    swarming,
    upgrade,
)
from machinekit.checkup import Nobody
from machinekit.errors import MachinekitError, StoreError, UsageError
from machinekit.machine import Machine
from machinekit.pins import Pins, parse_pins
from machinekit.plan import Action, Change, Plan, Unreadable
from machinekit.record import LOST
from machinekit.store import Store
from machinekit.wanted import Fleet, Wanted
from machinekit.work import Progress, Work, run, working_on

FILE = "machinekit.yaml"
DOTENV = ".env"
NO_FILE = "machinekit init writes one to start with; -f names one elsewhere"
CARRIED = ("files.", "registries.", "roles.")  # what differences in a machine's setup begin with


def load(path: Path, given: Mapping[str, str]) -> Fleet:
    """The fleet of a file. A variable in it is one of `given`, of the environment, or of .env beside it.

    Raises UsageError with everything that is wrong.
    """
    try:
        text = path.read_text()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise UsageError(f"cannot read {path}: {error.strerror}", NO_FILE if missing else "") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text in UTF-8") from None
    folder = path.absolute().parent
    return fleetfile.parse(text, str(path), folder, {**_beside(folder), **os.environ, **given})


def _beside(folder: Path) -> dict[str, str]:
    try:
        return {name: value or "" for name, value in dotenv.dotenv_values(folder / DOTENV, interpolate=False).items()}
    except OSError as error:
        raise UsageError(f"cannot read {folder / DOTENV}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{folder / DOTENV} is not a text in UTF-8") from None


def make_plan(
    store: Store, fleet: Fleet, *, refresh: bool = True, targets: Collection[str] = (), replace: Collection[str] = ()
) -> Plan:
    """What `apply` would do. Without `refresh` the records are believed.

    Raises what `plan.make`, `drift.look`, `swarming.planned` and `pinning.check_images` do.
    """
    records, unreadable = _records(store, fleet)
    ours = [
        record for record in records.values() if record.fleet == fleet.name and (not targets or record.name in targets)
    ]
    seen = drift.look(store, ours) if refresh else {}
    made = plan.make(fleet, records, seen, unreadable=unreadable, targets=targets, replace=replace)
    if refresh:
        made = swarming.planned(store, fleet, made)
    born = [change.name for change in made.actions if change.action in (Action.CREATE, Action.REPLACE)]
    pinning.check_images(store, [wanted for wanted in fleet.machines if wanted.name in born])
    return dataclasses.replace(made, remarks=tuple(swarming.remarks(fleet))) if made.actions else made


def _records(store: Store, fleet: Fleet) -> tuple[dict[str, Machine], list[Unreadable]]:
    """The records that can be read, and the others that are the fleet's or may be."""
    records, broken = collect.records(store)
    for record in list(records.values()):
        if record.fleet == fleet.name:
            try:
                _check_parts(store, record)
            except MachinekitError as error:
                broken[record.name] = error
                del records[record.name]
    wanted = {machine.name for machine in fleet.machines}
    return records, [
        Unreadable(name, error.message, error.hint)
        for name, error in broken.items()
        if name in wanted or (store.has_record(name) and store.fleet_of(name) in (None, fleet.name))
    ]


def _check_parts(store: Store, machine: Machine) -> None:
    """Raise MachinekitError when the engine's settings, the driver's options or what it carries cannot be read."""
    try:
        Work(store, machine, Nobody())
        parse_pins(machine.pins)
    except UsageError as error:  # nobody has just given them
        raise StoreError(f'the record of "{machine.name}" cannot be read: {error.message}', LOST) from None


def alone(store: Store, name: str, doing: str, progress: Progress, patience: float) -> AbstractContextManager[None]:
    """Be the only one that changes a fleet; raises LockedError after `patience` seconds."""
    return store.lock_fleet(name, doing, lambda holder: progress.note(name, f"waiting: {holder}"), patience)


def check(fleet: Fleet, plan: Plan) -> None:
    """Raise UsageError when a secret that the plan needs cannot be resolved: before anything is changed."""
    needed = {change.name for change in plan.actions if change.action in (Action.CREATE, Action.REPLACE)}
    needed |= {
        change.name for change in plan.actions if any(each.what.startswith(CARRIED) for each in change.differences)
    }
    for machine in fleet.machines:
        if machine.name in needed:
            outfit.resolve_secrets(machine.setup)


def carry_out(
    store: Store, fleet: str, change: Change, wanted: Wanted | None, progress: Progress, *, agreed: bool = False
) -> list[str]:
    """Do what the plan says for one machine. Returns what was done; the same again goes on where this was stopped.

    An error that names an option names the file's key for it.
    """
    try:
        return _carry_out(store, fleet, change, wanted, progress, agreed=agreed)
    except MachinekitError as error:
        if wanted:
            error.message, error.hint = (
                fleetform.in_words_of_the_file(text, wanted.driver) for text in (error.message, error.hint)
            )
            error.args = (error.message,)
        raise


def _carry_out(
    store: Store, fleet: str, change: Change, wanted: Wanted | None, progress: Progress, *, agreed: bool
) -> list[str]:
    done: list[str] = []
    if change.action in (Action.REMOVE, Action.REPLACE):
        if store.exists(change.name):
            lifecycle.remove(store, change.name, progress, check=change.check)
        done.append("removed")
    if wanted and store.exists(change.name):
        wanted = wanted.as_recorded(store.load(change.name))
    if wanted and change.action in (Action.CREATE, Action.REPLACE):
        done += create.create(
            store,
            wanted.name,
            driver=wanted.driver,
            options=wanted.options,
            spec=wanted.spec,
            setup=wanted.setup,
            pins=wanted.pins,
            fleet=fleet,
            progress=progress,
            agreed=agreed,
        )
    if wanted and change.action is Action.CHANGE:
        done += _change(store, change, wanted, progress)
    return done


def _change(store: Store, change: Change, wanted: Wanted, progress: Progress) -> list[str]:
    """Have a machine that is there be as wanted. Its record follows at the end: until then the plan stays the same."""
    with working_on(store, wanted.name, "apply", progress) as work:
        change.check(work.machine)
        work.driver.options = wanted.options
        work.previous = work.spec
        there = {"version": work.spec.version, "packages": work.spec.packages}  # others are upgrade's to install
        work.spec = wanted.spec.model_copy(update=there)
        outfit.change(work, wanted.setup)
        run(work, converge.steps(work))
        work.machine.spec = work.spec.model_dump(mode="json")
        work.machine.pins = wanted.pins.on(Pins(**work.machine.pins)).to_json()
        work.save()
        done = work.changed
    if any(each.what in (drift.ENGINE_VERSION, drift.ENGINE_PACKAGES) for each in change.differences):
        to, companions = wanted.spec.version or packages.LATEST, wanted.spec.packages
        done += upgrade.upgrade(store, wanted.name, progress, to=to, companions=companions)
    return done


def adopt(store: Store, fleet: Fleet, name: str, progress: Progress) -> None:
    """Have the fleet own a machine that was made by hand, and that its file wants; nothing of it is changed.

    Raises UsageError when the file does not want it, MachinekitError when another fleet has it.
    """
    if name not in (machine.name for machine in fleet.machines):
        raise UsageError(f"{name!r} is not in the file", f"machinekit show --yaml {name} writes what to put there")
    with working_on(store, name, "import", progress) as work:
        if work.machine.fleet not in ("", fleet.name):
            raise MachinekitError(
                f'machine "{name}" is of the fleet "{work.machine.fleet}"',
                "an apply of that fleet would remove what leaves its file: give this one another name",
            )
        work.machine.fleet = fleet.name
        work.save()
