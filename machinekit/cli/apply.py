"""`apply` and `destroy`: have the machines be as a fleet file wants them, or remove them all."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from machinekit.cli.command import Command, confirm, store_of
from machinekit.errors import MachinekitError

if TYPE_CHECKING:
    from machinekit.fleetfile import Fleet
    from machinekit.plan import Change, Plan
    from machinekit.store import Store
    from machinekit.work import Progress

PARALLEL = 16
PATIENCE = 300.0  # seconds to wait for another apply


class Apply(Command):
    """Have the machines be as the fleet file wants them."""

    examples = (
        "Examples: machinekit apply\n"
        "          machinekit apply --yes --parallel 64\n"
        "          machinekit apply --target runner-3 --replace runner-3\n"
        "          machinekit plan --out ci.plan && machinekit apply ci.plan"
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
            saved = savedplan.read(args.plan)
            return _under_lock(store, saved.fleet, args, lambda: saved.still_right(store))
        wanted = fleet.fleet_of(args)

        def plan() -> Plan:
            return make_plan(store, wanted, refresh=not args.no_refresh, targets=args.target, replace=args.replace)

        return _under_lock(store, wanted, args, plan)


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
        from machinekit.fleetfile import Fleet

        store, empty = store_of(args), Fleet(fleet.fleet_of(args).name, ())
        return _under_lock(store, empty, args, lambda: make_plan(store, empty, refresh=False))


def _carrying_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--parallel", type=_positive, default=PARALLEL, metavar="N", help=f"machines at once ({PARALLEL})"
    )
    parser.add_argument(
        "--lock-timeout",
        type=float,
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


def _under_lock(store: Store, fleet: Fleet, args: argparse.Namespace, plan: Any) -> int:
    """Make the plan, show it, ask, and carry it out, while nobody else changes the fleet."""
    from machinekit.cli.fleet import print_plan
    from machinekit.cli.progress import PlainProgress
    from machinekit.fleet import alone

    stream = sys.stderr if args.json else sys.stdout
    with alone(store, fleet.name, "apply", PlainProgress(sys.stderr), args.lock_timeout):
        made: Plan = plan()
        print_plan(made, stream)
        if made.actions and not args.yes and not confirm("Do this?", stream):
            print("nothing was changed", file=stream)
            return 1
        return _Run(store, fleet, args).carry_out(made)


class _Run:
    """One apply: what came of each machine."""

    def __init__(self, store: Store, fleet: Fleet, args: argparse.Namespace) -> None:
        self._store = store
        self._fleet = fleet
        self._args = args
        self._wanted = {machine.name: machine for machine in fleet.machines}
        self._results: dict[str, dict[str, Any]] = {}

    def carry_out(self, plan: Plan) -> int:
        """Every action, in parallel; returns the exit code."""
        from machinekit.cli.many import each

        changes = {change.name: change for change in plan.actions}

        def verb(name: str, shown: Progress) -> str:
            return self._one(changes[name], shown)

        stream = sys.stderr if self._args.json else sys.stdout
        code = each(self._store, list(changes), verb, stream=stream, parallel=self._args.parallel)
        self._tell_failures()
        if self._args.json:
            import json

            results = list(self._results.values())
            print(json.dumps({"version": 1, "fleet": self._fleet.name, "results": results}, indent=2))
        return 1 if code else 0

    def _one(self, change: Change, shown: Progress) -> str:
        from machinekit.cli.many import told
        from machinekit.fleet import carry_out

        result: dict[str, Any] = {
            "name": change.name,
            "action": change.action.value,
            "ok": False,
            "done": [],
            "error": "",
        }
        self._results[change.name] = result
        try:
            done = carry_out(
                self._store, self._fleet.name, change, self._wanted.get(change.name), shown, agreed=self._args.yes
            )
        except (MachinekitError, OSError) as error:
            result["error"] = str(error)
            raise
        result |= {"ok": True, "done": done}
        return told(done)

    def _tell_failures(self) -> None:
        failed = [result for result in self._results.values() if not result["ok"]]
        if failed:
            count = f"{len(failed)} of {len(self._results)} machines failed"
            lines = [f"{result['name']}: {result['error'].splitlines()[0]}" for result in failed]
            print("\n  ".join([f"machinekit: {count}; apply again goes on with them:", *lines]), file=sys.stderr)
