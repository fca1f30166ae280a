"""A fleet's Swarm: what is not as the file says, and who joins and leaves it, in which order."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from machinekit import collect, drivers, swarm, swarmplan
from machinekit.errors import MachinekitError
from machinekit.fleetfile import Fleet
from machinekit.machine import Phase
from machinekit.plan import Action, Change, Difference, Plan
from machinekit.store import Store
from machinekit.work import Progress


def look(store: Store, fleet: Fleet, seen: dict[str, list[Difference]]) -> None:
    """Add to what was `seen` of the machines how the Swarm of those that are in it differs from the file."""
    roster = fleet.roster
    known = {name for name in roster.machines if name in seen and store.load(name).swarm}
    if known != set(roster.machines):
        return  # there are machines to be made first; then it is looked at again
    try:
        steps = swarmplan.steps(roster, swarm.look(store, roster.machines))
    except MachinekitError as error:
        seen[roster.managers[0]].append(Difference("swarm", error.message, "as in the file"))
        return
    for step in steps:
        seen.setdefault(step.machine, []).append(Difference("swarm", "as it is", step.text))


def concerns(store: Store, fleet: Fleet) -> bool:
    """Whether there is a Swarm, or is to be one."""
    return bool(fleet.managers) or any(store.load(name).swarm for name in _ours(store, fleet))


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


def exits(store: Store, fleet: Fleet, plan: Plan) -> tuple[Change, ...]:
    """The machines that have to leave a Swarm which goes on before they are removed or made anew, one by one."""
    if not fleet.managers:
        return ()
    ending = (change for change in plan.actions if change.action in (Action.REMOVE, Action.REPLACE))
    return tuple(change for change in ending if store.exists(change.name) and store.load(change.name).swarm)


def settle(store: Store, fleet: Fleet, progress: Progress, staying: Collection[str] = ()) -> list[str]:
    """Make the Swarm as the file says; returns what was done. Those `staying` leave later.

    Raises what `swarm.converge` raises.
    """
    members = {name for name in _ours(store, fleet) if store.load(name).swarm}
    leaving = sorted(members - set(fleet.roster.machines) - set(staying))
    done = swarm.converge(store, fleet.roster, progress, leaving, members & set(staying))
    for name in {*fleet.roster.machines, *leaving}:
        _remember(store, name, fleet.swarm_role(name))
    return done


def leave(store: Store, fleet: Fleet, name: str, progress: Progress) -> None:
    """Hand a machine's tasks over and take it out, before it is removed or made anew."""
    swarm.leave(store, name, fleet.roster, progress)
    _remember(store, name, "")


def _ours(store: Store, fleet: Fleet) -> Iterable[str]:
    records, _ = collect.records(store)
    return [name for name, record in records.items() if record.fleet == fleet.name]


def _remember(store: Store, name: str, role: str) -> None:
    with store.lock(name, "apply", lambda _: None):
        machine = store.load(name)
        if machine.swarm != role and machine.phase is Phase.READY:
            machine.swarm = role
            store.save(machine)
