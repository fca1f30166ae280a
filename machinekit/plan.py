"""What has to be done so that the machines are as a fleet file wants them. Compares, and changes nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from machinekit.errors import MachinekitError, UsageError, nearest
from machinekit.machine import Machine, Phase
from machinekit.pins import NO_PINS, Pins
from machinekit.setup import Setup, parse_setup
from machinekit.spec import Spec, storable
from machinekit.wanted import Fleet, Wanted

VERSION = 1  # of the JSON
# what only a new machine can have: another source's packages are not exchanged for the ones that are there
REPLACING = ("engine", "install_url")


class Action(StrEnum):
    """What happens to a machine."""

    CREATE = "create"
    CHANGE = "change"
    REPLACE = "replace"
    REMOVE = "remove"
    KEEP = "unchanged"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be; `replaces` when only a new machine can have it. None is "not there"."""

    what: str
    before: Any
    after: Any
    replaces: bool = False


@dataclass(frozen=True)
class Change:
    """What happens to one machine, and why. `uid` is whom it was planned for; empty when there is nobody yet."""

    name: str
    action: Action
    driver: str
    differences: tuple[Difference, ...] = ()
    uid: str = ""

    def check(self, machine: Machine) -> None:
        """Raise MachinekitError when another machine has got the name since this was planned."""
        if machine.uid != self.uid:
            raise MachinekitError(
                f'"{self.name}" is another machine now than when this was planned', "look at the plan again, then apply"
            )


