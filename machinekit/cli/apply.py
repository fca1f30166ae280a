"""`apply` and `destroy`: have the machines be as a fleet file wants them, or remove them all."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from machinekit.cli.command import Command, confirm, store_of
from machinekit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from machinekit.plan import Plan
    from machinekit.store import Store
    from machinekit.wanted import Fleet

PARALLEL = 16
PATIENCE = 300.0  # seconds to wait for another apply


class Apply(Command):
    """Have the machines be as the fleet file wants them."""

    examples = (
        "Examples: machinekit apply\n"
        "          machinekit apply --yes --parallel 64\n"
        "          machinekit apply --locked                 (exactly what machinekit.lock says)\n"
        "          machinekit apply --target runner-3 --replace runner-3\n"
        "          machinekit apply ci.plan                  (that plan --out has saved)"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The file's, or a saved plan."""
        from machinekit.cli import fleet

        parser.add_argument("plan", nargs="?", default="", metavar="PLAN", help="a plan that plan --out has saved")
        fleet.file_options(parser)
        fleet.plan_options(parser)
        _carrying_out(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Plan, ask, do."""
        from machinekit import savedplan
        from machinekit.cli import fleet
        from machinekit.fleet import make_plan

        store = store_of(args)
        if args.plan:
            _check_alone(args)
            saved = savedplan.read(args.plan)
            return _under_lock(store, saved.fleet, args, lambda: saved.still_right(store), "apply")
        wanted = fleet.planned_fleet_of(args)

        def plan() -> Plan:
            targets, replace = wanted.expanded(args.target), wanted.expanded(args.replace)
            return make_plan(store, wanted, refresh=not args.no_refresh, targets=targets, replace=replace)

        return _under_lock(store, wanted, args, plan, "apply")


class Destroy(Command):
    """Remove every machine of the fleet, those that left its file too."""

    examples = "Example: machinekit destroy -f machinekit.yaml"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The file's."""
        from machinekit.cli import fleet

        fleet.file_options(parser)
        _carrying_out(parser)

    def run(self, args: argparse.Namespace) -> int:
        """As an apply of a file without machines."""
        from machinekit.cli import fleet
        from machinekit.fleet import make_plan
        from machinekit.wanted import Fleet

        store, empty = store_of(args), Fleet(fleet.fleet_of(args).name, ())
        return _under_lock(store, empty, args, lambda: make_plan(store, empty, refresh=False), "destroy")


def _check_alone(args: argparse.Namespace) -> None:
    """Raise UsageError for options that a saved plan cannot heed."""
    from machinekit.cli import fleet

    given = {"--file": args.file != fleet.file_by_default(), "--var": args.var, "--target": args.target}
    given |= {"--replace": args.replace, "--locked": args.locked, "--no-refresh": args.no_refresh}
    if names := [name for name, value in given.items() if value]:
        raise UsageError(f"a saved plan is carried out as it is: give {', '.join(names)} to plan --out")


def _carrying_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--parallel", type=_positive, default=PARALLEL, metavar="N", help=f"machines at once ({PARALLEL})"
    )
    parser.add_argument(
        "--lock-timeout",
        type=_seconds,
        default=PATIENCE,
        metavar="SECONDS",
        help=f"how long to wait for another apply ({PATIENCE:g})",
    )
    parser.add_argument("--json", action="store_true", help="print what was done as JSON; progress goes to stderr")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not number >= 0:  # nan is not, and would never be over
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return number


def _under_lock(store: Store, fleet: Fleet, args: argparse.Namespace, plan: Callable[[], Plan], doing: str) -> int:
    """Make the plan, show it, ask, and carry it out, while nobody else changes the fleet."""
    from machinekit.cli.fleet import print_plan
    from machinekit.cli.fleetrun import Run
    from machinekit.cli.progress import PlainProgress
    from machinekit.fleet import alone, check

    stream = sys.stderr if args.json else sys.stdout
    with alone(store, fleet.name, doing, PlainProgress(sys.stderr), args.lock_timeout):
        made = plan()
        print_plan(made, stream)
        check(fleet, made)
        if made.actions and not args.yes and not confirm("Do this?", stream):
            print("nothing was changed", file=stream)
            return 1
        run = Run(store, fleet, doing, agreed=args.yes, parallel=args.parallel, json=args.json)
        return run.carry_out(made)
