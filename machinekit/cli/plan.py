"""`plan`: what apply would do."""

from __future__ import annotations

import argparse

from machinekit.cli.command import Command, store_of

CHANGES = 2  # the exit code of --detailed-exitcode


class Plan(Command):
    """Show what apply would do; nothing is changed."""

    examples = (
        "Examples: machinekit plan\n"
        "          machinekit plan --detailed-exitcode      (0 nothing to do, 1 failed, 2 something to do)\n"
        "          machinekit plan --out ci.plan                (for apply ci.plan)"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The file's, and how to tell."""
        from machinekit.cli import fleet

        fleet.file_options(parser)
        fleet.plan_options(parser)
        parser.add_argument("--json", action="store_true", help="the plan as JSON for programs")
        parser.add_argument("--out", default="", metavar="FILE", help="save the plan, for apply FILE")
        parser.add_argument(
            "--detailed-exitcode",
            action="store_true",
            help="exit with 2 when there is something to do, 1 for any error",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Look, compare, print."""
        from machinekit.cli import fleet
        from machinekit.cli.command import report
        from machinekit.errors import MachinekitError
        from machinekit.fleet import make_plan
        from machinekit.savedplan import save

        store = store_of(args)
        try:
            wanted = fleet.planned_fleet_of(args)
            refresh = not args.no_refresh
            targets, replace = wanted.expanded(args.target), wanted.expanded(args.replace)
            made = make_plan(store, wanted, refresh=refresh, targets=targets, replace=replace)
            if args.out:
                save(args.out, store, wanted, made, refresh=refresh, targets=targets, replace=replace)
        except MachinekitError as error:
            if args.detailed_exitcode:  # 2 has another meaning here
                report(error)
                return 1
            raise
        if args.json:
            import json

            print(json.dumps(made.to_json(), indent=2))
        else:
            fleet.print_plan(made)
        if made.unreadable:
            return 1
        return CHANGES if args.detailed_exitcode and made.actions else 0
