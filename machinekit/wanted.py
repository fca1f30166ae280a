"""What a fleet file comes to: the machines there should be, each with all that it should be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from machinekit import drivers
from machinekit.machine import Machine
from machinekit.pins import NO_PINS, Pins
from machinekit.provider import Options
from machinekit.setup import Setup, parse_setup
from machinekit.spec import Spec, check_name, parse_options, storable
from machinekit.swarmstate import Roster


@dataclass(frozen=True)
class Wanted:
    """One machine as the file wants it. `group` is the name in its entry, `pins` are what a lock says of it."""

    name: str
    driver: str
    options: Options
    spec: Spec
    setup: Setup
    labels: Mapping[str, str]
    group: str
    pins: Pins = NO_PINS

    def pinned(self, pins: Pins) -> Wanted:
        """The same with what the pins say where the file leaves it open."""
        return dataclasses.replace(self, spec=pins.of_spec(self.spec), setup=pins.of_setup(self.setup), pins=pins)

    def as_recorded(self, record: Machine) -> Wanted:
        """The same: without a lock, what an earlier one has pinned on the machine stays as it is."""
        return self if self.pins != NO_PINS or not record.pins else self.pinned(Pins(**record.pins))

    def to_json(self) -> dict[str, Any]:
        """Plain data without secrets."""
        return {
            "name": self.name,
            "driver": self.driver,
            "options": storable(self.options),
            "spec": self.spec.model_dump(mode="json"),
            "setup": self.setup.model_dump(mode="json"),
            "labels": dict(self.labels),
            "group": self.group,
            "pins": self.pins.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Wanted:
        """The machine of that data; secrets come from the environment. Raises UsageError."""
        options = parse_options(
            data["driver"], drivers.load(data["driver"]), with_secrets(data["driver"], data["options"])
        )
        spec, setup, pins = Spec(**data["spec"]), parse_setup(data["setup"]), Pins(**data["pins"])
        return cls(check_name(data["name"]), data["driver"], options, spec, setup, data["labels"], data["group"], pins)


@dataclass(frozen=True)
class Fleet:
    """What a file wants: its machines, in its order, and which of them make up a Swarm."""

    name: str
    machines: tuple[Wanted, ...]
    managers: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()

    @property
    def roster(self) -> Roster:
        """The Swarm that the machines are to make up."""
        labels = {machine.name: machine.labels for machine in self.machines}
        return Roster(self.managers, self.workers, {name: labels[name] for name in self.managers + self.workers})

    def expanded(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names of machines, where a group's is among them those of its machines."""
        groups: dict[str, list[str]] = {}
        for machine in self.machines:
            groups.setdefault(machine.group, []).append(machine.name)
        return tuple(dict.fromkeys(each for name in names for each in groups.get(name, [name])))

    def swarm_role(self, name: str) -> str:
        """What a machine is to be in it: "manager", "worker", or nothing."""
        return "manager" if name in self.managers else "worker" if name in self.workers else ""

    def to_json(self) -> dict[str, Any]:
        """Plain data without secrets."""
        machines = [machine.to_json() for machine in self.machines]
        return {"name": self.name, "machines": machines, "managers": self.managers, "workers": self.workers}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Fleet:
        """The fleet of that data; raises UsageError for a name that no file can have."""
        machines = tuple(Wanted.from_json(each) for each in data["machines"])
        return cls(check_name(data["name"]), machines, tuple(data["managers"]), tuple(data["workers"]))


def with_secrets(driver: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the secret ones, which only the environment has."""
    infos = drivers.load(driver).Options.infos()
    found = {field: drivers.variable(driver, field, info.aliases) for field, info in infos.items() if info.secret}
    return {**values, **{field: os.environ[variable] for field, variable in found.items() if variable}}
