"""`version`."""

from __future__ import annotations

import argparse

import machinekit
from machinekit.cli.command import Command, from_store, known, store_of


class Version(Command):
    """Print the version of machinekit, or of a machine's engine."""

    examples = "Example: machinekit version node1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """At most one machine."""
        from_store(parser.add_argument("name", nargs="?", metavar="NAME", help="the machine whose engine to ask"))

    def run(self, args: argparse.Namespace) -> int:
        """Ask the engine only when a machine is named."""
        if not args.name:
            print(f"machinekit {machinekit.__version__}")
            return 0
        from machinekit import dockerapi

        store = store_of(args)
        record = store.read(args.name)
        print(dockerapi.version(known(record["url"], args.name), store.directory(args.name) if record["tls"] else None))
        return 0
