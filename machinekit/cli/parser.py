"""argparse with our errors: what is wrong, what is allowed, and what may have been meant."""

from __future__ import annotations

import argparse
import os
import sys

from machinekit.errors import UsageError, nearest

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

ALIKE = 0.7  # options share their dashes


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps examples as written. argparse makes one for every argument and would import shutil for the width."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
        except (OSError, ValueError):  # no terminal
            columns = 100
        super().__init__(prog, width=columns - 2)


class Parser(argparse.ArgumentParser):
    """A parser of the command line or of one command; raises UsageError instead of printing and leaving."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"allow_abbrev": False, "formatter_class": _Formatter}
        super().__init__(*args, **kwargs)

    def parse_args(  # type: ignore[override]  # the overloads are for namespaces of one's own
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Everything must be understood."""
        parsed, rest = self.parse_known_args(args, namespace)
        if unknown := [word for word in rest if word != "--"]:
            raise self._not_understood(unknown[0], parsed)
        return parsed

    def parse_known_args(  # type: ignore[override]  # as above
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As Docker Machine does, take --switch=true for --switch."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._switched(word) for word in words], namespace)

    def error(self, message: str) -> NoReturn:
        """Say it in our words."""
        what, _, problem = message.removeprefix("argument ").partition(": ")
        flag = what.rpartition("/")[2] if what.startswith("-") else what
        if what == "the following arguments are required":
            raise UsageError(f"{problem} is missing", self._see())
        if problem.startswith("expected"):
            raise UsageError(f"{flag} needs a value", f"one that starts with a dash is given as {flag}=-VALUE")
        if problem.startswith("ignored explicit argument"):
            raise UsageError(f"{flag} takes no value", self._see())
        raise UsageError(message, self._see())

    def _switched(self, word: str) -> str:
        flag, _, value = word.partition("=")
        if not isinstance(self._option_string_actions.get(flag), argparse.BooleanOptionalAction):
            return word
        return {"true": flag, "false": f"--no-{flag.removeprefix('--')}"}.get(value, word)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own hook; its message neither names the nearest choice nor ends
        if action.choices is not None and value not in action.choices:
            flag = f"{action.option_strings[-1]}: " if action.option_strings else ""
            allowed = ", ".join(action.choices)
            raise UsageError(f"{flag}{value!r} is none of {allowed}{nearest(value, action.choices)}", self._see())

    def _not_understood(self, word: str, parsed: argparse.Namespace) -> UsageError:
        option = word.partition("=")[0]  # what follows may be a secret
        if not word.startswith("-"):
            fleet_file = hasattr(parsed, "file") and word.endswith((".yaml", ".yml"))
            given = f"a fleet file is given with -f: {self.prog} {parsed.command_name} -f {word}"
            return UsageError(f"there is no place for {word!r}", given if fleet_file else self._see())
        if option in self._option_string_actions:
            value = " ..." if self._option_string_actions[option].nargs is None else ""
            return UsageError(
                f"{option} goes before the command", f"{self.prog} {option}{value} {parsed.command_name} ..."
            )
        if said := parsed.command.elsewhere(option):
            return UsageError(f"{option} {said}", self._see())
        known = [flag for parser in (self, *self._commands()) for flag in parser._option_string_actions]
        return UsageError(f"there is no option {option}{nearest(option, known, ALIKE)}", self._see())

    def _commands(self) -> list[argparse.ArgumentParser]:
        groups = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return [parser for group in groups for parser in group.choices.values()]

    def _see(self) -> str:
        commands = self._commands()
        return f"see {(commands[0] if len(commands) == 1 else self).prog} --help"
