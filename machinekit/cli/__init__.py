"""The command line: find the command, parse, run it, print what went wrong.

Each command is a class in a module of this package, imported only when it is asked for: a build may
call `env` and `config` many times, and every import counts there.
"""

from __future__ import annotations

import os
import signal
import sys

from machinekit.cli.command import Parser, report, unexpected
from machinekit.errors import MachinekitError, UsageError

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from machinekit.cli.command import Command

COMMANDS = {
    "create": "create:Create",
    "ls": "ls:Ls",
    "env": "env:Env",
    "config": "env:Config",
    "use": "use:Use",
    "url": "show:Url",
    "ip": "show:Ip",
    "status": "show:Status",
    "inspect": "show:Inspect",
    "active": "show:Active",
    "ssh": "ssh:Ssh",
    "scp": "ssh:Scp",
    "start": "power:Start",
    "stop": "power:Stop",
    "restart": "power:Restart",
    "kill": "power:Kill",
    "provision": "provision:Provision",
    "upgrade": "upgrade:Upgrade",
    "regenerate-certs": "provision:RegenerateCerts",
    "rm": "rm:Rm",
    "gc": "gc:Gc",
    "doctor": "doctor:Doctor",
    "image": "image:ImageCommand",
    "completion": "completion:Completion",
    "version": "version:Version",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 usage, 3 failed pre-create check.

    `gc` has one of its own, 4.
    """
    arguments = sys.argv[1:] if argv is None else argv
    # a command that only looks ends at once; those that change something catch signals themselves (cli/leaving.py)
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        if "_ARGCOMPLETE" in os.environ:
            from machinekit.cli.completion import complete

            try:
                complete(parser_for(None, os.environ["COMP_LINE"].split()))
            except UsageError:  # a driver's name that is not complete yet
                complete(parser_for(None))
        if arguments in (["-v"], ["--version"]):
            arguments = ["version"]
        parser = parser_for(_command_in(arguments), arguments)
        parsed = parser.parse_args(arguments)
        if parsed.debug or os.environ.get("MACHINE_DEBUG", "").lower() in ("1", "t", "true"):
            _show_debug()
        command: Command = parsed.command
        if command.renews:
            from machinekit.cli.renewal import renew_due

            renew_due(parsed)
        code = command.run(parsed)
        sys.stdout.flush()
        return code
    except MachinekitError as error:
        return report(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on; let the exit be quiet
        return 1
    except OSError as error:
        return report(unexpected(error))
    finally:
        signal.signal(signal.SIGINT, before)


def parser_for(name: str | None, words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser with one command, or with all of them for help, errors and completion."""
    parser = Parser(
        prog="machinekit",
        description="Create Docker hosts anywhere and point your docker client at them.",
        epilog='Start with: machinekit create node1; eval "$(machinekit env node1)"; docker run hello-world',
    )
    parser.add_argument(
        "-s",
        "--storage-path",
        default="",
        metavar="DIR",
        help="where the machines are kept [$MACHINEKIT_HOME, $MACHINE_STORAGE_PATH]",
    )
    parser.add_argument("-D", "--debug", action="store_true", help="show what is done, on stderr [$MACHINE_DEBUG]")
    parser.add_argument("-v", "--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command_name", required=True)
    for each in [name] if name else COMMANDS:
        command = load(each)
        command.words = words
        about = (command.__doc__ or "").partition("\n")[0]
        sub = commands.add_parser(each, help=about, description=about, epilog=command.examples)
        command.arguments(sub)
        sub.set_defaults(command=command)
    return parser


def load(name: str) -> Command:
    """The command of that name."""
    module, _, kind = COMMANDS[name].partition(":")
    command: Command = getattr(__import__(f"machinekit.cli.{module}", fromlist=[kind]), kind)()
    return command


def _command_in(arguments: list[str]) -> str | None:
    """The command that the arguments name, None when they name none; raises UsageError for an unknown one."""
    rest = iter(arguments)
    for word in rest:
        if word in ("-s", "--storage-path"):
            next(rest, None)
        elif not word.startswith("-"):
            if word in COMMANDS:
                return word
            import difflib

            near = difflib.get_close_matches(word, COMMANDS, 1)
            raise UsageError(
                f"{word!r} is not a machinekit command" + (f"; did you mean {near[0]}?" if near else ""),
                "see machinekit --help",
            )
    return None


def _show_debug() -> None:
    import logging

    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
