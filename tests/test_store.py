"""The state on disk: whole or not at all, locked by the kernel, read without writing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest

from machinekit import store as module
from machinekit.errors import LockedError, NoSuchMachineError, StoreError
from machinekit.machine import SCHEMA, Machine, Phase, Resource
from machinekit.record import RECORD
from machinekit.store import Store, home


def machine(name: str = "node1", **more: Any) -> Machine:
    return Machine(name, f"uid-of-{name}", "none", "a-store", "2026-01-01T00:00:00Z", **more)


@pytest.mark.parametrize(
    ("given", "variables", "found"),
    [
        ("/given", {"MACHINEKIT_HOME": "/ours", "MACHINE_STORAGE_PATH": "/theirs"}, "/given"),
        ("", {"MACHINEKIT_HOME": "/ours", "MACHINE_STORAGE_PATH": "/theirs"}, "/ours"),
        ("", {"MACHINEKIT_HOME": "", "MACHINE_STORAGE_PATH": "/theirs"}, "/theirs"),
        ("~/x", {"HOME": "/people/me"}, "/people/me/x"),
        ("", {"HOME": "/people/me", "MACHINEKIT_HOME": "", "XDG_DATA_HOME": "/data"}, "/data/machinekit"),
    ],
)
def test_where_the_store_is(environment: pytest.MonkeyPatch, given: str, variables: dict[str, str], found: str) -> None:
    for key, value in variables.items():
        environment.setenv(key, value)
    assert home(given) == Path(found)


def test_a_relative_home_is_made_absolute(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.chdir(tmp_path)
    assert home("x") == tmp_path / "x"


def test_a_record_is_read_back(store: Store) -> None:
    one = machine(phase=Phase.READY, resources=[Resource("disk", "d")], done=["a"], options={"tags": ["x"]}, url="u")
    store.reserve(one)
    assert store.load("node1") == one
    assert store.read("node1")["url"] == "u"
    one.url = "v"
    store.save(one)
    assert store.load("node1").url == "v"


def test_only_the_owner_may_read(store: Store) -> None:
    store.reserve(machine())
    store.write("node1", "key.pem", b"secret")
    store.identity()
    with store.lock("node1", "test", print):
        modes = {path.name: path.stat().st_mode & 0o077 for path in [store.home, *store.home.rglob("*")]}
    assert {name for name, mode in modes.items() if mode} == set()


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        ([], []),
        (["node10", "node9", "Node1"], ["Node1", "node9", "node10"]),
        (["b", "a", "10", "9"], ["9", "10", "a", "b"]),
        (["a2b10", "a2b9", "a"], ["a", "a2b9", "a2b10"]),
    ],
)
def test_names_in_natural_order(store: Store, names: list[str], ordered: list[str]) -> None:
    for name in names:
        store.reserve(machine(name))
    (store.machines / ".draft-x").mkdir(parents=True)
    (store.machines / "a-file").touch()
    assert store.names() == ordered


def test_reading_writes_nothing(store: Store) -> None:
    assert store.names() == []
    assert not store.exists("node1")
    with pytest.raises(NoSuchMachineError):
        store.read("node1")
    assert not store.home.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "node1/", "../machines/node1", ".draft-node1"])
def test_a_path_is_no_machine(store: Store, name: str) -> None:
    store.reserve(machine())
    (store.machines / ".draft-node1").mkdir()
    assert store.exists("node1")
    assert not store.exists(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nod1", 'machine "nod1" does not exist; did you mean node1?'), ("web", 'machine "web" does not exist')],
)
def test_a_name_that_is_not_there(store: Store, name: str, said: str) -> None:
    store.reserve(machine())
    with pytest.raises(NoSuchMachineError) as caught:
        store.load(name)
    assert caught.value.message == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot read "),
        ("{", "cannot read "),
        ("\udcff", "cannot read "),
        ("[" * 100_000, "cannot read "),
        ('{"schema": 1, "url": "\\ud800"}', "cannot read "),
        ("[]", "is not a machinekit record"),
        ("{}", "is not a machinekit record"),
        ('{"schema": "1"}', "is not a machinekit record"),
        ('{"schema": 1}', "is not a machinekit record: 'phase'"),
        ('{"schema": true}', "is not a machinekit record"),
        ('{"schema": 1, "phase": "ready", "resources": [], "address": 7}', "address is 7"),
        (f'{{"schema": {SCHEMA + 1}}}', "was written by a newer machinekit"),
        ('{"schema": 1, "phase": "flying", "resources": []}', "'flying' is not a valid Phase"),
        ('{"schema": 1, "phase": "ready", "resources": [], "colour": 1}', "colour"),
        ('{"schema": 1, "phase": "ready", "resources": [{"size": 1}]}', "size"),
    ],
)
def test_a_record_that_cannot_be_read(store: Store, text: str, said: str) -> None:
    store.reserve(machine())
    (store.directory("node1") / RECORD).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError) as caught:
        store.load("node1")
    assert said in caught.value.message
    assert not isinstance(caught.value, NoSuchMachineError)


def test_a_draft_that_was_left_is_no_obstacle(store: Store) -> None:
    for leftover in (store.machines / ".draft-node1", store.removed / "node1"):
        leftover.mkdir(parents=True)
        (leftover / "junk").touch()
    store.reserve(machine())
    (store.directory("node1") / f".{RECORD}.draft").write_text("half")
    store.save(machine(url="u"))
    assert sorted(path.name for path in store.directory("node1").iterdir()) == [RECORD]
    store.remove("node1")
    store.remove("node1")
    assert list(store.machines.iterdir()) == list(store.removed.iterdir()) == []


def test_a_name_is_taken_once(store: Store) -> None:
    store.reserve(machine())
    with pytest.raises(StoreError, match='cannot write the record of "node1"'):
        store.reserve(machine(url="other"))
    assert store.load("node1").url == ""


def test_a_full_or_foreign_disk_is_named(store: Store) -> None:
    store.home.parent.mkdir(exist_ok=True)
    store.home.write_text("a file")
    with pytest.raises(StoreError) as caught:
        store.reserve(machine())
    assert caught.value.message == f"cannot keep machines in {store.home}: File exists"
    assert "$MACHINEKIT_HOME" in caught.value.hint
    with pytest.raises(StoreError), store.lock("node1", "test", print):
        pass


def test_a_write_is_whole_or_not_at_all(store: Store) -> None:
    store.reserve(machine())
    killed = """
