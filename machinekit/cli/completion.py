"""`completion`: let the shell complete commands, options and machine names."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from machinekit.cli.command import Command
from machinekit.errors import UsageError


class Completion(Command):
    """Print the shell code that completes machinekit's command line."""

    examples = (
        'bash, zsh: eval "$(machinekit completion bash)"      in your shell\'s start-up file\n'
        "fish:      machinekit completion fish | source"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The shell."""
        parser.add_argument("shell", choices=("bash", "zsh", "fish"))

    def run(self, args: argparse.Namespace) -> int:
        """Print argcomplete's hook."""
        from argcomplete.shell_integration import shellcode

        print(shellcode(["machinekit"], shell=args.shell))
        return 0


def answer(parser_for: Callable[..., argparse.ArgumentParser]) -> None:
    """Answer the shell and leave, when it asks: argcomplete's variables say so, and are nobody's otherwise."""
    line = os.environ.get("COMP_LINE")
    numbers = [os.environ.get(name, "") for name in ("_ARGCOMPLETE", "COMP_POINT")]
    if line is None or not all(number.isdecimal() and len(number) < 10 for number in numbers):  # noqa: PLR2004
        return
    import argcomplete
    from argcomplete.exceptions import ArgcompleteException

    try:
        parser = parser_for(None, line.split())
    except UsageError:  # a driver's name that is not complete yet
        parser = parser_for(None)
    try:
        argcomplete.autocomplete(parser)
    except ArgcompleteException:
        raise UsageError(f"{line!r} cannot be completed at {numbers[1]}") from None
