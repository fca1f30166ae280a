"""Several at once, each a process of its own: first creates, readers while others write, commands on one machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from machinekit.providers.none import NoneOptions

from machinekit import dockerapi, lifecycle
from machinekit.create import create
from machinekit.machine import Phase
from machinekit.spec import Spec
from machinekit.store import CA, CLIENT_CERT, SERVER_CERT, Store
from tests.conftest import Told
from tests.servers import FakeHost, Server, engine, silent

ROUNDS = 10


def words(*more: str) -> list[str]:
    return [sys.executable, "-m", "machinekit", *more]


def adopting(host: FakeHost, name: str) -> list[str]:
    where = ["--generic-ip-address", "127.0.0.1", "--generic-ssh-port", str(host.port)]
    key = ["--generic-ssh-key", str(host.directory / "key"), "--generic-engine-port", str(host.engine.port)]
    return words("create", "-d", "generic", *where, *key, name)


@contextmanager
def hosts(folder: Path, count: int) -> Iterator[list[FakeHost]]:
    """Servers to adopt."""
    with ExitStack() as stack:
        found = []
        for number in range(count):
            (folder / str(number)).mkdir(parents=True)
            host = stack.enter_context(FakeHost(folder / str(number)))
            (host.directory / "key").write_bytes(host.private)
            (host.directory / "key").chmod(0o600)
            found.append(host)
        yield found


@pytest.mark.parametrize("number", range(ROUNDS))
def test_first_creates_at_once(store: Store, tmp_path: Path, number: int) -> None:
    with hosts(tmp_path / "hosts", 8) as servers:
        commands = [adopting(host, f"node{index}") for index, host in enumerate(servers)]
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
        assert [process.wait() for process in running] == [0] * 8
        machines = [store.load(name) for name in store.names()]
        for machine in machines:
            directory = store.directory(machine.name)
            authority = x509.load_pem_x509_certificate((directory / CA).read_bytes())
            for file in (SERVER_CERT, CLIENT_CERT):
                certificate = x509.load_pem_x509_certificate((directory / file).read_bytes())
                certificate.verify_directly_issued_by(authority)
            dockerapi.ping(machine.url, directory)
    assert len(machines) == 8
    assert {machine.store for machine in machines} == {store.identity()}
    assert store.leftovers() == []


def test_readers_never_fail_while_others_write(store: Store, told: Told) -> None:
    with Server(engine) as server:
        options = NoneOptions(f"tcp://127.0.0.1:{server.port}")

        def make(name: str) -> None:
            create(store, name, driver="none", options=options, spec=Spec(), progress=told)

        make("node1")
        machine, end = store.load("node1"), threading.Event()

        def write() -> None:
            while not end.is_set():
                store.save(machine)
                make("other")
                lifecycle.remove(store, "other", told)

        def read(number: int) -> subprocess.CompletedProcess[str]:
            command = (["ip", "node1"], ["status", "node1"], ["ls"], ["ls", "-q"])[number % 4]
            return subprocess.run(words(*command), capture_output=True, text=True, check=False)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            with ThreadPoolExecutor(16) as pool:
                results = list(pool.map(read, range(200)))
        finally:
            end.set()
            writer.join()
    assert [result.stderr for result in results if result.returncode or result.stderr] == []
    assert {result.stdout for result in results[0::4]} == {"127.0.0.1\n"}
    assert {result.stdout for result in results[1::4]} == {"Running\n"}
    assert [result.stdout for result in results[2::4] if "exist" in result.stdout] == []
    assert {line for result in results[3::4] for line in result.stdout.split()} <= {"node1", "other"}


def test_two_creates_of_one_name(store: Store, tmp_path: Path) -> None:
    with hosts(tmp_path / "hosts", 1) as (host,):
        pair = [subprocess.Popen(adopting(host, "node1"), stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate()[0] for process in pair]
        dockerapi.ping(store.load("node1").url, store.directory("node1"))
    assert [process.returncode for process in pair] == [0, 0]
    assert sum("created)" in text for text in said) == 1
    assert sum("(unchanged)" in text for text in said) == 1


def test_rm_of_a_machine_that_is_being_created(store: Store) -> None:
    """It waits and says for whom, and nothing is left."""
    with Server(silent) as server:
        where = ["--generic-ip-address", "127.0.0.1", "--generic-ssh-port", str(server.port)]
        command = words("create", "-d", "generic", *where, "node1")
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as making:
            assert making.stdout is not None
            assert any("Waiting for SSH" in line for line in making.stdout)
            command = words("rm", "-y", "node1")
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as removing:
                assert removing.stdout is not None
                assert f"held by create (pid {making.pid}) since " in removing.stdout.readline()
                assert store.load("node1").phase is Phase.CREATING
                making.send_signal(signal.SIGTERM)
                assert removing.stdout.read() == "node1: Removing\nnode1: removed\n"
            assert removing.returncode == 0
    assert (store.names(), store.leftovers()) == ([], [])
