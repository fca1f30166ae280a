"""The command line: find the command, parse, run it, print what went wrong.

Each command is a class in a module of this package, imported only when it is asked for: a build may
call `env` and `config` many times, and every import counts there.
"""

from __future__ import annotations

import os
import signal
import sys

from machinekit.cli.command import report, unexpected
from machinekit.cli.parser import Parser
from machinekit.errors import MachinekitError, UsageError, nearest

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

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
    "init": "fleetfile:Init",
    "validate": "fleetfile:Validate",
    "schema": "fleetfile:Schema",
    "show": "fleetfile:Show",
    "plan": "plan:Plan",
    "apply": "apply:Apply",
    "destroy": "apply:Destroy",
    "import": "fleetfile:Import",
    "lock": "lock:Lock",
    "manifest": "lock:Manifest",
    "image": "image:ImageCommand",
    "completion": "completion:Completion",
    "version": "version:Version",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 usage, 3 failed pre-create check.

    `gc` has one of its own, 4.
    """
    _settle_streams()
    # a command that only looks ends at once; those that change something catch signals themselves (cli/leaving.py)
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        code = _reported(sys.argv[1:] if argv is None else argv)
        sys.stderr.flush()
        return code
    except OSError:  # nobody can be told
        _mute(sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, before)


def _reported(arguments: list[str]) -> int:
    """Run the command line and say what went wrong."""
    try:
        code = _run(arguments)
        _flush()
        return code
    except UnicodeEncodeError as error:
        what = ascii(error.object[error.start : error.end])  # no more of it: it may be a secret, and not to be printed
        return report(MachinekitError(f"cannot print {what} in {error.encoding}", "set LC_ALL=C.UTF-8 or the like"))
    except MachinekitError as error:
        return report(error)
    except BrokenPipeError:
        _mute(sys.stdout)
        return 1
    except OSError as error:
        return report(unexpected(error))


def _run(arguments: list[str]) -> int:
    if "_ARGCOMPLETE" in os.environ:
        from machinekit.cli.completion import answer

        answer(parser_for)
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
    return command.run(parsed)


def parser_for(name: str | None, words: Sequence[str] = ()) -> Parser:
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
        elif word == "--" or not word.startswith("-"):
            if word in COMMANDS:
                return word
            raise UsageError(f"{word!r} is not a machinekit command{nearest(word, COMMANDS)}", "see machinekit --help")
    return None


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _mute(sys.stdout)
        raise MachinekitError(f"cannot write to stdout: {error.strerror}") from None


def _mute(stream: TextIO) -> None:
    """Nobody reads on: what is still to be written goes nowhere, so that the exit is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _settle_streams() -> None:
    """Open what the caller closed, or the next file that is opened would be taken for it; let anything be printed."""
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, mode))  # noqa: PTH123, SIM115 (it stays open)
    for size in ("COLUMNS", "LINES"):  # rich takes any digits for a number
        text = os.environ.get(size, "")
        if not (text.isascii() and text.isdecimal() and len(text) <= len("99999")):
            os.environ.pop(size, None)
    # a path's bytes that are no text come back as they were; other characters are as the locale has them
    if sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # it is the interpreter's own


def _show_debug() -> None:
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    # ours alone: a cloud's library tells whole requests, with session tokens and the user-data of machines in them
    logging.getLogger("machinekit").setLevel(logging.DEBUG)
