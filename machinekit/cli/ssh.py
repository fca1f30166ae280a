"""`ssh` and `scp`: OpenSSH's own clients with the machine's key and its pinned host key."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from machinekit.cli.command import Command, check_running, machine_argument, store_of
from machinekit.errors import MachinekitError, UsageError
from machinekit.store import Store

if TYPE_CHECKING:
    from machinekit.machine import Machine


NO_CONNECTION = 255  # ssh's own exit code


class Ssh(Command):
    """Log in to a machine, or run a command there and exit with its code."""

    examples = "Example: machinekit ssh node1 df -h /      (options for OpenSSH before the command: -L, -N ...)"
    renews = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The machine, then everything else as OpenSSH takes it."""
        machine_argument(parser)
        parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments")

    def run(self, args: argparse.Namespace) -> int:
        """Let ssh have the terminal, the signals and the exit code."""
        from machinekit.work import ssh_host

        store = store_of(args)
        host = ssh_host(store, _with_ssh(store, args.name))
        words = args.words[1:] if args.words[:1] == ["--"] else args.words
        terminal = ["-t"] if words and sys.stdin.isatty() and sys.stdout.isatty() else []
        options = [word for option in host.openssh_options() for word in ("-o", option)]
        target = ["-p", str(host.port), "-l", host.user, host.address]
        # options of the user's own, such as -L, may come before the command
        code = _run([_program("ssh"), "-F", "/dev/null", *options, *terminal, *target, *words])
        if code == NO_CONNECTION:  # or the command's own code, but then the machine runs
            check_running(store, args.name)
        return code


class Scp(Command):
    """Copy files to, from and between machines."""

    examples = "Example: machinekit scp -r ./site node1:/srv      (NAME:PATH is on a machine, PATH is here)"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """As scp takes them."""
        parser.add_argument("-r", "--recursive", action="store_true", help="copy folders whole")
        parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
        parser.add_argument("files", nargs="+", metavar="[NAME:]PATH", help="sources, then the destination")

    def run(self, args: argparse.Namespace) -> int:
        """Give scp a configuration in which every machine is a host of its own, so their ports may differ."""
        if len(args.files) < 2:  # noqa: PLR2004
            raise UsageError("scp needs a source and a destination", "see machinekit scp --help")
        from machinekit.work import ssh_host

        store = store_of(args)
        config, words = [], []
        machines: list[str] = []
        for text in args.files:
            name, path = _split(text)
            words.append(f"{name}:{path}" if name else path)
            if name:
                machines.append(name.rpartition("@")[2])
                host = ssh_host(store, _with_ssh(store, machines[-1]))
                options = [option.replace("=", " ", 1) for option in host.openssh_options()]
                address = [f"HostName {host.address.replace('%', '%%')}", f"Port {host.port}", f"User {host.user}"]
                config += [f"Host {machines[-1]}", *address, *options]
        flags = [flag for flag, given in (("-r", args.recursive), ("-q", args.quiet)) if given]
        with tempfile.NamedTemporaryFile("w", prefix="machinekit-") as file:
            file.write("\n".join(config) + "\n")
            file.flush()
            code = _run([_program("scp"), "-F", file.name, "-3", *flags, *words])
        for name in machines if code else ():
            check_running(store, name)
        return code


def _split(text: str) -> tuple[str, str]:
    """Machine and path; no machine for a path here. A slash before the colon makes it a path, as scp has it."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name:
        return "", text if not text.startswith("-") else f"./{text}"
    return ("", path) if name == "localhost" else (name, path)


def _with_ssh(store: Store, name: str) -> Machine:
    machine = store.load(name)
    if not machine.ssh_port:
        raise MachinekitError(
            f'there is no SSH to machine "{name}"', "its driver knows none, or its create did not end"
        )
    return machine


def _run(command: list[str]) -> int:
    """Run it in the foreground: what the keyboard sends is for it alone, and a signal to us is passed on."""
    process = subprocess.Popen(command)
    for number in (signal.SIGINT, signal.SIGQUIT):  # the terminal sends these to both
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda sent, frame: process.send_signal(sent))
    code = process.wait()
    return code if code >= 0 else 128 - code  # as a shell has it


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MachinekitError(f"{name} is not installed", "apt-get install openssh-client")
    return path
