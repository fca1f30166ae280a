"""Power, certificates and removal, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from machinekit.providers.none import NoneOptions

from machinekit import dockercontext, lifecycle
from machinekit.create import create
from machinekit.errors import DriverError, GoneError, LockedError, MachinekitError, NoSuchMachineError, StoreError
from machinekit.machine import Machine, Phase, State
from machinekit.record import RECORD
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told
from tests.providers.fake import Fake, FakeCloud, FakeInstance, FakeOptions, Killed
from tests.servers import Server, engine

Verb = Callable[[Store, str, Told], list[str]]
VERBS: dict[str, Verb] = {
    "start": lifecycle.start,
    "stop": lifecycle.stop,
    "kill": lifecycle.kill,
    "restart": lifecycle.restart,
    "provision": lifecycle.provision,
}


@pytest.fixture
def instance(store: Store, told: Told, cloud: FakeCloud) -> FakeInstance:
    """The instance of a machine that was created."""
    create(store, "node1", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)
    told.steps.clear()
    return cloud.instances[store.load("node1").uid]


@pytest.mark.parametrize(
    ("verb", "before", "after", "changed"),
    [
        ("start", State.RUNNING, State.RUNNING, []),
        ("start", State.STOPPED, State.RUNNING, ["started"]),
        ("stop", State.RUNNING, State.STOPPED, ["stopped"]),
        ("stop", State.STOPPED, State.STOPPED, []),
        ("kill", State.RUNNING, State.STOPPED, ["stopped"]),
        ("kill", State.STOPPED, State.STOPPED, []),
        ("kill", State.PAUSED, State.STOPPED, ["stopped"]),
        ("restart", State.RUNNING, State.RUNNING, ["stopped", "started"]),
        ("restart", State.STOPPED, State.RUNNING, ["started"]),
        ("provision", State.RUNNING, State.RUNNING, []),
        ("provision", State.STOPPED, State.RUNNING, ["started"]),
    ],
)
def test_what_a_verb_changes(
    store: Store, told: Told, instance: FakeInstance, verb: str, before: State, after: State, changed: list[str]
) -> None:
    instance.state = before
    assert VERBS[verb](store, "node1", told) == changed
    assert instance.state is after


@pytest.mark.parametrize(("verb", "made"), [("stop", []), ("kill", []), ("start", GoneError), ("provision", GoneError)])
def test_an_instance_that_is_gone(
    store: Store, told: Told, cloud: FakeCloud, instance: FakeInstance, verb: str, made: object
) -> None:
    cloud.instances.clear()
    if isinstance(made, type):
        with pytest.raises(GoneError, match='the instance of "node1" does not exist any more'):
            VERBS[verb](store, "node1", told)
    else:
        assert VERBS[verb](store, "node1", told) == made


def test_a_changed_address_is_remembered(store: Store, told: Told, cloud: FakeCloud, instance: FakeInstance) -> None:
    instance.state, instance.address = State.STOPPED, "127.0.0.2"
    lifecycle.start(store, "node1", told)
    assert store.load("node1").address == "127.0.0.2"


@pytest.mark.parametrize("verb", VERBS)
def test_a_machine_that_does_not_exist(store: Store, told: Told, verb: str) -> None:
    with pytest.raises(NoSuchMachineError):
        VERBS[verb](store, "node1", told)
    assert store.names() == []


@pytest.mark.parametrize("verb", ["start", "stop", "kill", "restart"])
def test_no_power_where_the_driver_has_none(store: Store, told: Told, verb: str) -> None:
    with Server(engine) as server:
        options = NoneOptions(f"tcp://127.0.0.1:{server.port}")
        create(store, "node1", driver="none", options=options, spec=Spec(), progress=told)
        with pytest.raises(MachinekitError, match='"node1" cannot be powered on or off through driver none'):
            VERBS[verb](store, "node1", told)
        with pytest.raises(MachinekitError, match="are not ours to renew"):
            lifecycle.regenerate_certs(store, "node1", told)
    lifecycle.remove(store, "node1", told)
    assert store.names() == []


def test_remove_leaves_no_trace(store: Store, told: Told, cloud: FakeCloud, instance: FakeInstance) -> None:
    machine = store.load("node1")
    dockercontext.use("node1", machine.uid, machine.url, store.directory("node1"))
    lifecycle.remove(store, "node1", told)
    assert (cloud.instances, cloud.disks, store.names()) == ({}, {}, [])
    assert [path for path in store.home.parent.rglob("*") if "node1" in path.name] == []
    with pytest.raises(MachinekitError):  # its context is free for another machine
        lifecycle.provision(store, "node1", told)
    dockercontext.use("node1", "another", machine.url, None)


@pytest.mark.parametrize("where", ["destroy", "release"])
def test_a_kill_while_removing_is_gone_on_from(
    store: Store, told: Told, cloud: FakeCloud, instance: FakeInstance, where: str
) -> None:
    cloud.dying.add(where)
    with pytest.raises(Killed):
        lifecycle.remove(store, "node1", told)
    assert store.load("node1").phase is Phase.REMOVING
    lifecycle.remove(store, "node1", told)
    assert (cloud.instances, cloud.disks, store.names()) == ({}, {}, [])


@pytest.mark.parametrize("where", ["destroy", "release"])
def test_a_provider_that_fails_keeps_the_record_unless_forced(
    store: Store, told: Told, cloud: FakeCloud, instance: FakeInstance, where: str
) -> None:
    cloud.failing.add(where)
    with pytest.raises(DriverError, match=f"refuses to {where}"):
        lifecycle.remove(store, "node1", told)
    assert store.load("node1").resources
    lifecycle.remove(store, "node1", told, force=True)
    assert store.names() == []
    said = f"node1: forgotten, but perhaps not gone: the provider refuses to {where}; machinekit gc finds what is left"
    assert told.notes == [said]


def test_a_disk_that_fails_does_not_keep_a_record_that_is_forced_out(
    store: Store, told: Told, cloud: FakeCloud, instance: FakeInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def destroy(self: Fake) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Fake, "destroy", destroy)
    with pytest.raises(OSError, match="Input/output error"):
        lifecycle.remove(store, "node1", told)
    lifecycle.remove(store, "node1", told, force=True)
    assert store.names() == []
    assert "perhaps not gone: [Errno 5] Input/output error" in told.notes[0]


def test_a_verb_waits_for_another_one(
    store: Store, told: Told, instance: FakeInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machinekit.store.LOCK_PATIENCE", 0.1)
    with store.lock("node1", "create", print), pytest.raises(LockedError):
        lifecycle.stop(store, "node1", told)
    assert told.notes[0].startswith('node1: waiting: machine "node1" is held by create (pid ')
    assert instance.state is State.RUNNING


@pytest.mark.parametrize("record", ["{", '{"schema": 1}', '{"schema": 99}'])
def test_rm_drops_a_record_that_cannot_be_read_only_when_forced(store: Store, told: Told, record: str) -> None:
    store.reserve(Machine("node1", "uid", "fake", "s", ""))
    (store.directory("node1") / RECORD).write_text(record)
    with pytest.raises(StoreError):
        lifecycle.remove(store, "node1", told)
    lifecycle.remove(store, "node1", told, force=True)
    assert store.names() == []
    assert "perhaps not gone" in told.notes[0]


@pytest.mark.parametrize("more", [{"driver": "no-such-driver"}, {"spec": {"colour": "red"}}])
def test_rm_drops_what_this_installation_cannot_handle_only_when_forced(
    store: Store, told: Told, cloud: FakeCloud, more: dict[str, Any]
) -> None:
    store.reserve(Machine(**{"name": "node1", "uid": "uid", "driver": "fake", "store": "s", "created": "", **more}))
    with pytest.raises(MachinekitError):
        lifecycle.remove(store, "node1", told)
    lifecycle.remove(store, "node1", told, force=True)
    assert store.names() == []
