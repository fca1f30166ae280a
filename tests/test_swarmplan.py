"""The steps of a swarm: given what should be and what is, this list."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from machinekit.errors import MachinekitError
from machinekit.swarmapi import Member, Node
from machinekit.swarmplan import FILE_LABELS, LEAVING, steps
from machinekit.swarmstate import ADDRESS, Roster, Swarm, check, missing

ALL = ("m1", "m2", "m3", "w1", "w2")
THREE = Roster(("m1", "m2", "m3"), ("w1",))
ONE = Roster(("m1",), ("w1",))


def marks(name: str) -> dict[str, str]:
    return {"machinekit.uid": f"uid-{name}", "machinekit.store": "here", "machinekit.name": name, ADDRESS: name}


def out(name: str) -> Member:
    """A machine that is in no swarm."""
    return Member(marks(name))


def silent(name: str) -> Member:
    """One that does not answer."""
    return Member(marks(name), silent=True, error="timed out")


def node(name: str, role: str, **more: Any) -> Node:
    manager = role == "manager"
    return replace(Node(f"n-{name}", name, manager, True, manager, manager, marks(name)), **more)


def swarm(*nodes: Node, **members: Member) -> Swarm:
    """Machines that are these nodes, and beside them those that are given."""
    managers = tuple(each.id for each in nodes if each.manager)
    found = {
        each.hostname: Member(
            *(marks(each.hostname), "active", each.id, each.manager, "ours" if each.manager else ""),
            () if each.manager else managers,
        )
        for each in nodes
    }
    return Swarm(found | members, nodes, {f"uid-{name}" for name in found | members})


def three(**members: Member) -> Swarm:
    return swarm(*(node(name, "manager") for name in THREE.managers), node("w1", "worker"), **members)


def one(**members: Member) -> Swarm:
    return swarm(node("m1", "manager"), node("w1", "worker"), **members)


def told(roster: Roster, there: Swarm, *leaving: str) -> list[str]:
    return list(map(str, steps(roster, there, leaving)))


def labels(**given: str) -> dict[str, str]:
    """A node's, of w1."""
    return {**marks("w1"), **given}


