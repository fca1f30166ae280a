"""What a swarm should be, and what it is. Builder only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from machinekit.errors import MachinekitError, nearest
from machinekit.swarmapi import ERROR, INACTIVE, Member, Node

MOST = 7  # managers: https://docs.docker.com/engine/swarm/admin_guide/#add-manager-nodes-for-fault-tolerance
UID, STORE, NAME = "machinekit.uid", "machinekit.store", "machinekit.name"  # a node has a machine's marks as labels
JOINING = "joining"  # what a record says of a machine that may be in the swarm by now
ADDRESS = "machinekit.address"  # and the address that it was told of when it joined


@dataclass(frozen=True)
class Roster:
    """Which machines are to be managers and workers, and the labels of their nodes by machine. Empty: no swarm.

    Those `apart` may be of the same swarm: they are asked and not changed, and neither are nodes of none.
    """

    managers: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    apart: tuple[str, ...] = ()

    @property
    def machines(self) -> tuple[str, ...]:
        """Those that are to be in it."""
        return self.managers + self.workers


@dataclass(frozen=True)
class Swarm:
    """What there really is: the machines looked at, and the nodes of their swarm.

    `known` are the uids of all of the store's machines. `failure` is why the managers cannot tell the nodes.
    """

    members: Mapping[str, Member]
    nodes: tuple[Node, ...] = ()
    known: Collection[str] = ()
    failure: str = ""

    @property
    def started(self) -> bool:
        """Whether one of the machines manages one."""
        return any(member.manages for member in self.members.values())

    def holds(self, machine: str) -> bool:
        """Whether a machine is in it, or a node in it is what is left of the machine."""
        uids = (None, self.members[machine].marks.get(UID))
        left = (node for node in self.strays() if node.hostname == machine and node.labels.get(UID) in uids)
        return self.node(machine) is not None or any(map(self.stale, left))

    def node(self, machine: str) -> Node | None:
        """The node that a machine is: as its engine says, or where that cannot as the node's marks or name say."""
        member = self.members[machine]
        if member.node or not (member.silent or member.state == ERROR):
            return next((node for node in self.nodes if node.id == member.node), None)
        uid = member.marks.get(UID, "")
        marked = [node for node in self.nodes if uid and node.labels.get(UID) == uid]
        named = [node for node in self.nodes if UID not in node.labels and node.hostname == machine]
        return next(iter(marked + named), None)

    def lapsed(self, machine: str) -> bool:
        """Whether a machine has to join anew: its swarm has removed it, it does not get in, or it is a worker that
        has another address than it told the others."""
        member, node = self.members[machine], self.node(machine)
        if member.silent or member.state == INACTIVE:
            return False
        if node is None or member.state == ERROR:
            return True
        address = member.marks.get(ADDRESS)
        return not node.manager and node.labels.get(ADDRESS, address) != address

    def strays(self) -> list[Node]:
        """The nodes that are none of the machines looked at."""
        ours = {node.id for name in self.members if (node := self.node(name))}
        return [node for node in self.nodes if node.id not in ours]

    def stale(self, stray: Node) -> bool:
        """Whether it is what is left of a machine that is gone, or that says itself that it is another node now."""
        uid, members = stray.labels.get(UID), self.members.values()
        if any(member.marks.get(UID) == uid for member in members if not member.silent):
            return True
        if uid is None:
            return not stray.ready and stray.hostname in self.members
        ours = stray.labels.get(STORE) in {member.marks.get(STORE) for member in members}
        return not stray.ready and ours and uid not in self.known


def check(roster: Roster, known: Collection[str]) -> None:
    """Raise MachinekitError when these machines can be no swarm."""
    for name in roster.machines:
        if name not in known:
            raise MachinekitError(
                f'the swarm names "{name}", which is no machine here{nearest(name, known)}', "name one that there is"
            )
        if roster.machines.count(name) > 1:
            raise MachinekitError(f'the swarm names "{name}" twice', "a manager runs services too, as a worker does")
    if roster.workers and not roster.managers and not roster.apart:
        raise MachinekitError("the swarm has workers and no manager", "name one manager, or three to outlive one")
    if len(roster.managers) > MOST:
        raise MachinekitError(
            f"the swarm has {len(roster.managers)} managers, more than {MOST}", "make workers of some"
        )


def check_silent(swarm: Swarm, names: Collection[str]) -> None:
    """Raise MachinekitError when one of them does not answer and may be a manager: of what, nobody else knows."""
    for name in sorted(names):
        member = swarm.members[name]
        if member.silent and member.was in ("manager", JOINING):
            raise MachinekitError(
                f'"{name}" does not answer, so that nobody knows whether it has the swarm already: {member.error}',
                f"start it, see machinekit status {name}; docs/swarm.md, "
                '"The quorum is lost", has what to do when it is gone',
            )


def missing(roster: Roster, swarm: Swarm) -> list[str]:
    """The machines that should be in the swarm, are not, and do not answer."""
    return [name for name in roster.machines if swarm.members[name].silent and not swarm.node(name)]
