"""A fleet's Swarm: what is not as the file says, and who joins and leaves it, in which order.

Who is in it is asked of the engines; a record is believed where none that manages the Swarm answers. The names that are
given are the machines that may be touched: all of the fleet's, or the targets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from machinekit import collect, drivers, swarm, swarmplan
from machinekit.errors import MachinekitError
from machinekit.machine import Machine
from machinekit.plan import Action, Change, Difference, Plan
from machinekit.store import Store
from machinekit.swarmapi import Member
from machinekit.swarmplan import Step
from machinekit.swarmstate import NAME, UID, Roster, Swarm
from machinekit.swarmwork import remember
from machinekit.wanted import Fleet
from machinekit.work import Progress

WHAT = "swarm"  # a difference is about
LOST = "no other manager answers: the services, networks and secrets that it knows are lost with it"
EXITS = (swarmplan.Action.DRAIN, swarmplan.Action.DEMOTE, swarmplan.Action.LEAVE, swarmplan.Action.REMOVE)
ENDINGS = (Action.REMOVE, Action.REPLACE)


def concerns(store: Store, fleet: Fleet) -> bool:
    """Whether there is a Swarm, or is to be one."""
    return bool(fleet.managers) or any(machine.swarm for machine in _ours(store, fleet).values())


def remarks(fleet: Fleet) -> list[str]:
    """What keeps the machines of the Swarm from reaching each other, a line for each option that changes it."""
    members = [machine for machine in fleet.machines if fleet.swarm_role(machine.name)]
    lacking: dict[str, list[str]] = {}
    for machine in members if len(members) > 1 else ():
        if option := drivers.load(machine.driver).option_for_peers(machine.options):
            lacking.setdefault(f"{machine.driver}.{option}", []).append(machine.group)
    return [
        f"no other machine of the Swarm can reach {', '.join(dict.fromkeys(groups))}: set {key}, see docs/swarm.md"
        for key, groups in lacking.items()
    ]


def planned(store: Store, fleet: Fleet, plan: Plan) -> Plan:
    """The plan, with what will be done to the Swarm beside; raises QuorumError where that would lose it."""
    if not concerns(store, fleet):
        return plan
    there = _look(store, fleet)
    going = [change.name for change in _exits(fleet, plan, there)]
    names = [change.name for change in plan.changes]
    host = next((name for name in names if fleet.swarm_role(name)), names[0] if names else "")
    found: dict[str, list[Difference]] = {name: [] for name in names}
    for change in plan.actions:
        if fleet.managers and change.action in ENDINGS and _was_manager(there, change.name) and not there.started:
            found[change.name].append(Difference(WHAT, LOST, "a new one"))
    there = replace(there, members={**there.members, **_newborn(plan, going)})
    try:
        for step in _steps(_Parts.of(fleet, there, names, going), there, going):
            if step.machine in found:
                found[step.machine].append(Difference(WHAT, "as it is", step.text))
            elif host:
                found[host].append(Difference(WHAT, f"with what is left of {step.machine}", step.text))
    except MachinekitError as error:
        # what does not answer now may do so once the machines are as they should be
        silent = any(member.silent for member in there.members.values())
        if isinstance(error, swarmplan.QuorumError) and error.name in going and not silent:
            raise
        if host:
            found[host].append(Difference(WHAT, error.message, "as in the file"))
    return replace(plan, changes=tuple(_with(change, found[change.name]) for change in plan.changes))


def exits(store: Store, fleet: Fleet, plan: Plan) -> tuple[Change, ...]:
    """The machines that have to leave a Swarm which goes on before they are removed or made anew, one by one."""
    if not fleet.managers or not any(change.action in ENDINGS for change in plan.actions):
        return ()
    return _exits(fleet, plan, _look(store, fleet))


def settle(
    store: Store,
    fleet: Fleet,
    progress: Progress,
    names: Collection[str],
    staying: Collection[str] = (),
    *,
    done: list[str] | None = None,
) -> list[str]:
    """Make the Swarm as the file says; returns what was done. Those `staying` leave later.

    `done` is as for `swarm.converge`; raises what that raises.
    """
    parts = _Parts.of(fleet, _look(store, fleet), names, staying)
    done = swarm.converge(store, parts.roster, progress, parts.leaving, parts.beside, done=done)
    for name in {*parts.roster.machines, *parts.leaving}:
        remember(store, name, fleet.swarm_role(name))
    return done


def leave(
    store: Store,
    fleet: Fleet,
    name: str,
    progress: Progress,
    names: Collection[str],
    *,
    done: list[str] | None = None,
) -> list[str]:
    """Hand a machine's tasks over and take it out, before it is removed or made anew; as `settle` otherwise."""
    parts = _Parts.of(fleet, _look(store, fleet), names, (name,))
    done = swarm.leave(store, name, parts.roster, progress, done=done)
    remember(store, name, "")
    return done


