"""A host whose init system is OpenRC: Debian with its openrc package, and an engine's service as Alpine has it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Host, Lab, run

IMAGE = "debian-12-openrc"
PACKAGES = "openrc,sysvinit-core,openssh-server,iproute2,iptables,ca-certificates,netbase,docker.io"
# what Alpine's docker package installs does the same: a supervised dockerd with $DOCKER_OPTS and a log file
SERVICE = """#!/sbin/openrc-run
supervisor=supervise-daemon
name="Docker Daemon"
command="/usr/sbin/dockerd"
command_args="$DOCKER_OPTS"
output_log="/var/log/docker.log"
error_log="/var/log/docker.log"
pidfile="/run/docker-supervisor.pid"
extra_started_commands="reload"
reload() {
    kill -HUP "$(cat /var/run/docker.pid)"
}
"""


def build(lab: Lab) -> None:
    """The image, once; the driver starts what is called systemd in it."""
    folder = lab.images / "rootfs" / IMAGE
    if (folder / "image.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    service = folder / "service"
    service.write_text(SERVICE)
    hooks = [
        'rm -f "$1"/etc/ssh/ssh_host_*; mkdir -p "$1/lib/systemd"; ln -sf /sbin/init "$1/lib/systemd/systemd"',
        f'cp {service} "$1/etc/init.d/docker"; chmod 755 "$1/etc/init.d/docker"; mkdir -p "$1/etc/conf.d"',
        'chroot "$1" rc-update del docker; chroot "$1" rc-update del containerd || true',
        'sed -i "/getty/d" "$1/etc/inittab"',
    ]
    run(
        *["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"],
        *[f"--customize-hook={hook}" for hook in hooks],
        *["bookworm", str(folder / "rootfs.tar")],
    )
    about = {"build": "1", "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    (folder / "image.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    """Such a host, whose owner has given the engine an option and an address."""
    build(lab)
    with lab.host(IMAGE) as host:
        host.sh("echo 'DOCKER_OPTS=\"-H unix:///var/run/docker.sock --mtu=1400\"' >/etc/conf.d/docker")
        yield host


def test_an_engine_under_openrc(cli: Cli, host: Host, busybox: Path) -> None:
    words = ["-d", "generic", "--generic-ip-address", host.address, "--generic-ssh-key", str(host.key)]
    said = cli.fail("create", *words, "--engine-opt", "no-such-setting=1", "web")
    assert "following directives don't match any configuration option: no-such-setting" in said
    assert "the settings from before are back" in said
    cli("create", *words, "--engine-env", "HTTP_PROXY=http://proxy.test:3128", "web")
    client = cli.client("web")
    assert run("docker", "info", "-f", "{{.HTTPProxy}}", env=client) == "http://proxy.test:3128\n"
    assert "--mtu=1400" in host.sh("tr '\\0' ' ' </proc/$(cat /run/docker.pid)/cmdline")
    assert "docker" in host.sh("rc-update show default")
    assert "unchanged" in cli("provision", "web")

    host.sh("rc-service docker stop")
    assert "engine started" in cli("provision", "web")

    run("sh", "-euc", f"tar -C {busybox} -c busybox | docker import - box", env=client)
    run("docker", "run", "-d", "--name", "alive", "--network", "none", "box", "/busybox", "sleep", "10000", env=client)
    state = ("docker", "inspect", "-f", "{{.State.StartedAt}} {{.State.Running}}", "alive")
    before = run(*state, env=client)
    assert "1 running container kept running" in cli("regenerate-certs", "-f", "web")
    assert run(*state, env=client) == before
