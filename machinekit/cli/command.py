"""What every command has."""

from __future__ import annotations

import argparse
import sys
from abc import ABC, abstractmethod

from machinekit.errors import MachinekitError, UsageError

TYPE_CHECKING = False  # importing typing would cost a third of an interpreter start
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from machinekit.store import Store

DEFAULT_MACHINE = "default"


# what moves a terminal's cursor, writes its title or turns a line around; hosts and providers say what they like
_CONTROL = dict.fromkeys(
    (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "?"
)


def harmless(text: str) -> str:
    """What somebody else said, without what a terminal would obey."""
    return text.translate(_CONTROL)


def report(error: MachinekitError, machine: str = "") -> int:
    """Say on stderr what failed and what to do next; returns the exit code."""
    prefix = f"{machine}: " if machine and f'"{machine}"' not in error.message else ""
    print(f"machinekit: {prefix}{harmless(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"  {harmless(error.hint)}", file=sys.stderr)
    return error.exit_code


def unexpected(error: Exception) -> MachinekitError:
    """What the world may do at any moment, as an error of ours."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return MachinekitError(what, "machinekit --debug tells what was being done")


class Command(ABC):
    """A command. The first line of its docstring is its help, `examples` closes it."""

    examples = ""
    renews = False  # certificates that are due are renewed before it runs
    words: Sequence[str] = ()  # the whole command line, for a command whose options depend on it

    @abstractmethod
    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the command takes."""

    def elsewhere(self, option: str) -> str:
        """What to say of an option that this command does not take; empty when nobody has it."""
        return ""

    @abstractmethod
    def run(self, args: argparse.Namespace) -> int:
        """Do it and return the exit code."""


def store_of(args: argparse.Namespace) -> Store:
    """The store that the global options and the environment name."""
    from machinekit.store import Store, home

    return Store(home(args.storage_path))


def machine_argument(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """The positional NAME; without one the machine `default` is meant."""
    text = f'the machine, "{DEFAULT_MACHINE}" if none is given'
    action = (
        parser.add_argument("names", nargs="*", metavar="NAME", help=text)
        if several
        else parser.add_argument("name", nargs="?", default=DEFAULT_MACHINE, metavar="NAME", help=text)
    )
    from_store(action)


def from_store(action: argparse.Action) -> None:
    """Let the shell complete machine names here."""

    def names(parsed_args: argparse.Namespace, **_: object) -> list[str]:
        return store_of(parsed_args).names()

    action.completer = names  # type: ignore[attr-defined]  # argcomplete's own way


def names_of(args: argparse.Namespace) -> list[str]:
    """The machines that were named, each once."""
    return list(dict.fromkeys(args.names)) or [DEFAULT_MACHINE]


def known(value: str, name: str) -> str:
    """The URL or address in a machine's record; raises MachinekitError while there is none."""
    if not value:
        raise MachinekitError(f'machine "{name}" has no address yet', "run the same machinekit create again")
    return value


def known_names_of(args: argparse.Namespace) -> list[str]:
    """The machines that were named, when every one of them exists; raises NoSuchMachineError."""
    store, names = store_of(args), names_of(args)
    for name in names:
        if not store.exists(name):
            store.read(name)  # says what is wrong, and which name may be meant
    return names


def confirm(question: str, stream: IO[str] | None = None) -> bool:
    """Ask on the terminal, which `stream` leads to, stdout if none is given; raises UsageError when there is none."""
    if not sys.stdin.isatty():
        raise UsageError("this asks for confirmation and there is no terminal", "add -y")
    print(f"{question} (y/n): ", end="", flush=True, file=stream)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def check_engine(store: Store, name: str, url: str, *, tls: bool) -> None:
    """Hear from the machine's engine; raises EngineError, or what explains why it does not answer."""
    from machinekit import dockerapi
    from machinekit.errors import EngineError

    try:
        dockerapi.ping(known(url, name), store.directory(name) if tls else None)
    except EngineError:
        check_running(store, name)
        raise


def check_running(store: Store, name: str) -> None:
    """Ask the driver about a machine that does not answer; raises MachinekitError when it is off or gone."""
    from machinekit import collect
    from machinekit.machine import State

    try:
        state = collect.state(store, name)
    except MachinekitError:
        return  # what made us ask says more
    if state in (State.STOPPED, State.PAUSED):
        raise MachinekitError(f'machine "{name}" is {state.lower()}', f"machinekit start {name}")
    if state is State.NOT_FOUND:
        raise MachinekitError(
            f'the instance of "{name}" does not exist any more', f"machinekit rm {name}, then create it again"
        )
