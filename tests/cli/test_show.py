"""`url`, `ip`, `status`, `inspect`, `active`, `version`: one fact on stdout."""

from __future__ import annotations

import json

import pytest

from machinekit.machine import Machine, State
from machinekit.record import RECORD
from machinekit.store import Store
from tests.conftest import Cli, Result
from tests.providers.fake import FakeCloud
from tests.servers import ENGINE_VERSION


def test_facts(cli: Cli, store: Store, adopted: Machine, plain: Machine) -> None:
    assert cli("url", "node1") == Result(0, f"{adopted.url}\n", "")
    assert cli("ip", "node1", "plain", "node1") == Result(0, "127.0.0.1\n127.0.0.1\n", "")
    assert cli("status", "node1") == Result(0, "Running\n", "")
    assert cli("version", "node1") == Result(0, f"{ENGINE_VERSION}\n", "")
    record = json.loads(cli("inspect", "node1").out)
    assert record == adopted.to_json() | {"directory": str(store.directory("node1"))}


@pytest.mark.parametrize("command", ["url", "ip"])
def test_no_address_yet(cli: Cli, adopted: Machine, unfinished: Machine, command: str) -> None:
    names = ["node1", "half"] if command == "ip" else ["half"]
    result = cli(command, *names)
    assert (result.code, result.out) == (1, "")
    assert 'machine "half" has no address yet' in result.err


@pytest.mark.parametrize("state", [State.STOPPED, State.PAUSED, State.ERROR])
def test_status_asks_the_driver(cli: Cli, made: Machine, cloud: FakeCloud, state: State) -> None:
    cloud.instances[made.uid].state = state
    assert cli("status", "fake1").out == f"{state}\n"
    cloud.instances.clear()
    assert cli("status", "fake1").out == "Not Found\n"
    cloud.failing.add("find")
    assert cli("status", "fake1") == Result(1, "", "machinekit: the provider refuses to find\n")


@pytest.mark.parametrize(
    ("host", "out", "code"), [("its", "node1\n", 0), ("tcp://192.0.2.9:2376", "", 1), ("", "", 1), (None, "", 1)]
)
def test_active(
    cli: Cli, store: Store, adopted: Machine, environment: pytest.MonkeyPatch, host: str | None, out: str, code: int
) -> None:
    (store.machines / "broken").mkdir()
    (store.machines / "broken" / RECORD).write_text("{")
    if host is not None:
        environment.setenv("DOCKER_HOST", adopted.url if host == "its" else host)
    result = cli("active")
    assert (result.code, result.out) == (code, out)
    assert ("no machine is active" in result.err) is bool(code)
