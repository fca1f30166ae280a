"""Run a verb on several machines at once and report each as soon as it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO

from machinekit.cli.command import report, unexpected
from machinekit.cli.leaving import leaving, state_of
from machinekit.cli.progress import progress
from machinekit.errors import MachinekitError
from machinekit.store import Store
from machinekit.work import Progress

PARALLEL = 32  # they wait for providers and hosts most of the time


def each(
    store: Store,
    names: list[str],
    verb: Callable[[str, Progress], str],
    *,
    stream: TextIO | None = None,
    parallel: int = PARALLEL,
    again: str = "",
) -> int:
    """Call `verb` for every machine, `parallel` at once, and print what it returns; a failure does not stop the others.

    Progress and results go to `stream`, stdout if none is given. `again` is what to do about a machine that is half
    removed when a signal ends this, where that is not `machinekit rm`. Returns the exit code: the highest of all.
    """
    lock = threading.Lock()
    waiting, open_ends = list(names), list[str]()

    def call(name: str) -> int:
        with lock:
            waiting.remove(name)
            open_ends.append(name)
        try:
            said = verb(name, shown)
        except MachinekitError as error:
            return ended(name, error)
        except OSError as error:
            return ended(name, unexpected(error))
        return ended(name, said)

    def ended(name: str, outcome: str | MachinekitError) -> int:
        with lock:
            open_ends.remove(name)
            if isinstance(outcome, str):
                shown.end(name, outcome)
                return 0
            shown.end(name)
            return report(outcome, name)

    def left() -> list[str]:
        lines = [state_of(store, name, again) for name in open_ends]
        return [*lines, f"not begun: {', '.join(waiting)}"] if waiting else lines

    with (
        progress(stream) as shown,
        leaving(left, shown.stop),
        ThreadPoolExecutor(parallel) as pool,
    ):
        return max(pool.map(call, names), default=0)


def told(changes: list[str]) -> str:
    """What was done, in a line."""
    return ", ".join(dict.fromkeys(changes)) or "unchanged"
