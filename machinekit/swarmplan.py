"""The steps from a swarm as it is to one as it should be, in order. Builder only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from machinekit.errors import MachinekitError
from machinekit.swarmapi import ERROR, INACTIVE, LOCKED, Member, Node
from machinekit.swarmstate import UID, Roster, Swarm, check, check_silent

FILE_LABELS = "machinekit.labels"  # a node's label with the keys of those that the file gave it
OUTSIDE = 'docs/swarm.md, "A manager outside"'
LEAVING = "machinekit.leaving"  # we drained it; a node that a person drained has no such label


class Action(StrEnum):
    """What a step does, as a person reads it."""

    START = "start the swarm"
    JOIN_MANAGER = "join the swarm as a manager"
    JOIN_WORKER = "join the swarm as a worker"
    PROMOTE = "become a manager"
    DEMOTE = "become a worker"
    LABEL = "label the node"
    DRAIN = "hand its tasks over"
    LEAVE = "leave the swarm"
    END = "leave the swarm, which ends"
    REMOVE = "remove its node from the swarm"


@dataclass(frozen=True)
class Step:
    """One step of a machine, or of the `node` of none. `labels` are all those that the node is to have."""

    action: Action
    machine: str
    node: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What it does, with the labels from the file."""
        keys = filter(None, self.labels.get(FILE_LABELS, "").split(","))
        return " ".join([self.action, *(f"{key}={self.labels[key]}" for key in keys)])

    def __str__(self) -> str:
        return f"{self.machine}: {self.text}"


def steps(roster: Roster, swarm: Swarm, leaving: Collection[str] = ()) -> list[Step]:
    """What makes the swarm as the roster says, in order; empty when it is. The machines `leaving` leave it.

    A machine that does not answer is left out (see `missing`), and so is one that the roster has apart or not at all.
    Raises MachinekitError for what would lose the quorum, two swarms, and a machine that is in a swarm of others.
    """
    check(roster, swarm.members)
    if not roster.machines and not leaving:
        return []
    if not roster.machines and not roster.apart:
        return _ending(swarm, leaving)
    stay = {name for name in roster.machines if name not in leaving}
    managers, workers = ([name for name in names if name in stay] for names in (roster.managers, roster.workers))
    _check_members(swarm, {*stay, *leaving})
    council = _Council({node.id: node.reachable for node in swarm.nodes if node.votes})
    if swarm.started:
        council.check(swarm)
        found = [
            step
            for node in swarm.strays()
            if swarm.stale(node) and (not roster.apart or node.hostname in (*roster.machines, *leaving))
            for step in _removal(node.hostname, node, council)
        ]
        found += _entries(managers, Action.JOIN_MANAGER, swarm, council)
    else:
        _check_start(managers, roster, swarm)
        council.join(managers[0])
        found = [Step(Action.START, managers[0]), *_entries(managers[1:], Action.JOIN_MANAGER, swarm, council)]
    found += _entries(workers, Action.JOIN_WORKER, swarm, council)
    found += _labels([*managers, *workers], roster, swarm)
    found += [step for name in workers for step in _demotion(name, swarm.node(name), council)]
    return found + [step for name in leaving for step in _exit(name, swarm, council)]


