"""Write the fleet file for machines that exist: what `plan` would find unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from machinekit import drivers, yamlfile
from machinekit.machine import Machine
from machinekit.setup import parse_setup
from machinekit.spec import Spec

NAME = "my-fleet"
HIDDEN: Any = {
    "leaving": True,
    "files": {"__all__": {"digest"}},
    "registries": {"__all__": {"digest"}},
    "roles": {"__all__": {"kept"}},
}


def written(machines: Iterable[Machine]) -> str:
    """The file, with nothing in it that is the default anyway."""
    found = list(machines)
    fleets = dict.fromkeys(machine.fleet for machine in found if machine.fleet)
    registries = {each["host"]: each for machine in found for each in _setup(machine).get("registries", ())}
    data: dict[str, Any] = {"version": 1, "name": next(iter(fleets), NAME)}
    data["machines"] = [_machine(machine) for machine in found]
    if registries:
        data["registries"] = list(registries.values())
    return yamlfile.written(data)


def _machine(machine: Machine) -> dict[str, Any]:
    spec = Spec(**machine.spec).model_dump(mode="json", exclude_defaults=True)
    labels = dict(label.split("=", 1) for label in spec.pop("labels", ()))
    if "engine" in spec:
        spec = {"source": spec.pop("engine"), **spec}
    setup = _setup(machine)
    roles = [{**use.pop("options", {}), **use} for use in setup.get("roles", ())]
    about: dict[str, Any] = {machine.driver: _options(machine), "engine": spec, "labels": labels}
    about |= {"files": setup.get("files"), "roles": roles}
    return {"name": machine.name, "driver": machine.driver, **{key: value for key, value in about.items() if value}}


def _options(machine: Machine) -> dict[str, Any]:
    defaults = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(drivers.load(machine.driver).Options)
    }
    return {key: value for key, value in machine.options.items() if value != defaults.get(key)}


def _setup(machine: Machine) -> dict[str, Any]:
    return parse_setup(machine.setup).model_dump(mode="json", exclude_defaults=True, exclude=HIDDEN)