@dataclass(frozen=True)
class _Parts:
    """What `swarm.converge` is to be told."""

    roster: Roster
    leaving: tuple[str, ...]
    beside: tuple[str, ...]

    @classmethod
    def of(cls, fleet: Fleet, there: Swarm, names: Collection[str], staying: Collection[str]) -> _Parts:
        """Of those names that are to be in the Swarm, and of those that are in it."""
        whole, inside = fleet.roster, _inside(fleet, there)
        managers, workers = (tuple(name for name in some if name in names) for some in (whole.managers, whole.workers))
        apart = dict.fromkeys(name for name in (*whole.machines, *inside) if name not in names)
        leaving = (name for name in inside if name in names and name not in (*whole.machines, *staying))
        return cls(
            Roster(managers, workers, whole.labels, tuple(apart)),
            tuple(leaving),
            tuple(name for name in inside if name in staying),
        )

    @property
    def machines(self) -> tuple[str, ...]:
        """All that are asked."""
        return (*self.roster.machines, *self.roster.apart, *self.leaving, *self.beside)


def _look(store: Store, fleet: Fleet) -> Swarm:
    return swarm.look(store, (*fleet.roster.machines, *_ours(store, fleet)))  # its managers tell the nodes


def _ours(store: Store, fleet: Fleet) -> dict[str, Machine]:
    records, _ = collect.records(store)
    return {name: record for name, record in records.items() if record.fleet == fleet.name}


def _inside(fleet: Fleet, there: Swarm) -> list[str]:
    """The machines that are in the Swarm. One that the file does not want is only ours where a record says so."""
    if fleet.managers and there.nodes:
        return [name for name in there.members if there.holds(name)]
    return [name for name, member in there.members.items() if member.was]


def _exits(fleet: Fleet, plan: Plan, there: Swarm) -> tuple[Change, ...]:
    if not fleet.managers:
        return ()
    inside = _inside(fleet, there)
    ending = (change for change in plan.actions if change.action in ENDINGS and change.name in inside)
    return tuple(change for change in ending if there.started or not _is_gone(change))


def _is_gone(change: Change) -> bool:
    return any(each.what == "instance" and each.replaces for each in change.differences)


def _was_manager(there: Swarm, name: str) -> bool:
    member = there.members.get(name)
    return member is not None and member.was == "manager"


def _newborn(plan: Plan, going: Collection[str]) -> Mapping[str, Member]:
    """The machines that will be in no Swarm when it is their turn."""
    anew = (change for change in plan.actions if change.action in (Action.CREATE, *ENDINGS))
    return {change.name: _blank(change.name) for change in anew if change.name not in going}


def _blank(name: str) -> Member:
    return Member({UID: "", NAME: name})


def _steps(parts: _Parts, there: Swarm, going: Collection[str]) -> Iterator[Step]:
    """Those of all machines that stay, then for each that is going those out, and in again."""
    there = replace(there, members={name: there.members[name] for name in parts.machines})
    yield from swarmplan.steps(parts.roster, there, parts.leaving)
    for name in going:
        out = swarmplan.steps(parts.roster, there, (*parts.leaving, name))
        yield from (step for step in out if step.machine == name and step.action in EXITS)
        nodes = tuple(node for node in there.nodes if node != there.node(name))
        back = replace(there, members={**there.members, name: _blank(name)}, nodes=nodes)
        yield from (step for step in swarmplan.steps(parts.roster, back, parts.leaving) if step.machine == name)


def _with(change: Change, found: list[Difference]) -> Change:
    """What is seen says more than the record."""
    if not found:
        return change
    others = (each for each in change.differences if each.what != WHAT)
    action = Action.CHANGE if change.action is Action.KEEP else change.action
    return replace(change, action=action, differences=(*others, *found))
