"""What no record knows is found and removed; what a record knows, or may know, never is."""

from __future__ import annotations

import pytest
from machinekit.providers.none import NoneOptions

from machinekit import dockercontext, gc, lifecycle, locks
from machinekit.create import create
from machinekit.errors import DriverError, LockedError, StoreError
from machinekit.machine import Machine
from machinekit.record import RECORD
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told
from tests.providers.fake import FakeCloud, FakeInstance, FakeOptions, Killed

OPTIONS = FakeOptions("s3cret")
SOURCES = [("fake", OPTIONS)]


@pytest.fixture
def machine(store: Store, told: Told, cloud: FakeCloud) -> Machine:
    """A machine that was created."""
    create(store, "node1", driver="fake", options=OPTIONS, spec=Spec(), progress=told)
    return store.load("node1")


def marks(name: str, uid: str, store: str) -> dict[str, str]:
    return {"machinekit.uid": uid, "machinekit.name": name, "machinekit.store": store}


def swept(store: Store, maker: str = "") -> list[str]:
    """Find and remove; what was removed, by kind and machine."""
    found = gc.find(store, SOURCES, maker)
    return [f"{garbage.kind} {garbage.machine}" for garbage in found.garbage if gc.remove(store, garbage)]


def test_what_a_record_knows_is_no_garbage(store: Store, machine: Machine, cloud: FakeCloud) -> None:
    dockercontext.use("node1", machine.uid, machine.url, None, machine.store)
    assert gc.find(store, SOURCES) == gc.Findings()


def test_a_lost_directory(store: Store, machine: Machine, cloud: FakeCloud) -> None:
    dockercontext.use("node1", machine.uid, machine.url, None, machine.store)
    store.remove("node1")
    assert swept(store) == ["context node1", "instance node1", "file node1"]
    assert (cloud.instances, cloud.disks, dockercontext.ours()) == ({}, {}, [])
    assert gc.find(store, SOURCES) == gc.Findings()


def test_what_another_store_made_is_only_counted(store: Store, machine: Machine, cloud: FakeCloud) -> None:
    cloud.instances["theirs"] = FakeInstance(marks("node9", "theirs", "their-store"))
    cloud.disks["d"] = marks("node8", "theirs too", "their-store")
    dockercontext.use("node9", "theirs", "tcp://192.0.2.1:1", None, "their-store")
    dockercontext.use("old", "of no store", "tcp://192.0.2.1:1", None)
    found = gc.find(store, SOURCES)
    assert found.garbage == []
    assert [(each.kind, each.machine, each.store) for each in found.foreign] == [
        ("context", "node9", "their-store"),
        ("context", "old", ""),
        ("instance", "node9", "their-store"),
        ("instance", "node8", "their-store"),
    ]
    assert swept(store, "their-store") == ["context node9", "instance node9", "instance node8"]
    assert (list(cloud.instances), len(cloud.disks)) == ([machine.uid], 1)
    assert [name for name, _, _ in dockercontext.ours()] == ["old"]


def test_a_machine_that_came_from_another_store_is_known(store: Store, machine: Machine, cloud: FakeCloud) -> None:
    machine.store = "their-store"
    store.save(machine)
    cloud.instances[machine.uid].marks["machinekit.store"] = "their-store"
    assert gc.find(store, SOURCES, "their-store").garbage == []


def test_without_an_identity_nothing_is_ours(store: Store, cloud: FakeCloud) -> None:
    cloud.instances["x"] = FakeInstance(marks("node1", "x", ""))
    found = gc.find(store, SOURCES)
    assert (found.garbage, len(found.foreign)) == ([], 1)
    assert not store.home.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": "1", "uid": 7}'])
def test_a_record_that_cannot_be_read_protects_its_machine(
    store: Store, machine: Machine, cloud: FakeCloud, text: str
) -> None:
    dockercontext.use("node1", machine.uid, machine.url, None, machine.store)
    (store.directory("node1") / RECORD).write_text(text)
    assert gc.find(store, SOURCES).garbage == []
    (store.directory("node1") / RECORD).unlink()
    assert gc.find(store, SOURCES).garbage == []


def test_a_newer_record_is_known(store: Store, machine: Machine, cloud: FakeCloud) -> None:
    machine.schema = 99
    store.save(machine)
    assert gc.find(store, SOURCES).garbage == []


def test_a_store_that_cannot_be_read_is_not_empty(store: Store, machine: Machine, cloud: FakeCloud) -> None:
    store.machines.rename(store.home / "elsewhere")
    store.machines.write_text("a file")
    with pytest.raises(StoreError, match=r"cannot read .*machines: Not a directory"):
        gc.find(store, SOURCES)
    assert len(cloud.instances) == 1


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_identity_is_an_error(store: Store, machine: Machine, cloud: FakeCloud, text: str) -> None:
    (store.home / "store-id").write_text(text)
    with pytest.raises(StoreError, match="store-id is empty"):
        gc.find(store, SOURCES)
    with pytest.raises(StoreError, match="store-id is empty"):
        store.identity()


@pytest.mark.parametrize("name", ["../../etc", "", "a b", "x" * 64])
def test_a_name_that_we_never_gave(store: Store, machine: Machine, cloud: FakeCloud, name: str) -> None:
    cloud.instances["x"] = FakeInstance(marks(name, "x", machine.store))
    assert gc.find(store, SOURCES) == gc.Findings()


