"""`gc`: what we made and no record knows."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from machinekit.cli.command import Command, confirm, report, store_of
from machinekit.errors import MachinekitError, PreCheckError

if TYPE_CHECKING:
    from machinekit.gc import Findings, Garbage
    from machinekit.provider import Options
    from machinekit.store import Store

LEFT = 4  # the exit code when something was found and is still there


class Gc(Command):
    """Find what carries our mark and no record knows, ask, and remove it."""

    examples = (
        "Looks at every driver that this computer has the options and credentials of, in every account and region\n"
        "that machines are in, at docker contexts, and at what killed commands left in the store. Without a terminal\n"
        "nobody is asked and nothing is removed, unless -y is given.\n"
        "Exit code: 0 nothing is left, 4 something was found and is still there, 1 not everything could be looked at\n"
        "or removed.\n"
        "Examples: machinekit gc --dry-run\n"
        "          machinekit gc -y --driver container --container-engine unix:///run/user/1000/docker.sock\n"
        "          machinekit gc --driver aws --region eu-central-1"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """What to do, then the options of the driver that the command line names."""
        from machinekit import drivers
        from machinekit.cli import options

        parser.add_argument("-y", action="store_true", dest="yes", help="do not ask")
        parser.add_argument("-n", "--dry-run", action="store_true", help="only list")
        parser.add_argument("--json", action="store_true", help="print JSON; nobody is asked")
        parser.add_argument(
            "--store-id",
            default="",
            metavar="ID",
            help="what another store made, one that is lost: as gc showed its id",
        )
        driver = parser.add_argument(
            "-d", "--driver", default="", type=drivers.canonical, help="only this one, with its options"
        )
        driver.completer = lambda **_: drivers.names()  # type: ignore[attr-defined]  # argcomplete's own way
        if chosen := options.named_driver(self.words):
            options.add_driver_options(parser, chosen, short=True)

    def run(self, args: argparse.Namespace) -> int:
        """List, ask, remove one by one: one failure does not stop the others."""
        from machinekit import gc

        store = store_of(args)
        sources, silent = _sources(args, store)
        found = gc.find(store, sources, args.store_id)
        found.silent |= silent
        for name, error in found.silent.items():
            report(error, f"driver {name}")
        if not args.json:
            _print(found)
        handled, failed = _remove(store, found.garbage, quiet=args.json) if _wanted(args, found) else ([], False)
        if args.json:
            import json

            print(json.dumps(_plain(found, handled), indent=2))
        if failed or found.silent:
            return 1
        return LEFT if len(handled) < len(found.garbage) else 0


def _remove(store: Store, garbage: list[Garbage], *, quiet: bool) -> tuple[list[Garbage], bool]:
    """Remove one by one; returns what is gone or turned out to be known, and whether anything failed."""
    from machinekit import gc

    handled = []
    for each in garbage:
        try:
            removed = gc.remove(store, each)
        except MachinekitError as error:
            report(error, each.machine)
        else:
            handled.append(each)
            if not quiet:
                print(f"{'removed' if removed else 'in use by now'}: {each.kind} {each.machine or each.what}")
    return handled, len(handled) < len(garbage)


def _sources(args: argparse.Namespace, store: Store) -> tuple[list[tuple[str, Options]], dict[str, MachinekitError]]:
    """The drivers to ask, with their options, and those whose options are wrong."""
    from machinekit import gc
    from machinekit.cli import options

    if args.driver:
        return [(args.driver, options.chosen_options(args.driver, args))], {}
    sources, wrong = options.available()
    # what is not installed made nothing here; a machine of it is asked for by its record
    return gc.accounts(store, sources), {name: e for name, e in wrong.items() if not isinstance(e, PreCheckError)}


def _wanted(args: argparse.Namespace, found: Findings) -> bool:
    """Whether to remove what was found."""
    if not found.garbage or args.dry_run:
        return False
    if args.yes:
        return True
    return not args.json and sys.stdin.isatty() and confirm("Remove all of it?")


def _print(found: Findings) -> None:
    from machinekit.cli.table import print_table

    if found.garbage:
        print_table(("KIND", "MACHINE", "WHAT"), [(g.kind, g.machine or "-", g.what) for g in found.garbage])
    elif not found.silent:
        print("nothing that no record knows")
    for maker, number in Counter(garbage.store for garbage in found.foreign).items():
        what = "1 thing was" if number == 1 else f"{number} things were"
        by = (
            f"another store; if that one is lost: machinekit gc --store-id {maker}"
            if maker
            else "a store that is not told"
        )
        print(f"{what} made by {by}")
    for error in found.unfinished.values():
        print(f"{error.message}: {error.hint}")


def _plain(found: Findings, handled: list[Garbage]) -> dict[str, Any]:
    def plain(garbage: Garbage) -> dict[str, Any]:
        return {"kind": garbage.kind, "machine": garbage.machine, "what": garbage.what, "store": garbage.store}

    return {
        "garbage": [plain(each) | {"removed": each in handled} for each in found.garbage],
        "foreign": [plain(each) for each in found.foreign],
        "unfinished": [{"machine": name, "finish": error.hint} for name, error in found.unfinished.items()],
        "silent": [{"driver": name, "error": error.message} for name, error in found.silent.items()],
    }
