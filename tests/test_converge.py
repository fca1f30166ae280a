"""How long a host is waited for, and what a person hears meanwhile."""

from __future__ import annotations

import pytest

from machinekit import converge, keys
from machinekit.errors import UnreachableError
from machinekit.machine import Machine, Phase
from machinekit.store import KNOWN_HOSTS, Store
from machinekit.work import Work
from tests.conftest import Told


@pytest.fixture
def work(store: Store, told: Told) -> Work:
    """A machine at a port that nobody listens on."""
    machine = Machine("node1", "uid", "qemu", "s", "", address="127.0.0.1", ssh_port=1, phase=Phase.READY)
    store.reserve(machine)
    made = Work(store, machine, told)
    made.write(KNOWN_HOSTS, f"uid {keys.ssh_key('host')[1]}\n".encode())
    told.step("node1", "Waiting for SSH")
    return made


@pytest.mark.parametrize(
    ("phase", "changed", "boots"),
    [(Phase.CREATING, [], True), (Phase.READY, ["started"], True), (Phase.READY, [], False)],
)
def test_only_a_boot_gets_the_time_of_a_boot(
    work: Work, monkeypatch: pytest.MonkeyPatch, phase: Phase, changed: list[str], boots: bool
) -> None:
    work.machine.phase, work.changed = phase, changed
    monkeypatch.setattr(converge, "BOOT", 0.2 if boots else 3600)
    monkeypatch.setattr(converge, "COMEBACK", 3600 if boots else 0.2, raising=False)
    with pytest.raises(UnreachableError):
        converge.wait_for_ssh(work)


def test_a_person_hears_why_it_is_still_waiting(work: Work, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "COMEBACK", 0.2, raising=False)
    with pytest.raises(UnreachableError):
        converge.wait_for_ssh(work)
    assert set(told.parts) == {"127.0.0.1:1 refuses the connection"}
