"""The runner of steps, and where a machine is said to be."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from machinekit.errors import MachinekitError
from machinekit.machine import Instance, Machine, State
from machinekit.record import RECORD
from machinekit.store import SSH_KEY, Store
from machinekit.work import Work, run, ssh_host
from tests.conftest import Told


@pytest.fixture
def work(store: Store, told: Told) -> Work:
    machine = Machine("node1", "uid", "qemu", "s", "")
    store.reserve(machine)
    return Work(store, machine, told)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("192.0.2.7", "tcp://192.0.2.7:2376"),
        ("2001:db8::1", "tcp://[2001:db8::1]:2376"),
        ("a.test", "tcp://a.test:2376"),
    ],
)
def test_a_place_is_remembered(store: Store, work: Work, address: str, url: str) -> None:
    work.place(Instance(State.RUNNING, address, 2222))
    machine = store.load("node1")
    assert (machine.address, machine.url, machine.ssh_port, machine.ssh_user) == (address, url, 2222, "machinekit")
    before = (store.directory("node1") / RECORD).stat().st_mtime_ns
    work.place(Instance(State.RUNNING, address, 2222))
    assert (store.directory("node1") / RECORD).stat().st_mtime_ns == before, "what is known is not written again"


@pytest.mark.parametrize(("own", "given", "key"), [(True, "", "own"), (False, "", None), (True, "/theirs", "/theirs")])
def test_the_key_to_log_in_with(store: Store, work: Work, own: bool, given: str, key: str | None) -> None:
    if own:
        work.write(SSH_KEY, b"key")
    work.machine.ssh_key = given
    wanted = store.directory("node1") / SSH_KEY if key == "own" else Path(key) if key else None
    host = ssh_host(store, work.machine)
    assert (host.key_file, host.alias) == (wanted, "uid")


def announced(work: Work) -> None:
    """Doing it

    Look at
    the console.
    """
    raise MachinekitError("it broke", work.machine.url)


def bare(work: Work) -> None:
    work.changed.append("done")


def test_a_step_is_announced_and_its_hint_is_given(work: Work, told: Told) -> None:
    with pytest.raises(MachinekitError) as caught:
        run(work, (bare, announced, bare))
    assert told.steps == ["bare", "Doing it"]
    assert work.changed == ["done"]
    assert caught.value.hint == "Look at the console."
    work.machine.url = "a better hint"
    with pytest.raises(MachinekitError, match="it broke") as caught:
        run(work, (announced,))
    assert caught.value.hint == "a better hint"


@dataclass
class Open:
    """Something to close."""

    closed: int = 0

    def close(self) -> None:
        """Count."""
        self.closed += 1


def test_the_connection_is_closed_whatever_happens(work: Work) -> None:
    connection = Open()
    work.connection = connection  # type: ignore[assignment]  # only `close` counts here
    run(work, (bare,))
    with pytest.raises(MachinekitError):
        run(work, (announced,))
    assert connection.closed == 2


def test_the_users_ssh_config_says_where_a_server_is(store: Store, told: Told, tmp_path: Path) -> None:
    if not shutil.which("ssh"):
        pytest.skip("OpenSSH's client is not installed")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host web\n  HostName 192.0.2.7\n  Port 2222\n  User bob\n")
    machine = Machine("node2", "uid", "generic", "s", "", options={"ip_address": "web"})
    store.reserve(machine)
    work = Work(store, machine, told)
    found = work.driver.find()
    assert found is not None
    assert found.address == "web", "the instance itself is asked of nobody"
    assert work.located(found) == ("192.0.2.7", 2222)
    work.place(found)
    assert (machine.address, machine.ssh_port, machine.ssh_user) == ("192.0.2.7", 2222, "bob")
    assert machine.url == "tcp://192.0.2.7:2376"
