"""`completion`: let the shell complete commands, options and machine names."""

from __future__ import annotations

import argparse

from machinekit.cli.command import Command


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


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and leave, as argcomplete does when the shell asks."""
    import argcomplete

    argcomplete.autocomplete(parser)