class QuorumError(MachinekitError):
    """A manager that the others cannot do without was to go."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f'"{name}" cannot stop being a manager: {why}, and the swarm would be lost',
            "add managers, or bring those back that do not answer, and then try again",
        )
        self.name = name


@dataclass
class _Council:
    """The managers as they will be after the steps so far: whether each answers."""

    votes: dict[str, bool]

    def join(self, key: str) -> None:
        self.votes[key] = True

    def check(self, swarm: Swarm) -> None:
        """Without a majority nothing can be changed."""
        if swarm.failure or not self._decides(self.votes):
            silent = ", ".join(node.hostname for node in swarm.nodes if node.votes and not node.reachable)
            why = "too few managers are online" if "leader" in swarm.failure else swarm.failure
            raise MachinekitError(
                f"the swarm has lost its quorum: {why or f'{silent} cannot be reached'}",
                'start its managers again; docs/swarm.md, "The quorum is lost", has what to do when they are gone',
            )

    def leave(self, name: str, key: str) -> None:
        """Raises QuorumError when the others could not decide without it."""
        left = {other: answers for other, answers in self.votes.items() if other != key}
        if not self._decides(left):
            why = "too few of the others answer" if left else "it is the only one"
            raise QuorumError(name, why)
        self.votes = left

    def _decides(self, votes: Mapping[str, bool]) -> bool:
        return sum(votes.values()) > len(votes) // 2


def _check_members(swarm: Swarm, names: Collection[str]) -> None:
    """Refuse what no step can mend."""
    clusters: dict[str, list[str]] = {}
    for name, member in swarm.members.items():
        if member.cluster:
            clusters.setdefault(member.cluster, []).append(name)
    if len(clusters) > 1:
        raise MachinekitError(
            f"there are {len(clusters)} swarms: of {'; of '.join(', '.join(names) for names in clusters.values())}",
            "choose one, and on the machines of the other: docker swarm leave --force",
        )
    if not swarm.started:
        check_silent(swarm, swarm.members)
    for name in sorted(names):
        member = swarm.members[name]
        if member.state == LOCKED:
            raise MachinekitError(f'the swarm of "{name}" is locked', f"machinekit ssh {name} docker swarm unlock")
        if member.state == ERROR and not swarm.started and member.was not in ("", "worker"):
            raise MachinekitError(f'manager "{name}" does not get into its swarm: {member.error}', OUTSIDE)
        if not swarm.failure and _foreign(member, swarm):
            raise MachinekitError(
                f'"{name}" is in a swarm that none of these machines manages{member.error and f": {member.error}"}',
                f"when it is of no use: machinekit ssh {name} docker swarm leave --force",
            )


def _foreign(member: Member, swarm: Swarm) -> bool:
    """Whether it is in a swarm, and that is not ours: one that ours removed still knows its managers."""
    if member.silent or member.manages or member.state == INACTIVE:
        return False
    marked = any(
        node.labels.get(UID) == member.marks.get(UID) for node in swarm.nodes
    )  # an engine may not know its node
    known = {member.node, *member.managers} & {node.id for node in swarm.nodes}
    return not known and not (member.state == ERROR and marked)


def _check_start(managers: list[str], roster: Roster, swarm: Swarm) -> None:
    """A second swarm must not begin while a silent machine may have the first."""
    for name in managers:
        if swarm.members[name].silent:
            raise MachinekitError(
                f'"{name}" does not answer, so that nobody knows whether it has the swarm already: '
                + swarm.members[name].error,
                f"start it, see machinekit status {name}; or take it off the managers",
            )
    if not managers and roster.apart:
        raise MachinekitError(
            "the swarm has not begun, and none of its managers is among the targets",
            "name one of them with --target too, or run apply without --target",
        )
    if not managers:
        raise MachinekitError("no manager is left", "name another one")


def _entries(names: Collection[str], join: Action, swarm: Swarm, council: _Council) -> list[Step]:
    """Joins and promotions. One that its swarm removed, or that cannot get into it, leaves first."""
    found = []
    for name in names:
        member, node = swarm.members[name], swarm.node(name)
        if member.silent:
            continue
        lapsed = swarm.lapsed(name)
        if lapsed:
            removal = _removal(name, node, council) if node else []
            found += [*removal[:-1], Step(Action.LEAVE, name), *removal[-1:]]
        if lapsed or node is None:
            found.append(Step(join, name))
        elif join is Action.JOIN_MANAGER and not node.manager:
            found.append(Step(Action.PROMOTE, name, node.id))
        else:
            continue
        if join is Action.JOIN_MANAGER:
            council.join(node.id if node and not lapsed else name)
    return found


def _labels(names: Collection[str], roster: Roster, swarm: Swarm) -> list[Step]:
    """Our marks and the file's labels; those that a person gave a node stay."""
    found = []
    for name in names:
        member, node = swarm.members[name], None if swarm.lapsed(name) else swarm.node(name)
        if member.silent and not node:
            continue
        there = dict(node.labels) if node else {}
        given = dict(roster.labels.get(name, {}))
        ours = {LEAVING, FILE_LABELS, *filter(None, there.get(FILE_LABELS, "").split(","))}
        kept = {key: value for key, value in there.items() if key not in ours}
        labels = {**kept, **given, **member.marks} | ({FILE_LABELS: ",".join(sorted(given))} if given else {})
        if labels != there:
            found.append(Step(Action.LABEL, name, node.id if node else "", labels))
    return found


def _demotion(name: str, node: Node | None, council: _Council) -> list[Step]:
    if node is None or not node.manager:
        return []
    council.leave(name, node.id)
    return [Step(Action.DEMOTE, name, node.id)]


def _removal(name: str, node: Node, council: _Council) -> list[Step]:
    """A manager that does not vote cannot be demoted, and is removed as it is."""
    return [*(_demotion(name, node, council) if node.votes else ()), Step(Action.REMOVE, name, node.id)]


def _exit(name: str, swarm: Swarm, council: _Council) -> list[Step]:
    """Tasks first, so that services go on; of a machine that is gone only the node is removed."""
    member, node = swarm.members[name], swarm.node(name)
    if node is None:
        return [] if member.silent or member.state == INACTIVE else [Step(Action.LEAVE, name)]
    removal = _removal(name, node, council)
    if member.silent:
        return removal
    return [Step(Action.DRAIN, name, node.id), *removal[:-1], Step(Action.LEAVE, name), removal[-1]]


def _ending(swarm: Swarm, leaving: Collection[str]) -> list[Step]:
    """There is to be no swarm: workers go first, and nothing is handed over."""
    there = [n for n in leaving if not swarm.members[n].silent and swarm.members[n].state != INACTIVE]
    return [Step(Action.END, name) for name in sorted(there, key=lambda name: bool(swarm.members[name].cluster))]
