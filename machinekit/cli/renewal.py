"""Renew certificates that are due before a command uses them; where none is, a look at the record is all it costs."""

from __future__ import annotations

import time

from machinekit.cli.command import store_of
from machinekit.errors import LockedError, MachinekitError
from machinekit.store import TIME

LONGEST = 365 * 86400  # seconds that a certificate of ours lives

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    import argparse

    from machinekit.store import Store
    from machinekit.work import Progress


def renew_due(args: argparse.Namespace) -> None:
    """Renew for the machines that were named, and say so on stderr.

    A failure is only a warning: the certificates that are there may serve yet.
    """
    store = store_of(args)
    names = args.names if hasattr(args, "names") else [args.name]
    due = [name for name in names if name and _is_due(store, name)]
    if due:
        import sys

        from machinekit import lifecycle
        from machinekit.cli.many import each, told

        def verb(name: str, shown: Progress) -> str:
            try:
                return told(lifecycle.renew(store, name, shown))
            except LockedError as error:
                return f"its certificates are due; {error.message}"

        each(store, due, verb, stream=sys.stderr)


def _is_due(store: Store, name: str) -> bool:
    try:
        record = store.read(name)
    except MachinekitError:
        return False  # the command itself will say what is wrong
    due = record.get("renewal_due")
    if not isinstance(due, str) or not due or record.get("phase") != "ready":
        return False
    now = time.time()
    # further away than a certificate lives: it was issued by a clock that was ahead, and is not valid yet
    return not time.strftime(TIME, time.gmtime(now)) < due <= time.strftime(TIME, time.gmtime(now + LONGEST))
