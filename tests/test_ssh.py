"""A real SSH server on loopback: what is run, and how each trouble is told apart."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from machinekit import keys, ssh
from machinekit.errors import ConnectError, HostKeyError, LoginError, UnreachableError, WrongAddressError
from tests.servers import Proxy, Server, SshServer, silent


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with SshServer() as server:
        yield server


@pytest.fixture
def host(server: SshServer, tmp_path: Path) -> ssh.Host:
    return server.host(tmp_path)


def refused(host: ssh.Host, kind: type[ConnectError]) -> ConnectError:
    with pytest.raises(kind) as caught:
        ssh.connect(host)
    assert type(caught.value) is kind
    assert caught.value.hint
    return caught.value


def test_another_host_key_is_refused(server: SshServer, tmp_path: Path) -> None:
    error = refused(server.host(tmp_path, host_key=keys.ssh_key("other")[1]), HostKeyError)
    assert f"another host key than the pinned one: {ssh.fingerprint(server.host_key)}" in error.message
    assert str(tmp_path / "known_hosts") in error.hint


@pytest.mark.parametrize("known", ["", "other ssh-ed25519 AAAA\n", "the-uid\n", "the-uid ssh-ed25519 %%%\n"])
def test_a_host_that_is_not_pinned_is_refused(host: ssh.Host, known: str) -> None:
    host.known_hosts.write_text(known)
    assert "no host key of root@127.0.0.1" in refused(host, HostKeyError).message


@pytest.mark.parametrize(
    ("private", "said"),
    [
        (keys.ssh_key("stranger")[0], "root@127.0.0.1:"),
        (keys.ssh_key("stranger")[0], "refuses the login with "),
        (b"garbage", "is not a private key"),
        (None, "there is no SSH key at "),
    ],
)
def test_a_key_that_does_not_open_is_final(host: ssh.Host, private: bytes | None, said: str) -> None:
    assert host.key_file is not None
    host.key_file.unlink()
    if private:
        host.key_file.write_bytes(private)
        host.key_file.chmod(0o600)
    started = time.monotonic()
    with pytest.raises(LoginError) as caught:
        ssh.wait_connect(host, 30, newborn=False)
    assert said in caught.value.message
    assert time.monotonic() - started < 3


def test_a_newborn_gets_time_to_learn_our_key(server: SshServer, host: ssh.Host) -> None:
    public, server.public = server.public, keys.ssh_key("not yet")[1]
    timer = threading.Timer(0.5, setattr, (server, "public", public))
    timer.start()
    connection = ssh.wait_connect(host, 20, newborn=True)
    timer.join()
    assert connection.run("echo in", patience=5) == ["in"]
    connection.close()


@pytest.mark.parametrize(
    ("address", "port", "kind", "said"),
    [
        ("no-such-host.invalid", 22, ConnectError, "cannot resolve no-such-host.invalid: "),
        ("a..b", 22, WrongAddressError, "cannot resolve a..b: not a host name"),
        ("127.0.0.1", 1, UnreachableError, "127.0.0.1:1 refuses the connection"),
        ("::1", 1, UnreachableError, "[::1]:1"),
        ("fe80::1%no-such-interface", 22, ConnectError, "fe80::1%no-such-interface"),
        ("255.255.255.255", 22, UnreachableError, "255.255.255.255:22"),
    ],
)
def test_nobody_there(host: ssh.Host, address: str, port: int, kind: type[ConnectError], said: str) -> None:
    elsewhere = dataclasses.replace(host, address=address, port=port)
    for attempt in (ssh.connect, ssh.scan):
        with pytest.raises(kind) as caught:
            attempt(elsewhere)
        assert said in caught.value.message
        assert caught.value.hint


def test_no_route(host: ssh.Host) -> None:
    """From a network of its own, in which nothing is up but loopback."""
    script = f"""
from pathlib import Path
from machinekit import errors, ssh
host = ssh.Host("192.0.2.1", 22, "root", "the-uid", Path({str(host.known_hosts)!r}), Path({str(host.key_file)!r}))
try:
    ssh.connect(host)
except errors.UnreachableError as error:
    print(error.message)
