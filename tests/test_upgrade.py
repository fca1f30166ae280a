"""Which version an upgrade goes to, what it remembers, and how it goes back; tests/e2e has it with real packages."""

from __future__ import annotations

from typing import Any

import pytest
from machinekit.providers.generic import Generic
from machinekit.providers.none import NoneOptions

from machinekit.create import create
from machinekit.errors import EngineError, MachinekitError, UsageError
from machinekit.provider import Capabilities
from machinekit.spec import Spec
from machinekit.store import Store
from machinekit.upgrade import upgrade
from tests.conftest import Told, adopting
from tests.servers import FakeHost, Proxy, Server, engine

NEW, OLD, OLDER = "20.10.26+dfsg1-1", "20.10.25+dfsg1-1", "20.10.24+dfsg1-1"


def adopt(store: Store, told: Told, host: FakeHost, port: int = 0, /, **spec: Any) -> None:
    host.offers = [NEW, OLD, OLDER]
    options = adopting(host, ssh_port=port or host.port)
    create(store, "node1", driver="generic", options=options, spec=Spec(**spec), progress=told)
    if not spec:
        host.facts["package"] = f"docker.io {OLD}"
    host.scripts.clear()


def remembered(store: Store) -> str:
    return str(store.load("node1").spec["version"])


@pytest.mark.parametrize(
    ("pinned", "to", "version", "pin", "done"),
    [
        ("", "", NEW, "", "engine upgraded from 20.10.25 to 20.10.26"),
        ("", "20.10.24", OLDER, "20.10.24", "engine upgraded from 20.10.25 to 20.10.24"),
        ("", "20.10.25", OLD, "20.10.25", "held at 20.10.25"),
        ("", "latest", NEW, "", "engine upgraded from 20.10.25 to 20.10.26"),
        ("20.10.25", "", OLD, "20.10.25", ""),
        ("20.10.25", "20.10.25", OLD, "20.10.25", ""),
        ("20.10.25", "20.10.26", NEW, "20.10.26", "engine upgraded from 20.10.25 to 20.10.26"),
        ("20.10.25", "latest", NEW, "", "engine upgraded from 20.10.25 to 20.10.26"),
        ("20.10.26", "latest", NEW, "", "not held any more"),
    ],
)
def test_where_an_upgrade_goes(
    store: Store, told: Told, host: FakeHost, pinned: str, to: str, version: str, pin: str, done: str
) -> None:
    adopt(store, told, host, **({"version": pinned} if pinned else {}))
    assert upgrade(store, "node1", told, to=to) == ([done] if done else [])
    assert host.facts["package"] == f"docker.io {version}"
    assert remembered(store) == pin
    installs = [script.partition("packages_install docker.io=")[2].partition("\n)")[0] for script in host.scripts]
    assert any("packages_hold docker.io" in script for script in installs) is bool(pin and done)
    assert upgrade(store, "node1", told) == []


def test_the_very_version_that_is_there_is_held_without_asking_a_repository(
    store: Store, told: Told, host: FakeHost
) -> None:
    adopt(store, told, host)
    host.offers = []
    assert upgrade(store, "node1", told, to=OLD) == ["held at 20.10.25"]
    assert remembered(store) == OLD
    assert any("packages_hold docker.io" in script for script in host.scripts)
    assert not any("packages_install docker.io" in script for script in host.scripts)
    assert upgrade(store, "node1", told) == []


@pytest.mark.parametrize("pinned", ["", "20.10.25"])
def test_an_engine_that_does_not_start_is_taken_back(store: Store, told: Told, host: FakeHost, pinned: str) -> None:
    adopt(store, told, host, **({"version": pinned} if pinned else {}))
    host.broken = NEW
    with pytest.raises(EngineError) as caught:
        upgrade(store, "node1", told, to="20.10.26")
    assert "its journal\nthe engine does not start with 20.10.26" in caught.value.message
    assert f"it runs 20.10.25 ({OLD}) again" in caught.value.message
    assert remembered(store) == pinned


