"""A plan in a file, to be carried out later exactly as it was shown, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machinekit.errors import MachinekitError, UsageError
from machinekit.files import write
from machinekit.fleet import make_plan
from machinekit.plan import Plan
from machinekit.setup import Setup, looked_at_again
from machinekit.spec import check_name
from machinekit.store import Store
from machinekit.wanted import Fleet

VERSION = 1
AGAIN = "make the plan again: machinekit plan --out FILE"


@dataclass(frozen=True)
class SavedPlan:
    """The fleet as its file was, how the plan was narrowed, and what it said. There are no secrets in it.

    `store` is the id of the store that it was made for; empty for one in which nothing was ever made.
    """

    store: str
    fleet: Fleet
    refresh: bool
    targets: tuple[str, ...]
    replace: tuple[str, ...]
    said: dict[str, Any]

    def still_right(self, store: Store) -> Plan:
        """The plan as it is now; raises MachinekitError when it is not what was saved."""
        if self.store not in ("", store.known_identity()):
            raise MachinekitError(
                f"this was planned for another store than {store.home}", "name that one with -s or $MACHINEKIT_HOME"
            )
        plan = make_plan(store, self.fleet, refresh=self.refresh, targets=self.targets, replace=self.replace)
        now = _comparable(plan)
        if now != self.said:
            before, after = _by_name(self.said), _by_name(now)
            moved = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
            raise MachinekitError(f"the machines are not as they were when this was planned: {', '.join(moved)}", AGAIN)
        self._check_files({change.name for change in plan.actions})
        return plan

    def _check_files(self, names: Collection[str]) -> None:
        """Raise MachinekitError when what a machine is to carry from this computer is not what it was."""
        groups = {machine.group: machine.setup for machine in self.fleet.machines if machine.name in names}
        for group, setup in groups.items():
            now = _parts(looked_at_again(setup))
            if changed := [name for name, part in _parts(setup).items() if part != now[name]]:
                raise MachinekitError(
                    f"{group}: what it carries is not what it was when this was planned: {', '.join(changed)}", AGAIN
                )


def save(
    file: str,
    store: Store,
    fleet: Fleet,
    plan: Plan,
    *,
    refresh: bool,
    targets: Collection[str] = (),
    replace: Collection[str] = (),
) -> None:
    """Write the plan to a file, for its owner's eyes."""
    about = {"version": VERSION, "store": store.known_identity(), "refresh": refresh}
    about |= {"targets": [*targets], "replace": [*replace]}
    data = about | {"fleet": fleet.to_json(), "plan": plan.to_json()}
    place = Path(os.path.realpath(file))  # of a link, such as /dev/stdout, what it leads to
    if place.exists() and not place.is_file():  # /dev/null would be a plan from now on
        raise UsageError(f"{file} is not a file", "--out takes the path of a file to write")
    draft = place.with_name(f".{place.name}.draft")
    try:
        draft.unlink(missing_ok=True)  # of a plan that was killed, or of somebody else in a folder of all
        write(draft, json.dumps(data, indent=2).encode() + b"\n", 0o600)
        draft.replace(place)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise MachinekitError(f"cannot write {file}: {error.strerror}") from None


def read(file: str) -> SavedPlan:
    """The plan of a file; raises UsageError when it is none of ours."""
    try:
        data = json.loads(Path(file).read_bytes())
        if data["version"] > VERSION:
            raise UsageError(f"{file} was written by a newer machinekit", "upgrade machinekit")
        fleet = Fleet.from_json(data["fleet"])
        targets, replace = (tuple(map(check_name, data[key])) for key in ("targets", "replace"))
        _by_name(data["plan"])
        return SavedPlan(data["store"], fleet, data["refresh"] is True, targets, replace, data["plan"])
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", AGAIN) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UsageError(
            f"{file} is not a plan that machinekit has saved", f"for a fleet file: machinekit apply -f {file}"
        ) from None


def _parts(setup: Setup) -> dict[str, object]:
    """What a machine carries from this computer, by how people know it."""
    files = {file.source: file for file in setup.files if file.source}
    certificates = {registry.ca: registry for registry in setup.registries if registry.ca}
    return {**files, **certificates, **{f"role {use.name}": use for use in setup.roles}}


def _by_name(said: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in (*said["changes"], *said["unreadable"])}


def _comparable(plan: Plan) -> dict[str, Any]:
    """As it comes back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(plan.to_json()))
    return found