import os, sys
from pathlib import Path
from machinekit.store import Store
store, kill = Store(Path(sys.argv[1])), int(sys.argv[2])
calls = 0
real = os.fsync
def fsync(descriptor):
    global calls
    calls += 1
    if calls == kill:
        os._exit(9)
    real(descriptor)
os.fsync = fsync
machine = store.load("node1")
machine.address = "x" * 100_000
store.save(machine)
"""
    for kill in (1, 2, 3):
        command = [sys.executable, "-c", killed, str(store.home), str(kill)]
        code = subprocess.run(command, check=False).returncode
        assert code == (9 if kill < 3 else 0)
        assert len(store.load("node1").address) in (0, 100_000)


def test_one_identity_for_many_who_ask_at_once(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        identities = set(pool.map(lambda _: Store(store.home).identity(), range(32)))
    assert len(identities) == 1
    assert [path.name for path in store.home.iterdir()] == ["store-id"]
    assert len(identities.pop()) == 32


def test_a_lock_waits_and_says_for_whom(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.reserve(machine())
    heard: list[str] = []
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def holder() -> None:
        with store.lock("node1", "create", heard.append):
            inside.set()
            leave.wait(10)
            order.append("first")

    def waiting(text: str) -> None:
        heard.append(text)
        leave.set()

    thread = threading.Thread(target=holder)
    thread.start()
    assert inside.wait(10)
    with store.lock("node1", "rm", waiting):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert len(heard) == 1
    assert heard[0].startswith(f'machine "node1" is held by create (pid {os.getpid()}) since ')


def test_a_lock_is_not_waited_for_without_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE", 0.2)
    with (
        store.lock("node1", "create", print),
        pytest.raises(LockedError, match='"node1" is held by create'),
        Store(store.home).lock("node1", "rm", lambda _: None),
    ):
        pass


def test_a_lock_dies_with_its_process(store: Store) -> None:
    store.reserve(machine())
    holder = (
        "import sys, time; from pathlib import Path; from machinekit.store import Store\n"
        "with Store(Path(sys.argv[1])).lock('node1', 'create', print):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", holder, str(store.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
    heard: list[str] = []
    with store.lock("node1", "rm", heard.append):
        store.remove("node1")
    assert heard == []
    assert list((store.home / "locks").iterdir()) == [], "a machine that is gone leaves no lock"


def test_two_machines_do_not_wait_for_each_other(store: Store) -> None:
    heard: list[str] = []
    with store.lock("a", "create", heard.append), store.lock("b", "create", heard.append):
        assert heard == []


def test_a_record_is_json_for_people_too(store: Store) -> None:
    store.reserve(machine())
    text = (store.directory("node1") / RECORD).read_text()
    assert json.loads(text) == machine().to_json()
    keys = [line.strip().partition(":")[0] for line in text.splitlines()]
    assert keys == ["{", *(f'"{key}"' for key in machine().to_json()), "}"], "a line for each"


def test_what_a_killed_remove_left_is_swept(store: Store) -> None:
    grave = store.removed / "node0"
    grave.mkdir(parents=True)
    (grave / "key.pem").write_text("secret")
    store.reserve(machine())
    assert not grave.exists()


def test_taking_a_name_lists_no_other_machines(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thousand of them, made at once, that was a quarter of all the waiting for each other."""
    store.reserve(machine())
    listing = Mock(wraps=os.scandir)
    monkeypatch.setattr(os, "scandir", listing)
    store.reserve(machine(name="node2"))
    assert listing.mock_calls == [call(store.removed)]


