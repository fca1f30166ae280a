"""Run programs. They hold our locks until they end, and those that take long end when we do.

Each runs in a process group of its own: Ctrl-C at the terminal is for this process alone, which may leave a request
that somebody is working on to its end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from machinekit.errors import DeadlineError

NEEDED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL")
_running: dict[subprocess.Popen[bytes], bool] = {}  # and whether it is a long one


def run(
    command: Sequence[str | Path],
    *,
    data: bytes = b"",
    patience: float | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    umask: int = -1,
    long: bool = False,
    stays: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end with `data` as its input; raises FileNotFoundError, and DeadlineError after `patience` seconds.

    Without an `environment` it gets what every program is `given`. A `long` one has no input, can be cut off, and is
    ended with us, even when we are killed. One that `stays` when its command has ended, as a daemon does, holds no
    lock.
    """
    words = [*_mortal(), *command] if long else command
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=given() if environment is None else environment,
        umask=umask,
        process_group=0,
        close_fds=stays,
    ) as process:
        _running[process] = long
        try:
            out, err = process.communicate(data, timeout=patience)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            raise DeadlineError(f"{command[0]} did not end within {patience:g} s") from None
        except BaseException:
            _signal(process, signal.SIGKILL)
            raise
        finally:
            del _running[process]
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def given(*more: str) -> dict[str, str]:
    """What programs need of our environment: the tokens in it are none of their business."""
    return {name: os.environ[name] for name in (*NEEDED, *more) if name in os.environ}


def end(patience: float) -> None:
    """End every program. The long ones are told to, and may clean up after themselves; the others have `patience`."""
    running = dict(_running)
    for process, long in running.items():
        if long:
            _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process, long in running.items():
        if not long:
            _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _mortal() -> list[str]:
    """What ends a program and all that it has started when we are killed, where the kernel tells of that."""
    return ["setpriv", "--pdeathsig", "TERM", "sh", "-c", _WHOLE_GROUP, "sh"] if shutil.which("setpriv") else []


# The kernel signals one process alone, and mmdebstrap for one ignores what its children do not get.
_WHOLE_GROUP = """
trap 'trap "" TERM; kill 0' TERM
"$@" &
while :; do
  wait "$!"
  code=$?
  kill -0 "$!" 2>/dev/null || exit "$code"
done
"""
