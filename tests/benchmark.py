"""A row of the benchmark, and how its figures are taken."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Row:
    """One line of the table: a figure, what it is compared with, the ratio and its limit."""

    what: str
    ours: str
    floor: str
    ratio: float
    limit: float

    def print(self) -> None:
        """On stdout."""
        verdict = "ok" if self.ratio <= self.limit else "OVER"
        print(
            f"{self.what:<58} {self.ours:>10} {self.floor:>10} {self.ratio:>6.2f} {self.limit:>6.2f}  {verdict}",
            flush=True,
        )


def call(command: list[str], environment: dict[str, str]) -> None:
    """Run it to the end, without its output."""
    result = subprocess.run(command, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}: {result.returncode}\n{result.stderr.decode()}")


def seconds(action: Callable[[], None]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def in_turn(ours: Callable[[], None], floor: Callable[[], None], runs: int) -> tuple[list[float], list[float]]:
    """The times of both, run alternately after one warm-up each."""
    for warm_up in (ours, floor):
        warm_up()
    pairs = [(seconds(ours), seconds(floor)) for _ in range(runs)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def compare(what: str, ours: list[float], floor: list[float], limit: float) -> None:
    """Print the medians and their ratio."""
    a, b = statistics.median(ours), statistics.median(floor)
    Row(what, f"{a * 1000:.0f} ms", f"{b * 1000:.0f} ms", a / b, limit).print()


def peak_memory(command: list[str], environment: dict[str, str]) -> int:
    """The most resident memory the process had, in bytes."""
    # a process starts with the peak of its parent, so its parent must be small
    parent = "import os, sys; pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ); "
    parent += "print(os.wait4(pid, 0)[2].ru_maxrss, file=sys.stderr)"
    small = [sys.executable, "-I", "-S", "-c", parent]
    result = subprocess.run([*small, *command], env=environment, capture_output=True, text=True, check=True)
    return int(result.stderr) * 1024
