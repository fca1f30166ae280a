"""Roles on real machines: a Compose project, and runners that register and unregister."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machinekit.errors import MachinekitError
from tests.e2e.carrying import adopted, carry
from tests.e2e.lab import Cli, Host, Lab, run
from tests.e2e.runners import Forge, forge
from tests.e2e.test_openrc import IMAGE, build
from tests.e2e.test_secrets import Sampler, forms
from tests.e2e.test_setup import doctor

PROJECT = """
services:
  web:
    image: busybox
    command: [busybox, httpd, -f, -p, "8000", -h, /www]
    ports: ["${PORT}:8000"]
    environment: {TOKEN: "${TOKEN}"}
    volumes: [./www:/www]
"""
TOKEN = f"token-{uuid.uuid4().hex}"


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    with lab.host("debian-12+engine") as host:
        yield host


@pytest.fixture(scope="module")
def everywhere(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with forge(lab.gateway, tmp_path_factory.mktemp("forge")) as found:
        yield found


@pytest.fixture
def elsewhere(everywhere: Forge) -> Forge:
    """GitLab and GitHub, which know nobody yet."""
    everywhere.forget()
    return everywhere


def test_a_compose_project_is_kept_running(
    cli: Cli, host: Host, busybox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "it's $a")
    project = tmp_path / "app"
    (project / "www").mkdir(parents=True)
    (project / "docker-compose.yml").write_text(PROJECT)
    (project / "www" / "index.html").write_text("first\n")
    (project / "www" / "old.html").write_text("old\n")
    role = {"role": "compose", "name": "app", "project": str(project), "environment": {"PORT": "8080"}}
    role["secrets"] = {"TOKEN": "env:TOKEN"}

    adopted(cli, host, "web")
    run("docker", "build", "-q", "-t", "busybox", str(busybox), env=cli.client("web") | {"DOCKER_BUILDKIT": "0"})
    assert carry(cli, "web", roles=[role]) == ["role app"]
    assert page(host) == "first\n"
    container = "$(docker ps -q --filter label=com.docker.compose.project=app)"
    assert host.sh(f"docker exec {container} sh -c 'echo $TOKEN'") == "it's $a\n"
    host.count_executions()
    assert "web: unchanged" in cli("provision", "web")
    assert host.executions() == 1

    host.sh(f"docker rm -f {container}")
    assert "web: role app" in cli("provision", "web")
    assert page(host) == "first\n"
    host.sh("echo theirs >/var/lib/machinekit/roles/app/project/www/written.html")
    (project / "www" / "index.html").write_text("second\n")
    (project / "www" / "old.html").unlink()
    assert carry(cli, "web", roles=[role]) == ["role app"]
    assert page(host) == "second\n"
    assert host.sh("ls /var/lib/machinekit/roles/app/project/www") == "index.html\nwritten.html\n"
    host.sh("systemctl restart docker; systemctl restart machinekit-app")
    assert page(host) == "second\n"

    assert carry(cli, "web") == ["role app removed"]
    assert host.sh("docker ps -aq; ls /etc/systemd/system | grep app || true; ls /var/lib/machinekit/roles") == ""


def page(host: Host, name: str = "") -> str:
    """What the project serves."""
    return host.sh(f"curl -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8080/{name}")


def test_a_compose_project_with_an_exact_version_of_compose(
    cli: Cli, host: Host, elsewhere: Forge, tmp_path: Path
) -> None:
    """By checksum: what is not that program is refused."""
    project = tmp_path / "app"
    project.mkdir()
    (project / "compose.yaml").write_text("services: {}\n")
    program = b"#!/bin/sh\nexit 0\n"
    found = hashlib.sha256(program).hexdigest()
    elsewhere.files["compose/2.29.7/x86_64"] = elsewhere.files["compose/2.29.7/aarch64"] = program
    role = {"role": "compose", "project": str(project), "version": "2.29.7", "checksum": "0" * 64}
    role["url"] = f"{elsewhere.url}/compose/@version@/@arch@"
    adopted(cli, host, "web")
    carry_fails(cli, "web", f"has the SHA-256 {found}, expected {'0' * 64}", roles=[role])
    role["checksum"] = found
    assert carry(cli, "web", roles=[role]) == ["role compose"]
    assert "web: unchanged" in cli("provision", "web")


def test_a_compose_project_under_openrc(lab: Lab, cli: Cli, elsewhere: Forge, tmp_path: Path) -> None:
    """A service as OpenRC has it; the program that it calls only tells how it was called."""
    build(lab)
    project = tmp_path / "app"
    project.mkdir()
    (project / "compose.yaml").write_text("services: {}\n")
    program = b"#!/bin/sh\ncase $3 in config) ;; *) echo $* >>/srv/called ;; esac\n"
    elsewhere.files["compose"] = program
    role = {"role": "compose", "name": "app", "project": str(project), "version": "2.29.7"}
    role |= {"checksum": hashlib.sha256(program).hexdigest(), "url": f"{elsewhere.url}/compose"}
    with lab.host(IMAGE) as host:
        host.sh("rm -f /etc/init.d/machinekit-app")
        adopted(cli, host, "web", files=[{"path": "/etc/motd", "content": "ours\n"}], roles=[role])
        assert host.sh("cat /etc/motd") == "ours\n"
        assert "unchanged" in cli("provision", "web")
        host.sh("rc-service machinekit-app stop >/dev/null")
        assert "role app" in cli("provision", "web")
        assert "machinekit-app" in host.sh("rc-update show default")
        assert carry(cli, "web") == ["role app removed", "file /etc/motd removed"]
        assert host.sh("ls /etc/init.d | grep machinekit || true") == ""
        called = ["up -d --remove-orphans", "stop", "up -d --remove-orphans", "stop", "down --remove-orphans"]
        assert host.sh("cat /srv/called").splitlines() == [f"-p app {words}" for words in called]


def carry_fails(cli: Cli, name: str, said: str, **carried: Any) -> None:
    """It is to carry this, and cannot."""
    with pytest.raises(MachinekitError, match=re.escape(said)):
        carry(cli, name, **carried)


def gitlab(elsewhere: Forge, **more: Any) -> dict[str, Any]:
    """The role, as it installs from the test's repository."""
    about = {"url": elsewhere.url, "token": "env:TOKEN", "version": "17.5.0"}
    return {
        **{"role": "gitlab-runner", "name": "ci", **about, "repository": f"{elsewhere.url}/runner"},
        **{"key_fingerprint": elsewhere.fingerprint, **more},
    }


