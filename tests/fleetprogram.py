"""The command line with a provider that outlives the process: python -m tests.fleetprogram CLOUD PORT ARGUMENT...

With $FAKE_CALL each of its calls takes that many seconds, and a create has as many of them as one on AWS.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machinekit import cli
from tests.providers.fake import Fake, FakeCloud


class Table(MutableMapping[str, Any]):
    """A dictionary in a file; what is in it stays there when the process is killed."""

    def __init__(self, file: Path, name: str) -> None:
        self._lock = threading.Lock()
        self._name = name
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=60)
        self._database.execute("PRAGMA journal_mode = WAL")  # no file made and deleted at each change
        self._database.execute("PRAGMA synchronous = OFF")  # the computer does not fail, the process does
        self._database.execute(f"CREATE TABLE IF NOT EXISTS {name} (key TEXT PRIMARY KEY, value BLOB)")

    def _do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(statement.format(self._name), values).fetchall()

    def __getitem__(self, key: str) -> Any:
        found = self._do("SELECT value FROM {} WHERE key = ?", key)
        if not found:
            raise KeyError(key)
        return pickle.loads(found[0][0])  # noqa: S301 (of our own making)

    def __setitem__(self, key: str, value: Any) -> None:
        self._do("INSERT OR REPLACE INTO {} VALUES (?, ?)", key, pickle.dumps(value))

    def __delitem__(self, key: str) -> None:
        self._do("DELETE FROM {} WHERE key = ?", key)

    def __iter__(self) -> Iterator[str]:
        return iter([key for (key,) in self._do("SELECT key FROM {}")])

    def __len__(self) -> int:
        return int(self._do("SELECT count(*) FROM {}")[0][0])


# how many calls of a real cloud each one stands for
CALLS = {"check": 3, "create disk": 1, "create": 3, "find": 1}


class SlowCloud(FakeCloud):
    """One that is far away."""

    @contextmanager
    def request(self, name: str, token: str) -> Iterator[None]:
        """Take the time."""
        time.sleep(float(os.environ.get("FAKE_CALL", "0")) * CALLS.get(name, 1))
        with super().request(name, token):
            yield


def cloud_in(file: Path, port: int, certificates: tuple[Path, Path, Path]) -> FakeCloud:
    """The provider that a file has."""
    instances, disks = Table(file, "instances"), Table(file, "disks")
    return SlowCloud(port, certificates, instances, disks)  # type: ignore[arg-type]  # what it needs of a dict


def main() -> int:
    """Run the command line."""
    directory = Path(os.environ["CERTIFICATES"])
    certificates = (directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    Fake.cloud = cloud_in(Path(sys.argv[1]), int(sys.argv[2]), certificates)
    return cli.main(sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
