"""Carry a plan out and tell what came of each machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from machinekit import fleet as verbs
from machinekit import swarming
from machinekit.cli.command import harmless
from machinekit.cli.many import each, told
from machinekit.errors import MachinekitError
from machinekit.fleetfile import Fleet
from machinekit.plan import Action, Change, Plan
from machinekit.store import Store
from machinekit.work import Progress

VERSION = 1  # of the JSON
SWARM = "the swarm"  # no machine can have that name


@dataclass
class Result:
    """What came of one machine, or of the Swarm."""

    name: str
    action: str
    ok: bool = False
    done: list[str] = field(default_factory=list)
    error: str = ""


class Run:
    """One apply."""

    def __init__(self, store: Store, fleet: Fleet, *, agreed: bool, parallel: int, json: bool) -> None:
        self._store = store
        self._fleet = fleet
        self._agreed = agreed
        self._parallel = parallel
        self._json = json
        self._wanted = {machine.name: machine for machine in fleet.machines}
        self._results: dict[str, Result] = {}

    def carry_out(self, plan: Plan) -> int:
        """Every action, in parallel, but for what leaves a Swarm that goes on; returns the exit code."""
        leaving = swarming.exits(self._store, self._fleet, plan)
        staying = [change.name for change in leaving]
        code = self._each([change for change in plan.actions if change not in leaving], self._machine)
        if plan.actions and swarming.concerns(self._store, self._fleet):
            join = Change(SWARM, Action.CHANGE, "")
            code = max(code, self._each([join], lambda _, shown: self._swarm(shown, staying)))
        for change in leaving:
            code = max(code, self._each([change], self._exchange))
        for broken in plan.unreadable:
            self._results[broken.name] = Result(broken.name, "unreadable", error=broken.message)
        self._tell_failures()
        if self._json:
            results = [asdict(result) for result in self._results.values()]
            print(json.dumps({"version": VERSION, "fleet": self._fleet.name, "results": results}, indent=2))
        return 1 if code or plan.unreadable else 0

    def _each(self, changes: Sequence[Change], what: Callable[[Change, Progress], list[str]]) -> int:
        by_name = {change.name: change for change in changes}

        def verb(name: str, shown: Progress) -> str:
            result = self._results[name] = Result(name, by_name[name].action.value)
            try:
                result.done = what(by_name[name], shown)
            except (MachinekitError, OSError) as error:
                result.error = str(error)
                raise
            result.ok = True
            return told(result.done)

        stream = sys.stderr if self._json else sys.stdout
        return each(self._store, list(by_name), verb, stream=stream, parallel=self._parallel)

    def _machine(self, change: Change, shown: Progress) -> list[str]:
        wanted = self._wanted.get(change.name)
        return verbs.carry_out(self._store, self._fleet.name, change, wanted, shown, agreed=self._agreed)

    def _swarm(self, shown: Progress, staying: Sequence[str] = ()) -> list[str]:
        return swarming.settle(self._store, self._fleet, shown, staying)

    def _exchange(self, change: Change, shown: Progress) -> list[str]:
        """A machine that leaves the Swarm, and perhaps comes back as another one."""
        swarming.leave(self._store, self._fleet, change.name, shown)
        done = self._machine(change, shown)
        return done + (self._swarm(shown) if change.name in self._wanted else [])

    def _tell_failures(self) -> None:
        failed = [result for result in self._results.values() if not result.ok]
        if failed:
            count = f"{len(failed)} of {len(self._results)} failed"
            lines = [f"{result.name}: {harmless(result.error.splitlines()[0])}" for result in failed]
            print("\n  ".join([f"machinekit: {count}; apply again goes on with them:", *lines]), file=sys.stderr)
