"""Make machines a swarm, and take them out of it, over their engines' API. Join tokens stay in memory.

Nothing is remembered between two calls: each looks at what there is and goes on from that, so that a call that was
killed is only to be made again. Whoever calls holds the lock of what the machines are from.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import tenacity

from machinekit.errors import DeadlineError, EngineError, MachinekitError
from machinekit.machine import Machine
from machinekit.store import Store
from machinekit.swarmapi import PENDING, Engine, Member
from machinekit.swarmplan import LEAVING, Action, Step, steps
from machinekit.swarmstate import ADDRESS, NAME, STORE, UID, Roster, Swarm, missing
from machinekit.work import Progress

THREADS = 32
SETTLE = 30.0  # seconds for an engine that is just getting into its swarm
ROLE = 60.0  # ... for a node to be what it was promoted or demoted to
TASKS = 60.0  # ... for the tasks of a machine that leaves to run elsewhere
LEADER = 20.0  # ... for the managers to choose a leader
ROUNDS = 4  # of looking and doing what is left
TOGETHER = (Action.JOIN_WORKER, Action.LABEL)  # steps that machines can take at the same time
AGAIN = "run the same command again: it goes on from here"
Answer = TypeVar("Answer")


def look(store: Store, machines: Iterable[str]) -> Swarm:
    """What swarm the machines are now; engines are asked in parallel, each for some seconds at most."""
    names = list(dict.fromkeys(machines))
    with ThreadPoolExecutor(THREADS) as pool:
        members = dict(zip(names, pool.map(lambda name: _member(store, name), names), strict=True))
    known, _ = store.known_uids()
    failure = ""
    for name in (name for name, member in members.items() if member.cluster):
        try:
            return Swarm(members, _engine(store, name).nodes(), known)
        except EngineError as error:
            failure = error.message
    return Swarm(members, (), known, failure)


def converge(
    store: Store, roster: Roster, progress: Progress, leaving: Collection[str] = (), beside: Collection[str] = ()
) -> list[str]:
    """Make the swarm as the roster says, without those `leaving`; returns what was done, empty means "unchanged".

    Machines `beside` may be in the swarm too, perhaps as its only managers so far, and stay for now. Those that do not
    answer keep no other one from it; the ones that should be in the swarm and are not are an EngineError afterwards.
    Raises what `swarmplan.steps` raises before anything is changed.
    """
    done, swarm = _converged(store, roster, progress, leaving, beside)
    if lost := [name for name in missing(roster, swarm) if name not in leaving]:
        why = "; ".join(dict.fromkeys(swarm.members[name].error for name in lost))
        raise EngineError(f"{', '.join(lost)} cannot be put into the swarm: {why}", AGAIN)
    return done


def leave(store: Store, name: str, roster: Roster, progress: Progress) -> list[str]:
    """Take a machine out of its swarm before it is removed or made anew; returns what was done.

    `roster` is what the swarm is to be afterwards; it may name the machine, which then comes back. The machine's tasks
    are handed over first. Of a machine that is gone already the node is removed.
    """
    if roster.machines and not look(store, (*roster.machines, name)).started:
        return []  # to leave is no reason to start one
    return _converged(store, roster, progress, (name,))[0]


def _converged(
    store: Store, roster: Roster, progress: Progress, leaving: Collection[str], beside: Collection[str] = ()
) -> tuple[list[str], Swarm]:
    names = (*roster.machines, *leaving, *beside)
    swarm = _settled(store, names)
    done: list[str] = []
    for _ in range(ROUNDS):
        left = steps(roster, swarm, leaving)
        if not left:
            return done, swarm
        _Work(store, swarm, progress).carry_out(left)
        done += map(str, left)
        swarm = _settled(store, names)
    if left := steps(roster, swarm, leaving):
        raise DeadlineError(f"the swarm does not become as it should be; still to be done: {left[0]}", AGAIN)
    return done, swarm


class _Work:
    """The engines that the steps go to; `managers` are the machines that are managers by now."""

    def __init__(self, store: Store, swarm: Swarm, progress: Progress) -> None:
        self._store = store
        self._swarm = swarm
        self._progress = progress
        self._managers = [name for name, member in swarm.members.items() if member.cluster]

    def carry_out(self, wanted: Iterable[Step]) -> None:
        """Take the steps in order, and those together that can be: there one that fails keeps no other machine back."""
        failures: dict[str, MachinekitError] = {}
        with ThreadPoolExecutor(THREADS) as pool:
            for action, some in itertools.groupby(wanted, lambda step: step.action):
                possible = [step for step in some if step.machine not in failures]
                if action not in TOGETHER:
                    for step in possible:
                        self._take(step)
                    continue
                for step, failure in zip(possible, pool.map(self._tried, possible), strict=True):
                    if failure:
                        failures[step.machine] = failure
        for failure in failures.values():
            raise failure

    def _tried(self, step: Step) -> MachinekitError | None:
        try:
            self._take(step)
        except MachinekitError as error:
            return error
        return None

    def _take(self, step: Step) -> None:
        self._progress.step(step.machine, f"Swarm: {step.text}")
        started = time.monotonic()
        try:
            self._do(step)
        except MachinekitError as error:
            error.message = f"{step.machine} cannot {step.text}: {error.message}"
            error.hint = error.hint or AGAIN
            raise
        self._progress.done(step.machine, time.monotonic() - started)

    def _do(self, step: Step) -> None:
        match step.action:
            case Action.START:
                self._engine(step.machine).start()
                self._managers = [step.machine]
            case Action.JOIN_MANAGER:
                self._join(step, "Manager")
                self._wait_for_vote(step)
            case Action.JOIN_WORKER:
                self._join(step, "Worker")
            case Action.PROMOTE:
                self._change(step, lambda spec: spec.update(Role="manager"))
                self._wait_for_vote(step)
            case Action.LABEL:
                self._change(step, lambda spec: _label(spec, step.labels))
            case Action.DRAIN:
                self._drain(step)
            case Action.DEMOTE:
                self._demote(step)
            case Action.LEAVE | Action.END:
                self._engine(step.machine).leave(force=step.action is Action.END)
            case Action.REMOVE:
                self._ask(lambda manager: manager.remove(step.node), last=step.machine)

    def _join(self, step: Step, role: str) -> None:
        token = self._ask(lambda manager: manager.token(role))
        self._engine(step.machine).join([self._engine(name).ip for name in self._managers], token)

    def _wait_for_vote(self, step: Step) -> None:
        def heard() -> bool:
            return any(node.reachable for node in self._ask(Engine.nodes) if node.id == self._node(step))

        _until(heard, f'"{step.machine}" is not heard among the managers', ROLE)
        self._managers.append(step.machine)

    def _drain(self, step: Step) -> None:
        def free() -> bool:
            return not self._ask(lambda manager: manager.tied(step.node))

        self._change(step, _drain)
        try:
            _until(free, "not all of its tasks run elsewhere", TASKS)
        except DeadlineError as error:
            self._progress.note(step.machine, f"{error.message}; they end with the machine")

    def _demote(self, step: Step) -> None:
        def heard() -> bool:
            nodes = self._ask(Engine.nodes, last=step.machine)
            return any(node.manager for node in nodes if node.id == step.node) or self._decides(step.machine)

        self._change(step, lambda spec: spec.update(Role="worker"))
        _until(lambda: not heard(), f'"{step.machine}" is still heard among the managers', ROLE)
        self._managers = [name for name in self._managers if name != step.machine]

    def _decides(self, machine: str) -> bool:
        """Whether the engine of a machine takes itself for a manager."""
        member = self._swarm.members.get(machine)
        return member is not None and not member.silent and bool(self._engine(machine).member({}).cluster)

    def _change(self, step: Step, edit: Callable[[dict[str, Any]], None]) -> None:
        if node := self._node(step):  # else its join still goes on, and the next look finds what is left to do
            self._ask(lambda manager: manager.change(node, edit), last=step.machine)

    def _node(self, step: Step) -> str:
        return step.node or self._engine(step.machine).member({}).node

    def _ask(self, what: Callable[[Engine], Answer], last: str = "") -> Answer:
        """What the first manager answers that can; `last` is the one to ask last. A leader may just be being chosen."""

        def ask() -> Answer:
            failure = EngineError("no manager is left")
            for name in sorted(self._managers, key=lambda name: name == last):
                try:
                    return what(self._engine(name))
                except EngineError as error:
                    failure = error
                    if not _passes(error):
                        break
            raise failure

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_exponential(multiplier=0.1, max=2),
            stop=tenacity.stop_after_delay(LEADER),
            reraise=True,
        )
        return retrying(ask)

    def _engine(self, name: str) -> Engine:
        return _engine(self._store, name)


def _settled(store: Store, machines: Iterable[str]) -> Swarm:
    """What there is once no engine is on its way into a swarm any more; one may be for ever."""
    names = tuple(machines)
    deadline = time.monotonic() + SETTLE
    swarm = look(store, names)
    while any(member.state == PENDING for member in swarm.members.values()) and time.monotonic() < deadline:
        time.sleep(0.5)
        swarm = look(store, names)
    return swarm


def _member(store: Store, name: str) -> Member:
    marks: dict[str, str] = {}
    try:
        machine = store.load(name)
        marks = {UID: machine.uid, STORE: machine.store, NAME: name, ADDRESS: _address(machine)}
        return _engine(store, name).member(marks)
    except MachinekitError as error:
        return Member(marks, silent=True, error=error.message)


def _engine(store: Store, name: str) -> Engine:
    machine = store.load(name)
    if not machine.url:
        raise MachinekitError(f'machine "{name}" has no address yet', "run the same command again")
    tls = store.directory(name) if machine.tls else None
    return Engine(name, machine.url, tls, _address(machine))


def _address(machine: Machine) -> str:
    """Where the other machines reach it."""
    return machine.peer_address or machine.address


def _label(spec: dict[str, Any], labels: Mapping[str, str]) -> None:
    if LEAVING in spec["Labels"]:
        spec["Availability"] = "active"  # it has come back before it was gone
    spec["Labels"] = dict(labels)


def _drain(spec: dict[str, Any]) -> None:
    spec["Availability"] = "drain"
    spec["Labels"][LEAVING] = "yes"


def _passes(error: BaseException) -> bool:
    """Whether a manager has not answered at all, or none leads just now."""
    return isinstance(error, EngineError) and (not error.status or "leader" in error.message)


def _until(true: Callable[[], bool], otherwise: str, patience: float) -> None:
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda answer: not answer) | tenacity.retry_if_exception(_passes),
        wait=tenacity.wait_exponential(multiplier=0.05, max=2, exp_base=1.5),
        stop=tenacity.stop_after_delay(patience),
    )
    try:
        retrying(true)
    except tenacity.RetryError:
        raise DeadlineError(f"{otherwise} after {patience:g} s", AGAIN) from None
