"""`doctor`: what is wrong, and what to do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from machinekit.cli.command import Command, from_store, harmless, known_names_of, store_of

if TYPE_CHECKING:
    from machinekit.provider import Check

COLOURS = {"ok": "", "warning": "yellow", "problem": "red"}


class Doctor(Command):
    """Look at this computer and at each machine, and say what to do."""

    examples = (
        "Changes nothing. Exit code: 0 all is well or there are only warnings, 1 there is a problem.\n"
        "Example: machinekit doctor node1"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Any number of machines."""
        names = parser.add_argument("names", nargs="*", metavar="NAME", help="only these machines")
        from_store(names)
        parser.add_argument("--json", action="store_true", help="a JSON list for programs")

    def run(self, args: argparse.Namespace) -> int:
        """Everything, or only the machines that were named."""
        from machinekit import doctor
        from machinekit.provider import Level

        store = store_of(args)
        if args.names:
            found = doctor.machines(store, known_names_of(args))
        else:
            from machinekit.cli.options import available

            found = doctor.everything(store, *available())
        if args.json:
            import dataclasses
            import json

            print(json.dumps([dataclasses.asdict(check) for check in found], indent=2))
        else:
            _print(found)
        return 1 if any(check.level is Level.PROBLEM for check in found) else 0


def _print(found: list[Check]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    width = max((len(check.subject) for check in found), default=0)
    for check in found:
        text = " ".join(f"{check.text}{f' -> {check.do}' if check.do else ''}".split())  # one line each
        level = Text(f"{check.level:<8}", style=COLOURS[check.level])
        console.print(Text.assemble(level, f"{check.subject:<{width}}  {harmless(text)}"))
