"""`upgrade`."""

from __future__ import annotations

import argparse

from machinekit.cli.command import Command, known_names_of, machine_argument, store_of
from machinekit.errors import UsageError


class Upgrade(Command):
    """Upgrade the engines of machines, or take them back when the new one fails."""

    examples = (
        "Examples: machinekit upgrade node1                     to the newest, or to the version that was asked for\n"
        "          machinekit upgrade --to 29.1.2 node1         to this one, and hold it there\n"
        "          machinekit upgrade --to latest node1         to the newest, and hold nothing"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Any number of machines."""
        machine_argument(parser, several=True)
        parser.add_argument("--to", default="", metavar="VERSION", help="the version to have, or latest")

    def run(self, args: argparse.Namespace) -> int:
        """All machines in parallel."""
        from machinekit import packages, upgrade
        from machinekit.cli.many import each, told
        from machinekit.spec import engine_flag, parse_spec

        store, to = store_of(args), args.to
        if to != packages.LATEST:
            try:
                parse_spec({"version": to})
            except UsageError as error:
                raise UsageError(error.message.replace(engine_flag("version"), "--to")) from None
        return each(store, known_names_of(args), lambda name, shown: told(upgrade.upgrade(store, name, shown, to=to)))
