"""Container machines: three real Debians, from nothing to containers that run on them, and back to nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Lab, run


@pytest.mark.parametrize("image", ["debian-11", "debian-12", "debian-13"])
def test_a_bare_system_becomes_a_docker_host(lab: Lab, cli: Cli, busybox: Path, image: str) -> None:
    lab.rootfs(image)
    weird = 'it\'s "$(touch /tmp/pwned)" `id` {{ 7 }} %h \\ end'
    said = cli(
        *["create", "-d", "container", "--container-image", image, "--engine-label", "tier=test"],
        *["--engine-label", f"weird={weird}", "--engine-opt", "log-level=warn", "--engine-opt", "log-opt=max-size=1m"],
        *["--engine-opt", "max-concurrent-downloads=2", "--engine-env", f"MK_TEST={weird}"],
        *["--engine-insecure-registry", "registry.test:5000", "--engine-registry-mirror", "https://mirror.test"],
        *["--engine-storage-driver", "overlay2", "--tls-san", "docker.test", "node1"],
    )
    assert f"node1: ready at tcp://{lab.gateway.rpartition('.')[0]}." in said

    settings = json.loads(cli("ssh", "node1", "cat /etc/docker/daemon.json"))
    assert settings["log-level"] == "warn"
    assert settings["log-opts"] == {"max-size": "1m"}
    assert settings["max-concurrent-downloads"] == 2
    assert settings["insecure-registries"] == ["registry.test:5000"]
    assert settings["registry-mirrors"] == ["https://mirror.test"]
    assert settings["storage-driver"] == "overlay2"
    environment = cli("ssh", "node1", "tr '\\0' '\\n' </proc/$(pidof dockerd)/environ")
    assert f"MK_TEST={weird}\n" in environment
    assert cli("ssh", "node1", "ls /tmp").split() == [] or "pwned" not in cli("ssh", "node1", "ls /tmp")

    client = cli.client("node1")
    info = json.loads(run("docker", "info", "--format", "{{json .}}", env=client))
    assert {"tier=test", f"weird={weird}", "provider=container"} <= set(info["Labels"])
    assert info["Driver"] == "overlay2"
    run("docker", "build", "-q", "-t", "busybox", str(busybox), env=client | {"DOCKER_BUILDKIT": "0"})
    assert run("docker", "run", "--rm", "busybox", "echo", "it runs", env=client) == "it runs\n"

    assert "(unchanged)" in cli(
        *["create", "-d", "container", "--container-image", image, "--engine-label", "tier=test"],
        *["--engine-label", f"weird={weird}", "--engine-opt", "log-level=warn", "--engine-opt", "log-opt=max-size=1m"],
        *["--engine-opt", "max-concurrent-downloads=2", "--engine-env", f"MK_TEST={weird}"],
        *["--engine-insecure-registry", "registry.test:5000", "--engine-registry-mirror", "https://mirror.test"],
        *["--engine-storage-driver", "overlay2", "--tls-san", "docker.test", "node1"],
    )
    refused = cli.fail("create", "-d", "container", "--container-image", image, "node1")
    assert "--engine-label: ['tier=test'" in refused
    assert "machinekit rm node1" in refused

    cli("rm", "-y", "node1")
    assert cli("ls", "-q") == ""
    assert lab.docker("ps", "-aq", "--filter", "label=machinekit.name=node1") == ""
    assert lab.docker("volume", "ls", "-q", "--filter", "label=machinekit.name=node1") == ""
    assert [path.name for path in cli.home.rglob("*node1*")] == []


def test_power_and_a_changed_address(lab: Lab, cli: Cli) -> None:
    lab.rootfs("debian-12+engine")
    cli("create", "-d", "container", "a")
    cli("create", "-d", "container", "b")
    first = cli("ip", "a", "b").split()
    assert cli("status", "a") == "Running\n"
    cli("stop", "a", "b")
    assert cli("status", "a") == "Stopped\n"
    assert "a: unchanged" in cli("stop", "a")
    assert 'machine "a" is stopped' in cli.fail("env", "a")
    # the engine hands out addresses in the order of starting
    cli("start", "b")
    cli("start", "a")
    assert cli("ip", "a", "b").split() == first[::-1]
    assert json.loads(run("docker", "info", "--format", "{{json .Name}}", env=cli.client("a"))) == "a"
    cli("kill", "a")
    assert cli("status", "a") == "Stopped\n"
    cli("restart", "a")
    cli("env", "a")


# An engine that ends at once, while the journal is held up for longer than that.
ENDS_AT_ONCE = """
[Service]
ExecStartPre=/bin/sh -c 'systemctl kill -s STOP systemd-journald; \
    systemd-run --quiet sh -c "sleep 2; systemctl kill -s CONT systemd-journald"; \
    echo "the engine has its last words"; exit 1'
