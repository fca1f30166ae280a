"""`rm`: remove machines."""

from __future__ import annotations

import argparse

from machinekit.cli.command import Command, confirm, known_names_of, machine_argument, names_of, store_of
from machinekit.work import Progress


class Rm(Command):
    """Remove machines: the instances, what was made beside them, and our record of them."""

    examples = (
        "Examples: machinekit rm -y node1 node2\n          machinekit rm -y --restore web      (an adopted server)"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Any number of machines."""
        machine_argument(parser, several=True)
        parser.add_argument("-y", action="store_true", dest="yes", help="do not ask")
        parser.add_argument(
            "--restore", action="store_true", help="put back the settings that an adopted server had before"
        )
        parser.add_argument(
            "-f", "--force", action="store_true", help="do not ask, and drop the record even if the provider fails"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Ask, then all machines in parallel."""
        from machinekit import lifecycle
        from machinekit.cli.many import each

        store, names = store_of(args), names_of(args)
        if not (args.yes or args.force):
            known_names_of(args)
            print(f"About to remove {', '.join(names)}: the machines with all that is on them, and our records.")
            if not confirm("Are you sure?"):
                print("nothing was removed")
                return 1
            adopted = [name for name in names if lifecycle.is_adopted(store, name)]
            if adopted and not args.restore:
                args.restore = confirm(f"Put back the settings that {', '.join(adopted)} had before?")

        def verb(name: str, shown: Progress) -> str:
            lifecycle.remove(store, name, shown, force=args.force, restore=args.restore)
            return "removed"

        return each(store, names, verb)
