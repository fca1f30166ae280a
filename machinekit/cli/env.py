"""`env` and `config`: what a docker client needs to reach a machine."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

from machinekit import client
from machinekit.cli.command import DEFAULT_MACHINE, Command, check_engine, from_store, machine_argument, store_of
from machinekit.errors import NoSuchMachineError, UsageError

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from typing import Any


class Env(Command):
    """Print the commands that point your shell's docker client at a machine."""

    examples = 'Example: eval "$(machinekit env node1)"      and back: eval "$(machinekit env -u)"'
    renews = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """`--shell`, `--unset`, `--no-proxy`, and the machine."""
        name = parser.add_argument("name", nargs="?", metavar="NAME", help=f'the machine, "{DEFAULT_MACHINE}" if none')
        from_store(name)
        shells = [*client.SHELLS, *client.ALIASES]
        parser.add_argument("--shell", choices=shells, metavar="SHELL", help=", ".join(client.SHELLS))
        parser.add_argument("-u", "--unset", action="store_true", help="unset instead of set")
        parser.add_argument("--no-proxy", action="store_true", help="add the machine to NO_PROXY (-u: take it out)")

    def run(self, args: argparse.Namespace) -> int:
        """Print only after the engine has answered over TLS."""
        shell = args.shell or _shell()
        shell = client.ALIASES.get(shell, shell)
        settings: dict[str, str | None]
        if args.unset:
            if args.name:
                raise UsageError("-u takes no machine", 'eval "$(machinekit env -u)"')
            settings = dict.fromkeys(client.VARIABLES)
            if args.no_proxy and (name := os.environ.get("DOCKER_MACHINE_NAME")):
                with suppress(NoSuchMachineError):  # it may be gone by now
                    settings |= client.proxy_restored(store_of(args).read(name)["address"], os.environ)
        else:
            name = args.name or DEFAULT_MACHINE
            record, directory = _checked(args, name)
            settings = client.variables(name, record["url"], str(directory), record["tls"])
            if args.no_proxy:
                settings |= client.without_proxy(record["address"], os.environ)
        print(client.shell_lines(shell, settings, _command_line()), end="")
        return 0


class Config(Command):
    """Print the docker client's flags for a machine."""

    examples = "Example: docker $(machinekit config node1) ps"
    renews = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Only the machine."""
        machine_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Print only after the engine has answered over TLS."""
        record, directory = _checked(args, args.name)
        print(client.docker_flags(record["url"], str(directory), record["tls"]), end="")
        return 0


def _checked(args: argparse.Namespace, name: str) -> tuple[dict[str, Any], Path]:
    store = store_of(args)
    record = store.read(name)
    check_engine(store, name, record["url"], tls=record["tls"])
    return record, store.directory(name)


def _shell() -> str:
    """The shell that called, or else the user's login shell."""
    try:
        caller = Path(f"/proc/{os.getppid()}/comm").read_text().strip()
    except OSError:
        caller = ""
    shell = caller if caller in (*client.SHELLS, *client.ALIASES) else os.environ.get("SHELL", "").rpartition("/")[2]
    if not shell:
        raise UsageError("cannot tell which shell this is", f"give --shell {'|'.join(client.SHELLS)}")
    return shell


def _command_line() -> str:
    """The call as the user made it, for the hint to repeat."""
    program, *arguments = [sys.argv[0].rpartition("/")[2], *sys.argv[1:]]
    line = " ".join([f'"{program}"' if " " in program else program, *arguments])
    return "".join(c if c.isprintable() else "?" for c in line)  # a line of its own would be no comment any more
