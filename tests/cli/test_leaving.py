"""Ctrl-C, SIGTERM and a closed terminal: real processes that wait for something that never comes end at once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from machinekit.providers.processes import find, kill

from machinekit.cli.leaving import state_of
from machinekit.machine import Machine, Phase
from machinekit.store import Store
from tests.servers import Server, silent

pytestmark = pytest.mark.usefixtures("as_at_a_terminal")

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
LIMIT = 20  # seconds; what is waited for below would take ten minutes


@contextmanager
def started(*words: str, until: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command line in a session of its own, as soon as it has said `until`."""
    with subprocess.Popen(
        [sys.executable, "-m", "machinekit", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
    ) as process:
        assert process.stdout is not None
        try:
            said = ""
            for line in process.stdout:
                said += line
                if until in line:
                    break
            else:
                raise AssertionError(f"{said}{process.stderr.read() if process.stderr else ''}")
            yield process
        finally:
            process.kill()


def left(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What it says on stderr when the signal has ended it."""
    process.send_signal(number)
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == CODES[number]
    assert "Traceback" not in said
    return said


def generic(port: int) -> list[str]:
    return ["create", "-d", "generic", "--generic-ip-address", "127.0.0.1", "--generic-ssh-port", str(port)]


@dataclass(frozen=True)
class Hanging:
    """Programs that never end, in a folder to put on PATH."""

    folder: Path

    @property
    def path(self) -> str:
        """PATH with them."""
        return f"{self.folder}:{os.environ['PATH']}"

    def running(self) -> list[int]:
        """The pids of those that run now."""
        return list(find(str(self.folder / "never")))


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    """Instead of docker and mmdebstrap; they wait for a writer that never comes."""
    folder = tmp_path / "programs"
    folder.mkdir()
    os.mkfifo(folder / "never")
    for name in ("docker", "mmdebstrap"):
        (folder / name).write_text(f"#!/bin/sh\ncat {folder}/never\n")
        (folder / name).chmod(0o755)
    yield Hanging(folder)
    kill(str(folder / "never"))


@pytest.mark.parametrize("number", CODES)
def test_while_a_thread_waits_for_ssh(store: Store, number: signal.Signals) -> None:
    with Server(silent) as server, started(*generic(server.port), "node1", until="Waiting for SSH") as process:
        said = left(process, number)
    assert said.splitlines()[1:] == [
        "  node1: not created to the end; run the same machinekit create again, or machinekit rm"
    ]
    with store.lock("node1", "test", pytest.fail):
        assert store.load("node1").phase is Phase.CREATING


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("verb", [["rm", "-y"], ["start"], ["create", "-d", "none", "--none-url", "unix:///s"]])
def test_while_another_process_holds_the_machine(store: Store, verb: list[str], number: signal.Signals) -> None:
    store.reserve(Machine("node1", "uid", "none", "s", "", {"url": "unix:///s"}, phase=Phase.READY))
    with (
        store.lock("node1", "provision", print),
        started(*verb, "node1", until=f"held by provision (pid {os.getpid()}) since") as process,
    ):
        said = left(process, number)
    assert "node1: what was being done may be half done; run the same command again" in said


def test_a_program_that_does_not_answer_ends_too(store: Store, hanging: Hanging) -> None:
    words = ["create", "-d", "container", "node1"]
    with started(*words, until="Checking the driver", PATH=hanging.path) as process:
        while not hanging.running():
            assert process.poll() is None
        left(process, signal.SIGTERM)
    assert hanging.running() == []


def test_how_to_go_on_with_a_machine_that_is_half_removed(store: Store) -> None:
    store.reserve(Machine("m1", "uid", "none", "s", "", fleet="ci", phase=Phase.REMOVING))
    assert state_of(store, "m1") == "m1: not removed to the end; machinekit rm m1"
    again = "run machinekit destroy again"
    assert state_of(store, "m1", again) == "m1: not removed to the end; run machinekit destroy again"


@pytest.mark.parametrize("number", CODES)
def test_while_an_image_is_built(store: Store, hanging: Hanging, number: signal.Signals) -> None:
    words = ["image", "build", "-d", "container", "debian-12"]
    with started(*words, until="building the rootfs image", PATH=hanging.path) as process:
        while not hanging.running():
            assert process.poll() is None
        assert "the image debian-12 is not built; the same command starts anew" in left(process, number)
    assert hanging.running() == []


def test_a_killed_build_takes_its_programs_along(store: Store, hanging: Hanging) -> None:
    """And the next one waits until they have ended."""
    words = ["image", "build", "-d", "container", "debian-12"]
    with started(*words, until="building the rootfs image", PATH=hanging.path) as process:
        while not hanging.running():
            assert process.poll() is None
        process.kill()
        process.wait()
    (hanging.folder / "mmdebstrap").write_text('#!/bin/sh\nfor target; do :; done; echo made >"$target"\n')
    for pid in hanging.running():  # mmdebstrap itself has got a signal; what it started is its own affair
        with suppress(ProcessLookupError):  # it may have ended by then
            os.kill(pid, signal.SIGTERM)
    with started(*words, until="built debian-12", PATH=hanging.path) as process:
        assert process.wait(LIMIT) == 0
    assert [path.name for path in (store.images / "rootfs").iterdir() if path.name.startswith(".draft")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_looks_just_ends(store: Store, number: signal.Signals) -> None:
    with Server(silent) as server:
        url = f"tcp://127.0.0.1:{server.port}"
        store.reserve(Machine("node1", "uid", "none", "s", "", {"url": url}, url=url, tls=False, phase=Phase.READY))
        process = subprocess.Popen([sys.executable, "-m", "machinekit", "ls", "-t", "600"], stderr=subprocess.PIPE)
        while not server.connections:
            assert process.poll() is None
        process.send_signal(number)
        _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == -number  # which a shell turns into 128 and the number
    assert said == b""


def test_what_was_ignored_stays_ignored(store: Store) -> None:
    """As nohup has it."""
    with Server(silent) as server:
        command = [sys.executable, "-m", "machinekit", *generic(server.port), "node1"]
        process = subprocess.Popen(
            ["nohup", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        for line in process.stdout:
            if "Waiting for SSH" in line:
                break
        process.send_signal(signal.SIGHUP)
        assert "node1: not created to the end" in left(process, signal.SIGTERM)


def test_the_terminal_gets_its_cursor_back(store: Store) -> None:
    controller, terminal = pty.openpty()
    with Server(silent) as server:
        command = [sys.executable, "-m", "machinekit", *generic(server.port), "node1"]
        environment = os.environ | {"TERM": "xterm"}
        with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
            os.close(terminal)
            said = b""
            while b"Waiting for SSH" not in said:
                said += os.read(controller, 4096)
            process.send_signal(signal.SIGINT)
            try:
                while piece := os.read(controller, 4096):
                    said += piece
            except OSError:  # how Linux tells that the other side has closed
                pass
            assert process.wait(LIMIT) == 130
    os.close(controller)
    assert b"\x1b[?25l" in said
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")
    assert b"machinekit: interrupted" in said
