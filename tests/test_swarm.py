"""Swarms of engines on loopback: made, changed, left, and killed at every request that changes something."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinekit import swarm, swarmwork
from machinekit.errors import EngineError, MachinekitError
from machinekit.store import Store
from machinekit.swarmapi import Engine
from machinekit.swarmstate import Roster
from tests.conftest import Told
from tests.swarmserver import FakeEngine, World, world

ROSTER = Roster(("m-1", "m-2", "m-3"), ("w-1", "w-2"), {"w-1": {"tier": "web"}})
MADE = {"m-1": "manager", "m-2": "manager", "m-3": "manager", "w-1": "worker tier=web", "w-2": "worker"}


@pytest.fixture
def engines(store: Store) -> Iterator[World]:
    """Six machines, whose engines are in no swarm."""
    with world(store) as engines:
        engines.add(*ROSTER.machines, "extra")
        yield engines


def changes(engines: World) -> list[str]:
    """The requests so far that were no questions."""
    return [request for request in engines.requests if " GET " not in request]


def test_a_swarm_is_made_and_stays(store: Store, told: Told, engines: World) -> None:
    done = swarm.converge(store, ROSTER, told)
    assert engines.shown() == MADE
    assert done[0] == "m-1: start the swarm"
    assert "w-1: label the node tier=web" in done
    engines.requests.clear()
    assert swarm.converge(store, ROSTER, told) == []
    assert changes(engines) == []


def test_what_differs_is_changed(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    node = engines.engines["w-2"].node
    assert node
    node.labels["by-hand"] = "yes"
    node.availability = "pause"
    other = Roster(("m-1", "m-2", "w-1"), ("m-3", "w-2"), {"w-2": {"tier": "db"}})
    assert swarm.converge(store, other, told) == [
        "w-1: become a manager",
        "w-1: label the node",
        "w-2: label the node tier=db",
        "m-3: become a worker",
    ]
    assert engines.shown() == {
        **{"m-1": "manager", "m-2": "manager", "m-3": "worker"},
        **{"w-1": "manager", "w-2": "worker pause by-hand=yes tier=db"},
    }


def test_a_machine_leaves(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    engines.requests.clear()
    after = Roster(("m-1", "m-3"), ("w-1", "w-2"), ROSTER.labels)
    assert swarm.leave(store, "m-2", after, told) == [
        "m-2: hand its tasks over",
        "m-2: become a worker",
        "m-2: leave the swarm",
        "m-2: remove its node from the swarm",
    ]
    assert engines.shown() == {name: text for name, text in MADE.items() if name != "m-2"}
    assert swarm.leave(store, "m-2", after, told) == []
    assert swarm.leave(store, "w-2", ROSTER, told)[-1] == "w-2: remove its node from the swarm"  # it is to come back
    assert "w-2" not in engines.shown()


def test_a_swarm_ends(store: Store, told: Told, engines: World) -> None:
    assert swarm.leave(store, "m-1", ROSTER, told) == []  # none has begun, and none begins
    assert engines.shown() == {}
    swarm.converge(store, ROSTER, told)
    assert swarm.leave(store, "w-2", Roster(), told) == ["w-2: leave the swarm, which ends"]
    swarm.converge(store, Roster(), told, leaving=ROSTER.machines)
    assert engines.shown() == {}
    assert swarm.converge(store, Roster(), told, leaving=ROSTER.machines) == []


def test_its_tasks_run_elsewhere_first(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    node, other = engines.engines["w-1"].node, engines.engines["w-2"].node
    assert node
    assert other

    def task(node_id: str, wanted: str, state: str, service: str = "web") -> dict[str, object]:
        return {"ServiceID": service, "NodeID": node_id, "DesiredState": wanted, "Status": {"State": state}}

    elsewhere = task("", "running", "pending", "broken")  # of a service that was never there
    engines.tasks = [
        [task(node.id, "running", "running"), elsewhere],
        [task(node.id, "shutdown", "running"), task(other.id, "ready", "preparing"), elsewhere],
        [task(node.id, "shutdown", "shutdown"), task(other.id, "ready", "ready"), elsewhere],
        [task(node.id, "shutdown", "shutdown"), task(other.id, "running", "running"), elsewhere],
    ]
    swarm.leave(store, "w-1", ROSTER, told)
    assert len(engines.tasks) == 1
    order = [request for request in engines.requests if "tasks" in request or "leave" in request]
    assert order[-1] == "w-1 POST /swarm/leave"
    assert told.notes == []


def test_tasks_with_no_other_place_are_told(
    store: Store, told: Told, engines: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarmwork, "TASKS", 0.2)
    swarm.converge(store, ROSTER, told)
    node = engines.engines["w-1"].node
    assert node
    engines.tasks = [[{"ServiceID": "a", "NodeID": node.id, "DesiredState": "running", "Status": {"State": "running"}}]]
    swarm.leave(store, "w-1", ROSTER, told)
    assert told.notes == ["w-1: not all of its tasks run elsewhere after 0.2 s; they end with the machine"]


def test_a_machine_that_is_gone_leaves_its_node(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    for name in ("m-1", "w-1"):
        engines.engines[name].running = False
    after = Roster(("m-1", "m-2", "m-3"), ("w-2",))
    assert swarm.leave(store, "w-1", after, told) == ["w-1: remove its node from the swarm"]
    assert swarm.leave(store, "m-1", after, told) == ["m-1: become a worker", "m-1: remove its node from the swarm"]
    assert sorted(engines.shown()) == ["m-2", "m-3", "w-2"]


def test_what_vanished_is_removed_when_its_successor_comes(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    engines.engines["w-1"].running = False
    store.remove("w-1")
    before = engines.engines.pop("w-1")
    engines.add("w-1")  # another address, and the marks of another machine
    machine = store.load("w-1")
    machine.uid = "another"
    store.save(machine)
    assert swarm.converge(store, ROSTER, told) == [
        "w-1: remove its node from the swarm",
        "w-1: join the swarm as a worker",
        "w-1: label the node tier=web",
    ]
    assert not before.running
    assert engines.shown() == MADE


def test_silent_machines_keep_no_other_one_out(store: Store, told: Told, engines: World) -> None:
    engines.engines["w-1"].running = False
    with pytest.raises(
        EngineError, match=r"w-1 cannot be put into the swarm: the engine at \S+ answers nothing"
    ) as caught:
        swarm.converge(store, ROSTER, told)
    assert caught.value.hint
    assert sorted(engines.shown()) == ["m-1", "m-2", "m-3", "w-2"]
    engines.engines["w-1"].running = True
    swarm.converge(store, ROSTER, told)
    assert engines.shown() == MADE


def test_a_worker_that_cannot_join_keeps_no_other_one_back(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, Roster(ROSTER.managers), told)
    engines.engines["w-1"].ip = "192.0.2.99"  # it is not where its record says
    with pytest.raises(EngineError) as caught:
        swarm.converge(store, Roster(ROSTER.managers, ROSTER.workers, {"w-2": {"tier": "db"}}), told)
    assert caught.value.message.startswith("w-1 cannot join the swarm as a worker: the engine at tcp://127.0.0.1:")
    assert engines.shown() == {"m-1": "manager", "m-2": "manager", "m-3": "manager", "w-2": "worker tier=db"}


def test_no_second_swarm_while_a_manager_is_silent(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, Roster(("m-1",), ("w-1",)), told)
    engines.engines["m-1"].running = False
    with pytest.raises(MachinekitError, match='"m-1" does not answer, so that nobody knows'):
        swarm.converge(store, Roster(("m-2", "m-1")), told)
    assert engines.engines["m-2"].node is None


def test_the_only_manager_is_exchanged(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, Roster(("m-1",)), told)
    after = Roster(("m-2",))
    swarm.converge(store, after, told, beside=("m-1",))
    assert engines.shown() == {"m-1": "manager", "m-2": "manager"}
    swarm.leave(store, "m-1", after, told)
    assert engines.shown() == {"m-2": "manager"}


def test_another_manager_answers_where_one_does_not(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    engines.engines["m-1"].running = False
    swarm.converge(store, Roster(ROSTER.managers, ("w-1", "w-2", "extra")), told)
    assert engines.engines["extra"].node
    engines.engines["m-2"].running = False
    with pytest.raises(MachinekitError, match="lost its quorum: too few managers are online"):
        swarm.converge(store, ROSTER, told)


def test_a_lost_quorum_is_not_taken_for_a_swarm_of_others(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    for name in ("m-2", "m-3"):
        engines.engines[name].running = False
    for call in (swarm.converge, lambda *rest: swarm.leave(rest[0], "w-1", *rest[1:])):
        with pytest.raises(MachinekitError, match="lost its quorum") as caught:
            call(store, ROSTER, told)
        assert "The quorum is lost" in caught.value.hint
    engines.engines["m-1"].running = False
    for call in (swarm.converge, lambda *rest: swarm.leave(rest[0], "w-1", *rest[1:])):
        with pytest.raises(MachinekitError, match='"m-1" does not answer, so that nobody knows'):
            call(store, ROSTER, told)


def test_a_step_that_is_through_is_told_though_a_later_one_fails(store: Store, told: Told, engines: World) -> None:
    engines.engines["m-2"].ip = "192.0.2.99"  # it is not where its record says
    done: list[str] = []
    with pytest.raises(EngineError, match="m-2 cannot join"):
        swarm.converge(store, ROSTER, told, done=done)
    assert done == ["m-1: start the swarm"]
    assert [store.load(name).swarm for name in ROSTER.machines] == ["manager", "joining", "", "", ""]


def test_an_earlier_node_of_a_name_goes_while_a_later_one_is_a_manager(
    store: Store, told: Told, engines: World
) -> None:
    swarm.converge(store, ROSTER, told)
    engine = engines.engines["m-3"]
    cluster, earlier = engine.cluster, engine.node
    assert cluster
    assert earlier
    earlier.labels, earlier.engine = {}, FakeEngine(engines, "m-3", "192.0.2.99")  # it is down, and nobody marked it
    engine.node = None
    engine._enter(cluster, "manager", engine_addresses(engine.ip))
    done = swarm.converge(store, ROSTER, told)
    assert done[:2] == ["m-3: become a worker", "m-3: remove its node from the swarm"]
    assert engines.shown() == MADE
    assert store.load("m-3").swarm == "manager"


def test_a_manager_that_does_not_get_in_joins_anew(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    for name in ("m-3", "w-2"):
        engines.engines[name].state = "error"
    assert [line for line in swarm.converge(store, ROSTER, told) if line.startswith("m-3")] == [
        *("m-3: become a worker", "m-3: leave the swarm", "m-3: remove its node from the swarm"),
        *("m-3: join the swarm as a manager", "m-3: label the node"),
    ]
    assert engines.shown() == MADE
    for name in ROSTER.managers:
        engines.engines[name].state = "error"
    with pytest.raises(MachinekitError, match='manager "m-1" does not get into its swarm: error'):
        swarm.converge(store, ROSTER, told)


def engine_addresses(ip: str) -> dict[str, str]:
    """What a join says of the engine that joins."""
    return {"ListenAddr": f"{ip}:2377", "AdvertiseAddr": ip, "DataPathAddr": ip}


def test_a_change_that_came_between_is_kept(store: Store, told: Told, engines: World) -> None:
    swarm.converge(store, ROSTER, told)
    node = engines.engines["w-1"].node
    assert node
    engine = swarmwork.engine(store, "m-1")

    def edit(spec: dict[str, object]) -> None:
        if node.version < 5:
            node.version += 1  # somebody else's
        spec["Availability"] = "pause"

    engine.change(node.id, edit)
    assert (node.availability, node.version) == ("pause", 6)


def test_an_address_that_only_this_computer_reaches(store: Store, told: Told, engines: World) -> None:
    machine = store.load("m-1")
    machine.peer_address = ""
    store.save(machine)
    with pytest.raises(MachinekitError, match=r'"m-1" has no address at which other machines reach it \(127.0.0.1\)'):
        swarm.converge(store, ROSTER, told)


def test_tokens_are_told_to_nobody(store: Store, told: Told, engines: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    swarm.converge(store, ROSTER, told)
    cluster = engines.engines["m-1"].cluster
    assert cluster
    files = "".join(path.read_text() for path in store.home.rglob("*") if path.is_file())
    said = caplog.text + repr(told) + files
    assert not [token for token in cluster.tokens.values() if token in said]
    assert "SWMTKN" not in said


def test_a_refusal_tells_no_token(store: Store, told: Told, engines: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "token", lambda engine, role: "SWMTKN-of-another")
    with pytest.raises(EngineError, match="refuses: invalid join token") as caught:
        swarm.converge(store, ROSTER, told)
    assert "SWMTKN" not in f"{caught.value.message}{caught.value.hint}"
    assert caught.value.hint


class Killer:
    """Runs `tests.swarmkilling` on a store."""

    def __init__(self, store: Store) -> None:
        command = [sys.executable, "-m", "tests.swarmkilling", str(store.home)]
        self._process = subprocess.Popen(
            command, text=True, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, roster: Roster, leaving: str = "", kill: int = -1) -> tuple[int, int]:
        """How a call ended, and how many changes it asked for."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([roster.managers, roster.workers, roster.labels, leaving, kill]) + "\n")
        self._process.stdin.flush()
        code, steps = json.loads(self._process.stdout.readline())
        return code, steps

    def end(self) -> None:
        """Wait until it has ended."""
        self._process.communicate()


