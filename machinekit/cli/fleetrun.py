"""Carry a plan out and tell what came of each machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

from machinekit import fleet as verbs
from machinekit import swarming
from machinekit.cli.command import harmless
from machinekit.cli.leaving import state_of
from machinekit.cli.many import each, told
from machinekit.errors import MachinekitError
from machinekit.plan import Action, Change, Plan
from machinekit.store import Store
from machinekit.wanted import Fleet
from machinekit.work import Progress

VERSION = 1  # of the JSON
DONE = {
    Action.CREATE: "created",
    Action.CHANGE: "changed",
    Action.REPLACE: "replaced",
    Action.REMOVE: "removed",
}
SWARM = "the swarm"  # no machine can have that name


def reason(error: str) -> str:
    """The one line of an error that tells most: of a script that failed it is the last one that it said."""
    first, *more = error.strip().splitlines() or [""]
    return more[-1] if more and first.endswith(":") else first


@dataclass
class Result:
    """What came of one machine, or of the Swarm."""

    name: str
    action: str
    ok: bool = False
    done: list[str] = field(default_factory=list)
    error: str = ""


class Run:
    """One apply, or one destroy: `doing` is the command that goes on with what fails."""

    def __init__(self, store: Store, fleet: Fleet, doing: str, *, agreed: bool, parallel: int, json: bool) -> None:
        self._store = store
        self._fleet = fleet
        self._doing = doing
        self._agreed = agreed
        self._parallel = parallel
        self._json = json
        self._stream = sys.stderr if json else sys.stdout
        self._wanted = {machine.name: machine for machine in fleet.machines}
        self._results: dict[str, Result] = {}
        self._names: list[str] = []  # that the plan is about

    def carry_out(self, plan: Plan) -> int:
        """Every action, in parallel, but for what leaves a Swarm that goes on; returns the exit code."""
        self._names = [change.name for change in plan.changes]
        leaving = swarming.exits(self._store, self._fleet, plan)
        staying = [change.name for change in leaving]
        code = self._each([change for change in plan.actions if change not in leaving], self._machine)
        if plan.actions and swarming.concerns(self._store, self._fleet):
            join = Change(SWARM, Action.CHANGE, "")
            code = max(code, self._each([join], partial(self._swarm, staying)))
        for change in leaving:
            code = max(code, self._each([change], self._exchange))
        for broken in plan.unreadable:
            self._results[broken.name] = Result(broken.name, "unreadable", error=broken.message)
        self._tell_what_was_done()
        self._tell_failures()
        if self._json:
            results = [asdict(result) for result in self._results.values()]
            print(json.dumps({"version": VERSION, "fleet": self._fleet.name, "results": results}, indent=2))
        return 1 if code or plan.unreadable else 0

    def _each(self, changes: Sequence[Change], what: Callable[[Change, Progress, Result], object]) -> int:
        by_name = {change.name: change for change in changes}

        def verb(name: str, shown: Progress) -> str:
            result = self._results[name] = Result(name, by_name[name].action.value)
            try:
                what(by_name[name], shown, result)
            except (MachinekitError, OSError) as error:
                result.error = str(error)
                raise
            result.ok = True
            return told(result.done)

        names, parallel = list(by_name), self._parallel
        return each(self._store, names, verb, stream=self._stream, parallel=parallel, state=self._state)

    def _state(self, name: str) -> str:
        """How far one is whose work is cut short."""
        again = f"run machinekit {self._doing} again"
        if name != SWARM:
            return state_of(self._store, name, again)
        done = ", ".join(self._results[name].done) or "nothing was changed yet"
        return f"{name}: {done}; {again}, it goes on from here"

    def _machine(self, change: Change, shown: Progress, result: Result) -> None:
        wanted = self._wanted.get(change.name)
        result.done += verbs.carry_out(self._store, self._fleet.name, change, wanted, shown, agreed=self._agreed)

    def _swarm(self, staying: Sequence[str], change: Change, shown: Progress, result: Result) -> None:
        swarming.settle(self._store, self._fleet, shown, self._names, staying, done=result.done)

    def _exchange(self, change: Change, shown: Progress, result: Result) -> None:
        """A machine that leaves the Swarm, and perhaps comes back as another one."""
        swarming.leave(self._store, self._fleet, change.name, shown, self._names, done=result.done)
        self._machine(change, shown, result)
        if change.name in self._wanted:
            self._swarm((), change, shown, result)

    def _tell_what_was_done(self) -> None:
        done = [result.action for result in self._results.values() if result.ok and result.name != SWARM]
        if counts := [f"{done.count(action.value)} {word}" for action, word in DONE.items() if action.value in done]:
            print(f"{self._fleet.name}: {', '.join(counts)}", file=self._stream)

    def _tell_failures(self) -> None:
        failed = [result for result in self._results.values() if not result.ok]
        if failed:
            count = f"{len(failed)} of {len(self._results)} failed"
            lines = [f"{result.name}: {harmless(reason(result.error))}" for result in failed]
            print(
                "\n  ".join([f"machinekit: {count}; {self._doing} again goes on with them:", *lines]), file=sys.stderr
            )
