"""A plan in a file, to be carried out later exactly as it was shown, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machinekit.errors import MachinekitError, UsageError
from machinekit.files import write
from machinekit.fleet import make_plan
from machinekit.fleetfile import Fleet
from machinekit.plan import Plan
from machinekit.store import Store

VERSION = 1
AGAIN = "make the plan again: machinekit plan --out FILE"


@dataclass(frozen=True)
class SavedPlan:
    """The fleet as its file was, how the plan was narrowed, and what it said. There are no secrets in it."""

    fleet: Fleet
    refresh: bool
    targets: tuple[str, ...]
    replace: tuple[str, ...]
    said: dict[str, Any]

    def still_right(self, store: Store) -> Plan:
        """The plan as it is now; raises MachinekitError when it is not what was saved."""
        plan = make_plan(store, self.fleet, refresh=self.refresh, targets=self.targets, replace=self.replace)
        now = _comparable(plan)
        if now != self.said:
            before, after = (
                {each["name"]: each for each in (*said["changes"], *said["unreadable"])} for said in (self.said, now)
            )
            moved = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
            raise MachinekitError(f"the machines are not as they were when this was planned: {', '.join(moved)}", AGAIN)
        return plan


def save(
    file: str, fleet: Fleet, plan: Plan, *, refresh: bool, targets: Collection[str] = (), replace: Collection[str] = ()
) -> None:
    """Write the plan to a file, for its owner's eyes."""
    about = {"version": VERSION, "refresh": refresh, "targets": [*targets], "replace": [*replace]}
    data = about | {"fleet": fleet.to_json(), "plan": plan.to_json()}
    draft = Path(f"{file}.draft")
    try:
        write(draft, json.dumps(data, indent=2).encode() + b"\n", 0o600)
        os.replace(draft, file)  # noqa: PTH105 (the name stays as it was typed)
    except OSError as error:
        raise MachinekitError(f"cannot write {file}: {error.strerror}") from None


def read(file: str) -> SavedPlan:
    """The plan of a file; raises UsageError when it is none of ours."""
    try:
        data = json.loads(Path(file).read_bytes())
        if data["version"] > VERSION:
            raise UsageError(f"{file} was written by a newer machinekit", "upgrade machinekit")
        fleet = Fleet.from_json(data["fleet"])
        return SavedPlan(fleet, data["refresh"], tuple(data["targets"]), tuple(data["replace"]), data["plan"])
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", AGAIN) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{file} is not a plan that machinekit has saved", f"for a fleet file: machinekit apply -f {file}"
        ) from None


def _comparable(plan: Plan) -> dict[str, Any]:
    """As it comes back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(plan.to_json()))
    return found
