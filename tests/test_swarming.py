"""The Swarm of a fleet: what a plan tells of it, who may be touched, who leaves, and what Ctrl-C tells."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machinekit import fleet, plan, swarming, swarmplan, swarmwork
from machinekit.errors import MachinekitError
from machinekit.plan import Plan
from machinekit.store import Store
from machinekit.wanted import Fleet
from tests.conftest import Told
from tests.swarmserver import World, world

MANAGERS, WORKERS = ("m-1", "m-2", "m-3"), ("w-1", "w-2")
SWARM = "swarm: {managers: [m-1, m-2, m-3], workers: [w-1, w-2]}\n"


@pytest.fixture
def engines(store: Store) -> Iterator[World]:
    """Five machines of a fleet, whose engines are in no swarm."""
    with world(store) as engines:
        engines.add(*MANAGERS, *WORKERS)
        for name in engines.engines:
            machine = store.load(name)
            machine.fleet = "ci"
            store.save(machine)
        yield engines


class Fleets:
    """Fleet files over the engines."""

    def __init__(self, store: Store, file: Path) -> None:
        self.store, self.file = store, file
        self.urls = {name: store.load(name).url for name in store.names()}

    def __call__(self, *names: str, swarm: str = SWARM) -> Fleet:
        """One of these machines, or of all."""
        machines = (
            f"{{name: {name}, driver: none, none: {{url: '{self.urls[name]}'}}}}" for name in names or self.urls
        )
        self.file.write_text(f"version: 1\nname: ci\nmachines: [{', '.join(machines)}]\n{swarm}")
        return fleet.load(self.file, {})

    def planned(self, wanted: Fleet, **how: Any) -> Plan:
        """What would be done, without what differs on the hosts."""
        records = {name: self.store.load(name) for name in self.store.names()}
        return swarming.planned(self.store, wanted, plan.make(wanted, records, {}, **how))

    def settle(self, wanted: Fleet, told: Told, *names: str) -> list[str]:
        """Of all, or of some."""
        return swarming.settle(self.store, wanted, told, names or self.store.names())


@pytest.fixture
def fleets(store: Store, engines: World, tmp_path: Path) -> Fleets:
    """Their files."""
    return Fleets(store, tmp_path / "machinekit.yaml")


def lines(made: Plan) -> list[str]:
    """What a plan tells of the Swarm."""
    return [
        f"{change.action} {change.name}: {each.after if each.before == 'as it is' else each.before}"
        for change in made.actions
        for each in change.differences
    ]


def forget(store: Store, *names: str) -> None:
    """As if a kill had come before the records were written."""
    for name in names:
        machine = store.load(name)
        machine.swarm = ""
        store.save(machine)


def test_the_plan_tells_every_step(store: Store, told: Told, fleets: Fleets) -> None:
    wanted = fleets()
    made = fleets.planned(wanted)
    assert lines(made) == [
        *("change m-1: start the swarm", "change m-1: label the node"),
        *(
            f"change {name}: {text}"
            for name in ("m-2", "m-3")
            for text in ("join the swarm as a manager", "label the node")
        ),
        *(f"change {name}: {text}" for name in WORKERS for text in ("join the swarm as a worker", "label the node")),
    ]
    done = fleets.settle(wanted, told)
    assert sorted(line.partition(" ")[2] for line in lines(made)) == sorted(done)
    assert lines(fleets.planned(wanted)) == []
    store.remove("w-2")
    wanted = fleets("m-1", "m-2", "m-3", "w-1", "w-2")
    assert lines(fleets.planned(wanted)) == [
        "create w-2: join the swarm as a worker",
        "create w-2: label the node",
    ]


def test_who_is_in_the_swarm_is_asked_and_not_only_read(store: Store, told: Told, fleets: Fleets) -> None:
    fleets.settle(fleets(), told)
    forget(store, *MANAGERS, *WORKERS)
    wanted = fleets("m-1", "m-2", "w-1", swarm="swarm: {managers: [m-1, m-2], workers: [w-1]}\n")
    made = fleets.planned(wanted)
    assert [change.name for change in swarming.exits(store, wanted, made)] == ["m-3", "w-2"]
    assert lines(made)[-3:] == [
        "remove w-2: hand its tasks over",
        "remove w-2: leave the swarm",
        "remove w-2: remove its node from the swarm",
    ]
    assert "remove m-3: become a worker" in lines(made)


def test_a_machine_that_stays_and_is_no_more_in_the_swarm_leaves_it(store: Store, told: Told, fleets: Fleets) -> None:
    fleets.settle(fleets(), told)
    forget(store, "w-2")
    wanted = fleets(swarm=SWARM.replace(", w-2", ""))
    assert lines(fleets.planned(wanted))[-1] == "change w-2: remove its node from the swarm"
    assert fleets.settle(wanted, told)[-1] == "w-2: remove its node from the swarm"


def test_what_is_left_of_a_machine_that_somebody_removed_is_planned(
    store: Store, told: Told, engines: World, fleets: Fleets
) -> None:
    wanted = fleets()
    fleets.settle(wanted, told)
    wanted = fleets("m-1", "m-2", "m-3", "w-1", swarm=SWARM.replace(", w-2", ""))
    engines.engines["w-2"].running = False
    store.remove("w-2")
    assert lines(fleets.planned(wanted)) == ["change m-1: with what is left of w-2"]
    assert fleets.settle(wanted, told) == ["w-2: remove its node from the swarm"]
    assert lines(fleets.planned(wanted)) == []


def test_only_targets_are_touched(store: Store, told: Told, engines: World, fleets: Fleets) -> None:
    less = fleets(swarm="swarm: {managers: [m-1, m-2], workers: [w-2]}\n")
    fleets.settle(less, told)
    other = engines.engines["w-2"].node
    assert other
    other.labels.clear()
    wanted = fleets(swarm="swarm: {managers: [m-1, m-3], workers: [m-2, w-1, w-2]}\n")
    made = fleets.planned(wanted, targets=["w-1"])
    assert lines(made) == ["change w-1: join the swarm as a worker", "change w-1: label the node"]
    engines.requests.clear()
    assert fleets.settle(wanted, told, "w-1") == ["w-1: join the swarm as a worker", "w-1: label the node"]
    node = engines.engines["w-1"].node
    assert node
    changed = [request for request in engines.requests if " GET " not in request]
    assert changed == ["w-1 POST /swarm/join", f"m-1 POST /nodes/{node.id}/update"]
    assert [store.load(name).swarm for name in ("m-1", "m-2", "m-3", "w-1", "w-2")] == [
        *("manager", "manager", "", "worker", "worker")
    ]


def test_a_target_needs_a_swarm_that_has_begun(store: Store, told: Told, engines: World, fleets: Fleets) -> None:
    wanted = fleets()
    with pytest.raises(MachinekitError, match="none of its managers is among the targets"):
        fleets.settle(wanted, told, "w-1")
    assert "none of its managers" in lines(fleets.planned(wanted, targets=["w-1"]))[0]
    assert fleets.settle(wanted, told, "m-2", "w-1")[0] == "m-2: start the swarm"
    engines.engines["m-2"].running = False
    with pytest.raises(MachinekitError, match='"m-2" does not answer'):
        fleets.settle(wanted, told, "m-1")  # which could begin a second one
    engines.engines["m-2"].running = True
    fleets.settle(wanted, told)
    assert len(engines.shown()) == 5


def test_a_target_that_is_in_no_swarm_does_not_need_one(
    store: Store, told: Told, engines: World, fleets: Fleets
) -> None:
    wanted = fleets(swarm="swarm: {managers: [m-1, m-2], workers: [w-1]}\n")
    fleets.settle(wanted, told)
    for name in ("m-1", "m-2"):
        engines.engines[name].running = False
    assert fleets.settle(wanted, told, "w-2") == []
    assert lines(fleets.planned(wanted, targets=["w-2"])) == []


def test_the_managers_of_the_file_tell_the_nodes(store: Store, told: Told, engines: World, fleets: Fleets) -> None:
    engines.add("a-1")
    other = store.load("a-1")
    other.fleet = "ci"
    store.save(other)
    fleets.settle(fleets(*MANAGERS, *WORKERS), told)
    swarmwork.engine(store, "a-1").start()  # by hand
    wanted = fleets("m-1", "m-2", "m-3", "w-1", swarm=SWARM.replace(", w-2", ""))
    made = fleets.planned(wanted)
    assert [change.name for change in swarming.exits(store, wanted, made)] == ["w-2"]


def test_a_target_alone_does_not_end_the_swarm(store: Store, told: Told, fleets: Fleets) -> None:
    fleets.settle(fleets(), told)
    nothing = fleets(swarm="")
    assert fleets.settle(nothing, told, "m-3")[:2] == ["m-3: hand its tasks over", "m-3: become a worker"]
    assert fleets.settle(nothing, told)[-1] == "m-2: leave the swarm, which ends"


def test_the_only_manager_is_not_made_anew(store: Store, told: Told, engines: World, fleets: Fleets) -> None:
    wanted = fleets("m-1", "w-1", swarm="swarm: {managers: [m-1], workers: [w-1]}\n")
    for name in ("m-2", "m-3", "w-2"):
        store.remove(name)
    fleets.settle(wanted, told)
    with pytest.raises(swarmplan.QuorumError, match='"m-1" cannot stop being a manager: it is the only one'):
        fleets.planned(wanted, replace=["m-1"])
    with pytest.raises(swarmplan.QuorumError):
        swarming.leave(store, wanted, "m-1", told, store.names())
    engines.engines["w-1"].running = False
    said = lines(fleets.planned(wanted, replace=["m-1"]))
    assert any("it is the only one" in line for line in said), "what apply makes of the worker comes first"
    engines.engines["m-1"].running = False
    assert f"replace m-1: {swarming.LOST}" in lines(fleets.planned(wanted, replace=["m-1"]))


def test_a_machine_made_anew_leaves_and_comes_back(store: Store, told: Told, fleets: Fleets) -> None:
    fleets.settle(fleets(), told)
    assert lines(fleets.planned(fleets(), replace=["m-2"])) == [
        *("replace m-2: hand its tasks over", "replace m-2: become a worker", "replace m-2: leave the swarm"),
        *("replace m-2: remove its node from the swarm", "replace m-2: join the swarm as a manager"),
        "replace m-2: label the node",
    ]


@pytest.mark.usefixtures("as_at_a_terminal")
def test_ctrl_c_tells_what_was_done(store: Store, engines: World, fleets: Fleets) -> None:
    wanted = fleets()
    engines.add("w-9")
    for name in store.names():
        machine = store.load(name)
        machine.fleet, machine.swarm = "ci", wanted.swarm_role(name)
        store.save(machine)
    engines.hanging = "m-2 POST /swarm/join"
    command = [sys.executable, "-m", "machinekit", "apply", "--yes", "--no-refresh", "--file", str(fleets.file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("m-2: Swarm: join"):
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "  the swarm: m-1: start the swarm; run machinekit apply again, it goes on from here\n" in said
