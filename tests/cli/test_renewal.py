"""Certificates that are due are renewed by whatever command comes next."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from machinekit.providers.generic import GenericOptions

from machinekit import keys
from machinekit.create import create
from machinekit.spec import Spec
from machinekit.store import CA, CA_KEY, CLIENT_CERT, SERVER_CERT, SERVER_KEY, TIME, Store
from tests.conftest import Cli, Told
from tests.servers import FakeHost

LATER = "2999-01-01T00:00:00Z"


@pytest.fixture
def machine(store: Store, told: Told, host: FakeHost) -> str:
    """A machine whose server certificate was issued 250 days ago."""
    key = str(host.directory / "key")
    options = GenericOptions("127.0.0.1", ssh_port=host.port, ssh_key=key, engine_port=host.engine.port)
    create(store, "node1", driver="generic", options=options, spec=Spec(), progress=told)
    directory = store.directory("node1")
    then = datetime.now(UTC) - timedelta(days=250)
    ca = keys.Pair((directory / CA).read_bytes(), (directory / CA_KEY).read_bytes())
    old = keys.server(ca, ["127.0.0.1", "node1", "localhost"], keys.Clocks(then, then))
    store.write("node1", SERVER_KEY, old.key)
    store.write("node1", SERVER_CERT, old.cert)
    host.files |= {"/etc/docker/server.pem": old.cert, "/etc/docker/server-key.pem": old.key}
    set_due(store, keys.renewal_due(old.cert).strftime(TIME))
    return "node1"


def set_due(store: Store, due: str) -> None:
    record = store.load("node1")
    record.renewal_due = due
    store.save(record)


@pytest.mark.parametrize("command", ["env", "config", "url", "ip", "inspect", "status", "use"])
def test_any_command_renews_what_is_due(cli: Cli, store: Store, host: FakeHost, machine: str, command: str) -> None:
    before = {file: (store.directory(machine) / file).read_bytes() for file in (CA, CLIENT_CERT, SERVER_CERT)}
    settings = host.files["/etc/docker/daemon.json"]
    result = cli(command, machine)
    assert result.code == 0, result.err
    assert "node1: certificates renewed" in result.err
    assert "certificates renewed" not in result.out
    after = {file: (store.directory(machine) / file).read_bytes() for file in before}
    assert {file for file in before if before[file] != after[file]} == {SERVER_CERT}
    assert host.files["/etc/docker/server.pem"] == after[SERVER_CERT]
    assert host.files["/etc/docker/daemon.json"] == settings
    assert store.read(machine)["renewal_due"] > datetime.now(UTC).strftime(TIME)
    scripts = len(host.scripts)
    assert cli(command, machine).code == 0
    assert len(host.scripts) == scripts  # it is not looked at again


def test_a_renewal_that_fails_is_a_warning_until_tomorrow(cli: Cli, store: Store, host: FakeHost, machine: str) -> None:
    host.fails = "put /etc/docker/server.pem"
    result = cli("config", machine)
    assert result.code == 0
    assert result.out.startswith("--tlsverify")
    assert 'the certificates of "node1" are due and cannot be renewed: a script on' in result.err
    assert "machinekit regenerate-certs node1" in result.err
    tomorrow = (datetime.now(UTC) + timedelta(hours=23)).strftime(TIME)
    assert store.read(machine)["renewal_due"] > tomorrow
    assert cli("config", machine).err == ""
    host.fails = ""
    assert "certificates renewed" in cli("regenerate-certs", "-y", machine).out


def test_a_date_that_only_a_wrong_clock_can_have_set_is_due(cli: Cli, store: Store, machine: str) -> None:
    set_due(store, LATER)
    assert "certificates renewed" in cli("config", machine).err


def test_another_process_that_works_on_it_is_not_waited_for(cli: Cli, store: Store, machine: str) -> None:
    holder = (
        "import sys; from pathlib import Path; from machinekit.store import Store\n"
        "with Store(Path(sys.argv[1])).lock('node1', 'provision', print): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(store.home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        result = cli("config", machine)
        other.communicate("")
    assert result.code == 0
    assert 'its certificates are due; machine "node1" is held by provision' in result.err


def test_a_machine_without_certificates_of_ours_is_left_alone(cli: Cli, store: Store, adopted: object) -> None:
    assert store.read("node1")["renewal_due"] == ""
    assert cli("config", "node1").err == ""
