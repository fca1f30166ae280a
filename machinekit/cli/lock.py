"""`lock` and `manifest`: what a fleet file means exactly, and what is really on a machine."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from machinekit.cli.command import Command, machine_argument, store_of

if TYPE_CHECKING:
    from pathlib import Path

    from machinekit.lockfile import Lock as LockFile


class Lock(Command):
    """Write down what exactly everything is that floats in the fleet file, for apply --locked."""

    examples = (
        "Examples: machinekit lock                          (what is locked and still fits stays)\n"
        "          machinekit lock --update 'runner-{index}'      (resolved anew)"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The file's, and what is resolved anew."""
        from machinekit.cli import fleet

        fleet.file_options(parser)
        parser.add_argument(
            "--update",
            nargs="*",
            metavar="NAME",
            help="resolve these entries of the file anew, all of them if none is given",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Resolve, and say whether anything is another one."""
        from pathlib import Path

        from machinekit import lockfile, pinning
        from machinekit.cli import fleet
        from machinekit.cli.progress import PlainProgress

        wanted, file = fleet.fleet_of(args), lockfile.place(Path(args.file))
        everything = args.update == []
        before = _before(file, broken=everything)
        made = pinning.lock(
            store_of(args),
            wanted,
            file.absolute().parent,
            PlainProgress(sys.stderr),
            before=None if everything else before,
            anew=args.update or (),
        )
        changed = [name for name, group in made.groups.items() if not before or before.groups.get(name) != group]
        if not pinning.save(made, file):
            print(f"{file}: unchanged")
        else:
            print(f"{file}: {', '.join(changed) or 'what has left the fleet file is gone'}")
        return 0


def _before(file: Path, *, broken: bool) -> LockFile | None:
    """What is locked already; nothing for a file that is `broken`, where that may be."""
    from machinekit import pinning
    from machinekit.errors import UsageError

    try:
        return pinning.read(file) if file.exists() else None
    except UsageError:
        if broken:
            return None
        raise


class Manifest(Command):
    """Print what is really on a machine: system, engine, settings, every package with its version."""

    examples = "Example: machinekit manifest web"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The machine, and how to tell."""
        machine_argument(parser)
        parser.add_argument("--json", action="store_true", help="as JSON for programs")

    def run(self, args: argparse.Namespace) -> int:
        """Look once; nothing is changed."""
        import json

        import yaml

        from machinekit.manifest import manifest

        found = manifest(store_of(args), args.name)
        text = json.dumps(found, indent=2) + "\n" if args.json else yaml.safe_dump(found, sort_keys=False, width=120)
        print(text, end="")
        return 0
