"""`ls`: the machines."""

from __future__ import annotations

import argparse
import re

from machinekit.cli.command import Command, store_of
from machinekit.errors import UsageError, nearest

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from machinekit.collect import Row

DAY = 86400


class Ls(Command):
    """List the machines."""

    examples = "Example: machinekit ls --filter state=Running --filter driver=qemu"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """What to show, and how."""
        parser.add_argument("-q", "--quiet", action="store_true", help="names only")
        parser.add_argument("--json", action="store_true", help="a JSON list for programs")
        parser.add_argument(
            "--filter", action="append", default=[], metavar="KEY=VALUE", help="driver=, state= or name= (a regex)"
        )
        parser.add_argument(
            "-t", "--timeout", type=_seconds, default=10, metavar="SECONDS", help="for each engine (10)"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Names need nobody's answer; everything else is asked in parallel."""
        store = store_of(args)
        filters = [_filter(text) for text in args.filter]
        if args.quiet and not filters:
            print("".join(f"{name}\n" for name in store.names()), end="")
            return 0
        from machinekit import collect

        rows = collect.rows(store, store.names(), args.timeout, engines=not args.quiet)
        if not args.quiet:  # a script gets the names of machines only
            rows += collect.strangers(store)
        rows = [row for row in rows if _passes(row, filters)]
        if args.json:
            import dataclasses
            import json

            print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        elif args.quiet:
            print("".join(f"{row.name}\n" for row in rows), end="")
        else:
            _print_table(rows)
        return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= DAY:
        raise UsageError(f"--timeout: {text!r} is not a number of seconds, more than 0 and at most a day's")
    return seconds


def _filter(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or key not in ("driver", "state", "name"):
        raise UsageError(f"cannot filter by {text!r}", "give driver=NAME, state=STATE or name=REGEX")
    if key == "name":
        try:
            re.compile(value)
        except re.error as error:
            raise UsageError(f"{value!r} is not a regular expression: {error}") from None
    if key == "state":
        from machinekit.machine import State

        states = [str(state) for state in State if state]
        if value.lower() not in map(str.lower, states):
            raise UsageError(f"{value!r} is not a state{nearest(value.title(), states)}", f"one of {', '.join(states)}")
    return key, value


def _passes(row: Row, filters: list[tuple[str, str]]) -> bool:
    """Values of one key are alternatives; every key must match."""

    def matches(key: str, value: str) -> bool:
        if key == "name":
            return re.search(value, row.name) is not None
        return str(getattr(row, key)).lower() == value.lower()

    return all(any(matches(key, value) for k, value in filters if k == key) for key, _ in filters)


def _print_table(rows: list[Row]) -> None:
    from machinekit.cli.table import print_table

    cells = [
        (
            row.name,
            "*" if row.active else "-",
            row.driver,
            row.state,
            row.url,
            f"v{row.engine}" if row.engine else "Unknown",
            row.error,
        )
        for row in rows
    ]
    print_table(("NAME", "ACTIVE", "DRIVER", "STATE", "URL", "DOCKER", "ERRORS"), cells)
