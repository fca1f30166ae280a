"""How long a host is waited for, and what a person hears meanwhile and in the end."""

from __future__ import annotations

from typing import Any

import pytest
from machinekit.providers.qemu import SERIAL

from machinekit import keys, reach, reference
from machinekit.errors import DriverError, UnreachableError
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
    monkeypatch.setattr(reach, "BOOT", 0.2 if boots else 3600)
    monkeypatch.setattr(reach, "COMEBACK", 3600 if boots else 0.2)
    with pytest.raises(UnreachableError):
        reach.wait_for_ssh(work)


def test_a_person_hears_why_it_is_still_waiting(work: Work, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "COMEBACK", 0.2)
    with pytest.raises(UnreachableError):
        reach.wait_for_ssh(work)
    assert set(told.parts) == {"127.0.0.1:1 refuses the connection"}


def test_the_end_of_the_console_is_told(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "COMEBACK", 0.2)
    monkeypatch.setenv("TOKEN", "s3cret")
    reference.resolve("env:TOKEN", "here")
    lines = [f"line {number}" for number in range(99)]
    said = "\r\n".join(
        [*lines, "", "\x1b[0;1;31mFAILED\x1b[0m with s3cret \x1b]0;title\x07", "x" * 157 + "s3cret" * 99, "  "]
    )
    work.write(SERIAL, said.encode() + b"\xff")
    with pytest.raises(UnreachableError) as caught:
        reach.wait_for_ssh(work)
    why, *told = caught.value.message.splitlines()
    assert why == "127.0.0.1:1 refuses the connection"
    assert told[0].strip() == "the end of its console:"
    assert [line.strip() for line in told[1:4]] == ["line 87", "line 88", "line 89"]
    assert [line.strip()[:160] for line in told[-3:]] == ["FAILED with ***", "x" * 157 + "***", "\ufffd"]


def test_a_console_that_cannot_be_had_hides_nothing(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise DriverError("the cloud does not answer")

    monkeypatch.setattr(reach, "COMEBACK", 0.2)
    for console in (refuse, lambda: "", lambda: "\n\n"):
        monkeypatch.setattr(work.driver, "console", console)
        with pytest.raises(UnreachableError, match=r"^127\.0\.0\.1:1 refuses the connection$"):
            reach.wait_for_ssh(work)
