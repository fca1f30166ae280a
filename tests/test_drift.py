"""What hosts and providers tell against the record: each kind of drift is seen, and changes nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from machinekit import drift, service
from machinekit.create import create
from machinekit.errors import RemoteError
from machinekit.machine import Phase
from machinekit.manifest import manifest
from machinekit.plan import Difference
from machinekit.setup import Registry, Setup
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told, adopting
from tests.servers import FakeHost

SETTINGS = "/etc/docker/daemon.json"


@pytest.fixture
def server(store: Store, told: Told, host: FakeHost) -> FakeHost:
    """The host of the adopted machine `node1`."""
    create(store, "node1", driver="generic", options=adopting(host), spec=Spec(opts=("log-level=warn",)), progress=told)
    host.scripts.clear()
    return host


def seen(store: Store) -> list[Difference]:
    return drift.look(store, [store.load("node1")])["node1"]


def edited(host: FakeHost) -> None:
    settings = json.loads(host.files[SETTINGS]) | {"log-level": "debug", "theirs": True}
    host.files[SETTINGS] = json.dumps(settings).encode()


def without_drop_in(host: FakeHost) -> None:
    del host.files[service.DROP_IN]


@pytest.mark.parametrize(
    ("happens", "differences"),
    [
        (lambda host: None, []),
        (edited, [(SETTINGS, "log-level changed on the host", "as configured")]),
        (without_drop_in, [(service.DROP_IN, "missing", "as configured")]),
        (lambda host: host.facts.update(active="no"), [("engine", "stopped", "running")]),
        (lambda host: host.facts.update(dockerd=""), [("engine", "not installed", "installed")]),
    ],
)
def test_what_is_not_as_configured(
    store: Store, server: FakeHost, happens: Callable[[FakeHost], None], differences: list[tuple[str, str, str]]
) -> None:
    happens(server)
    assert seen(store) == [Difference(*each) for each in differences]
    assert len(server.scripts) == 1  # and nothing is put there


def test_another_version_than_the_one_that_is_held(store: Store, server: FakeHost) -> None:
    record = store.load("node1")
    record.spec["version"] = "26.1.5"
    store.save(record)
    server.facts["package"] = "docker.io 20.10.24+dfsg1-1"
    (found,) = seen(store)
    assert (found.what, found.after) == (drift.ENGINE_VERSION, "26.1.5")
    assert "20.10.24" in found.before


def test_another_version_of_a_companion(store: Store, server: FakeHost) -> None:
    record = store.load("node1")
    record.spec |= {"version": "20.10.24", "packages": ["containerd=1.6.20", "runc=1.1.5"]}
    store.save(record)
    server.facts |= {
        "package": "docker.io 20.10.24+dfsg1-1",
        "companion containerd": "1.6.21",
        "companion runc": "1.1.5",
    }
    wanted = ["containerd=1.6.20", "runc=1.1.5"]
    assert seen(store) == [Difference(drift.ENGINE_PACKAGES, ["containerd=1.6.21"], wanted)]


def test_certificates_that_are_due(store: Store, server: FakeHost) -> None:
    record = store.load("node1")
    record.renewal_due = "2020-01-01T00:00:00Z"
    store.save(record)
    assert seen(store) == [Difference("certificates", "about to end", "renewed")]


def test_a_host_that_does_not_answer(store: Store, server: FakeHost) -> None:
    record = store.load("node1")
    record.options["ssh_port"] = record.ssh_port = 1
    store.save(record)
    (found,) = seen(store)
    assert (found.what, found.after) == ("host", "answers")
    assert "refuses the connection" in found.before


def test_another_address(store: Store, server: FakeHost) -> None:
    record = store.load("node1")
    record.address = "127.0.0.2"
    store.save(record)
    assert seen(store) == [Difference("address", f"127.0.0.2:{server.port}", f"127.0.0.1:{server.port}")]


def test_what_is_not_finished_is_the_records_to_tell(store: Store, server: FakeHost) -> None:
    record = store.load("node1")
    record.phase = Phase.CREATING
    assert drift.look(store, [record]) == {}
    assert server.scripts == []


def test_no_secret_in_what_a_host_says_when_it_cannot_be_looked_at(
    store: Store, server: FakeHost, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("WORD", "s3cret-of-ours")
    record = store.load("node1")
    setup = Setup(registries=(Registry(host="hub.example", username="bob", password="env:WORD"),))  # noqa: S106
    record.setup = setup.model_dump(mode="json")
    store.save(record)
    login = base64.b64encode(b"bob:s3cret-of-ours").decode()
    config = base64.b64encode(json.dumps({"auths": {"hub.example": {"auth": login}}}).encode()).decode()
    server.said["say os_id"] = [f"machinekit:carried docker_config={config}", f"cat: {login}: no such file"]
    server.fails, server.last_words = "say os_id", "sh: s3cret-of-ours: not found"
    (found,) = seen(store)
    assert found.what == "host"
    assert "failed with exit code 1" in found.before
    assert not [form for form in ("s3cret-of-ours", login, config) if form in found.before]
    with pytest.raises(RemoteError) as error:
        manifest(store, "node1")
    assert "s3cret-of-ours" not in str(error.value) + repr(error.value.args)


@pytest.mark.parametrize(
    "line",
    [
        "machinekit:carried file=a b",
        "machinekit:carried role=",
        "machinekit:carried check=nobody 0 YQ==",
        "machinekit:carried logins=a",
        f"machinekit:carried logins={base64.b64encode(b'[' * 100_000).decode()}",
        "machinekit:conf_d=a",
        "machinekit:daemon_json=a",
        "machinekit:original x=a",
        "machinekit:clock=noon",
        f"machinekit:clock={'9' * 5000}",
        f"machinekit:free usr={'9' * 5000}",
    ],
)
def test_a_host_that_talks_nonsense_is_its_own_trouble(store: Store, server: FakeHost, line: str) -> None:
    server.said["say os_id"] = [line]
    assert all("makes no sense" in each.before or "not valid JSON" in each.before for each in seen(store))