@dataclass(frozen=True)
class Unreadable:
    """A machine that is the fleet's, or may be, and whose record cannot be read: nothing happens to it, and why."""

    name: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Plan:
    """What happens to every machine of a fleet: those of the file in its order, then those that are in it no more.

    `remarks` are what a person should know before that, a line each.
    """

    fleet: str
    changes: tuple[Change, ...]
    unreadable: tuple[Unreadable, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def actions(self) -> tuple[Change, ...]:
        """Those that do something."""
        return tuple(change for change in self.changes if change.action is not Action.KEEP)

    def to_json(self) -> dict[str, Any]:
        """For programs; what is there stays, more may come."""
        return {
            "version": VERSION,
            "fleet": self.fleet,
            "changes": [
                {
                    "name": change.name,
                    "action": change.action.value,
                    "driver": change.driver,
                    "uid": change.uid,
                    "differences": [
                        {"what": each.what, "before": each.before, "after": each.after, "replaces": each.replaces}
                        for each in change.differences
                    ],
                }
                for change in self.changes
            ],
            "unreadable": [asdict(each) for each in self.unreadable],
            "remarks": [*self.remarks],
        }


def make(
    fleet: Fleet,
    records: Mapping[str, Machine],
    drift: Mapping[str, Sequence[Difference]],
    *,
    unreadable: Sequence[Unreadable] = (),
    targets: Collection[str] = (),
    replace: Collection[str] = (),
) -> Plan:
    """The plan for a fleet.

    `records` are all machines of the store by name, but for the `unreadable` ones of the fleet; `drift` is how those
    of the fleet differ from their record. Only `targets` are acted upon, all if none are given; those in `replace` are
    made anew. Raises UsageError for a name that is none, MachinekitError when a machine of the file is not the fleet's.
    """
    broken = {each.name for each in unreadable}
    owned = {name: record for name, record in records.items() if record.fleet == fleet.name}
    machines = [machine for machine in fleet.machines if machine.name not in broken]
    wanted = {machine.name: machine for machine in _as_recorded(machines, owned)}
    _check_names([*targets, *replace], {*wanted, *owned, *broken})
    _check_owners(fleet, records)
    changes = [
        _change(machine, owned.get(name), drift.get(name, ()), fleet.swarm_role(name), name in replace)
        for name, machine in wanted.items()
    ]
    changes += [
        Change(name, Action.REMOVE, record.driver, uid=record.uid)
        for name, record in owned.items()
        if name not in wanted
    ]
    return Plan(
        fleet.name,
        tuple(change for change in changes if not targets or change.name in targets),
        tuple(each for each in unreadable if not targets or each.name in targets),
    )


def _as_recorded(machines: Iterable[Wanted], records: Mapping[str, Machine]) -> Iterator[Wanted]:
    """The machines with what an earlier lock has pinned on them, worked out once for all that are alike."""
    known: dict[tuple[str, str], Wanted] = {}
    for machine in machines:
        record = records.get(machine.name)
        key = (machine.group, json.dumps(record.pins, sort_keys=True) if record else "")
        if key not in known:
            known[key] = machine.as_recorded(record) if record else machine
        yield dataclasses.replace(known[key], name=machine.name)


def _check_names(names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"the fleet has no machine {name!r}{nearest(name, known)}")


def _check_owners(fleet: Fleet, records: Mapping[str, Machine]) -> None:
    strangers = [records[machine.name] for machine in fleet.machines if machine.name in records]
    strangers = [record for record in strangers if record.fleet != fleet.name]
    if strangers:
        lines = [f"{each.name}: {f'of the fleet {each.fleet}' if each.fleet else 'made by hand'}" for each in strangers]
        names = " ".join(each.name for each in strangers if not each.fleet)
        raise MachinekitError(
            "\n  ".join([f'machines of the file exist, and are not of the fleet "{fleet.name}":', *lines]),
            f"to have the fleet own them: machinekit import {names}" if names else "give them other names",
        )


def _change(wanted: Wanted, record: Machine | None, drift: Sequence[Difference], swarm_role: str, anew: bool) -> Change:
    if record is None:
        return Change(wanted.name, Action.CREATE, wanted.driver)
    action, differences = _action(wanted, record, drift, swarm_role, anew)
    return Change(wanted.name, action, wanted.driver, differences, record.uid)


def _action(
    wanted: Wanted, record: Machine, drift: Sequence[Difference], swarm_role: str, anew: bool
) -> tuple[Action, tuple[Difference, ...]]:
    differences = (*_differences(wanted, record), *_birth_differences(wanted, record))
    if record.swarm != swarm_role:
        differences += (Difference("swarm", record.swarm, swarm_role),)
    if record.phase is Phase.REMOVING:
        return Action.REPLACE, (Difference("instance", "half removed", "ready", replaces=True),)
    forced = [each for each in (*differences, *drift) if each.replaces]
    if record.phase is Phase.CREATING and not forced and not anew:
        return Action.CREATE, (Difference("instance", "half created", "ready"), *differences)
    differences = (*differences, *drift)
    if forced or anew:
        return Action.REPLACE, differences
    return Action.CHANGE if differences else Action.KEEP, differences


def _differences(wanted: Wanted, record: Machine) -> Iterator[Difference]:
    """How the record of a machine differs from what is wanted."""
    if record.driver != wanted.driver:
        yield Difference("driver", record.driver, wanted.driver, replaces=True)
        return
    before = _options(record, wanted)
    for field, after in storable(wanted.options).items():
        if before[field] != after:
            yield Difference(f"{wanted.driver}.{field}", before[field], after, replaces=True)
    old, new = (Spec(**record.spec).model_dump(mode="json"), wanted.spec.model_dump(mode="json"))
    for field, after in new.items():
        if old[field] != after:
            yield Difference(_key(field), old[field], after, replaces=field in REPLACING)
    yield from _setup_differences(parse_setup(record.setup), wanted.setup)


def _birth_differences(wanted: Wanted, record: Machine) -> Iterator[Difference]:
    """How the lock that a machine was born with differs; one that was born without a lock may stay."""
    pins = Pins(**record.pins)
    locked_at_birth = pins.of_birth() != NO_PINS.of_birth() or record.phase is Phase.CREATING
    if record.driver != wanted.driver or not locked_at_birth:
        return
    for field in dict.fromkeys([*pins.options, *wanted.pins.options]):
        old, new = pins.options.get(field), wanted.pins.options.get(field)
        if old != new:
            yield Difference(f"{wanted.driver}.{field}", old or "", new or "", replaces=True)
    if pins.image != wanted.pins.image:
        yield Difference("image", str(pins.image or ""), str(wanted.pins.image or ""), replaces=True)


def _options(record: Machine, wanted: Wanted) -> dict[str, Any]:
    """The record's options, with the defaults of those that it is too old to have."""
    known = {field: value for field, value in record.options.items() if field in wanted.options.infos()}
    secrets = {field: "" for field, info in wanted.options.infos().items() if info.secret}
    return storable(type(wanted.options)(**known, **secrets))


def _key(field: str) -> str:
    """An engine setting as the file has it."""
    return {"labels": "labels", "engine": "engine.source"}.get(field, f"engine.{field}")


def _setup_differences(before: Setup, after: Setup) -> Iterator[Difference]:
    for kind, key in (("files", "path"), ("registries", "host"), ("roles", "name")):
        old, new = (
            {getattr(each, key): each.model_dump(mode="json") for each in getattr(setup, kind)}
            for setup in (before, after)
        )
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                yield Difference(f"{kind}.{name}", old.get(name), new.get(name))
