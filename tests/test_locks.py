"""Who holds a lock, how long, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from machinekit import locks, programs
from machinekit.errors import LockedError, StoreError

WAITER = """
import sys
from pathlib import Path
from machinekit import locks, programs
lock, never, stays = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "stays"
with locks.held(lock, "it", "create", patience=0):
    print("held", flush=True)
    programs.run(["cat", never], stays=stays)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def killed_holder(lock: Path, how: str) -> Iterator[int]:
    """The pid of a holder that was killed while a program of it ran, which ends with the block."""
    never = lock.with_name("never")
    os.mkfifo(never)
    command = [sys.executable, "-c", WAITER, str(lock), str(never), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        writer = os.open(never, os.O_WRONLY)  # returns when the program reads
        process.kill()
        process.wait()
        yield process.pid
        os.close(writer)


def taken(lock: Path, patience: float = 0) -> str:
    """Why the lock cannot be taken; empty when it can."""
    try:
        with locks.held(lock, "it", "rm", patience=patience):
            return ""
    except LockedError as error:
        return error.message


def test_a_program_holds_the_lock_of_its_parent_that_was_killed(lock: Path) -> None:
    with killed_holder(lock, "ends") as pid:
        said = f"it is held by a program that create (pid {pid}, which has ended) started, since "
        assert taken(lock).startswith(said)
        assert locks.is_abandoned(lock)
    assert taken(lock, 20) == ""
    assert not locks.is_abandoned(lock)


def test_a_program_that_stays_holds_none(lock: Path) -> None:
    with killed_holder(lock, "stays"):
        assert taken(lock, 20) == ""


def test_a_program_of_another_thread_keeps_no_lock_that_was_released(lock: Path, tmp_path: Path) -> None:
    never = tmp_path / "never"
    os.mkfifo(never)
    with locks.held(lock, "it", "create", patience=0):
        thread = threading.Thread(target=programs.run, args=(["cat", never],))
        thread.start()
        writer = os.open(never, os.O_WRONLY)
    assert taken(lock) == ""
    os.close(writer)
    thread.join()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"doing": "create", "pid": 7, "born": "1", "host": "elsewhere", "since": "2026-01-01 00:00:00"},
            "it is held by create (pid 7 on elsewhere) since 2026-01-01 00:00:00",
        ),
        ({"colour": "red"}, "it is held by another process"),
        ([], "it is held by another process"),
    ],
)
def test_what_is_said_of_a_holder(lock: Path, content: object, said: str) -> None:
    with locks.held(lock, "it", "create", patience=0):
        lock.write_text(json.dumps(content))
        assert taken(lock) == said


def test_a_holder_here_can_be_ended(lock: Path) -> None:
    with (
        locks.held(lock, "it", "create", patience=0),
        pytest.raises(LockedError) as caught,
        locks.held(lock, "it", "rm", patience=0),
    ):
        pass
    assert caught.value.hint == f"wait for it to end, or end it: kill {os.getpid()}"


def test_a_file_that_is_not_needed_goes(lock: Path) -> None:
    with locks.held(lock, "it", "rm", patience=0, needed=lambda: False):
        assert lock.exists()
    assert not lock.exists()


def test_another_ones_file_is_not_deleted(lock: Path) -> None:
    """Somebody deleted ours, and another one has made it anew and holds it."""
    with locks.held(lock, "it", "rm", patience=0, needed=lambda: False):
        lock.unlink()
        with locks.held(lock, "it", "create", patience=0):
            pass
        assert lock.exists()
    assert lock.exists()


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock = tmp_path / "file" / "lock"
    with pytest.raises(StoreError, match="cannot lock"), locks.held(lock, "it", "rm", patience=0):
        pass


def test_programs_have_the_low_descriptors_for_themselves(tmp_path: Path) -> None:
    with ExitStack() as held:
        for number in range(9):
            held.enter_context(locks.held(tmp_path / str(number), "it", "apply", patience=0))
        said = programs.run(["sh", "-c", "ls /proc/$$/fd"]).stdout.split()
    inherited = {int(each) for each in said}
    assert len([each for each in inherited if each >= locks.HIGH]) == 9
    assert inherited.isdisjoint(range(3, 10))