def test_a_directory_without_a_record_is_named(store: Store) -> None:
    (store.machines / "theirs").mkdir(parents=True)
    with pytest.raises(StoreError, match="theirs is no machine of ours"):
        store.load("theirs")


@pytest.mark.parametrize("record", [{}, {"name": "node1", "address": 7}, {"tls": 1}, {"url": None}])
def test_what_is_read_in_haste_is_checked_too(store: Store, record: dict[str, object]) -> None:
    store.reserve(machine())
    whole = {"schema": 1, "name": "node1", "address": "", "url": "", "tls": True}
    (store.directory("node1") / RECORD).write_text(json.dumps(whole))
    assert store.read("node1") == whole
    (store.directory("node1") / RECORD).write_text(json.dumps(whole | record if record else {"schema": 1}))
    with pytest.raises(StoreError, match="is not a machinekit record: no "):
        store.read("node1")


def test_a_record_under_another_name(store: Store) -> None:
    store.reserve(machine())
    store.directory("node1").rename(store.directory("node2"))
    for read in (store.read, store.load):
        with pytest.raises(StoreError, match="node2 has the record of another machine, 'node1'"):
            read("node2")
    assert store.known_uids() == ({"uid-of-node1"}, set())


def test_names_that_no_machine_can_have(store: Store) -> None:
    store.reserve(machine())
    for name in ("a b", "no\nname", "\udcff", "_x", "x" * 64):
        (store.machines / name).mkdir()
    (store.machines / "nowhere").symlink_to("/no/such/place")
    assert store.names() == ["node1"]
    assert store.strangers() == ["_x", "a b", "no\nname", "nowhere", "x" * 64, "\udcff"]
    assert not store.exists("a b")
    with pytest.raises(NoSuchMachineError):
        store.load("a b")


def test_a_failed_write_leaves_the_old_file_and_no_draft(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.reserve(machine())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        store.save(machine(url="new"))
    assert caught.value.message == f"cannot write {store.directory('node1') / RECORD}: No space left on device"
    monkeypatch.undo()
    assert [path.name for path in store.directory("node1").iterdir()] == [RECORD]
    assert store.load("node1") == machine()
    store.save(machine(url="new"))
    assert store.load("node1").url == "new"


def test_a_failed_reserve_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.identity()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(StoreError, match='cannot write the record of "node1": full'):
            store.reserve(machine())
    assert list(store.machines.iterdir()) == []
    store.reserve(machine())
    assert store.names() == ["node1"]
