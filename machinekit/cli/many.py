"""Run a verb on several machines at once and report each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO

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

    code = 0
    with progress(stream) as shown, ThreadPoolExecutor(PARALLEL) as pool:
        outcomes = list(pool.map(call, names))
    for name, outcome in outcomes:
        if isinstance(outcome, str):
            print(f"{name}: {outcome}", file=stream)
            continue
        code = max(code, outcome.exit_code)
        print(f"machinekit: {name}: {outcome.message}", file=sys.stderr)
        if outcome.hint:
            print(f"  {outcome.hint}", file=sys.stderr)
    return code


def told(changes: list[str]) -> str:
    """What was done, in a line."""
    return ", ".join(dict.fromkeys(changes)) or "unchanged"
