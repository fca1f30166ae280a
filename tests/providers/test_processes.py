"""Real processes with a mark: found, waited for, killed, and never another one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from machinekit.providers import processes


@contextmanager
def marked_process(mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the mark in its command line, reaped as soon as it ends."""
    command = [sys.executable, "-S", "-c", "print(flush=True); input()", "-uuid", mark]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        reaper = threading.Thread(target=process.wait)
        reaper.start()
        yield process
        process.kill()
        reaper.join()


@pytest.fixture
def mark() -> str:
    return str(uuid.uuid4())


def test_only_a_whole_word_is_a_mark(mark: str) -> None:
    with marked_process(mark) as one, marked_process(mark) as two, marked_process(f"{mark}-not"):
        assert sorted(processes.find(mark)) == sorted([one.pid, two.pid])
        assert processes.find(mark[:-1]) == []
    assert processes.find(mark) == []


def test_kill_takes_all_of_them_and_nobody_else(mark: str) -> None:
    with marked_process(mark) as one, marked_process(mark) as two, marked_process(f"{mark}-not") as other:
        processes.kill(mark)
        assert (one.wait(5), two.wait(5)) == (-signal.SIGKILL, -signal.SIGKILL)
        assert other.poll() is None
    processes.kill(mark)


def test_gone(mark: str) -> None:
    assert processes.gone(mark, patience=0)
    with marked_process(mark) as process:
        started = time.monotonic()
        assert not processes.gone(mark, patience=0.2)
        assert time.monotonic() - started >= 0.2
        threading.Timer(0.2, process.kill).start()
        assert processes.gone(mark, patience=10)
        assert time.monotonic() - started < 5
