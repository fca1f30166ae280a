"""The lock of a fleet file: what of the file floats, and which things exactly it was when somebody locked it.

It lies beside the file, is meant for git, and says nothing of single machines: a group has one lock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from machinekit import drivers, fileerrors, roles, yamlfile
from machinekit.errors import UsageError
from machinekit.pins import Pins
from machinekit.provider import Driver, Options
from machinekit.setup import Setup
from machinekit.spec import Spec, storable
from machinekit.wanted import Fleet, Wanted

VERSION = 1
SUFFIX = ".lock"  # instead of the fleet file's
ABOUT = "# Written by machinekit lock, for machinekit apply --locked. It belongs into git.\n"
AGAIN = "machinekit lock --update writes it anew"
SOURCES = ("distro", "docker")  # of engines that have versions


class Asked(BaseModel):
    """What floats in the file, as it is written there: when it changes, what it was locked to does not count."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    driver: str
    options: dict[str, Any] = {}
    engine: dict[str, str] = {}
    roles: dict[str, dict[str, str]] = {}


class Group(Pins):
    """One entry of the file's machines, resolved."""

    asked: Asked


class Lock(BaseModel):
    """What the lock file says; the groups are by the name of their entry."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1]
    fleet: str
    groups: dict[str, Group] = {}


def place(fleet_file: Path) -> Path:
    """Where the lock of a fleet file is; raises UsageError when the fleet file itself is there."""
    if fleet_file.suffix == SUFFIX:
        raise UsageError(
            f"{fleet_file} is called as its lock would be", "give it another name, such as machinekit.yaml"
        )
    return fleet_file.with_suffix(SUFFIX)


def parse(text: str, file: str) -> Lock:
    """The lock of a file's text; raises UsageError with everything that is wrong and where."""
    try:
        document = yamlfile.read(text, file, {})
    except UsageError as error:
        raise UsageError(error.message, AGAIN) from None
    if not isinstance(document.data, dict):
        raise UsageError(f"{file} is not a lock", AGAIN)
    try:
        return Lock.model_validate(document.data)
    except ValidationError as error:
        lines = fileerrors.explained(error, Lock, document)
        raise UsageError("\n".join(lines), AGAIN) from None


def written(lock: Lock) -> str:
    """The file's text: sorted, and nothing in it that says nothing, so that a difference shows what has changed."""
    data = lock.model_dump(mode="json", exclude={"groups"})
    data["groups"] = {name: _plain(group) for name, group in sorted(lock.groups.items())}
    return ABOUT + yamlfile.written(data)


def locked(fleet: Fleet, lock: Lock, file: str) -> Fleet:
    """The fleet with everything that floats as the lock has it; raises UsageError where the two do not fit."""
    if lock.fleet != fleet.name:
        raise UsageError(f"{file} is of the fleet {lock.fleet!r}, and not of {fleet.name!r}", "machinekit lock")
    folder, known = Path(file).absolute().parent, groups(fleet)
    if problems := [line for wanted in known.values() for line in _misfits(wanted, lock, folder)]:
        raise UsageError("\n  ".join([f"{file} does not fit the fleet file:", *problems]), "machinekit lock mends that")
    pinned = {name: wanted.pinned(Pins(**lock.groups[name].to_json())) for name, wanted in known.items()}
    machines = tuple(dataclasses.replace(pinned[each.group], name=each.name) for each in fleet.machines)
    return dataclasses.replace(fleet, machines=machines)


def groups(fleet: Fleet) -> dict[str, Wanted]:
    """The first machine of each entry of the file; the others are like it, but for their names."""
    found: dict[str, Wanted] = {}
    for wanted in fleet.machines:
        found.setdefault(wanted.group, wanted)
    return found


def asked(wanted: Wanted, folder: Path) -> Asked:
    """What floats of a machine in a fleet file in `folder`."""
    kind = drivers.load(wanted.driver)
    ssh = kind.capabilities.ssh
    return Asked(
        driver=wanted.driver,
        options={key: _relative(value, folder) for key, value in floating(kind, wanted.options).items() if value},
        engine=_engine(wanted.spec) if ssh else {},
        roles=_roles(wanted.setup) if ssh else {},
    )


def floating(kind: type[Driver[Any]], options: Options) -> dict[str, Any]:
    """The options of a driver that only name what a machine is made of."""
    return {key: value for key, value in storable(options).items() if key in kind.floating}


def has_versions(wanted: Wanted) -> bool:
    """Whether the engine of a machine is a package of some version."""
    return drivers.load(wanted.driver).capabilities.ssh and wanted.spec.engine in SOURCES


def _misfits(wanted: Wanted, lock: Lock, folder: Path) -> Iterator[str]:
    """How a machine's group is not the one that was locked, a line each."""
    group = lock.groups.get(wanted.group)
    if group is None:
        yield f"{wanted.group}: not in it"
        return
    before, after = (_flat(each.model_dump(mode="json")) for each in (group.asked, asked(wanted, folder)))
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            yield f"{wanted.group}: {key}: {before.get(key) or 'none'} -> {after.get(key) or 'none'}"
    known = {f"options.{key}" for key in drivers.load(wanted.driver).floating}
    known |= {f"roles.{use.name}.{pin}" for use in wanted.setup.roles for pin in roles.find(use.role).about.pins}
    for stranger in _flat({"options": group.options, "roles": group.roles}).keys() - known:
        yield f"{wanted.group}: {stranger}: nothing that can be locked"


def _flat(data: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def _engine(spec: Spec) -> dict[str, str]:
    values = {
        "source": spec.engine,
        "version": spec.version,
        "packages": " ".join(spec.packages),
        "repository": spec.repository,
        "url": spec.install_url,
    }
    return {key: value for key, value in values.items() if value}


def _roles(setup: Setup) -> dict[str, dict[str, str]]:
    """The roles that install something of some version, and what the file says of that."""
    known = [(use, roles.find(use.role).about.pins) for use in setup.roles]
    return {
        use.name: {"role": Path(use.role).name, **{pin: use.options[pin] for pin in pins if use.options.get(pin)}}
        for use, pins in known
        if pins
    }


def _relative(value: Any, folder: Path) -> Any:
    """A path as it is from the file, which another computer has in another place."""
    inside = isinstance(value, str) and value.startswith("/") and Path(value).is_relative_to(folder)
    return f"./{Path(value).relative_to(folder)}" if inside else value


def _plain(group: Group) -> dict[str, Any]:
    return {"asked": group.asked.model_dump(mode="json", exclude_defaults=True), **group.to_json()}