def test_an_upgrade_that_fails_earlier_is_taken_back_too(store: Store, told: Told, host: FakeHost) -> None:
    adopt(store, told, host)
    host.fails = f"docker.io={NEW}"
    with pytest.raises(EngineError) as caught:
        upgrade(store, "node1", told)
    assert "it failed" in caught.value.message
    assert f"the upgrade to 20.10.26 ({NEW}) failed; the engine runs 20.10.25 ({OLD}) again" in caught.value.message
    assert f"packages_install docker.io={OLD}" in host.scripts[-1]
    assert f"docker.io={NEW}" not in host.scripts[-1]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("broken", ["", NEW])
def test_a_host_that_reboots_in_the_middle(store: Store, told: Told, host: FakeHost, at: int, broken: str) -> None:
    """The connection is cut: by then nobody knows how far the script got, and it runs again."""
    host.broken = broken
    started = []

    def begin() -> None:
        started.append(len(host.scripts))
        if len(started) == at:
            link.cut()

    with Proxy(host.port) as link:
        adopt(store, told, host, link.port)
        host.before_exec = begin
        if broken:
            with pytest.raises(EngineError, match=r"it runs 20\.10\.25 .* again"):
                upgrade(store, "node1", told)
        else:
            assert upgrade(store, "node1", told) == ["engine upgraded from 20.10.25 to 20.10.26"]
    assert host.facts["package"] == f"docker.io {OLD if broken else NEW}"
    assert sum("waiting for the host to come back" in note for note in told.notes) == (1 if at <= len(started) else 0)


def test_no_way_back_is_said_first(store: Store, told: Told, host: FakeHost) -> None:
    adopt(store, told, host)
    host.offers, host.broken = [NEW], NEW
    with pytest.raises(EngineError, match="no repository has 20"):
        upgrade(store, "node1", told)
    assert any(f"no repository has 20.10.25 ({OLD}) any more" in note for note in told.notes)


def test_a_version_that_does_not_exist_changes_nothing(store: Store, told: Told, host: FakeHost) -> None:
    adopt(store, told, host)
    with pytest.raises(
        UsageError, match=r"no version 20\.10\.29 of docker\.io for debian 12; the nearest there are: 20"
    ):
        upgrade(store, "node1", told, to="20.10.29")
    assert remembered(store) == ""
    assert not any("packages_install docker.io" in script for script in host.scripts)


def test_a_new_machine_gets_the_version_or_an_error(store: Store, told: Told, host: FakeHost) -> None:
    host.facts |= {"dockerd": "/usr/sbin/dockerd", "package": f"docker.io {OLD}"}
    with pytest.raises(EngineError, match=r"the engine on the host is docker\.io .*, not 20\.10\.26"):
        adopt(store, told, host, version="20.10.26")
    adopt(store, told, host, engine="docker")
    assert any("is not from --engine docker; it stays as it is" in note for note in told.notes)


@pytest.fixture
def births(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers count as newly made, as those of a cloud do."""
    monkeypatch.setattr(Generic, "capabilities", Capabilities())
    monkeypatch.setattr(Generic, "carries_host_key", False)


@pytest.mark.usefixtures("births")
def test_the_engine_in_the_image_of_a_machine_that_is_born_is_exchanged(
    store: Store, told: Told, host: FakeHost
) -> None:
    host.facts |= {"dockerd": "/usr/sbin/dockerd", "package": f"docker.io {OLD}"}
    adopt(store, told, host, version="20.10.26")
    assert host.facts["package"] == f"docker.io {NEW}"


@pytest.mark.usefixtures("births")
def test_the_version_in_the_image_of_a_machine_that_is_born_is_held(store: Store, told: Told, host: FakeHost) -> None:
    host.facts |= {"dockerd": "/usr/sbin/dockerd", "package": f"docker.io {OLD}"}
    held = "packages_hold docker.io )"
    adopted = adopting(host)
    create(store, "node1", driver="generic", options=adopted, spec=Spec(version="20.10.25"), progress=told)
    assert any(held in script for script in host.scripts)
    assert not any("packages_install docker.io=" in script for script in host.scripts)


def test_what_others_installed_is_not_ours_to_upgrade(store: Store, told: Told) -> None:
    with Server(engine) as server:
        options = NoneOptions(f"tcp://127.0.0.1:{server.port}")
        create(store, "node1", driver="none", options=options, spec=Spec(), progress=told)
        with pytest.raises(MachinekitError, match="has no versions to choose from"):
            upgrade(store, "node1", told)
