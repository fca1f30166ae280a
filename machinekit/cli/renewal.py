"""Renew certificates that are due before a command uses them; where none is, a look at the record is all it costs."""

from __future__ import annotations

import time

from machinekit.cli.command import store_of
from machinekit.errors import LockedError, MachinekitError
from machinekit.store import TIME

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    import argparse

    from machinekit.store import Store
    from machinekit.work import Progress


def renew_due(args: argparse.Namespace) -> None:
    """Renew for the machines that were named, and say so on stderr.

    A failure is only a warning: the certificates that are there may serve yet.
    """
    store, now = store_of(args), time.strftime(TIME, time.gmtime())
    names = args.names if hasattr(args, "names") else [args.name]
    due = [name for name in names if name and _is_due(store, name, now)]
    if due:
        import sys

        from machinekit import lifecycle
        from machinekit.cli.many import each, told

        def verb(name: str, shown: Progress) -> str:
            try:
                return told(lifecycle.renew(store, name, shown))
            except LockedError as error:
                return f"its certificates are due; {error.message}"

        each(due, verb, stream=sys.stderr)


def _is_due(store: Store, name: str, now: str) -> bool:
    try:
        record = store.read(name)
    except MachinekitError:
        return False  # the command itself will say what is wrong
    return record.get("phase") == "ready" and "" < record.get("renewal_due", "") <= now
