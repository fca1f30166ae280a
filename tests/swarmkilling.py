"""Makes swarms in processes that kill themselves: python -m tests.swarmkilling STORE.

A line of stdin is a JSON list: a roster's managers, workers and labels, who leaves, and the request to die at (see
crashing.Life); only requests that change something count. The answer is how the process ended and how many it made.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from machinekit import dockerapi, swarm
from machinekit.errors import MachinekitError
from machinekit.store import Store
from machinekit.swarmstate import Roster
from tests.conftest import Told
from tests.crashing import Life, everywhere, step

call = dockerapi.call


def watched(url: str, method: str, path: str, tls: Path | None, **more: Any) -> Any:
    """A request, which is a step where it changes something."""
    if method == "GET":
        return call(url, method, path, tls, **more)
    with step(f"{method} {path}"):
        return call(url, method, path, tls, **more)


def main() -> None:
    """Serve until the end of stdin."""
    store = Store(Path(sys.argv[1]))
    dockerapi.call = watched
    for line in sys.stdin:
        *roster, leaving, kill = json.loads(line)
        reader, writer = os.pipe()
        if not os.fork():
            _run_and_end(store, Roster(*roster), leaving, kill, writer)
        os.close(writer)
        steps = 0
        while heard := os.read(reader, 4096):
            steps += len(heard)
        os.close(reader)
        _, status = os.wait()
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), steps]) + "\n")
        sys.stdout.flush()


def _run_and_end(store: Store, roster: Roster, leaving: str, kill: int, writer: int) -> NoReturn:
    everywhere(Life(kill, lambda: os.kill(os.getpid(), signal.SIGKILL), told=lambda: os.write(writer, b".")))
    code = 70  # of an exception that is none of ours
    try:
        if leaving:
            swarm.leave(store, leaving, roster, Told())
        else:
            swarm.converge(store, roster, Told())
        code = 0
    except MachinekitError as error:
        sys.stderr.write(f"{error.message}\n")
        code = error.exit_code
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
