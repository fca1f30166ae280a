"""Commands that are killed at any step they take in the world: a change on disk, a request to the provider.

In this process a killed command is one whose steps have no effect any more: what `finally` would still do is not
done. In a process of its own (tests/killing.py) it gets a real SIGKILL.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from machinekit import locks
from tests.providers.fake import FakeCloud, Killed

# what changes something on disk; everything in the product goes through these, pathlib and shutil too
CHANGES = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "link", "fsync", "ftruncate", "pwrite")
REAL = {name: getattr(os, name) for name in CHANGES}
REAL["fsync"] = lambda descriptor: None  # a killed command loses nothing that the kernel has, and it takes time
PATIENCE = 60.0  # seconds for a step of another thread
FREE = 400  # turns that are taken in the order that was asked for


def die() -> None:
    """How a simulated process dies."""
    raise Killed


@dataclass
class Life:
    """One command's steps. It dies at step `kill // 2`: before its effect when `kill` is even, after it when odd."""

    kill: int = -1
    die: Callable[[], None] = die
    turn: Callable[[], None] = lambda: None
    told: Callable[[], object] = lambda: None  # of each step
    steps: list[str] = field(default_factory=list)
    dead: bool = False

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One step; the body is its effect."""
        self.turn()
        if self.dead:
            raise Killed
        number = len(self.steps)
        self.steps.append(what)
        self.told()
        if self.kill == 2 * number:
            self._end()
        yield
        if self.kill == 2 * number + 1:
            self._end()

    def _end(self) -> None:
        self.dead = True
        self.die()


_local = threading.local()


@contextmanager
def living(life: Life) -> Iterator[Life]:
    """What this thread does is the life's."""
    _local.life = life
    try:
        yield life
    finally:
        _local.life = None


def everywhere(life: Life) -> None:
    """What this process does in any thread is the life's."""
    _Everywhere.life = life


class _Everywhere:
    life: Life | None = None


@contextmanager
def step(what: str) -> Iterator[None]:
    """One step of whoever does it."""
    life: Life | None = getattr(_local, "life", None) or _Everywhere.life
    if life is None:
        yield
    else:
        with life.step(what):
            yield


class WatchedCloud(FakeCloud):
    """A provider whose requests are steps."""

    @contextmanager
    def request(self, name: str, token: str) -> Iterator[None]:
        """One call of the API."""
        with step(f"provider: {name}"), super().request(name, token):
            yield


def watch(patch: pytest.MonkeyPatch) -> None:
    """Make every change on disk a step of the command that does it, and let a wait for a lock give way to others."""

    def watched(name: str) -> Callable[..., Any]:
        def change(*args: Any, **more: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return REAL[name](*args, **more)
            with step(f"{name} {_told(args)}"):
                return REAL[name](*args, **more)

        return change

    for name in CHANGES:
        patch.setattr(os, name, watched(name))
    patch.setattr(locks, "time", _Clock())


def _told(args: tuple[Any, ...]) -> str:
    return " ".join(Path(arg).name for arg in args if isinstance(arg, str | Path))


class _Clock:
    """`time` for the locks: a wait is the others' turn."""

    monotonic = staticmethod(time.monotonic)
    strftime = staticmethod(time.strftime)

    @staticmethod
    def sleep(seconds: float) -> None:
        """Let others go on."""
        life: Life | None = getattr(_local, "life", None)
        if life is None:
            time.sleep(seconds)
        else:
            life.turn()


class Together:
    """Commands in threads that take turns at each step, in an `order` that is gone through again and again."""

    def __init__(self, commands: list[tuple[Life, Callable[[], object]]], order: list[int]) -> None:
        self._commands = commands
        self._order = order
        self._left = list(range(len(commands)))
        self._go = [threading.Semaphore(0) for _ in commands]
        self._back = threading.Semaphore(0)
        self._failures: list[BaseException] = []

    def run(self) -> None:
        """Run all of them to their ends."""
        threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in self._left]
        for thread in threads:
            thread.start()
        turns = 0
        while self._left:
            # at last each has its turn, so that nobody waits for one that never has
            chosen = self._order[turns % len(self._order)] if turns < FREE else turns
            self._go[self._left[chosen % len(self._left)]].release()
            assert self._back.acquire(timeout=PATIENCE), "a step does not end"
            turns += 1
            assert turns < 50 * FREE, "they wait for each other"
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _run(self, number: int) -> None:
        def wait() -> None:
            assert self._go[number].acquire(timeout=PATIENCE)

        def turn() -> None:
            self._back.release()
            wait()

        life, command = self._commands[number]
        life.turn = turn
        wait()
        try:
            command()
        except BaseException as error:  # handed over to whoever runs us
            self._failures.append(error)
        finally:
            self._left.remove(number)
            self._back.release()
