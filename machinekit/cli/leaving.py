"""Ctrl-C, SIGTERM and a closed terminal end a command within two seconds, whatever its threads are doing.

Everything is made to be killed at any moment, so nothing is awaited but the programs that are told to end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from machinekit import programs
from machinekit.errors import MachinekitError
from machinekit.machine import Phase
from machinekit.store import Store
from machinekit.work import to_finish

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to end", signal.SIGHUP: "the terminal was closed"}
PATIENCE = 1.0  # seconds for programs to end by themselves
LIMIT = 1.8  # seconds for everything


@contextmanager
def leaving(left: Callable[[], list[str]], before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """End this process on a signal and say what is `left`, a line each; `before` makes the terminal fit to write on."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # a thread can end us while the main one is deep in a library; what was ignored (nohup, a job of a script) stays so
    watcher = threading.Thread(target=_watch, args=(reader, left, before), daemon=True)
    watcher.start()
    old = {number: signal.getsignal(number) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        if old[number] is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _watch(reader: int, left: Callable[[], list[str]], before: Callable[[], None]) -> None:
    while heard := os.read(reader, 1):
        if heard[0] in SIGNALS:
            _leave(heard[0], left, before)


def _leave(number: int, left: Callable[[], list[str]], before: Callable[[], None]) -> None:
    code = 128 + number
    limit = threading.Timer(LIMIT, os._exit, (code,))  # for a terminal or a disk that does not answer
    limit.daemon = True
    limit.start()
    with suppress(Exception):
        programs.end(PATIENCE)
        before()
        print("\n  ".join([f"machinekit: {SIGNALS[signal.Signals(number)]}", *left()]), file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)


def state_of(store: Store, name: str, again: str = "") -> str:
    """How far a machine is, and how to go on; `again` finishes its removal, `machinekit rm` if it is empty."""
    try:
        if not store.exists(name):
            return f"{name}: there is nothing of it"
        machine = store.load(name)
    except MachinekitError as error:
        return f"{name}: {error.message}"
    if machine.phase is Phase.CREATING:
        return f"{name}: not created to the end; {to_finish(machine)}"
    if machine.phase is Phase.REMOVING:
        return f"{name}: not removed to the end; {again or f'machinekit rm {name}'}"
    return f"{name}: what was being done may be half done; run the same command again"