@pytest.fixture
def killer(store: Store, engines: World) -> Iterator[Killer]:
    """Calls in processes that kill themselves."""
    killer = Killer(store)
    yield killer
    killer.end()


GROWN = {**MADE, "m-3": "worker", "w-1": "manager tier=web", "extra": "worker"}


@pytest.mark.parametrize("way", ["make", "change", "leave"])
def test_killed_at_any_request(store: Store, engines: World, killer: Killer, way: str) -> None:
    """The same call again goes on: one swarm, and each machine is one node of it, which its record tells at once."""
    changed = Roster(("m-1", "m-2", "w-1"), ("m-3", "w-2", "extra"), ROSTER.labels)
    without = Roster(("m-1", "m-3"), ("w-1", "w-2"), ROSTER.labels)
    before, roster, leaving, after = {
        "make": (None, ROSTER, "", MADE),
        "change": (ROSTER, changed, "", GROWN),
        "leave": (ROSTER, without, "m-2", {name: text for name, text in MADE.items() if name != "m-2"}),
    }[way]
    for kill in itertools.count():
        engines.reset()
        if before:
            assert killer(before)[0] == 0
        code, changes = killer(roster, leaving, kill)
        if code != -signal.SIGKILL:
            break
        inside = [name for name, engine in engines.engines.items() if engine.node]
        assert all(store.load(name).swarm for name in inside), f"killed at {kill}"
        assert killer(roster, leaving)[0] == 0
        assert engines.shown() == after, f"killed at {kill}"
        assert killer(roster, leaving) == (0, 0)
    assert (code, kill) == (0, 2 * changes)
    assert changes >= 4
