"""A server in use is adopted with care, and gets back what it had."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Host, Lab

THEIRS = {"log-level": "error", "labels": ["owner=me"]}


@pytest.fixture(scope="module")
def host(lab: Lab, busybox: Path) -> Iterator[Host]:
    """A server whose owner runs an engine with settings, a drop-in and a container of their own."""
    with lab.host("debian-12+engine") as host:
        host.sh(
            f"echo '{json.dumps(THEIRS)}' >/etc/docker/daemon.json; mkdir -p /etc/systemd/system/docker.service.d;"
            "printf '[Service]\\nEnvironment=THEIRS=1\\n' >/etc/systemd/system/docker.service.d/50-theirs.conf;"
            "hostname theirs; systemctl start docker.service"
        )
        archive = subprocess.run(["tar", "-C", str(busybox), "-c", "busybox"], capture_output=True, check=True).stdout
        lab.docker("exec", "-i", host.driver._name, "docker", "import", "-", "busybox", stdin=archive)
        host.sh("docker run -d --init --name theirs busybox /busybox sleep 9999")
        yield host


def adopt(host: Host, *more: str) -> list[str]:
    """The words that adopt it."""
    address = ["--generic-ip-address", host.address, "--generic-ssh-key", str(host.key)]
    return ["create", "-d", "generic", *address, *more, "web"]


def state(host: Host) -> str:
    """All that we could change on it."""
    return host.sh(
        "docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' theirs; hostname;"
        "find /etc/docker /etc/systemd/system/docker.service.d -type f ! -name key.json | sort | xargs sha256sum;"
        "docker info -f '{{.Driver}} {{.LiveRestoreEnabled}} {{.Labels}}'; ss -Hltn"
    )


def test_nothing_is_changed_until_somebody_agrees(cli: Cli, host: Host) -> None:
    before = state(host)
    said = cli.fail(*adopt(host), code=2)
    assert f"{host.address} (debian 12) is in use. This would change on it:" in said
    assert "/etc/docker/daemon.json: labels, hosts, tlsverify, tlscacert, tlscert, tlskey (the rest stays" in said
    assert "the engine is restarted; its running containers (1) stay" in said
    assert "add --yes" in said
    assert state(host) == before
    assert cli("ls", "-q") == ""
    for answer, code in (("n", 3), ("y", 0)):
        primary, secondary = pty.openpty()
        os.write(primary, f"{answer}\n".encode())
        command = [sys.executable, "-m", "machinekit", *adopt(host)]
        result = subprocess.run(
            command, env=cli.environment, stdin=secondary, capture_output=True, text=True, check=False
        )
        os.close(primary)
        os.close(secondary)
        assert result.returncode == code, result.stderr
        assert (state(host) == before) is (code != 0)
    cli("rm", "-y", "--restore", "web")
    assert state(host) == before


def test_its_own_settings_and_containers_stay_and_come_back(cli: Cli, host: Host) -> None:
    before = state(host)
    said = cli(*adopt(host, "--yes"))
    assert "1 running container kept running" in said
    assert state(host).splitlines()[:2] == before.splitlines()[:2]  # the container and the name of the host
    settings = json.loads(host.sh("cat /etc/docker/daemon.json"))
    assert settings["log-level"] == "error"
    assert settings["labels"] == ["owner=me", "provider=generic"]
    assert "THEIRS=1" in host.sh("tr '\\0' '\\n' </proc/$(pidof dockerd)/environ")
    cli("env", "web")
    # what its owner changes later is theirs
    host.sh('sed -i \'s/"error"/"fatal"/\' /etc/docker/daemon.json')
    assert "1 running container kept running" in cli("rm", "-y", "--restore", "web")
    assert json.loads(host.sh("cat /etc/docker/daemon.json")) == THEIRS | {"log-level": "fatal"}
    host.sh(f"echo '{json.dumps(THEIRS)}' >/etc/docker/daemon.json")
    assert state(host) == before


def test_settings_that_it_refuses_are_rolled_back_under_its_containers(cli: Cli, host: Host) -> None:
    before = state(host)
    said = cli.fail(*adopt(host, "--yes", "--engine-opt", "no-such-setting=1"))
    assert "no-such-setting" in said
    assert "the settings from before are back" in said
    cli("rm", "-y", "--restore", "web")
    assert state(host) == before


def test_rm_leaves_it_as_it_is_unless_told(cli: Cli, host: Host) -> None:
    cli(*adopt(host, "--yes"))
    there = state(host)
    assert "--restore would have put them back" in cli("rm", "-y", "web")
    assert state(host) == there