@pytest.mark.parametrize(
    ("roster", "there", "leaving", "wanted"),
    [
        pytest.param(THREE, three(), (), [], id="as it should be"),
        pytest.param(Roster(), three(), (), [], id="no swarm is wanted and nobody leaves"),
        pytest.param(
            *(THREE, swarm(**{name: out(name) for name in ALL}), ()),
            [
                *("m1: start the swarm", "m2: join the swarm as a manager", "m3: join the swarm as a manager"),
                *("w1: join the swarm as a worker", "m1: label the node", "m2: label the node"),
                *("m3: label the node", "w1: label the node"),
            ],
            id="a new one",
        ),
        pytest.param(
            *(ONE, swarm(m1=out("m1"), w1=silent("w1")), ()),
            ["m1: start the swarm", "m1: label the node"],
            id="a silent worker is left out",
        ),
        pytest.param(
            *(Roster(("m1",), ("w1", "w2")), one(w2=out("w2")), ()),
            ["w2: join the swarm as a worker", "w2: label the node"],
            id="one more",
        ),
        pytest.param(Roster(("m1", "w1")), one(), (), ["w1: become a manager"], id="promote"),
        pytest.param(
            *(Roster(("m1",), ("m2", "m3", "w1")), three(), ()),
            ["m2: become a worker", "m3: become a worker"],
            id="demote",
        ),
        pytest.param(
            *(Roster(("w1",), ("m1",)), one(), ()),
            ["w1: become a manager", "m1: become a worker"],
            id="the new manager first",
        ),
        pytest.param(
            *(replace(ONE, labels={"w1": {"tier": "web", "a": "b"}}), one(), ()),
            ["w1: label the node a=b tier=web"],
            id="labels",
        ),
        pytest.param(
            *(Roster(("m1",)), three(), ("w1",)),
            ["w1: hand its tasks over", "w1: leave the swarm", "w1: remove its node from the swarm"],
            id="a worker leaves",
        ),
        pytest.param(
            *(THREE, three(), ("m3",)),
            [
                *("m3: hand its tasks over", "m3: become a worker", "m3: leave the swarm"),
                "m3: remove its node from the swarm",
            ],
            id="a manager leaves, to come back",
        ),
        pytest.param(
            *(THREE, three(m3=silent("m3")), ("m3",)),
            ["m3: become a worker", "m3: remove its node from the swarm"],
            id="a manager that is gone",
        ),
        pytest.param(THREE, three(m3=silent("m3")), (), [], id="one that is silent stays"),
        pytest.param(
            *(THREE, three(m3=Member(marks("m3"), "error", error="cannot bind", was="manager")), ()),
            [
                *("m3: become a worker", "m3: leave the swarm", "m3: remove its node from the swarm"),
                *("m3: join the swarm as a manager", "m3: label the node"),
            ],
            id="a manager that does not get in with the address that it has now",
        ),
        pytest.param(
            *(
                THREE,
                swarm(
                    *(node("m1", "manager"), node("w1", "worker")),
                    *(node(name, "manager", ready=False, votes=False, reachable=False) for name in ("m2", "m3")),
                    **{name: silent(name) for name in ("m2", "m3")},
                ),
                ("m3",),
            ),
            ["m3: remove its node from the swarm"],
            id="after a new cluster was forced",
        ),
        pytest.param(
            *(Roster(("m2",), ("w1",)), swarm(node("m1", "manager"), node("w1", "worker"), m2=out("m2")), ("m1",)),
            [
                *("m2: join the swarm as a manager", "m2: label the node"),
                *("m1: hand its tasks over", "m1: become a worker", "m1: leave the swarm"),
                "m1: remove its node from the swarm",
            ],
            id="the only manager is exchanged",
        ),
        pytest.param(
            *(Roster(), three(), ("m1", "w1", "m2", "m3")),
            [f"{name}: leave the swarm, which ends" for name in ("w1", "m1", "m2", "m3")],
            id="the end",
        ),
        pytest.param(Roster(), swarm(w1=out("w1"), w2=silent("w2")), ("w1", "w2"), [], id="it has ended"),
        pytest.param(
            *(ONE, one(w1=Member(marks("w1"), "active", "n-before", managers=("n-m1",))), ()),
            [
                *("w1: remove its node from the swarm", "w1: leave the swarm"),
                *("w1: join the swarm as a worker", "w1: label the node"),
            ],
            id="one that the swarm has removed",
        ),
        pytest.param(
            *(ONE, one(w1=Member(marks("w1"), "error", "n-w1", managers=("n-m1",), error="expired")), ()),
            [
                *("w1: leave the swarm", "w1: remove its node from the swarm"),
                *("w1: join the swarm as a worker", "w1: label the node"),
            ],
            id="one that does not get in",
        ),
        pytest.param(
            *(ONE, swarm(node("m1", "manager"), node("w1", "worker", labels=labels(**{ADDRESS: "192.0.2.1"}))), ()),
            [
                *("w1: leave the swarm", "w1: remove its node from the swarm"),
                *("w1: join the swarm as a worker", "w1: label the node"),
            ],
            id="one that has another address",
        ),
        pytest.param(
            *(
                ONE,
                swarm(node("m1", "manager", labels={**marks("m1"), ADDRESS: "192.0.2.1"}), node("w1", "worker")),
                (),
            ),
            ["m1: label the node"],
            id="a manager that has another address and is heard",
        ),
    ],
)
def test_steps(roster: Roster, there: Swarm, leaving: tuple[str, ...], wanted: list[str]) -> None:
    assert told(roster, there, *leaving) == wanted


@pytest.mark.parametrize(
    ("stray", "goes"),
    [
        pytest.param(node("w1", "worker", id="old"), True, id="w1 is another node now"),
        pytest.param(node("w1", "worker", id="old", labels={}, ready=False), True, id="a name of ours that is down"),
        pytest.param(node("w1", "worker", id="old", labels={}), False, id="a name of ours that is up"),
        pytest.param(node("w9", "worker", ready=False), True, id="a machine that this store has no more"),
        pytest.param(node("w9", "worker"), False, id="the same, still up"),
        pytest.param(node("w2", "worker", ready=False), False, id="a machine that nobody looked at"),
        pytest.param(
            node("w9", "worker", ready=False, labels={"machinekit.uid": "x", "machinekit.store": "there"}),
            *(False,),
            id="another store's",
        ),
        pytest.param(node("w9", "worker", ready=False, labels={}), False, id="a person's"),
    ],
)
def test_only_what_is_left_of_ours_is_removed(stray: Node, goes: bool) -> None:
    there = one()
    there = replace(there, nodes=(*there.nodes, stray), known={*there.known, "uid-w2"})
    assert there.strays() == [stray]
    removal = [f"{stray.hostname}: remove its node from the swarm"]
    assert told(ONE, there) == (removal if goes else [])
    assert not goes or steps(ONE, there)[0].node == stray.id