"""
    command = ["unshare", "--net", sys.executable, "-c", script]
    if os.geteuid() != 0 or subprocess.run([*command[:2], "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a network of its own")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "there is no route to 192.0.2.1:22: Network is unreachable\n"


def test_packets_that_vanish(host: ssh.Host) -> None:
    with socket.socket() as full, contextlib.ExitStack() as queue:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue is full then, and further SYNs are dropped
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(UnreachableError, match=r"does not answer within 0.2 s$"):
            ssh.connect(dataclasses.replace(host, port=full.getsockname()[1]), patience=0.2)


def greeting(text: bytes, *, closes: bool = False) -> Server:
    def serve(connection: socket.socket) -> None:
        connection.sendall(text)
        if not closes:
            silent(connection)

    return Server(serve)


def web(connection: socket.socket) -> None:
    """Wait for what the client says, and complain."""
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n")


@pytest.mark.parametrize(
    ("other", "kind", "said"),
    [
        (greeting(b""), UnreachableError, "takes the connection and says nothing within 0.3 s"),
        (greeting(b"", closes=True), UnreachableError, "closes the connection at once"),
        (Server(web), WrongAddressError, "answers, but not as an SSH server of ours: 'HTTP/1.1 400 Bad Request'"),
        (greeting(b"220 mail ESMTP\r\n"), WrongAddressError, "not as an SSH server of ours: '220 mail ESMTP'"),
        (greeting(b"\xff" * 300), WrongAddressError, "not as an SSH server of ours: "),
        (greeting(b"SSH-1.5-old\r\n"), WrongAddressError, "not as an SSH server of ours: 'SSH-1.5-old'"),
        (greeting(b"SSH-2.0-x\r\n"), UnreachableError, "stalls during the key exchange"),
        (greeting(b"SSH-2.0-x\r\n", closes=True), UnreachableError, "breaks off during the key exchange"),
        (greeting(b"Not allowed at this time\r\n", closes=True), WrongAddressError, "'Not allowed at this time'"),
    ],
)
def test_what_answers_is_told_apart(host: ssh.Host, other: Server, kind: type[ConnectError], said: str) -> None:
    with other:
        elsewhere = dataclasses.replace(host, port=other.port)
        for attempt in (lambda: ssh.connect(elsewhere, patience=0.3), lambda: ssh.scan(elsewhere, patience=0.3)):
            with pytest.raises(kind) as caught:
                attempt()
            assert said in caught.value.message
            assert type(caught.value) is kind
            assert caught.value.hint


def test_no_algorithm_in_common(host: ssh.Host) -> None:
    offer = paramiko.Message()  # RFC 4253 7.1
    offer.add_bytes(b"\x14" + bytes(16))
    for _ in range(10):
        offer.add_list(["from-the-future"])
    offer.add_bytes(bytes(5))
    padding = 8 - (len(offer.asbytes()) + 5) % 8 + 8
    packet = paramiko.Message()
    packet.add_int(len(offer.asbytes()) + 1 + padding)
    packet.add_bytes(bytes([padding]) + offer.asbytes() + bytes(padding))
    with greeting(b"SSH-2.0-x\r\n" + packet.asbytes()) as server:
        with pytest.raises(WrongAddressError, match="and we share no algorithm"):
            ssh.connect(dataclasses.replace(host, port=server.port), patience=5)
        with pytest.raises(HostKeyError, match="has no host key of a kind that we know"):
            ssh.scan(dataclasses.replace(host, port=server.port), patience=5)


@pytest.mark.parametrize("limit", [0, 5, 60, 700, 1500])
@pytest.mark.parametrize("how", ["stalls", "resets", "closes"])
def test_a_link_that_fails_during_the_login(server: SshServer, host: ssh.Host, limit: int, how: str) -> None:
    with (
        Proxy(server.port, limit=limit, stalls=how == "stalls", resets=how == "resets") as link,
        pytest.raises(UnreachableError) as caught,
    ):
        ssh.connect(dataclasses.replace(host, port=link.port), patience=0.5)
    assert caught.value.hint


def test_waiting_ends_at_once_where_it_cannot_help(host: ssh.Host) -> None:
    with Server(web) as server, pytest.raises(WrongAddressError):
        ssh.wait_connect(dataclasses.replace(host, port=server.port), 3600, newborn=True)


def test_a_wait_ends_with_the_last_reason(host: ssh.Host) -> None:
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="refuses the connection"):
        ssh.wait_connect(dataclasses.replace(host, port=1), 0.3, newborn=True)
    with pytest.raises(UnreachableError, match="refuses the connection"):
        ssh.wait_scan(dataclasses.replace(host, port=1), (), 0.3)
    assert 0.6 <= time.monotonic() - started < 4


def test_scan_shows_the_key_with_the_fingerprint_or_none(server: SshServer, host: ssh.Host) -> None:
    key = server.host_key.rpartition(" ")[0]
    fingerprint, other = ssh.fingerprint(server.host_key), ssh.fingerprint(keys.ssh_key("other")[1])
    assert ssh.scan(host) == key
    assert ssh.wait_scan(host, (other, fingerprint), 5) == key
    with pytest.raises(HostKeyError) as caught:
        ssh.wait_scan(host, (other,), 5)
    assert f"has no host key {other}; it shows ssh-ed25519 {fingerprint}" in caught.value.message


@pytest.mark.parametrize(
    "folder",
    ["plain", "a b", "it's", "it's here", '"q"', '"q" x', "50%h", "a\\b", "a\\ b", "$HOME", "#x", "é", "end\\"],
)
def test_openssh_reads_our_options(tmp_path: Path, folder: str) -> None:
    if not shutil.which("ssh"):
        pytest.skip("OpenSSH's client is not installed")
    known, key = tmp_path / folder / "known_hosts", tmp_path / folder / "id"
    host = ssh.Host("192.0.2.7", 2222, "bob", "the-uid", known, key)
    options = [word for option in host.openssh_options() for word in ("-o", option)]
    command = ["ssh", "-G", "-F", "/dev/null", *options, "192.0.2.7"]
    said = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    settings = dict(line.split(" ", 1) for line in said.splitlines())
    assert settings["userknownhostsfile"] == str(known)
    assert settings["identityfile"].replace("%%", "%") == str(key)
    assert settings["stricthostkeychecking"] in ("true", "yes")
    assert settings["hostkeyalias"] == "the-uid"
    assert settings["identitiesonly"] == "yes"


def test_without_a_key_file_openssh_uses_the_users_own() -> None:
    options = ssh.Host("h", 22, "bob", "the-uid", Path("/k"), None).openssh_options()
    assert not [option for option in options if option.startswith("Identit")]


@pytest.mark.parametrize("content", [None, b"the-uid ssh-ed25519 %%%\n", b"\xff\xfe\x00", b"the-uid\n"])
def test_known_hosts_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    with SshServer() as server:
        host = server.host(tmp_path)
        host.known_hosts.unlink()
        if content is not None:
            host.known_hosts.write_bytes(content)
        with pytest.raises(HostKeyError) as caught:
            ssh.connect(host)
    assert caught.value.hint
