"""`url`, `ip`, `status`, `inspect`, `active`: one fact on stdout, for scripts."""

from __future__ import annotations

import argparse
import os

from machinekit.cli.command import Command, known, machine_argument, names_of, store_of
from machinekit.errors import MachinekitError


class Url(Command):
    """Print the engine's URL."""

    examples = "Example: DOCKER_HOST=$(machinekit url node1)"
    renews = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Only the machine."""
        machine_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Print it as DOCKER_HOST wants it."""
        print(known(store_of(args).read(args.name)["url"], args.name))
        return 0


class Ip(Command):
    """Print the address, one machine a line."""

    examples = "Example: machinekit ip node1 node2"
    renews = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Any number of machines."""
        machine_argument(parser, several=True)

    def run(self, args: argparse.Namespace) -> int:
        """Print nothing unless every machine has one."""
        store = store_of(args)
        for address in [known(store.read(name)["address"], name) for name in names_of(args)]:
            print(address)
        return 0


class Status(Command):
    """Print the state: Running, Stopped, Paused, Error, Not Found ..."""

    examples = 'Example: test "$(machinekit status node1)" = Running'
    renews = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Only the machine."""
        machine_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Ask the driver."""
        from machinekit import collect

        print(collect.state(store_of(args), args.name))
        return 0


class Inspect(Command):
    """Print the machine's record as JSON."""

    examples = "Example: machinekit inspect node1 | jq -r .address"
    renews = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Only the machine."""
        machine_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Print it, with the directory of its files."""
        import json

        store = store_of(args)
        print(json.dumps({**store.read(args.name), "directory": str(store.directory(args.name))}, indent=4))
        return 0


class Active(Command):
    """Print the machine that DOCKER_HOST points to."""

    examples = 'Example: echo "docker talks to $(machinekit active)"'

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Nothing."""

    def run(self, args: argparse.Namespace) -> int:
        """Compare each machine's URL; nobody is asked."""
        store, host = store_of(args), os.environ.get("DOCKER_HOST")
        for name in store.names() if host else []:
            try:
                record = store.read(name)
            except MachinekitError:
                continue  # another machine's trouble; `ls` shows it
            if record["url"] == host:
                print(name)
                return 0
        raise MachinekitError("no machine is active", 'eval "$(machinekit env NAME)"')