def test_a_gitlab_runner(cli: Cli, host: Host, elsewhere: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    token = f"glrt-{TOKEN}"
    monkeypatch.setenv("TOKEN", token)
    elsewhere.tokens = {token}
    with Sampler() as sampler:
        adopted(cli, host, "runner", roles=[gitlab(elsewhere, concurrent=3)])
    assert list(elsewhere.runners) == [token]
    assert "concurrent = 3" in host.sh("cat /etc/gitlab-runner/config.toml")
    shown = b"\n".join(text for kind, text in sampler.seen if kind == "cmdline")
    assert b"gitlab-runner" in shown
    assert not any(form in shown for form in forms(token))
    host.count_executions()
    assert "runner: unchanged" in cli("provision", "runner")
    assert host.executions() == 1

    assert carry(cli, "runner", roles=[gitlab(elsewhere, version="17.6.0")]) == ["role ci"]
    assert host.sh("dpkg-query -W -f '${Version}' gitlab-runner; apt-mark showhold") == "17.6.0-1gitlab-runner\n"
    assert len(elsewhere.runners) == 1
    elsewhere.down = True
    assert "runner: unchanged" in cli("provision", "runner"), "a GitLab that is down is nothing of ours"
    elsewhere.down = False
    elsewhere.forget()  # somebody deleted it there, and made another one
    monkeypatch.setenv("TOKEN", f"{token}2")
    elsewhere.tokens = {f"{token}2"}
    assert "GitLab does not know ci-" in doctor(cli, "runner")
    assert "runner: role ci" in cli("provision", "runner")
    assert list(elsewhere.runners) == [f"{token}2"]

    assert carry(cli, "runner") == ["role ci removed"]
    assert elsewhere.runners == {}
    assert host.sh("ls /etc/apt/sources.list.d; dpkg -l gitlab-runner 2>/dev/null | grep ^ii || true") == ""


def test_a_registration_token_makes_a_runner_that_is_unregistered_with_its_machine(
    cli: Cli, host: Host, elsewhere: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    elsewhere.tokens = {TOKEN}
    adopted(cli, host, "runner", roles=[gitlab(elsewhere, tags=["a b", "c"])])
    (runner,) = elsewhere.runners.values()
    assert (runner["tag_list"], runner["description"].startswith("ci-")) == ("a b,c", True)
    assert host.sh(f"grep -c {TOKEN} /etc/gitlab-runner/config.toml || true") == "0\n"
    other = carry(cli, "runner", roles=[gitlab(elsewhere, image="alpine")])
    assert other == ["role ci removed", "role ci"]
    assert len(elsewhere.runners) == 1, "another image is another runner"
    assert 'image = "alpine"' in host.sh("cat /etc/gitlab-runner/config.toml")
    cli("rm", "-y", "runner")
    assert elsewhere.runners == {}


def test_a_runner_that_cannot_be_unregistered_is_told(
    cli: Cli, host: Host, elsewhere: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    elsewhere.tokens = {TOKEN}
    adopted(cli, host, "runner", roles=[gitlab(elsewhere)])
    elsewhere.down = True
    try:
        command = [sys.executable, "-m", "machinekit", "rm", "-y", "runner"]
        result = subprocess.run(command, env=cli.environment, capture_output=True, text=True, check=True)
    finally:
        elsewhere.down = False
    assert "ci: perhaps still registered, take it away there" in result.stdout + result.stderr
    assert cli("ls", "-q") == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"key_fingerprint": "0" * 40}, "expected 0000"),
        ({"version": "17.4.0"}, "there is no version 17.4.0 of gitlab-runner"),
        ({"token": "env:WRONG"}, "Registering runner... forbidden"),
    ],
)
def test_a_gitlab_runner_that_cannot_be(
    cli: Cli, host: Host, elsewhere: Forge, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.setenv("WRONG", "wrong-token")
    elsewhere.tokens = {TOKEN}
    adopted(cli, host, "runner")
    carry_fails(cli, "runner", said, roles=[gitlab(elsewhere, **wrong)])
    assert elsewhere.runners == {}


def test_a_github_runner(cli: Cli, host: Host, elsewhere: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    elsewhere.tokens = {TOKEN}

    def github(version: str, checksum: str = "", **more: Any) -> dict[str, Any]:
        about = {"url": f"{elsewhere.url}/owner/repository", "token": "env:TOKEN", "version": version}
        package = {"checksum": checksum or elsewhere.packages[version]}
        package["package"] = f"{elsewhere.url}/actions/@version@.tar.gz"
        return {"role": "github-actions-runner", "name": "gh", **about, **package, **more}

    adopted(cli, host, "runner")
    carry_fails(cli, "runner", f"expected {'0' * 64}", roles=[github("2.319.1", "0" * 64, labels=["a", "b"])])
    with Sampler() as sampler:
        assert carry(cli, "runner", roles=[github("2.319.1", labels=["a", "b"])]) == ["role gh"]
    shown = b"\n".join(text for kind, text in sampler.seen if kind == "cmdline")
    assert b"config.sh" in shown
    assert not any(form in shown for form in forms(TOKEN))
    (agent,) = elsewhere.agents.values()
    assert (agent["labels"], agent["name"].startswith("gh-")) == ("a,b", True)
    assert host.sh("ps -o user= -C sleep | sort -u") == "runner-gh\n"
    host.count_executions()
    assert "runner: unchanged" in cli("provision", "runner")
    assert host.executions() == 1
    assert carry(cli, "runner", roles=[github("2.320.0", labels=["a", "b"])]) == ["role gh"]
    assert host.sh("cat /opt/actions-runner-gh/bin/version") == "2.320.0\n"
    assert len(elsewhere.agents) == 1
    cli("rm", "-y", "runner")
    assert elsewhere.agents == {}
    assert host.sh("ls /opt; id runner-gh 2>/dev/null || true; ls /etc/systemd/system | grep actions || true") == ""