@pytest.mark.parametrize("where", ["create disk", "create"])
def test_a_create_that_goes_on_meanwhile(store: Store, told: Told, cloud: FakeCloud, where: str) -> None:
    """Killed right after the request, as another process would see it while the create is under way."""
    cloud.dying.add(where)
    with pytest.raises(Killed):
        create(store, "node1", driver="fake", options=OPTIONS, spec=Spec(), progress=told)
    with store.lock("node1", "create", print):
        assert gc.find(store, SOURCES) == gc.Findings()
    found = gc.find(store, SOURCES)
    assert (found.garbage, list(found.unfinished)) == ([], ["node1"])
    assert "run the same machinekit create again" in found.unfinished["node1"].hint


def test_a_machine_that_is_born_between_finding_and_removing(
    store: Store, machine: Machine, cloud: FakeCloud, told: Told
) -> None:
    """Its record comes back, from a backup or because the store was not mounted."""
    record = (store.directory("node1") / RECORD).read_bytes()
    dockercontext.use("node1", machine.uid, machine.url, None, machine.store)
    (store.machines / ".draft-node1").mkdir()
    store.remove("node1")
    found = gc.find(store, SOURCES).garbage
    assert [each.kind for each in found] == ["context", "instance", "file", "file"]
    with store.lock("node1", "create", print):
        for each in found:
            with pytest.raises(LockedError):
                gc.remove(store, each)
    store.directory("node1").mkdir()
    (store.directory("node1") / RECORD).write_bytes(record)
    # the lock of a machine that is there is no leftover either; the draft is one, whatever has its name
    assert [gc.remove(store, each) for each in found] == [False, False, False, True]
    assert (len(cloud.instances), len(cloud.disks), len(dockercontext.ours())) == (1, 1, 1)


def test_another_machine_of_the_same_name(store: Store, machine: Machine, cloud: FakeCloud, told: Told) -> None:
    store.remove("node1")
    create(store, "node1", driver="fake", options=OPTIONS, spec=Spec(), progress=told)
    (store.directory("node1") / "disk").write_text("not to be touched")
    assert swept(store) == ["instance node1"]
    assert list(cloud.instances) == [store.load("node1").uid]
    assert (store.directory("node1") / "disk").exists()
    lifecycle.provision(store, "node1", told)


def test_leftovers_of_killed_commands(store: Store, machine: Machine) -> None:
    left = [
        store.machines / ".draft-node2",
        store.removed / "node3",
        store.directory("node1") / f".{RECORD}.draft",
        store.images / "disk" / ".draft-debian-12-abc_d123",
        store.locks / "node4",
        store.home / ".store-id-0123",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.name.startswith(".draft-") or path.parent == store.removed else path.touch()
    for link in (store.removed / "link", store.machines / ".draft-not a name"):
        link.symlink_to(store.directory("node1"))
    with store.lock("node1", "provision", print), store.lock("node3", "rm", print):
        assert [each.what for each in gc.find(store, []).garbage] == [
            str(left[5]),
            str(store.removed / "link"),
            str(left[0]),
            str(left[4]),
            str(left[3]),
        ]
    assert len(swept(store)) == 7
    assert not [path for path in left if path.exists()]
    assert store.load("node1") == machine, "a link is removed, not what it points to"


def test_a_draft_of_an_image_that_is_being_built(store: Store) -> None:
    draft = store.images / "disk" / ".draft-debian-12-abc_d123"
    draft.mkdir(parents=True)
    with locks.held(draft.with_name(".lock-debian-12"), "it", "build", patience=0):
        assert gc.find(store, []).garbage == []
    found = gc.find(store, []).garbage
    with locks.held(draft.with_name(".lock-debian-12"), "it", "build", patience=0):
        gc.remove(store, found[0])
        assert draft.exists()
    gc.remove(store, found[0])
    assert not draft.exists()


def test_a_driver_that_does_not_answer_does_not_hide_the_rest(store: Store, machine: Machine, cloud: FakeCloud) -> None:
    (store.machines / ".draft-node2").mkdir()
    cloud.failing.add("list")
    found = gc.find(store, [*SOURCES, ("none", NoneOptions("tcp://192.0.2.1:1"))])
    assert [each.kind for each in found.garbage] == ["file"]
    assert {name: error.message for name, error in found.silent.items()} == {"fake": "the provider refuses to list"}


@pytest.mark.parametrize("where", ["destroy", "release"])
def test_a_removal_that_is_killed_is_gone_on_from(store: Store, machine: Machine, cloud: FakeCloud, where: str) -> None:
    store.remove("node1")
    cloud.dying.add(where)
    with pytest.raises(Killed):
        swept(store)
    swept(store)
    assert (cloud.instances, cloud.disks) == ({}, {})
    assert gc.find(store, SOURCES) == gc.Findings()


@pytest.mark.parametrize("where", ["destroy", "release"])
def test_a_removal_that_fails_is_found_again(store: Store, machine: Machine, cloud: FakeCloud, where: str) -> None:
    store.remove("node1")
    cloud.failing_once.add(where)
    with pytest.raises(DriverError, match=f"refuses to {where}"):
        swept(store)
    assert swept(store) == ["instance node1"]
    assert (cloud.instances, cloud.disks) == ({}, {})
