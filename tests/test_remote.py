"""A real SSH server on loopback: what is run there, as whom, and how a run that breaks is told apart."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from machinekit import dockerapi, remote, ssh
from machinekit.errors import BrokenError, ConnectError, EngineError, LoginError, RemoteError, UnreachableError
from machinekit.provider import Access, Source
from machinekit.remote import STARTED
from tests.servers import (
    Certificates,
    Proxy,
    Server,
    Shell,
    SshServer,
    encrypted,
    engine,
    refusing,
    script_of,
    shell_saying,
    sudo,
)

HELLO = f"{STARTED}\n".encode()


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
        (f"echo {STARTED}", [STARTED]),
        ("x='it''s $HOME'\necho \"$x\" é", ["its $HOME é"]),
        (f": {'x' * 300_000}\necho large", ["large"]),
        ("i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done", [str(i) for i in range(3000)]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_script_and_its_lines(connection: ssh.Connection, script: str, lines: list[str]) -> None:
    heard: list[str] = []
    assert connection.run(script, patience=20, heard=heard.append) == lines
    assert heard == [STARTED, *lines]
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


def test_what_a_script_says_to_programs_is_no_part_of_an_error(connection: ssh.Connection) -> None:
    with pytest.raises(RemoteError) as caught:
        connection.run("echo machinekit:carried docker_config=e30=; echo why; exit 1", patience=20)
    assert caught.value.message.endswith("failed with exit code 1:\nwhy")


def cut_after(*said: bytes) -> Shell:
    def shell(channel: paramiko.Channel, command: str) -> None:
        script_of(channel)
        for piece in said:
            channel.sendall(piece)
        channel.get_transport().close()

    return shell


def killed(channel: paramiko.Channel, command: str) -> None:
    script_of(channel)
    channel.sendall(HELLO + b"hello\n")


def endless(channel: paramiko.Channel, command: str) -> None:
    script_of(channel)
    channel.sendall(HELLO)
    while True:
        channel.sendall(b"still here\n")
        time.sleep(0.02)


@pytest.mark.parametrize("said", [b"y\n", b"y"])
def test_a_host_that_does_not_stop_talking(tmp_path: Path, said: bytes) -> None:
    def flood(channel: paramiko.Channel, command: str) -> None:
        script_of(channel)
        channel.sendall(HELLO)
        while not channel.closed:
            channel.sendall(said * (remote.PIECE // len(said)))

    with (
        SshServer(flood) as server,
        closing(ssh.connect(server.host(tmp_path))) as connection,
        pytest.raises(RemoteError, match="does not stop talking"),
    ):
        connection.run("true", patience=120)


def test_a_sudo_that_never_comes_to_the_point(tmp_path: Path) -> None:
    def drip(channel: paramiko.Channel, command: str) -> None:
        while not channel.closed:
            channel.sendall(b".")
            time.sleep(0.1)

    with SshServer(drip) as server, closing(as_bob(server, tmp_path, Access())) as connection:
        connection._patience = 1
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="no answer from"):
            connection.run("true", patience=20)
        assert time.monotonic() - started < 10


def without_end(channel: paramiko.Channel, command: str) -> None:
    script_of(channel)
    channel.sendall(HELLO)
    channel.shutdown_write()
    while not channel.closed:
        time.sleep(0.02)


def deaf(channel: paramiko.Channel, command: str) -> None:
    while not channel.closed:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("shell", "kind", "said"),
    [
        (cut_after(), BrokenError, "broke: closed"),
        (cut_after(HELLO, b"hello\n"), BrokenError, "broke: closed"),
        (cut_after(HELLO, b"half a li"), BrokenError, "broke: closed"),
        (killed, RemoteError, "failed with exit code -1:\nhello"),
        (endless, UnreachableError, "no answer from root@127.0.0.1:"),
        (without_end, UnreachableError, "no answer from root@127.0.0.1:"),
        (deaf, UnreachableError, "no answer from root@127.0.0.1:"),
        (shell_saying("", 255), LoginError, "exit code 255"),
        (refusing("This account is currently not available.\n", 1), LoginError, "root has no login shell"),
        (refusing("only git here\n", 0), LoginError, "only git here"),
        (refusing("Password change required but no TTY available.\n", 1), LoginError, "password of root has expired"),
    ],
)
def test_what_can_go_wrong_while_a_script_runs(
    tmp_path: Path, shell: Shell, kind: type[ConnectError], said: str
) -> None:
    with SshServer(shell) as server:
        connection = ssh.connect(server.host(tmp_path))
        with pytest.raises(kind) as caught:
            connection.run("x='" + "y" * 9000 + "'", patience=0.6)
        connection.close()
    assert said in caught.value.message
    assert type(caught.value) is kind


NO_WAY = Access()


def as_bob(
    server: SshServer, directory: Path, access: Access = NO_WAY, secrets: dict[str, str] | None = None
) -> ssh.Connection:
    """Log in as a user who has to use sudo, in front of a person who knows the secrets."""
    host = replace(server.host(directory, user="bob"), access=access)
    return ssh.connect(host, (secrets or {}).get)


@pytest.mark.parametrize(
    ("shell", "said", "hint"),
    [
        (sudo("right"), "asks for the password of bob", "without a password"),
        (refusing("sudo: sorry, you must have a tty to run sudo\n", 1), "ask for a terminal", "bob !requiretty"),
        (refusing("bob is not in the sudoers file.\n", 1), "bob may not use sudo there", "bob ALL=(ALL) ALL"),
        (refusing("env: 'sudo': No such file or directory\n", 127), "", "root"),
        (refusing("This account is currently not available.\n", 1), "bob has no login shell", "chsh"),
        (refusing("WARNING: Your password has expired.\n", 1), "the password of bob has expired", "log in"),
        (refusing('sudo: The "no new privileges" flag is set\n', 1), "sudo does not work there", "root"),
        (refusing("", 255), "cannot become root on bob@127.0.0.1:", "sudo must work"),
    ],
)
def test_why_there_is_no_root(tmp_path: Path, shell: Shell, said: str, hint: str) -> None:
    with (
        SshServer(shell) as server,
        closing(as_bob(server, tmp_path)) as connection,
        pytest.raises(LoginError) as caught,
    ):
        connection.run("true", patience=5)
    assert said in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("command", ["echo pa$((40+2))ss; echo a note", ""])
def test_the_password_for_sudo_comes_from_a_command_or_a_person(tmp_path: Path, command: str) -> None:
    access = Access(sudo=Source("NO_SUCH_VARIABLE", command, "--flag"))
    with SshServer(sudo("pa42ss")) as server:
        question = "sudo password of bob on 127.0.0.1"
        with closing(as_bob(server, tmp_path, access, {question: "pa42ss"})) as connection:
            assert connection.run("echo in; cat", patience=5) == ["in"]
            assert connection.run("echo again", patience=5) == ["again"]
            assert connection.executions == 2


def test_the_password_may_be_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBS", "right")
    access = Access(sudo=Source("BOBS", "false", "--flag"))
    with SshServer(sudo("right")) as server, closing(as_bob(server, tmp_path, access)) as connection:
        assert connection.run("echo in", patience=5) == ["in"]


@pytest.mark.parametrize("command", ["printf 'caf\\351\\n'", ""])
def test_a_password_need_not_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    password = os.fsdecode(b"caf\xe9")
    if not command:
        monkeypatch.setenv("BOBS", password)
    access = Access(sudo=Source("BOBS", command, "--flag"))
    with SshServer(sudo(password)) as server, closing(as_bob(server, tmp_path, access)) as connection:
        assert connection.run("echo in", patience=5) == ["in"]


def test_a_wrong_password_is_told_apart(tmp_path: Path) -> None:
    with SshServer(sudo("right")) as server:
        access = Access(sudo=Source("", "echo wrong", "--flag"))
        with closing(as_bob(server, tmp_path, access)) as connection, pytest.raises(LoginError) as caught:
            connection.run("true", patience=5)
    assert "sudo refuses the password" in caught.value.message
    assert "wrong" not in caught.value.message.replace("the last one was wrong", "")


def test_a_person_may_mistype(tmp_path: Path) -> None:
    question = "sudo password of bob on 127.0.0.1"
    answers = {question: "wrogn", f"{question} (the last one was wrong)": "right"}
    with SshServer(sudo("right")) as server, closing(as_bob(server, tmp_path, secrets=answers)) as connection:
        assert connection.run("echo in", patience=5) == ["in"]


def test_a_command_that_gives_no_password(tmp_path: Path) -> None:
    access = Access(sudo=Source("", "echo no such entry >&2; false", "--generic-sudo-password-command"))
    with (
        SshServer(sudo("right")) as server,
        closing(as_bob(server, tmp_path, access)) as connection,
        pytest.raises(LoginError, match=r"of --generic-sudo-password-command gave no .*: no such entry"),
    ):
        connection.run("true", patience=5)


@pytest.mark.parametrize("asks", [True, False])
def test_a_secret_never_gets_where_it_can_be_seen(tmp_path: Path, asks: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Not into an argument list, a log, or the script; and nobody is told the password who does not ask for it."""
    caplog.set_level("DEBUG")
    executed: list[str] = []
    scripts: list[bytes] = []

    def shell(channel: paramiko.Channel, command: str) -> None:
        executed.append(command)
        sudo("pa55word", asks=asks, then=rest)(channel, command)

    def rest(channel: paramiko.Channel, command: str) -> None:
        scripts.append(script_of(channel))
        channel.sendall(HELLO)
        channel.send_exit_status(0)

    with SshServer(shell) as server:
        access = Access(sudo=Source("", "echo pa55word", "--flag"))
        with closing(as_bob(server, tmp_path, access)) as connection:
            assert connection.run("s3cret", patience=5) == []
    assert executed == [remote.SUDO]
    assert b"s3cret" in scripts[0]
    assert b"pa55word" not in scripts[0]
    assert "pa55word" not in caplog.text
    assert "s3cret" not in caplog.text