@pytest.mark.parametrize(
    ("there", "given", "wanted"),
    [
        pytest.param({}, {"a": "1"}, {"a": "1", FILE_LABELS: "a"}, id="new"),
        pytest.param({"a": "1", FILE_LABELS: "a"}, {"b": "2"}, {"b": "2", FILE_LABELS: "b"}, id="exchanged"),
        pytest.param({"a": "1", FILE_LABELS: "a"}, {}, {}, id="taken away"),
        pytest.param({"hand": "x"}, {"a": "1"}, {"hand": "x", "a": "1", FILE_LABELS: "a"}, id="a person's stays"),
        pytest.param({"a": "1", FILE_LABELS: "a"}, {"a": "1"}, None, id="the same"),
        pytest.param({"hand": "x"}, {}, None, id="none"),
        pytest.param({LEAVING: "yes"}, {}, {}, id="it was to leave, and stays"),
    ],
)
def test_labels(there: dict[str, str], given: dict[str, str], wanted: dict[str, str] | None) -> None:
    found = steps(
        replace(ONE, labels={"w1": given}),
        swarm(node("m1", "manager"), node("w1", "worker", labels=labels(**there))),
    )
    assert [dict(step.labels) for step in found] == ([labels(**wanted)] if wanted is not None else [])


@pytest.mark.parametrize(
    ("roster", "there", "leaving", "why"),
    [
        (ONE, one(), ("m1",), '"m1" cannot stop being a manager: it is the only one'),
        (Roster(("m1",), ("w1",)), one(w2=silent("w2")), ("m1",), "it is the only one"),
        (
            Roster(THREE.managers),
            swarm(node("m1", "manager"), node("m2", "manager"), node("m3", "manager", reachable=False)),
            ("m2",),
            '"m2" cannot stop being a manager: too few of the others answer',
        ),
        (
            Roster(THREE.managers),
            swarm(
                *(node("m1", "manager"), node("m2", "manager", reachable=False)),
                node("m3", "manager", reachable=False),
            ),
            (),
            "the swarm has lost its quorum: m2, m3 cannot be reached",
        ),
        (Roster(("m11",)), one(), (), 'the swarm names "m11", which is no machine here; did you mean m1?'),
        (ONE, replace(one(), nodes=(), failure="timed out"), (), "the swarm has lost its quorum: timed out"),
        (Roster(("m1", "m9")), one(), (), 'the swarm names "m9", which is no machine here'),
        (Roster(("m1",), ("w1", "w1")), one(), (), 'the swarm names "w1" twice'),
        (Roster(("m1", "w1"), ("w1",)), one(), (), 'the swarm names "w1" twice'),
        (Roster((), ("w1",)), one(), (), "the swarm has workers and no manager"),
        (ONE, swarm(m1=silent("m1"), w1=out("w1")), (), '"m1" does not answer, so that nobody knows'),
        (ONE, swarm(m1=out("m1"), w1=out("w1")), ("m1",), "no manager is left"),
        (
            ONE,
            swarm(m1=out("m1"), w1=Member(marks("w1"), "active", "n", managers=("theirs",))),
            (),
            '"w1" is in a swarm that none of these machines manages',
        ),
        (
            ONE,
            one(w1=Member(marks("w1"), "active", "n", managers=("theirs",))),
            (),
            '"w1" is in a swarm that none of these machines manages',
        ),
        (ONE, one(w1=Member(marks("w1"), "active", "n", True, "theirs")), (), "there are 2 swarms: of m1; of w1"),
        (ONE, one(w1=Member(marks("w1"), "locked")), (), 'the swarm of "w1" is locked'),
        (
            ONE,
            swarm(m1=Member(marks("m1"), "error", error="cannot bind", was="manager"), w1=out("w1")),
            (),
            'manager "m1" does not get into its swarm: cannot bind',
        ),
        (
            Roster(("m1", "m2"), ("w1",)),
            swarm(
                *(node("m1", "manager"), node("m2", "manager", reachable=False)),
                m2=Member(marks("m2"), "error", error="cannot bind", was="manager"),
                w1=out("w1"),
            ),
            (),
            "the swarm has lost its quorum: m2 cannot be reached",
        ),
    ],
)
def test_refusals(roster: Roster, there: Swarm, leaving: tuple[str, ...], why: str) -> None:
    with pytest.raises(MachinekitError) as caught:
        steps(roster, there, leaving)
    assert why in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("number", [7, 8])
def test_at_most_seven_managers(number: int) -> None:
    names = tuple(f"m{index}" for index in range(number))
    if number == 7:
        check(Roster(names), names)
    else:
        with pytest.raises(MachinekitError, match="8 managers, more than 7"):
            check(Roster(names), names)


def test_who_is_missing() -> None:
    assert missing(Roster(("m1",), ("w1", "w2")), one(w1=silent("w1"), w2=silent("w2"))) == ["w2"]
