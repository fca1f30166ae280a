"""Find and kill our processes that carry a mark in their command line; a recycled pid is never hit.

A mark is some words that follow each other, such as -uuid and a uid.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PATIENCE = 10.0  # seconds for a killed process to be gone


def find(*mark: str) -> list[int]:
    """The pids of this user's processes whose command line has the mark."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _has(folder, mark)]


def command_lines() -> list[list[str]]:
    """The command line of each of this user's processes that has one."""
    return [words for folder in Path("/proc").glob("[0-9]*") if (words := _words(folder))]


def gone(*mark: str, patience: float) -> bool:
    """Wait until no process has the mark, at most `patience` seconds for each."""
    with _pinned(mark) as descriptors:
        return all(select.select([descriptor], [], [], patience)[0] for descriptor in descriptors)


def kill(*mark: str) -> None:
    """Kill every process with the mark, those that it starts meanwhile too, and wait until none is left."""
    deadline = time.monotonic() + PATIENCE
    while find(*mark) and time.monotonic() < deadline:
        with _pinned(mark) as descriptors:
            for descriptor in descriptors:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], PATIENCE)


@contextmanager
def _pinned(mark: tuple[str, ...]) -> Iterator[list[int]]:
    """Descriptors of the processes with the mark.

    A pid may be another process's by the time of a signal. So it is pinned first (pidfd_open(2)), and only
    then its command line is read: what is read is then the pinned process's, or that process has ended.
    """
    with ExitStack() as stack:
        descriptors = []
        for pid in find(*mark):
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                stack.callback(os.close, descriptor)
                if _has(Path(f"/proc/{pid}"), mark):
                    descriptors.append(descriptor)
        yield descriptors


def _has(folder: Path, mark: tuple[str, ...]) -> bool:
    return "\0".join(("", *mark, "")) in "\0".join(("", *_words(folder), ""))


def _words(folder: Path) -> list[str]:
    try:
        if folder.stat().st_uid != os.geteuid():
            return []
        return (folder / "cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:  # it ended meanwhile
        return []
