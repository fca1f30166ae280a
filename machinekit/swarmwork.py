"""Carry the steps of a swarm out, and put down in each machine's record what it has become."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import tenacity

from machinekit.errors import DeadlineError, EngineError, MachinekitError
from machinekit.machine import Machine, Phase
from machinekit.store import Store
from machinekit.swarmapi import Engine
from machinekit.swarmplan import LEAVING, Action, Step
from machinekit.swarmstate import JOINING, Swarm
from machinekit.work import Progress

THREADS = 32
ROLE = 60.0  # seconds for a node to be what it was promoted or demoted to
TASKS = 60.0  # ... for the tasks of a machine that leaves to run elsewhere
LEADER = 20.0  # ... for the managers to choose a leader
TOGETHER = (Action.JOIN_WORKER, Action.LABEL)  # steps that machines can take at the same time
ENTRIES = (Action.START, Action.JOIN_MANAGER, Action.JOIN_WORKER)
BECOMES = {
    **{Action.START: "manager", Action.JOIN_MANAGER: "manager", Action.PROMOTE: "manager"},
    **{Action.JOIN_WORKER: "worker", Action.DEMOTE: "worker", Action.LEAVE: "", Action.END: ""},
}
AGAIN = "run the same command again: it goes on from here"
Answer = TypeVar("Answer")


class SwarmWork:
    """The engines that the steps go to. Each step that is through is added to `done`."""

    def __init__(self, store: Store, swarm: Swarm, progress: Progress, done: list[str]) -> None:
        self._store = store
        self._swarm = swarm
        self._progress = progress
        self._done = done
        self._managers = [name for name, member in swarm.members.items() if member.manages]  # by now

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
                begun = len(self._done)
                for step, failure in zip(possible, pool.map(self._tried, possible), strict=True):
                    if failure:
                        failures[step.machine] = failure
                self._done[begun:] = [str(step) for step in possible if step.machine not in failures]  # in their order
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
            if step.action in ENTRIES:
                remember(self._store, step.machine, JOINING)  # whatever becomes of us, it may be in the swarm
            self._do(step)
        except MachinekitError as error:
            error.message = f"{step.machine} cannot {step.text}: {error.message}"
            error.args = (error.message,)
            error.hint = error.hint or AGAIN
            raise
        if step.action in BECOMES and self._is_own(step):
            remember(self._store, step.machine, BECOMES[step.action])
        self._done.append(str(step))
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
            return any(node.manager for node in nodes if node.id == step.node) or (own and self._decides(step.machine))

        own = self._is_own(step)
        self._change(step, lambda spec: spec.update(Role="worker"))
        _until(lambda: not heard(), f'"{step.machine}" is still heard among the managers', ROLE)
        self._managers = [name for name in self._managers if not own or name != step.machine]

    def _is_own(self, step: Step) -> bool:
        """Whether a step is the machine's own, and not of a node that is left of an earlier one of its name."""
        node = self._swarm.node(step.machine) if step.machine in self._swarm.members else None
        return step.node in ("", node.id if node else "")

    def _decides(self, machine: str) -> bool:
        """Whether the engine of a machine takes itself for a manager."""
        return not self._swarm.members[machine].silent and self._engine(machine).member({}).manages

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
        return engine(self._store, name)


def remember(store: Store, name: str, role: str) -> None:
    """Put down what a machine is in its fleet's swarm."""
    with store.lock(name, "apply", lambda _: None):
        machine = store.load(name)
        if machine.swarm != role and machine.phase is Phase.READY:
            machine.swarm = role
            store.save(machine)


def engine(store: Store, name: str) -> Engine:
    """A machine's engine; raises MachinekitError while it has no address."""
    machine = store.load(name)
    if not machine.url:
        raise MachinekitError(f'machine "{name}" has no address yet', "run the same command again")
    tls = store.directory(name) if machine.tls else None
    return Engine(name, machine.url, tls, address(machine))


def address(machine: Machine) -> str:
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
