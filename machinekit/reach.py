"""The steps from an instance to a login on it; where none comes about, what its console shows is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import tenacity

from machinekit import reference
from machinekit.errors import DeadlineError, GoneError, LoginError, MachinekitError, UnreachableError
from machinekit.machine import Instance, State
from machinekit.store import KNOWN_HOSTS
from machinekit.work import COMEBACK, Work

ADDRESS = 300.0  # seconds: how long each wait goes on
BOOT = 600.0  # a first boot without KVM on a busy computer takes minutes
STARTED = "started"  # as a person is told that an instance was stopped and is on now
LAST_LINES = 15  # of a console
WIDTH = 160  # characters that are shown of each
TERMINAL = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")  # ECMA-48: CSI, OSC, others


def find_address(work: Work) -> None:
    """Waiting for an address

    Look at the provider's console; create again goes on from here.
    """
    found = work.driver.find()
    if found is None:
        raise GoneError(
            f'the instance of "{work.machine.name}" does not exist any more',
            f"machinekit rm {work.machine.name}, then create it again",
        )
    if found.state in (State.STOPPED, State.PAUSED):
        work.driver.start()
        work.changed.append(STARTED)
    work.place(_poll_address(work, found))


def wait_for_ssh(work: Work) -> None:
    """Waiting for SSH

    The machine's console may tell more.
    """
    from machinekit import ssh

    host = work.host
    patience = _patience(work, ssh.CONNECT)
    with _console_told(work):
        if not host.known_hosts.exists():
            fingerprints = work.driver.host_keys
            key = ssh.wait_scan(host, fingerprints, patience)
            work.write(KNOWN_HOSTS, f"{host.alias} {key}\n".encode())
            if not fingerprints:
                work.note(f"pinned the host key seen at first contact: {ssh.fingerprint(key)}")
        work.connection = ssh.wait_connect(
            host, patience, newborn=work.newborn, ask=work.progress.ask, told=lambda why: work.part(why.message)
        )


@contextmanager
def _console_told(work: Work) -> Iterator[None]:
    """Add the end of the instance's console to an error that waiting did not help against."""
    try:
        yield
    except (UnreachableError, LoginError) as error:
        console = ""
        with suppress(MachinekitError):  # that there is none is no news beside the error
            console = work.driver.console()
        if lines := _last_lines(console):
            error.message += "\n  ".join(["", "the end of its console:", *lines])
        raise


def _last_lines(console: str) -> list[str]:
    """The last lines that a console showed, without secrets, empty lines, and what a terminal would obey."""
    shown = reference.redacted(TERMINAL.sub("", console))  # before a line is cut: half a secret would stay
    lines = (line.rstrip()[:WIDTH] for line in shown.splitlines())
    return [line for line in lines if line][-LAST_LINES:]


def _patience(work: Work, adopted: float) -> float:
    """Seconds to wait for a login: as long as a boot may take only where there may be one. `adopted` is a server's."""
    if not work.driver.capabilities.births:
        return adopted
    return BOOT if work.newborn or STARTED in work.changed else COMEBACK


def _poll_address(work: Work, found: Instance) -> Instance:
    def usable(instance: Instance | None) -> bool:
        return instance is not None and instance.state is State.RUNNING and bool(instance.address)

    if usable(found):
        return found
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda instance: not usable(instance)),
        wait=tenacity.wait_exponential(multiplier=0.05, max=5, exp_base=1.5),
        stop=tenacity.stop_after_delay(ADDRESS),
    )
    try:
        instance = retrying(work.driver.find)
    except tenacity.RetryError as error:
        last = error.last_attempt.result()
        state = last.state if last else "not found"
        raise DeadlineError(f"no address within {ADDRESS:.0f} s; the instance is {state}") from None
    assert instance is not None  # noqa: S101 (usable says so)
    return instance
