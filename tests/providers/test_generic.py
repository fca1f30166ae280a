"""How a server is found and reached through the user's own ssh_config and jump hosts, with OpenSSH's own client."""

from __future__ import annotations

import dataclasses
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from machinekit.providers import sshconfig
from machinekit.providers.generic import Generic, GenericOptions

from machinekit import keys, ssh
from machinekit.errors import (
    ConnectError,
    DeadlineError,
    HostKeyError,
    LoginError,
    PreCheckError,
    UnreachableError,
    WrongAddressError,
)
from machinekit.machine import Machine
from machinekit.provider import Access
from tests.servers import SshServer

pytestmark = pytest.mark.skipif(not shutil.which("ssh"), reason="OpenSSH's client is not installed")


@pytest.fixture
def config(environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's ssh_config. ssh itself goes by the password file for a home, so it is told about this one."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".ssh").mkdir(mode=0o700)
    known = f"-o UserKnownHostsFile={tmp_path}/.ssh/known_hosts -o GlobalKnownHostsFile=/dev/null"
    text = f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/.ssh/config {known} "$@"\n'
    (tmp_path / "bin" / "ssh").write_text(text)
    (tmp_path / "bin" / "ssh").chmod(0o755)
    environment.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    environment.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh" / "config").touch()
    return tmp_path / ".ssh" / "config"


def generic(address: str, **options: Any) -> Generic:
    return Generic(Machine("web", "uid", "generic", "s", ""), GenericOptions(address, **options), Path(), lambda: None)


def test_ssh_config_counts_and_options_come_first(config: Path) -> None:
    config.write_text(
        "Host web w2\n  HostName %h.example\n  User bob\n  Port 2222\n  IdentityFile ~/.ssh/web\n  IdentitiesOnly yes\n"
        "  IdentityAgent ~/agent\nHost w2\n  ProxyJump gate\nHost *\n  IdentityFile /all\n"
    )
    web = generic("web")
    assert (web.access.address, web.access.port, web.ssh_user, web.access.proxy) == ("web.example", 2222, "bob", "")
    assert web.access.keys == (config.parent / "web", Path("/all"))
    assert web.access.only_keys
    assert web.access.agent.endswith("/agent")
    other = generic("web", ssh_user="alice", ssh_port=22, ssh_key="/mine")
    assert (other.access.port, other.ssh_user, other.ssh_key) == (22, "alice", "/mine")
    unknown = generic("192.0.2.7")
    assert (unknown.access.address, unknown.access.port, unknown.ssh_user) == ("192.0.2.7", 22, "root")
    assert not unknown.access.only_keys


def test_the_users_name_counts_when_it_is_configured(config: Path, environment: pytest.MonkeyPatch) -> None:
    """It is also what ssh takes when nothing is said, and we take root."""
    config.write_text(f"Host mine\n  User {getpass.getuser()}\n")
    assert generic("mine").ssh_user == getpass.getuser()
    assert generic("other").ssh_user == "root"


def test_ssh_config_need_not_be_text(config: Path) -> None:
    config.write_bytes(b"# caf\xe9\nHost web\n  User caf\xe9\n")
    assert generic("web").ssh_user == "caf\N{REPLACEMENT CHARACTER}"
    key = f"[127.0.0.1]:2222 {keys.ssh_key('x')[1]}".encode()
    (config.parent / "known_hosts").write_bytes(key + b" caf\xe9\n")
    config.write_text(f"UserKnownHostsFile {config.parent}/known_hosts\n")
    assert len(generic("127.0.0.1", ssh_port=2222).host_keys) == 1


def test_ssh_config_may_not_take_for_ever(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshconfig, "PATIENCE", 0.3)
    config.write_text('Match exec "sleep 5"\n  User bob\n')
    with pytest.raises(DeadlineError, match=r"ssh did not end within 0\.3 s"):
        _ = generic("web").access


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1", "fe80::1%eth0", "a.test"])
def test_an_address_stays_what_it_is(config: Path, address: str) -> None:
    assert generic(address).access.address == address


@pytest.mark.parametrize(
    ("configured", "given", "proxy", "through"),
    [
        ("ProxyJump gate", "", "ssh://gate", "jump host gate"),
        ("ProxyJump gate", "none", "", ""),
        ("ProxyJump none", "", "", ""),
        ("ProxyCommand none", "", "", ""),
        ("ProxyCommand nc -x p:1 %h %p", "", "nc -x p:1 %h %p", "ProxyCommand nc -x p:1 %h %p"),
        ("ProxyCommand nc %h %p", "me@gate:2222", "ssh://me@gate:2222", "jump host me@gate:2222"),
        ("", "a,[::1]:23,ssh://c@d", "ssh://c@d", "jump host a,[::1]:23,ssh://c@d"),
    ],
)
def test_which_way_is_taken(config: Path, configured: str, given: str, proxy: str, through: str) -> None:
    config.write_text(f"Host web\n  {configured}\n")
    access = generic("web", ssh_jump=given).access
    assert access.proxy.endswith(proxy)
    assert bool(access.proxy) is bool(proxy)
    assert access.through == through


def test_a_configuration_that_ssh_refuses(config: Path) -> None:
    config.write_text("NoSuchDirective yes\n")
    with pytest.raises(PreCheckError, match="ssh refuses its configuration for web: "):
        generic("web").check()


def test_without_openssh_there_is_no_configuration(config: Path, environment: pytest.MonkeyPatch) -> None:
    config.write_text("Host web\n  HostName web.example\n")
    environment.setenv("PATH", "/nowhere")
    assert (generic("web").access.address, generic("web").ssh_user) == ("web", "root")


def test_the_users_known_hosts_count_at_first_contact(config: Path) -> None:
    public, other = keys.ssh_key("host")[1], keys.ssh_key("other")[1]
    known = config.parent / "known_hosts"
    known.write_text(
        f"a.test,[b.test]:2222,alias {public}\nc.test {other}\n"
        f"@revoked a.test {other}\n@cert-authority *.test {other}\n"
    )
    config.write_text("Host c\n  HostName c.test\n  HostKeyAlias alias\n")
    assert generic("a.test").host_keys == (ssh.fingerprint(public),)
    assert generic("b.test", ssh_port=2222).host_keys == (ssh.fingerprint(public),)
    assert generic("b.test").host_keys == ()
    assert generic("c").host_keys == (ssh.fingerprint(public),)
    assert generic("a.test", host_key=ssh.fingerprint(other)).host_keys == (ssh.fingerprint(other),)


# --- through jump hosts


@pytest.fixture
def gate(config: Path) -> Iterator[SshServer]:
    """A jump host that the user logs in to without being asked."""
    with SshServer() as gate:
        key = config.parent / "gate"
        key.write_bytes(gate.private)
        key.chmod(0o600)
        config.write_text(
            f"Host gate gate2\n  HostName 127.0.0.1\n  Port {gate.port}\n  User me\n  IdentityFile {key}\n"
        )
        (config.parent / "known_hosts").write_text(f"[127.0.0.1]:{gate.port} {gate.host_key}\n")
        yield gate


@pytest.fixture
def behind(gate: SshServer, tmp_path: Path) -> Iterator[ssh.Host]:
    """A server that nobody reaches but the jump host."""
    with SshServer() as server:
        yield server.host(tmp_path)


def by(host: ssh.Host, jump: str) -> ssh.Host:
    return dataclasses.replace(host, access=generic("127.0.0.1", ssh_jump=jump, ssh_user=host.user).access)


@pytest.mark.parametrize("jump", ["gate", "gate,gate2", "gate,me@gate2,gate"])
def test_through_jump_hosts(behind: ssh.Host, gate: SshServer, jump: str) -> None:
    host = by(behind, jump)
    assert ssh.scan(host, patience=20)
    before = len(gate.forwarded)
    with closing(ssh.connect(host, patience=20)) as connection:
        assert connection.run("echo in", patience=20) == ["in"]
    hops = jump.count(",")
    assert gate.forwarded[before:] == [("127.0.0.1", gate.port)] * hops + [("127.0.0.1", behind.port)]


def test_our_ssh_and_openssh_go_the_same_way(behind: ssh.Host, gate: SshServer) -> None:
    options = [word for option in by(behind, "gate,gate2").openssh_options() for word in ("-o", option)]
    own = shutil.which("ssh", path=os.defpath) or ""
    words = [own, "-F", "/dev/null", *options, "-p", str(behind.port), "-l", "root", "127.0.0.1", "echo in"]
    assert subprocess.run(words, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout == b"in\n"
    assert gate.forwarded == [("127.0.0.1", gate.port), ("127.0.0.1", behind.port)]


def refusal(host: ssh.Host) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        ssh.connect(host, patience=20)
    assert caught.value.hint
    return caught.value


def test_a_jump_host_that_is_not_known_is_refused(behind: ssh.Host, config: Path) -> None:
    (config.parent / "known_hosts").unlink()
    error = refusal(by(behind, "gate"))
    assert type(error) is HostKeyError
    assert "through jump host gate: " in error.message
    assert "log in to it once with ssh" in error.hint


def test_a_jump_host_whose_key_has_changed_is_refused(behind: ssh.Host, gate: SshServer, config: Path) -> None:
    (config.parent / "known_hosts").write_text(f"[127.0.0.1]:{gate.port} {keys.ssh_key('other')[1]}\n")
    assert type(refusal(by(behind, "gate,gate2"))) is HostKeyError


def test_the_second_hop_is_verified_too(behind: ssh.Host, gate: SshServer, config: Path) -> None:
    config.write_text(config.read_text() + "Host gate2\n  HostKeyAlias nobody-knows\n")
    assert type(refusal(by(behind, "gate,gate2"))) is HostKeyError


def test_a_jump_host_that_refuses_the_key(behind: ssh.Host, gate: SshServer) -> None:
    gate.public = keys.ssh_key("other")[1]
    error = refusal(by(behind, "gate"))
    assert type(error) is LoginError
    assert "Permission denied" in error.message
    assert "ssh-add" in error.hint


@pytest.mark.parametrize(
    ("jump", "kind", "said"),
    [
        ("127.0.0.1:1", UnreachableError, "Connection refused"),
        ("no-such-host.invalid", WrongAddressError, "no-such-host.invalid"),
    ],
)
def test_a_jump_host_that_is_not_there(behind: ssh.Host, jump: str, kind: type[ConnectError], said: str) -> None:
    error = refusal(by(behind, jump))
    assert type(error) is kind
    assert f"cannot reach root@127.0.0.1:{behind.port} through jump host {jump}: " in error.message
    assert said in error.message


def test_nobody_behind_the_jump_host(behind: ssh.Host) -> None:
    error = refusal(dataclasses.replace(by(behind, "gate"), port=1))
    assert type(error) is UnreachableError
    assert "through jump host gate: " in error.message
    assert "open failed" in error.message


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        ("no-such-program %h", WrongAddressError, "not found"),
        ("sh -c 'exit 3'", UnreachableError, "exit code 3"),
        ("echo out of order >&2; false", UnreachableError, "out of order"),
        ("<&- >&- sh -c 'sleep 0.5; echo at last >&2; false'", UnreachableError, "at last"),
        ("sleep 60", UnreachableError, "nothing comes through"),
    ],
)
def test_a_proxy_command_that_fails(behind: ssh.Host, command: str, kind: type[ConnectError], said: str) -> None:
    host = dataclasses.replace(behind, access=Access(proxy=command, through="ProxyCommand x"))
    with pytest.raises(kind) as caught:
        ssh.connect(host, patience=0.3 if command.startswith("sleep") else 10)
    assert said in caught.value.message
