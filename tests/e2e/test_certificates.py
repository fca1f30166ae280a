"""Certificates over the years: clocks that are wrong, renewal in time, CAs of others; containers go on meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.e2e.lab import Cli, Host, Lab, run
from tests.test_keys import made_by_openssl


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    """A server that has an engine."""
    with lab.host("debian-12+engine") as host:
        yield host


@pytest.fixture
def adopt(host: Host, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The words that adopt the server; what that left on it is gone afterwards."""
    yield ["create", "-d", "generic", "--generic-ip-address", host.address, "--generic-ssh-key", str(host.key), "web"]
    host.sh("rm -rf /etc/docker/*; systemctl stop docker.service docker.socket")


def at(cli: Cli, offset: str, *words: str) -> str:
    """Run the command line with this computer's clock moved; returns what it says on stderr, then on stdout."""
    command = ["faketime", "-f", offset, sys.executable, "-m", "machinekit", *words]
    result = subprocess.run(command, env=cli.environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stderr + result.stdout


def served(host: Host) -> x509.Certificate:
    """The certificate that the engine on the host has."""
    return x509.load_pem_x509_certificate(host.sh("cat /etc/docker/server.pem").encode())


@pytest.mark.parametrize("offset", ["+365d", "-365d"])
def test_a_record_from_another_year_is_renewed_by_the_next_command(
    cli: Cli, host: Host, adopt: list[str], offset: str
) -> None:
    cli(*adopt)
    before = served(host)
    said = at(cli, offset, "config", "web")
    assert "certificates renewed" in said
    assert "--tlsverify" in said
    assert served(host).serial_number != before.serial_number
    assert "renewed" not in at(cli, offset, "config", "web")
    # and by a clock that was right all the time
    assert run("docker", "version", "--format", "{{.Server.Os}}", env=cli.client("web")) == "linux\n"


@pytest.mark.parametrize(("offset", "said"), [("+1h", "60 minutes behind this"), ("-1h", "60 minutes ahead of this")])
def test_clocks_that_differ_by_an_hour(cli: Cli, host: Host, adopt: list[str], offset: str, said: str) -> None:
    assert f"the host's clock is {said} computer's" in at(cli, offset, *adopt)
    at(cli, offset, "config", "web")  # by the clock that is wrong
    assert run("docker", "version", "--format", "{{.Server.Os}}", env=cli.client("web")) == "linux\n"


def test_containers_outlive_new_certificates(cli: Cli, host: Host, adopt: list[str], busybox: Path) -> None:
    cli(*adopt)
    client = cli.client("web")
    run("docker", "build", "-q", "-t", "busybox", str(busybox), env=client | {"DOCKER_BUILDKIT": "0"})
    run("docker", "run", "-d", "--init", "--name", "worker", "busybox", "sleep", "9999", env=client)
    settings = json.loads(host.sh("cat /etc/docker/daemon.json"))

    def started() -> str:
        return run("docker", "inspect", "-f", "{{.State.Running}} {{.State.StartedAt}}", "worker", env=client)

    before, certificate = started(), served(host)
    assert "1 running container kept running" in cli("regenerate-certs", "-y", "web")
    assert served(host).serial_number != certificate.serial_number
    assert started() == before
    # somebody's mistake in the settings would keep the engine from coming back
    host.sh("sed -i 's/{/{\"no-such-setting\": 1,/' /etc/docker/daemon.json")
    said = cli.fail("regenerate-certs", "-y", "web")
    assert "the engine does not take /etc/docker/daemon.json as it is on the host" in said
    host.sh("sed -i 's/\"no-such-setting\": 1,//' /etc/docker/daemon.json")
    assert started() == before
    assert "certificates renewed" in cli("provision", "web")
    assert started() == before
    assert json.loads(host.sh("cat /etc/docker/daemon.json")) == settings  # live-restore was only for the moment
    assert run("docker", "info", "-f", "{{.LiveRestoreEnabled}}", env=client) == "false\n"

    run("docker", "swarm", "init", env=client)
    said = cli("regenerate-certs", "-y", "web")
    assert "1 running container stopped with the engine: the engine of a swarm cannot keep them" in said
    run("docker", "swarm", "leave", "--force", env=client)


def test_an_intermediate_ca_of_the_users_own(cli: Cli, host: Host, adopt: list[str], tmp_path: Path) -> None:
    made = tmp_path / "ca"
    made.mkdir()
    bundle, key = made_by_openssl(made)
    (made / "bundle.pem").write_bytes(bundle)
    own = ["--tls-ca-cert", str(made / "bundle.pem"), "--tls-ca-key", str(made / "sub.key")]
    cli(*adopt, *own)
    client = cli.client("web")
    assert run("docker", "version", "--format", "{{.Server.Os}}", env=client) == "linux\n"
    # nothing of the key is kept, and whatever else hangs from the root is not let in
    assert not [path for path in cli.home.rglob("*") if path.is_file() and key in path.read_bytes()]
    other_key, other = keys_of_the_root(made)
    words = ["docker", "--tlsverify", "--tlscacert", str(made / "root.pem"), "--tlscert", other, "--tlskey", other_key]
    refused = subprocess.run(
        [*words, "-H", client["DOCKER_HOST"], "version"], capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "bad certificate" in refused.stderr or "unknown certificate authority" in refused.stderr
    (made / "sub.key").unlink()
    cli("env", "web")
    assert f"cannot read the CA's file {made}/sub.key" in cli.fail("regenerate-certs", "-y", "web", code=3)


def keys_of_the_root(made: Path) -> tuple[str, str]:
    """A client certificate that the root has issued for something else."""
    issue = [
        "x509",
        "-req",
        "-in",
        "c.csr",
        "-CA",
        "root.pem",
        "-CAkey",
        "root.key",
        "-CAcreateserial",
        "-out",
        "c.pem",
    ]
    for words in (
        ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "c.key", "-out", "c.csr", "-subj", "/CN=c"],
        issue,
    ):
        subprocess.run(["openssl", *words], cwd=made, check=True, capture_output=True)
    return str(made / "c.key"), str(made / "c.pem")
