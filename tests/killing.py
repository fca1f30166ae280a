"""Runs commands that kill themselves, each in a process of its own: python -m tests.killing STORE CLOUD PORT.

A line of stdin is a JSON list: a verb, and the step to die at (see crashing.Life). The answer is how the process ended
and how many steps it took. The provider is kept in the file CLOUD.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from machinekit import gc, lifecycle
from machinekit.create import create
from machinekit.errors import MachinekitError
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told
from tests.crashing import Life, WatchedCloud, living, watch
from tests.providers.fake import Fake, FakeInstance, FakeOptions


@dataclass
class FileCloud(WatchedCloud):
    """A provider that outlives the process."""

    file: Path = Path()

    @contextmanager
    def request(self, name: str, token: str) -> Iterator[None]:
        """One call of the API."""
        with super().request(name, token):
            self.instances, self.disks = read(self.file)
            yield
            self.file.write_bytes(pickle.dumps((self.instances, self.disks)))


def read(file: Path) -> tuple[dict[str, FakeInstance], dict[str, dict[str, str]]]:
    """What the provider has: instances and disks."""
    instances, disks = pickle.loads(file.read_bytes())  # noqa: S301 (of our own making)
    return instances, disks


def run(store: Store, verb: str) -> None:
    """One command on the machine `a`."""
    options = FakeOptions("s3cret")
    if verb == "create":
        create(store, "a", driver="fake", options=options, spec=Spec(), progress=Told())
    elif verb == "gc":
        for garbage in gc.find(store, [("fake", options)]).garbage:
            gc.remove(store, garbage)
    else:
        getattr(lifecycle, {"rm": "remove"}.get(verb, verb))(store, "a", Told())


def main() -> None:
    """Serve until the end of stdin."""
    home, file, port = sys.argv[1:]
    certificates = Path(os.environ["CERTIFICATES"])
    files = (certificates / "ca.pem", certificates / "cert.pem", certificates / "key.pem")
    Fake.cloud = FileCloud(int(port), files, file=Path(file))
    watch(pytest.MonkeyPatch())
    for line in sys.stdin:
        verb, kill = json.loads(line)
        reader, writer = os.pipe()
        if not os.fork():
            _run_and_end(Store(Path(home)), verb, kill, writer)
        os.close(writer)
        steps = 0
        while heard := os.read(reader, 4096):
            steps += len(heard)
        os.close(reader)
        _, status = os.wait()
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), steps]) + "\n")
        sys.stdout.flush()


def _run_and_end(store: Store, verb: str, kill: int, writer: int) -> NoReturn:
    life = Life(kill, lambda: os.kill(os.getpid(), signal.SIGKILL), told=lambda: os.write(writer, b"."))
    code = 70  # of an exception that is none of ours
    try:
        with living(life):
            run(store, verb)
        code = 0
    except MachinekitError as error:
        code = error.exit_code
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
