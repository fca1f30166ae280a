"""Make machines a swarm, and take them out of it, over their engines' API. Join tokens stay in memory.

Each call looks at what there is and goes on from that, so that a call that was killed is only to be made again. A
machine's record is only told what it has become. Whoever calls holds the lock of what the machines are from.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from machinekit.errors import DeadlineError, EngineError, MachinekitError
from machinekit.store import Store
from machinekit.swarmapi import PENDING, Member
from machinekit.swarmplan import steps
from machinekit.swarmstate import ADDRESS, NAME, STORE, UID, Roster, Swarm, check_silent, missing
from machinekit.swarmwork import AGAIN, THREADS, SwarmWork, address, engine
from machinekit.work import Progress

SETTLE = 30.0  # seconds for an engine that is just getting into its swarm
ROUNDS = 4  # of looking and doing what is left


def look(store: Store, machines: Iterable[str]) -> Swarm:
    """What swarm the machines are now; engines are asked in parallel, each for some seconds at most."""
    names = list(dict.fromkeys(machines))
    with ThreadPoolExecutor(THREADS) as pool:
        members = dict(zip(names, pool.map(lambda name: _member(store, name), names), strict=True))
    known, _ = store.known_uids()
    failure = ""
    for name in (name for name, member in members.items() if member.manages):
        try:
            return Swarm(members, engine(store, name).nodes(), known)
        except EngineError as error:
            failure = error.message
    return Swarm(members, (), known, failure)


def converge(
    store: Store,
    roster: Roster,
    progress: Progress,
    leaving: Collection[str] = (),
    beside: Collection[str] = (),
    *,
    done: list[str] | None = None,
) -> list[str]:
    """Make the swarm as the roster says, without those `leaving`; returns what was done, empty means "unchanged".

    Machines `beside` may be in the swarm too, perhaps as its only managers so far, and stay for now. Those that do not
    answer keep no other one from it; the ones that should be in the swarm and are not are an EngineError afterwards.
    A list `done` is added to as soon as a step is through. Raises what `swarmplan.steps` raises before anything is
    changed.
    """
    done = [] if done is None else done
    swarm = _converged(store, roster, progress, done, leaving=leaving, beside=beside)
    if lost := [name for name in missing(roster, swarm) if name not in leaving]:
        why = "; ".join(dict.fromkeys(swarm.members[name].error for name in lost))
        raise EngineError(f"{', '.join(lost)} cannot be put into the swarm: {why}", AGAIN)
    return done


def leave(store: Store, name: str, roster: Roster, progress: Progress, *, done: list[str] | None = None) -> list[str]:
    """Take a machine out of its swarm before it is removed or made anew; returns what was done.

    `roster` is what the swarm is to be afterwards; it may name the machine, which then comes back. The machine's tasks
    are handed over first. Of a machine that is gone already the node is removed. Raises what `converge` does.
    """
    done = [] if done is None else done
    if roster.machines or roster.apart:
        swarm = look(store, (*roster.machines, *roster.apart, name))
        if not swarm.started:  # to leave is no reason to start one
            check_silent(swarm, {*swarm.members} - {name})
            return done
    _converged(store, roster, progress, done, leaving=(name,))
    return done


def _converged(
    store: Store,
    roster: Roster,
    progress: Progress,
    done: list[str],
    *,
    leaving: Collection[str],
    beside: Collection[str] = (),
) -> Swarm:
    names = (*roster.machines, *roster.apart, *leaving, *beside)
    swarm = _settled(store, names)
    for _ in range(ROUNDS):
        left = steps(roster, swarm, leaving)
        if not left:
            return swarm
        SwarmWork(store, swarm, progress, done).carry_out(left)
        swarm = _settled(store, names)
    if left := steps(roster, swarm, leaving):
        raise DeadlineError(f"the swarm does not become as it should be; still to be done: {left[0]}", AGAIN)
    return swarm


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
    was = ""
    try:
        machine = store.load(name)
        marks = {UID: machine.uid, STORE: machine.store, NAME: name, ADDRESS: address(machine)}
        was = machine.swarm
        return engine(store, name).member(marks, was)
    except MachinekitError as error:
        return Member(marks, was=was, silent=True, error=error.message)
