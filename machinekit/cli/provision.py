"""`provision` and `regenerate-certs`."""

from __future__ import annotations

import argparse

from machinekit.cli.command import Command, confirm, known_names_of, machine_argument, store_of
from machinekit.work import Progress


class Provision(Command):
    """Bring engine, settings and certificates back to what was asked for."""

    examples = "Example: machinekit provision node1      (says what it changed, or unchanged)"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Any number of machines."""
        machine_argument(parser, several=True)

    def run(self, args: argparse.Namespace) -> int:
        """All machines in parallel."""
        from machinekit import lifecycle
        from machinekit.cli.many import each, told

        store = store_of(args)
        return each(store, known_names_of(args), lambda name, shown: told(lifecycle.provision(store, name, shown)))


class RegenerateCerts(Command):
    """Issue new TLS certificates and restart the engine with them."""

    examples = "Example: machinekit regenerate-certs -y node1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Any number of machines."""
        machine_argument(parser, several=True)
        parser.add_argument("-f", "--force", "-y", action="store_true", help="do not ask")
        parser.add_argument("--client-certs", action="store_true", help="the client's certificate too")

    def run(self, args: argparse.Namespace) -> int:
        """Ask, then all machines in parallel."""
        from machinekit import lifecycle
        from machinekit.cli.many import each, told

        store, names = store_of(args), known_names_of(args)
        if not args.force and not confirm(f"Restart the engines of {', '.join(names)} with new certificates?"):
            return 1

        def verb(name: str, shown: Progress) -> str:
            return told(lifecycle.regenerate_certs(store, name, shown, client=args.client_certs))

        return each(store, names, verb)
