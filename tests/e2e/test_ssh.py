"""Ways in to real servers: sudo that asks, closed accounts, jump hosts, and hosts that go away in the middle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Host, Lab, free_port, run


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    """A Debian 12 with an engine and the user `admin`, who may use sudo with the password "s3 cret"."""
    with lab.host("debian-12+engine") as host:
        host.sh(
            "useradd -m -s /bin/bash admin; echo 'admin:s3 cret' | chpasswd;"
            "echo 'admin ALL=(ALL) ALL' >/etc/sudoers.d/admin;"
            "mkdir -m 700 ~admin/.ssh; cp /root/.ssh/authorized_keys ~admin/.ssh/; chown -R admin: ~admin/.ssh"
        )
        yield host


def address(host: Host, *more: str) -> list[str]:
    """The options that name the host, for admin."""
    words = ["-d", "generic", "--generic-ip-address", host.address, "--generic-ssh-key", str(host.key)]
    return [*words, "--generic-ssh-user", "admin", *more]


def test_sudo_with_a_password(cli: Cli, host: Host, tmp_path: Path) -> None:
    """One execution each, and nothing of the password in the record, the log, or the process list."""
    assert "asks for the password of admin" in cli.fail("create", *address(host), "web")
    wrong = address(host, "--generic-sudo-password-command", "echo wrong")
    assert "sudo refuses the password" in cli.fail("create", *wrong, "web")
    (tmp_path / "password").write_text("s3 cret\nuser: admin\n")
    right = address(host, "--generic-sudo-password-command", f"cat {tmp_path}/password")
    host.count_executions()
    before = host.executions()
    said = cli("--debug", "create", *right, "web")
    assert "ready at tcp://" in said
    assert host.executions() == before + 2  # nothing to install
    assert "(unchanged)" in cli("create", *right, "web")
    assert host.executions() == before + 3
    assert "s3 cret" not in said
    assert "s3 cret" not in cli("inspect", "web")
    assert "s3 cret" not in host.sh("journalctl --no-pager -o cat; ps -eo args")


@pytest.mark.parametrize(
    ("change", "back", "said"),
    [
        ("rm /etc/sudoers.d/admin", "echo 'admin ALL=(ALL) ALL' >/etc/sudoers.d/admin", "admin may not use sudo there"),
        ("echo 'Defaults requiretty' >/etc/sudoers.d/tty", "rm /etc/sudoers.d/tty", "its sudoers ask for a terminal"),
        ("mv /usr/bin/sudo /root/", "mv /root/sudo /usr/bin/", "there is no sudo"),
        ("usermod -s /usr/sbin/nologin admin", "usermod -s /bin/bash admin", "admin has no login shell"),
        ("chage -d 0 admin", "chage -d 2024-01-01 admin", "the password of admin has expired"),
        ("chage -E 1 admin", "chage -E -1 admin", "may have expired"),
        ("sed -i '1s/^/command=\"echo only this\" /' ~admin/.ssh/authorized_keys",
         "sed -i 's/^command=\"echo only this\" //' ~admin/.ssh/authorized_keys", "only this"),
    ],
    ids=lambda value: value.split()[0],
)  # fmt: skip
def test_an_account_that_cannot_be_root(cli: Cli, host: Host, change: str, back: str, said: str) -> None:
    host.sh(change)
    try:
        error = cli.fail("create", *address(host, "--generic-sudo-password-command", "echo s3 cret"), "web")
    finally:
        host.sh(back)
    assert said in error


def test_a_reboot_in_the_middle(lab: Lab, cli: Cli, host: Host) -> None:
    """The same create waits for the host and goes on, even when the change was half made."""
    slow = '#!/bin/sh\n[ -e /begun ] || { touch /begun; sleep 600; }\nexec /usr/bin/systemctl "$@"\n'
    host.sh(f"cat >/usr/local/bin/systemctl <<'END'\n{slow}END\nchmod +x /usr/local/bin/systemctl")
    options = address(host, "--generic-ssh-user", "root", "--engine-label", "after=reboot")
    said: list[str] = []
    creating = threading.Thread(target=lambda: said.append(cli("create", "--yes", *options, "web")))
    creating.start()
    try:
        host.sh("for i in $(seq 600); do [ -e /begun ] && break; sleep 0.1; done; [ -e /begun ]")
        lab.docker("restart", "-t", "1", host.driver._name)
        host.sh("rm -f /usr/local/bin/systemctl")
    finally:
        creating.join()
    assert "waiting for the host to come back" in said[0]
    assert "ready at tcp://" in said[0]
    assert "after=reboot" in host.sh("docker info")


def test_behind_a_jump_host(lab: Lab, cli: Cli, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSH and the engine through the gate, by the user's own ssh_config and known_hosts; docker by a forwarded port."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".ssh").mkdir(mode=0o700)
    wrapper = tmp_path / "bin" / "ssh"  # ssh goes by the password file for a home
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/.ssh/config "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    with lab.host("debian-12+engine") as gate:
        (tmp_path / ".ssh" / "config").write_text(
            f"Host gate\n  HostName {gate.address}\n  User root\n  IdentityFile {gate.key}\n"
            f"Host inner\n  HostName {host.address}\n  ProxyJump gate\n"
            f"Host *\n  UserKnownHostsFile {tmp_path}/.ssh/known_hosts\n"
        )
        closed = f"-i eth0 -p tcp -m multiport --dports 22,2376 ! -s {gate.address} -j REJECT --reject-with tcp-reset"
        host.sh(f"iptables -I INPUT {closed}")
        port = free_port()
        words = ["-d", "generic", "--generic-ip-address", "inner", "--generic-ssh-key", str(host.key)]
        words += ["--generic-local-port", str(port)]
        try:
            assert "log in to it once with ssh" in cli.fail("create", *words, "web")
            (tmp_path / ".ssh" / "known_hosts").write_text(f"{gate.address} {gate.host_key}\n")
            said = cli("create", "--yes", *words, "web")
            assert f"machinekit ssh web -N -L {port}:127.0.0.1:2376" in said
            assert cli("ssh", "web", "hostname") == host.sh("hostname")
            (tmp_path / "file").write_text("through\n")
            cli("scp", str(tmp_path / "file"), "web:/tmp/file")
            assert host.sh("cat /tmp/file") == "through\n"
            words = [sys.executable, "-m", "machinekit", "ssh", "web", "-N", "-v", "-L", f"{port}:127.0.0.1:2376"]
            with subprocess.Popen(words, env=cli.environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as way:
                assert way.stderr is not None
                while b"forwarding listening on 127.0.0.1 port" not in way.stderr.readline():
                    assert way.poll() is None
                threading.Thread(target=way.stderr.read).start()  # so that it can go on talking
                assert run("docker", "version", "--format", "{{.Server.Os}}", env=cli.client("web")) == "linux\n"
                assert "cannot reach" not in cli("provision", "web")
                way.terminate()
                way.wait(60)  # it was passed on
        finally:
            host.sh(f"iptables -D INPUT {closed}")


def test_a_machine_that_is_off_is_said_to_be(cli: Cli) -> None:
    cli("create", "-d", "container", "c1")
    assert cli("ssh", "c1", "--", "echo", "in") == "in\n"
    cli.fail("ssh", "c1", "exit 7", code=7)
    cli("kill", "c1")
    for words in (
        ["ssh", "c1", "true"],
        ["env", "c1"],
        ["config", "c1"],
        ["use", "c1"],
        ["scp", "c1:/etc/hosts", "."],
    ):
        said = cli.fail(*words)
        assert 'machine "c1" is stopped\n  machinekit start c1' in said
