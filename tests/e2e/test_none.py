"""Engines that already answer: a unix socket, and TLS with certificates made by others."""

from __future__ import annotations

from tests.e2e.lab import Cli, Lab, run


def test_a_unix_socket(lab: Lab, cli: Cli) -> None:
    cli("create", "-d", "none", "--none-url", lab.socket, "here")
    assert cli("url", "here") == lab.socket + "\n"
    client = cli.client("here")
    assert "DOCKER_TLS_VERIFY" not in client
    assert run("docker", "version", "--format", "{{.Server.Os}}", env=client) == "linux\n"
    assert "there is no SSH" in cli.fail("ssh", "here", "true")
    assert "not ours to renew" in cli.fail("regenerate-certs", "-y", "here")
    cli("rm", "-y", "here")


def test_certificates_of_others(lab: Lab, cli: Cli) -> None:
    lab.rootfs("debian-12+engine")
    cli("create", "-d", "container", "real")
    certs = cli.home / "machines" / "real"
    url = cli("url", "real").strip()
    tls = ["--none-tls-ca", f"{certs}/ca.pem", "--none-tls-cert", f"{certs}/cert.pem", "--none-tls-key"]
    cli("create", "-d", "none", "--none-url", url, *tls, f"{certs}/key.pem", "adopted")
    assert run("docker", "info", "--format", "{{.Name}}", env=cli.client("adopted")) == "real\n"
    assert "there is no file" in cli.fail("create", "-d", "none", "--none-url", url, *tls, "/nowhere", "x", code=3)
    assert cli("ls", "-q").split() == ["adopted", "real"]
    cli("rm", "-y", "adopted")
    cli("env", "real")
