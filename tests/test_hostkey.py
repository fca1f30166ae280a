"""A host key that user-data could have told gives way to another, and no moment leaves a host that is not known."""

from __future__ import annotations

import base64
import io
import re
import shlex
from collections.abc import Iterator

import paramiko
import pytest

from machinekit import hostkey, ssh
from machinekit.errors import HostKeyError
from machinekit.machine import Machine
from machinekit.provider import Capabilities
from machinekit.store import HOST_KEY, HOST_KEY_NEXT, HOST_KEY_PUBLIC, KNOWN_HOSTS, SSH_KEY, Store
from machinekit.work import Work
from tests.conftest import Told
from tests.servers import SshServer, script_of

EXPOSED = Capabilities(exposed_birth=True)


class Born(SshServer):
    """A host that has the key it was given, and takes another one from our script."""

    def __init__(self) -> None:
        super().__init__(self._execute)
        self.takes = True

    def show(self, private: bytes) -> None:
        """Have this host key from now on."""
        self._host_key = paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode()))

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        script = script_of(channel).decode()
        if self.takes and (carried := re.search(r"printf %s (\S+) \| base64 -d", script)):
            self.show(base64.b64decode(shlex.split(carried[1])[0]))
        channel.sendall(b"machinekit:started\n")
        channel.send_exit_status(0)


@pytest.fixture
def host() -> Iterator[Born]:
    with Born() as server:
        yield server


@pytest.fixture
def work(store: Store, told: Told, host: Born, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A machine of a cloud, as far as its host key goes, whose instance has just been born."""
    options = {"ip_address": "127.0.0.1", "ssh_port": host.port, "ssh_user": "root"}
    machine = Machine("node1", "the-uid", "generic", "a-store", "", options)
    machine.address, machine.ssh_port, machine.ssh_user = "127.0.0.1", host.port, "root"
    store.reserve(machine)
    work = Work(store, machine, told)
    monkeypatch.setattr(type(work.driver), "capabilities", EXPOSED)
    monkeypatch.setattr(hostkey, "RELOAD", 0.3)
    work.write(SSH_KEY, host.private)
    hostkey.born(work)
    host.show(work.read(HOST_KEY))
    return work


def pinned(work: Work) -> list[str]:
    return work.read(KNOWN_HOSTS).decode().splitlines()


def execute(work: Work, script: str) -> None:
    connection = ssh.connect(work.host)
    connection.run(script, patience=5)
    connection.close()


def test_the_key_from_birth_is_pinned(work: Work) -> None:
    assert pinned(work) == [f"the-uid {work.read(HOST_KEY_PUBLIC).decode().strip()}"]
    ssh.connect(work.host).close()


def test_another_key_takes_its_place(work: Work, host: Born) -> None:
    before = work.read(HOST_KEY)
    script = hostkey.replacement_script(work)
    assert len(pinned(work)) == 2
    ssh.connect(work.host).close()  # the old one is still good
    execute(work, script)
    ssh.connect(work.host).close()  # and so is the new one
    hostkey.replaced(work)
    assert len(pinned(work)) == 1
    ssh.connect(work.host).close()
    assert not [file for file in (HOST_KEY, HOST_KEY_PUBLIC, HOST_KEY_NEXT) if (work.directory / file).exists()]
    assert hostkey.replacement_script(work) == ""
    host.show(before)
    with pytest.raises(HostKeyError, match="another host key than the pinned one"):
        ssh.connect(work.host)


def test_a_host_that_keeps_its_key_is_told_and_still_known(work: Work, host: Born) -> None:
    host.takes = False
    execute(work, hostkey.replacement_script(work))
    with pytest.raises(HostKeyError, match="has no host key SHA256:"):
        hostkey.replaced(work)
    ssh.connect(work.host).close()
    host.takes = True
    execute(work, hostkey.replacement_script(work))  # the same key once more
    hostkey.replaced(work)
    assert len(pinned(work)) == 1


def test_what_was_cut_off_after_the_pin_is_finished(work: Work) -> None:
    execute(work, hostkey.replacement_script(work))
    kept = {file: work.read(file) for file in (HOST_KEY, HOST_KEY_PUBLIC, HOST_KEY_NEXT)}
    hostkey.replaced(work)
    for file, content in kept.items():
        work.write(file, content)
    execute(work, hostkey.replacement_script(work))
    hostkey.replaced(work)
    assert len(pinned(work)) == 1
    ssh.connect(work.host).close()


def test_a_birth_that_nobody_can_read_keeps_its_key(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(work.driver), "capabilities", Capabilities())
    assert hostkey.replacement_script(work) == ""
    hostkey.replaced(work)
    assert (work.directory / HOST_KEY).exists()
