"""`use`: a docker context."""

from __future__ import annotations

import argparse
import os
import sys

from machinekit.cli.command import Command, check_running, machine_argument, store_of
from machinekit.errors import EngineError


class Use(Command):
    """Make a docker context for a machine and make it the current one, for every shell."""

    examples = "Example: machinekit use node1; docker ps      and back: docker context use default"
    renews = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Only the machine."""
        machine_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Write it, after the engine has answered."""
        from machinekit import lifecycle
        from machinekit.cli.progress import PlainProgress

        store = store_of(args)
        try:
            lifecycle.use(store, args.name, PlainProgress(sys.stderr))
        except EngineError:
            check_running(store, args.name)
            raise
        print(f"docker now talks to {args.name} (context {args.name})")
        if "DOCKER_HOST" in os.environ or "DOCKER_CONTEXT" in os.environ:
            print(
                'machinekit: this shell\'s DOCKER_HOST or DOCKER_CONTEXT comes first; eval "$(machinekit env -u)"',
                file=sys.stderr,
            )
        return 0