"""


def test_provision_repairs_and_regenerate_certs_renews(lab: Lab, cli: Cli) -> None:
    lab.rootfs("debian-12+engine")
    cli("create", "-d", "container", "node1")
    assert "node1: unchanged" in cli("provision", "node1")
    cli("ssh", "node1", "systemctl stop docker.service docker.socket")
    assert "node1: engine started" in cli("provision", "node1")
    cli("ssh", "node1", "rm /etc/docker/daemon.json; systemctl stop docker.service docker.socket")
    assert "node1: engine configured" in cli("provision", "node1")

    drop_in = "/etc/systemd/system/docker.service.d/ends.conf"
    cli("ssh", "node1", f"mkdir -p {Path(drop_in).parent} && cat >{drop_in}", stdin=ENDS_AT_ONCE)
    cli("ssh", "node1", "systemctl daemon-reload; systemctl stop docker.service docker.socket")
    assert "has its last words" in cli.fail("provision", "node1")
    cli("ssh", "node1", f"rm {drop_in}; systemctl daemon-reload")
    assert "node1: engine started" in cli("provision", "node1")

    machine = cli.home / "machines" / "node1"
    before = {file: (machine / file).read_bytes() for file in ("ca.pem", "cert.pem", "server.pem", "machine.json")}
    assert "node1: certificates renewed" in cli("regenerate-certs", "-y", "node1")
    after = {file: (machine / file).read_bytes() for file in before}
    assert after["server.pem"] != before["server.pem"]
    assert {file for file in before if before[file] == after[file]} == {"ca.pem", "cert.pem", "machine.json"}
    cli("env", "node1")


def test_settings_that_the_engine_refuses_are_rolled_back(lab: Lab, cli: Cli) -> None:
    lab.rootfs("debian-12+engine")
    refused = cli.fail("create", "-d", "container", "--engine-opt", "no-such-setting=1", "node1")
    assert "no-such-setting" in refused
    assert (
        "the engine does not start with the new settings (its journal is above); the settings from before are back"
        in refused
    )
    assert refused.count("does not start") == refused.count("from before") == refused.count("journal is above") == 1
    left = cli("ssh", "node1", "ls -A /etc/docker").split()
    # key.json is the engine's own
    assert [file for file in left if file != "key.json" and not file.startswith("daemon.json.before-")] == []
    assert "node1: ready" in cli("create", "-d", "container", "node1")


def test_ssh_passes_the_exit_code_on_and_scp_copies(lab: Lab, cli: Cli, tmp_path: Path) -> None:
    lab.rootfs("debian-12+engine")
    cli("create", "-d", "container", "a", "b")
    cli.fail("ssh", "a", "exit 42", code=42)
    file = tmp_path / "a file"
    file.write_text("content")
    cli("scp", str(file), "a:/tmp/one")
    cli("scp", "a:/tmp/one", "b:/tmp/two")
    cli("scp", "b:/tmp/two", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "content"
    # a terminal where there is one
    script = subprocess.run(
        ["script", "-qec", "python3 -m machinekit ssh a tty", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
        env=cli.environment | {"PATH": f"{Path(__import__('sys').executable).parent}:{cli.environment['PATH']}"},
    )
    assert "/dev/pts/" in script.stdout
