"""Servers that already exist: adopted over SSH, with their host key checked, in few executions."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Host, Lab, run


@pytest.fixture
def bare(lab: Lab) -> Iterator[Host]:
    """A bare Debian 12, for what installs an engine."""
    with lab.host() as host:
        yield host


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    """A Debian 12 with an engine that does not run."""
    with lab.host("debian-12+engine") as host:
        yield host


def address(host: Host, *more: str) -> list[str]:
    """The options that name the host."""
    return ["-d", "generic", "--generic-ip-address", host.address, "--generic-ssh-key", str(host.key), *more]


def test_three_executions_on_a_clean_host_and_one_on_a_converged_one(cli: Cli, bare: Host) -> None:
    bare.count_executions()
    said = cli("create", *address(bare), "web")
    assert f"pinned the host key seen at first contact: {bare.fingerprint}" in said
    assert bare.executions() == 3
    assert "(unchanged)" in cli("create", *address(bare), "web")
    assert bare.executions() == 4
    assert run("docker", "version", "--format", "{{.Server.Os}}", env=cli.client("web")) == "linux\n"
    assert cli("ssh", "web", "hostname") == bare.sh("hostname")

    assert "cannot be powered" in cli.fail("stop", "web")
    cli("rm", "-y", "web")
    assert bare.sh("systemctl is-active docker") == "active\n"  # the server stays as it is


def test_the_fingerprint_decides(cli: Cli, host: Host) -> None:
    wrong = "SHA256:" + "A" * 43
    said = cli.fail("create", *address(host, "--generic-host-key", wrong), "web")
    assert f"has no host key {wrong}" in said
    assert host.fingerprint in said
    cli("rm", "-y", "web")
    said = cli("create", *address(host, "--generic-host-key", host.fingerprint), "web")
    assert "first contact" not in said
    # another host answers at the address now
    host.sh(
        "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; systemctl restart ssh"
    )
    assert "shows another host key than the pinned one" in cli.fail("provision", "web")
    assert "Host key verification failed" in cli.fail("ssh", "web", "true", code=255)


def test_a_user_with_sudo_and_another_port_and_what_is_missing(cli: Cli, bare: Host) -> None:
    bare.sh(
        "useradd -m -s /bin/bash admin; mkdir -m 700 ~admin/.ssh; cp /root/.ssh/authorized_keys ~admin/.ssh/;"
        "chown -R admin: ~admin/.ssh"
    )
    options = address(bare, "--generic-ssh-user", "admin", "--generic-engine-port", "12376")
    assert "asks for the password of admin" in cli.fail("create", *options, "web")
    bare.sh("echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin")
    assert "there is no dockerd on the host" in cli.fail("create", *options, "--engine", "none", "web")
    assert "ready" in cli("create", *options, "web")  # the engine's source may be mended
    assert cli("url", "web") == f"tcp://{bare.address}:12376\n"
    cli("config", "web")
    assert cli("ssh", "web", "id -un") == "admin\n"


def test_a_change_that_was_cut_off_starts_again_from_what_it_found(cli: Cli, host: Host) -> None:
    """What was being put in place is not taken for the owner's settings."""
    with_engine = address(host)
    cli("create", *with_engine, "web")
    before = host.sh("cat /etc/docker/daemon.json")
    host.sh(
        "mkdir -p /etc/docker/.machinekit-before/etc/docker;"
        "cp /etc/docker/daemon.json /etc/docker/.machinekit-before/etc/docker/;"
        "sed -i 's/{/{\"no-such-setting\": 1,/' /etc/docker/daemon.json; systemctl stop docker.socket docker"
    )
    assert "engine configured" in cli("provision", "web")
    assert host.sh("cat /etc/docker/daemon.json") == before
    assert "unchanged" in cli("provision", "web")


def test_what_is_there_is_kept(cli: Cli, host: Host) -> None:
    """An engine in use: its own settings and other people's drop-ins stay."""
    host.sh(
        "systemctl -q enable --now docker.socket docker.service;"
        'echo \'{"log-level": "error", "labels": ["owner=me"]}\' >/etc/docker/daemon.json;'
        "mkdir -p /etc/systemd/system/docker.service.d;"
        "printf '[Service]\\nEnvironment=THEIRS=1\\n' >/etc/systemd/system/docker.service.d/50-theirs.conf"
    )
    host.count_executions()
    cli("create", *address(host), "--yes", "web")
    assert host.executions() == 2  # nothing to install
    settings = json.loads(host.sh("cat /etc/docker/daemon.json"))
    assert settings["log-level"] == "error"
    assert settings["labels"] == ["owner=me", "provider=generic"]
    assert "THEIRS=1" in host.sh("tr '\\0' '\\n' </proc/$(pidof dockerd)/environ")
    assert json.loads(host.sh("cat /etc/docker/daemon.json.before-*")) == {
        "log-level": "error",
        "labels": ["owner=me"],
    }


def test_an_install_script_is_fetched_whole_or_named(lab: Lab, cli: Cli, bare: Host, tmp_path: Path) -> None:
    (tmp_path / "install.sh").write_text(
        "export DEBIAN_FRONTEND=noninteractive\n"
        "apt-get -qq update && apt-get -qq -y install --no-install-recommends docker.io\n"
    )
    handler = type(
        "Quiet",
        (http.server.SimpleHTTPRequestHandler,),
        {"log_message": lambda *_: None, "directory": str(tmp_path)},
    )
    server = http.server.ThreadingHTTPServer((lab.gateway, 0), lambda *args: handler(*args, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://{lab.gateway}:{server.server_port}"
    try:
        said = cli.fail("create", *address(bare), "--engine", "script", "--engine-install-url", f"{url}/gone.sh", "web")
        assert f"cannot download the install script {url}/gone.sh" in said
        cli("create", *address(bare), "--engine", "script", "--engine-install-url", f"{url}/install.sh", "web")
        cli("env", "web")
    finally:
        server.shutdown()
        server.server_close()


def test_an_installation_that_was_cut_off_is_finished(cli: Cli, bare: Host) -> None:
    """dpkg has put dockerd there and not set it up."""
    bare.sh(
        "mkdir -p /var/lib/machinekit; touch /var/lib/machinekit/installing; apt-get -qq update;"
        "cd /tmp; apt-get -qq download docker.io; dpkg --unpack --force-depends docker.io_*.deb"
    )
    assert bare.sh("command -v dockerd") == "/usr/sbin/dockerd\n"
    assert "engine installed" in cli("create", *address(bare), "web")
    assert "ok installed" in bare.sh("dpkg-query -W -f '${Status}' docker.io")
    assert bare.sh("ls -A /var/lib/machinekit") == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--generic-ip-address", "no-such-host.invalid"], "cannot resolve no-such-host.invalid"),
        (["--generic-ip-address", "127.0.0.1", "--generic-ssh-port", "1"], "127.0.0.1:1 refuses the connection"),
    ],
)
def test_an_unreachable_server_is_told_apart(cli: Cli, options: list[str], said: str) -> None:
    assert said in cli.fail("create", "-d", "generic", *options, "web")
