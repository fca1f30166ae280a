"""A real SSH server on loopback: what is run, and how each trouble is told apart."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest

from machinekit import keys, ssh
from machinekit.errors import ConnectError, HostKeyError, LoginError, RemoteError, UnreachableError
from tests.servers import Server, Shell, SshServer, script_of, shell_saying, silent

STARTED = f"{ssh.STARTED}\n".encode()


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with SshServer() as server:
        yield server


@pytest.fixture
def host(server: SshServer, tmp_path: Path) -> ssh.Host:
    return server.host(tmp_path)


@pytest.fixture
def connection(host: ssh.Host) -> Iterator[ssh.Connection]:
    connection = ssh.connect(host)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("true", []),
        ("echo a; echo b", ["a", "b"]),
        ("echo out; echo err >&2", ["out", "err"]),
        ("printf 'no newline'", ["no newline"]),
        ("printf 'a\\r\\nb\\n\\n'", ["a", "b", ""]),
        ("printf '\\377\\n'", ["\ufffd"]),
        ("cat; echo nothing to read", ["nothing to read"]),
        (f"echo {ssh.STARTED}", [ssh.STARTED]),
        ("x='it''s $HOME'\necho \"$x\" é", ["its $HOME é"]),
        (f": {'x' * 300_000}\necho large", ["large"]),
        ("i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done", [str(i) for i in range(3000)]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_script_and_its_lines(connection: ssh.Connection, script: str, lines: list[str]) -> None:
    heard: list[str] = []
    assert connection.run(script, patience=20, heard=heard.append) == lines
    assert heard == [ssh.STARTED, *lines]
    assert connection.executions == 1


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "failed with exit code 3:\n"),
        ("echo why; exit 1", "failed with exit code 1:\nwhy"),
        ("set -eu\necho $nothing", "nothing"),
        ("i=0; while [ $i -lt 99 ]; do echo line $i; i=$((i+1)); done; false", "exit code 1:\nline 79\n"),
    ],
)
def test_a_script_that_fails_shows_its_last_lines(connection: ssh.Connection, script: str, said: str) -> None:
    with pytest.raises(RemoteError) as caught:
        connection.run(script, patience=20)
    assert said in caught.value.message
    assert "root@127.0.0.1" in caught.value.message
    assert connection.run("echo goes on", patience=20) == ["goes on"]


def cut_after(*said: bytes) -> Shell:
    def shell(channel: paramiko.Channel, command: str) -> None:
        script_of(channel)
        for piece in said:
            channel.sendall(piece)
        channel.get_transport().close()

    return shell


def killed(channel: paramiko.Channel, command: str) -> None:
    script_of(channel)
    channel.sendall(STARTED + b"hello\n")


def endless(channel: paramiko.Channel, command: str) -> None:
    script_of(channel)
    channel.sendall(STARTED)
    while True:
        channel.sendall(b"still here\n")
        time.sleep(0.02)


def without_end(channel: paramiko.Channel, command: str) -> None:
    script_of(channel)
    channel.sendall(STARTED)
    channel.shutdown_write()
    while not channel.closed:
        time.sleep(0.02)


def deaf(channel: paramiko.Channel, command: str) -> None:
    while not channel.closed:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("shell", "kind", "said"),
    [
        (cut_after(), UnreachableError, "broke: closed"),
        (cut_after(STARTED, b"hello\n"), UnreachableError, "broke: closed"),
        (cut_after(STARTED, b"half a li"), UnreachableError, "broke: closed"),
        (killed, RemoteError, "failed with exit code -1:\nhello"),
        (endless, UnreachableError, "broke: no answer within 0.6 s"),
        (without_end, UnreachableError, "broke: no answer within 0.6 s"),
        (deaf, UnreachableError, "broke: no answer within 0.6 s"),
        (shell_saying("sudo: a password is required\n", 1), LoginError, "cannot become root on bob@"),
        (shell_saying("sudo: a password is required\n", 1), LoginError, "sudo: a password is required"),
        (shell_saying("bash: sudo: command not found\n", 127), LoginError, "sudo: command not found"),
        (shell_saying("This account is not available.\n", 0), LoginError, "This account is not available."),
        (shell_saying("", 255), LoginError, "exit code 255"),
    ],
)
def test_what_can_go_wrong_while_a_script_runs(
    tmp_path: Path, shell: Shell, kind: type[ConnectError], said: str
) -> None:
    with SshServer(shell) as server:
        connection = ssh.connect(server.host(tmp_path, user="bob"))
        started = time.monotonic()
        with pytest.raises(kind) as caught:
            connection.run("x='" + "y" * 9000 + "'", patience=0.6)
        connection.close()
    assert said in caught.value.message
    assert time.monotonic() - started < 3
    assert type(caught.value) is kind


@pytest.mark.parametrize(("user", "command"), [("root", "sh -s"), ("bob", "sudo -n sh -s")])
def test_a_secret_never_gets_into_an_argument_list(tmp_path: Path, user: str, command: str) -> None:
    seen: list[tuple[str, bytes]] = []

    def shell(channel: paramiko.Channel, command: str) -> None:
        seen.append((command, script_of(channel)))
        channel.sendall(STARTED)
        channel.send_exit_status(0)

    with SshServer(shell) as server:
        connection = ssh.connect(server.host(tmp_path, user=user))
        assert connection.run("s3cret", patience=5) == []
        connection.close()
    ((executed, script),) = seen
    assert executed == command
    assert b"s3cret" in script


def test_half_a_script_runs_nothing(tmp_path: Path) -> None:
    script = f"machinekit() {{\necho {ssh.STARTED}\ntouch {tmp_path}/touched\n"
    subprocess.run(["sh", "-s"], input=script, text=True, check=False, capture_output=True)
    assert not (tmp_path / "touched").exists()


def test_two_scripts_never_run_at_once(host: ssh.Host, tmp_path: Path) -> None:
    """As when a create goes on while the script of one that was killed still runs."""
    script = f"mkdir {tmp_path}/alone; sleep 0.2; rmdir {tmp_path}/alone"
    connections = [ssh.connect(host) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda each: each.run(f"set -e; {script}", patience=60), connections)) == [[], [], []]
    for each in connections:
        each.close()


def test_a_script_that_does_not_end_is_named(connection: ssh.Connection) -> None:
    folder = os.open("/run", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(RemoteError, match="an earlier script still runs on root@"):
            connection.run("true", patience=2)
    finally:
        os.close(folder)


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_what_a_script_leaves_running_keeps_nobody_waiting(tmp_path: Path, shell: str) -> None:
    def run(channel: paramiko.Channel, command: str) -> None:
        result = subprocess.run([*shell.split(), "-s"], input=script_of(channel), capture_output=True, check=False)
        channel.sendall(result.stdout + result.stderr)
        channel.send_exit_status(result.returncode)

    if not shutil.which(shell.partition(" ")[0]):
        pytest.skip(f"there is no {shell} here")
    with SshServer(run) as server:
        connection = ssh.connect(server.host(tmp_path))
        (pid,) = connection.run("sleep 600 >/dev/null 2>&1 & echo $!", patience=20)
        try:
            assert connection.run("echo next", patience=20) == ["next"]
        finally:
            os.kill(int(pid), signal.SIGKILL)
            connection.close()


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
        (keys.ssh_key("stranger")[0], "refuses the login: Authentication failed"),
        (b"garbage", "cannot log in to root@127.0.0.1"),
        (None, "No such file or directory"),
    ],
)
def test_a_key_that_does_not_open_is_final(host: ssh.Host, private: bytes | None, said: str) -> None:
    assert host.key_file is not None
    host.key_file.unlink()
    if private:
        host.key_file.write_bytes(private)
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
    ("address", "port", "said"),
    [
        ("no-such-host.invalid", 22, "cannot resolve no-such-host.invalid: "),
        ("a..b", 22, "cannot resolve a..b: not a host name"),
        ("127.0.0.1", 1, "127.0.0.1:1 refuses the connection"),
    ],
)
def test_nobody_there(host: ssh.Host, address: str, port: int, said: str) -> None:
    elsewhere = dataclasses.replace(host, address=address, port=port)
    assert said in refused(elsewhere, UnreachableError).message
    with pytest.raises(UnreachableError) as caught:
        ssh.scan(address, port)
    assert said in caught.value.message


def test_packets_that_vanish(host: ssh.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "CONNECT", 0.2)
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())  # the queue holds one: further SYNs are dropped
        elsewhere = dataclasses.replace(host, port=full.getsockname()[1])
        error = refused(elsewhere, UnreachableError)
    assert "does not answer within 0 s" in error.message or "answers, but not as an SSH server" in error.message


def greeting(text: bytes) -> Server:
    def serve(connection: socket.socket) -> None:
        connection.sendall(text)
        silent(connection)

    return Server(serve)


@pytest.mark.parametrize("text", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"", b"\xff" * 300, b"SSH-1.0-old\r\n"])
def test_garbage_instead_of_a_banner(host: ssh.Host, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(ssh, "CONNECT", 0.3)
    with greeting(text) as server:
        elsewhere = dataclasses.replace(host, port=server.port)
        assert "answers, but not as an SSH server" in refused(elsewhere, UnreachableError).message
        with pytest.raises(ConnectError, match=r"answers, but not as an SSH|has no host key of a kind that we know$"):
            ssh.scan("127.0.0.1", server.port)


def test_a_wait_ends_with_the_last_reason(host: ssh.Host) -> None:
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="refuses the connection"):
        ssh.wait_connect(dataclasses.replace(host, port=1), 0.3, newborn=True)
    with pytest.raises(UnreachableError, match="refuses the connection"):
        ssh.wait_scan("127.0.0.1", 1, "", 0.3)
    assert 0.6 <= time.monotonic() - started < 4


def test_scan_shows_the_key_with_the_fingerprint_or_none(server: SshServer) -> None:
    key = server.host_key.rpartition(" ")[0]
    fingerprint = ssh.fingerprint(server.host_key)
    assert ssh.scan("127.0.0.1", server.port) == key
    assert ssh.wait_scan("127.0.0.1", server.port, fingerprint, 5) == key
    other = ssh.fingerprint(keys.ssh_key("other")[1])
    with pytest.raises(HostKeyError) as caught:
        ssh.wait_scan("127.0.0.1", server.port, other, 5)
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
