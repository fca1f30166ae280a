"""Run a verb on several machines at once and report each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, TextIO

from machinekit.cli.command import INTERRUPTED, report, unexpected
from machinekit.cli.progress import progress
from machinekit.errors import MachinekitError
from machinekit.work import Progress

PARALLEL = 16


def each(
    names: list[str],
    verb: Callable[[str, Progress], str],
    *,
    stream: TextIO | None = None,
) -> int:
    """Call `verb` for every machine in parallel and print what it returns; one failure does not stop the others.

    Progress and results go to `stream`, stdout if none is given. Returns the exit code: the highest of all.
    """

    def call(name: str) -> tuple[str, str | MachinekitError]:
        try:
            return name, verb(name, shown)
        except MachinekitError as error:
            return name, error
        except (OSError, subprocess.SubprocessError) as error:
            return name, unexpected(error)

    code = 0
    with progress(stream) as shown, ThreadPoolExecutor(PARALLEL) as pool:
        try:
            outcomes = list(pool.map(call, names))
        except KeyboardInterrupt:
            _leave(names)
    for name, outcome in outcomes:
        if isinstance(outcome, str):
            print(f"{name}: {outcome}", file=stream)
        else:
            code = max(code, report(outcome, name))
    return code


def _leave(names: list[str]) -> NoReturn:
    """End at once, whatever the threads are doing: everything is made to be killed at any moment."""
    print(f"machinekit: interrupted; the same command goes on with {', '.join(names)}, rm removes", file=sys.stderr)
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def told(changes: list[str]) -> str:
    """What was done, in a line."""
    return ", ".join(dict.fromkeys(changes)) or "unchanged"
