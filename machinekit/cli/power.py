"""`start`, `stop`, `restart`, `kill`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from machinekit.cli.command import Command, known_names_of, machine_argument, store_of


class _Power(Command):
    verb: ClassVar[str]  # the function of lifecycle that does it

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Any number of machines."""
        machine_argument(parser, several=True)

    def run(self, args: argparse.Namespace) -> int:
        """All machines in parallel."""
        from machinekit import lifecycle
        from machinekit.cli.many import each, told

        store, verb = store_of(args), getattr(lifecycle, self.verb)
        return each(store, known_names_of(args), lambda name, progress: told(verb(store, name, progress)))


class Start(_Power):
    """Start machines, and wait until their engines answer."""

    examples = "Example: machinekit start node1 node2"
    verb = "start"


class Stop(_Power):
    """Shut machines down cleanly."""

    examples = "Example: machinekit stop node1 node2"
    verb = "stop"


class Restart(_Power):
    """Shut machines down and start them again."""

    examples = "Example: machinekit restart node1"
    verb = "restart"


class Kill(_Power):
    """Cut the power of machines."""

    examples = "Example: machinekit kill node1"
    verb = "kill"
