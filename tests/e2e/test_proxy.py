"""A site behind a proxy: packages and the engine's pulls go through it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Lab, free_port, run, wait_for_port


@pytest.fixture
def proxy(lab: Lab, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A proxy on the laboratory's network: its URL, and its log of requests."""
    port, log = free_port(), tmp_path / "log"
    config = tmp_path / "tinyproxy.conf"
    config.write_text(f'Port {port}\nListen {lab.gateway}\nLogFile "{log}"\nLogLevel Connect\nMaxClients 50\n')
    with subprocess.Popen(["tinyproxy", "-d", "-c", str(config)], stdout=subprocess.DEVNULL) as process:
        wait_for_port(lab.gateway, port)
        try:
            yield f"http://{lab.gateway}:{port}", log
        finally:
            process.terminate()


def test_packages_and_pulls_go_through_it(lab: Lab, cli: Cli, proxy: tuple[str, Path]) -> None:
    url, log = proxy
    with lab.host() as host:
        # there is no other way out
        host.sh("ip route del default; : >/etc/resolv.conf")
        address = ["--generic-ip-address", host.address, "--generic-ssh-key", str(host.key)]
        cli("create", "-d", "generic", *address, "--proxy", url, "--no-proxy", "direct.test", "web")
        assert "docker.io" in log.read_text()
        said = subprocess.run(
            ["docker", "pull", "registry.test/image"],
            env=cli.client("web"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode != 0  # the proxy does not know it either
        assert "CONNECT registry.test:443" in log.read_text()
        environment = run("docker", "info", "-f", "{{.HTTPProxy}} {{.HTTPSProxy}} {{.NoProxy}}", env=cli.client("web"))
        assert environment == f"{url} {url} localhost,127.0.0.1,::1,direct.test\n"
