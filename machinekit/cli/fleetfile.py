"""`init`, `validate`, `schema`, `show`, `import`: what is done with a fleet file itself."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from machinekit.cli.command import Command, from_store, store_of


class Init(Command):
    """Write a fleet file to start with."""

    examples = "Example: machinekit init"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Which file."""
        from machinekit.fleet import FILE

        parser.add_argument("file", nargs="?", default=FILE, metavar="FILE", help=f"what to write ({FILE})")

    def run(self, args: argparse.Namespace) -> int:
        """Never over a file that is there."""
        from machinekit.errors import MachinekitError
        from machinekit.fleetwriter import NAME
        from machinekit.render import static

        try:
            text = static("fleet/machinekit.yaml").replace(f"name: {NAME} ", f"name: {_name(Path(args.file))} ")
            with Path(args.file).open("x") as file:
                file.write(text)
        except FileExistsError:
            raise MachinekitError(f"{args.file} is there already", "give another name, or edit it") from None
        except OSError as error:
            raise MachinekitError(f"cannot write {args.file}: {error.strerror}") from None
        print(f"{args.file} is written; edit it, then: machinekit plan")
        return 0


def _name(file: Path) -> str:
    """The folder's name, so that no two projects have one fleet by accident, where it can be a fleet's."""
    from machinekit.fleetwriter import NAME

    name = file.absolute().parent.name
    return name if re.fullmatch(r"[a-z][a-z0-9-]{1,62}", name) and name not in ("true", "false", "null") else NAME


class Validate(Command):
    """Check a fleet file without asking anybody."""

    examples = "Example: machinekit validate -f machinekit.yaml"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The file's."""
        from machinekit.cli import fleet

        fleet.file_options(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Say what it comes to."""
        from machinekit.cli import fleet

        found = fleet.fleet_of(args)
        drivers = ", ".join(sorted({machine.driver for machine in found.machines}))
        count = "1 machine" if len(found.machines) == 1 else f"{len(found.machines)} machines"
        print(f"{args.file}: fleet {found.name}, {count}{f' ({drivers})' if drivers else ''}")
        return 0


class Schema(Command):
    """Print the JSON Schema of the fleet file, for editors."""

    examples = "Example: machinekit schema"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """None."""

    def run(self, args: argparse.Namespace) -> int:
        """With the options of every installed driver."""
        import json

        from machinekit.fleetform import schema

        print(json.dumps(schema(), indent=2))
        return 0


class Show(Command):
    """Write the fleet file for machines that exist."""

    examples = "Example: machinekit show --yaml node1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Any number of machines."""
        from_store(parser.add_argument("names", nargs="*", metavar="NAME", help="the machines, all if none is given"))
        parser.add_argument("--yaml", action="store_true", help="as a fleet file, which is the default")

    def run(self, args: argparse.Namespace) -> int:
        """Without secrets, which only the environment has."""
        from machinekit.fleetwriter import written

        store = store_of(args)
        print(written(store.load(name) for name in dict.fromkeys(args.names or store.names())), end="")
        return 0


class Import(Command):
    """Have the fleet own machines that were made by hand and are in its file; nothing of them is changed."""

    examples = "Example: machinekit import node1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The file's, and machines."""
        from machinekit.cli import fleet

        from_store(parser.add_argument("names", nargs="+", metavar="NAME", help="the machines"))
        fleet.file_options(parser)

    def run(self, args: argparse.Namespace) -> int:
        """One after the other."""
        from machinekit.cli import fleet
        from machinekit.cli.many import each
        from machinekit.fleet import adopt
        from machinekit.work import Progress

        store, found = store_of(args), fleet.fleet_of(args)

        def verb(name: str, shown: Progress) -> str:
            adopt(store, found, name, shown)
            return f"of the fleet {found.name} now; machinekit plan shows what is not as its file has it"

        return each(store, list(dict.fromkeys(args.names)), verb)
