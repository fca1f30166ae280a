"""Many machines at once: one call a provider, engines in parallel, no trouble spreads."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from machinekit import collect
from machinekit.collect import Row
from machinekit.errors import NoSuchMachineError
from machinekit.machine import Machine, State
from machinekit.record import RECORD
from machinekit.store import CA, CLIENT_CERT, CLIENT_KEY, Store
from tests.providers.fake import FakeCloud, FakeInstance
from tests.servers import ENGINE_VERSION, Certificates, Server, engine, silent


@pytest.fixture
def plain() -> Iterator[Server]:
    """An engine without TLS."""
    with Server(engine) as server:
        yield server


def reserve(store: Store, name: str, driver: str = "none", url: str = "", **options: object) -> Machine:
    if driver == "none":
        options = {"url": url or "tcp://127.0.0.1:1", **options}
    machine = Machine(name, f"uid-{name}", driver, "s", "", options=options, url=url, tls=False)
    store.reserve(machine)
    return machine


def test_each_state_in_its_row(
    store: Store, cloud: FakeCloud, plain: Server, environment: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    here = f"tcp://127.0.0.1:{plain.port}"
    reserve(store, "adopted", url=here)
    reserve(store, "asleep", "fake", "tcp://127.0.0.1:1")
    cloud.instances["uid-asleep"] = FakeInstance({}, State.STOPPED)
    reserve(store, "gone", "fake", "tcp://127.0.0.1:1")
    reserve(store, "new", "fake")
    cloud.instances["uid-new"] = FakeInstance({})
    reserve(store, "unknown", "no-such-driver")
    reserve(store, "stale", colour="red")
    reserve(store, "broken")
    (store.directory("broken") / RECORD).write_text("{")
    reserve(store, "dead", url="tcp://127.0.0.1:1")
    secure = reserve(store, "secure", "fake", f"tcp://127.0.0.1:{cloud.engine_port}")
    cloud.instances["uid-secure"] = FakeInstance({})
    secure.tls = True
    store.save(secure)
    for file in (CA, CLIENT_CERT, CLIENT_KEY):
        store.write("secure", file, (certificates.directory / file).read_bytes())
    environment.setenv("DOCKER_HOST", here)

    rows = {row.name: row for row in collect.rows(store, [*store.names(), "absent"], 5)}

    assert rows["adopted"] == Row("adopted", True, "none", State.RUNNING, here, ENGINE_VERSION)
    assert rows["asleep"] == Row("asleep", False, "fake", State.STOPPED, "tcp://127.0.0.1:1")
    assert rows["gone"].state is State.NOT_FOUND
    assert rows["new"] == Row("new", False, "fake", State.RUNNING)
    assert rows["secure"].engine == ENGINE_VERSION
    assert (rows["unknown"].state, rows["unknown"].error) == (State.ERROR, 'driver "no-such-driver" not found')
    assert rows["stale"].error.startswith('the options of "stale" are not those of driver none: ')
    assert rows["broken"].state is State.ERROR
    assert "cannot read" in rows["broken"].error
    assert "absent" not in rows, "it was removed meanwhile"
    assert "Connection refused" in rows["dead"].error
    assert cloud.calls["find"] == 1, "one call for all machines of a provider"


def test_a_provider_that_fails_spoils_its_own_rows_only(store: Store, cloud: FakeCloud, plain: Server) -> None:
    for number in range(3):
        reserve(store, f"fake{number}", "fake")
    reserve(store, "adopted", url=f"tcp://127.0.0.1:{plain.port}")
    cloud.failing.add("find")
    rows = collect.rows(store, store.names(), 5)
    assert [(row.name, row.state, row.error) for row in rows] == [
        ("adopted", State.RUNNING, ""),
        *[(f"fake{number}", State.ERROR, "the provider refuses to find") for number in range(3)],
    ]


def test_engines_that_are_silent_cost_one_patience_together(store: Store) -> None:
    with Server(silent) as server:
        for number in range(20):
            reserve(store, f"n{number}", url=f"tcp://127.0.0.1:{server.port}")
        started = time.monotonic()
        rows = collect.rows(store, store.names(), 0.4)
        assert time.monotonic() - started < 2
    assert len({row.error for row in rows}) == 1
    assert "timed out" in rows[0].error


def test_an_empty_store_has_no_rows(store: Store) -> None:
    assert collect.rows(store, store.names(), 5) == []


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPED, State.PAUSED, State.ERROR])
def test_one_state(store: Store, cloud: FakeCloud, state: State) -> None:
    reserve(store, "node1", "fake")
    assert collect.state(store, "node1") is State.NOT_FOUND
    cloud.instances["uid-node1"] = FakeInstance({}, state)
    assert collect.state(store, "node1") is state
    with pytest.raises(NoSuchMachineError):
        collect.state(store, "node2")


def test_one_account_that_fails_does_not_spoil_the_others(store: Store, cloud: FakeCloud) -> None:
    for name in ("a", "b"):
        reserve(store, name, "fake", "tcp://127.0.0.1:1")
        cloud.instances[f"uid-{name}"] = FakeInstance({}, State.STOPPED)
    cloud.failing_once.add("find")
    assert [row.state for row in collect.rows(store, store.names(), 1)] == [State.STOPPED, State.STOPPED]