def login_shells() -> list[str]:
    """The shells of this computer that a user may have chosen."""
    return [path for name in ("sh", "dash", "bash", "fish", "tcsh", "zsh", "csh") if (path := shutil.which(name))]


@pytest.mark.parametrize("login_shell", login_shells())
def test_every_login_shell_can_read_our_command_lines(tmp_path: Path, login_shell: str) -> None:
    """sshd gives the command to the user's own shell. Here sudo is a program that asks as sudo does."""
    program = tmp_path / "sudo"
    program.write_text(
        '#!/bin/sh\n[ "$1 $2" = "-S -p" ] || exit 9\nprintf %s "$3" >&2\nIFS= read -r answer\n'
        '[ "$answer" = "p w!\'" ] || exit 1\nshift 3\nexec "$@"\n'
    )
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    words = [login_shell, "-c", remote.SUDO]
    text = "p w!'\necho $((1+1)) 'it''s'\n"
    result = subprocess.run(words, input=text, capture_output=True, text=True, check=False, env=environment)
    assert (result.stdout, result.stderr) == ("machinekit:root\n2 its\n", "machinekit:password")
    result = subprocess.run(
        [login_shell, "-c", "sh -s"], input="echo $((1+1))", capture_output=True, text=True, check=True
    )
    assert result.stdout == "2\n"


def running(channel: paramiko.Channel, touched: Path) -> None:
    """A script that has begun, has something to say, and does not end."""
    if not script_of(channel).endswith(b"exit $?\n"):
        return
    touched.touch()
    channel.sendall(HELLO + b"here\n")
    while not channel.closed:
        time.sleep(0.02)


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("stage", ["upload", "output"])
def test_a_link_that_is_cut(tmp_path: Path, stage: str, resets: bool) -> None:
    """A script that is not there whole has not begun."""
    touched = tmp_path / "touched"

    def shell(channel: paramiko.Channel, command: str) -> None:
        if stage == "upload":
            channel.recv(1)
            link.cut()
        running(channel, touched)

    with SshServer(shell) as server, Proxy(server.port, resets=resets) as link:
        connection = ssh.connect(replace(server.host(tmp_path), port=link.port))
        with closing(connection), pytest.raises(BrokenError, match=r"^the connection to root@127.0.0.1:[0-9]+ broke: "):
            script = f": {'x' * (3_000_000 if stage == 'upload' else 1)}"
            connection.run(script, patience=30, heard=lambda line: link.cut() if line == "here" else None)
    assert touched.exists() is (stage == "output")


@pytest.mark.parametrize("stage", ["open", "exec", "sudo", "upload", "output"])
def test_a_link_that_stalls(tmp_path: Path, stage: str) -> None:
    """Every stage ends within its patience; paramiko alone would wait for ever in some."""

    def shell(channel: paramiko.Channel, command: str) -> None:
        if stage == "sudo":
            link.stall()
            return
        if stage == "upload":
            channel.recv(1)
            link.stall()
            return
        running(channel, tmp_path / "touched")

    with SshServer(shell) as server, Proxy(server.port) as link:
        server.before_exec = link.stall if stage == "exec" else lambda: None
        host = replace(server.host(tmp_path, user="bob" if stage == "sudo" else "root"), port=link.port)
        with closing(ssh.connect(host, patience=10)) as connection:
            connection._patience = 0.5
            if stage == "open":
                link.stall()
            with pytest.raises(
                UnreachableError, match=r"no answer from .* within 0.[0-9]+ s|broke: Timeout opening channel"
            ):
                connection.run(
                    f": {'x' * (9_000_000 if stage == 'upload' else 1)}",
                    patience=0.7,
                    heard=lambda line: link.stall() if line == "here" else None,
                )


def test_a_slow_link(tmp_path: Path) -> None:
    """400 ms there and back: what counts is how often one side waits for the other."""
    with SshServer() as server, Proxy(server.port, delay=0.2) as link:
        with closing(ssh.connect(replace(server.host(tmp_path), port=link.port))) as connection:
            assert connection.run(f": {'x' * 100_000}\necho in", patience=30) == ["in"]
        assert link.connections == 1


def test_an_engine_is_asked_through_the_login(tmp_path: Path, certificates: Certificates) -> None:
    with (
        Server(encrypted(engine, certificates.context())) as behind,
        SshServer() as server,
        closing(ssh.connect(server.host(tmp_path))) as connection,
    ):
        with connection.forwarded("127.0.0.1", behind.port) as port:
            for _ in range(2):
                dockerapi.ping(f"tcp://127.0.0.1:{port}", certificates.directory)
        with connection.forwarded("127.0.0.1", 1) as port, pytest.raises(EngineError):
            dockerapi.ping(f"tcp://127.0.0.1:{port}", certificates.directory)
        assert connection.run("echo goes on", patience=5) == ["goes on"]


def test_half_a_script_runs_nothing(tmp_path: Path) -> None:
    script = f"machinekit() {{\necho {STARTED}\ntouch {tmp_path}/touched\n"
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
