"""Private registries and mirrors: a machine that is one, and machines that use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from machinekit import keys
from tests.e2e.carrying import born, carry
from tests.e2e.lab import Cli, Lab, run

PASSWORD = "p w'd$x"  # noqa: S105 (of this test)


@dataclass
class Registry:
    """A machine with the role, as others see it."""

    cli: Cli
    name: str
    host: str
    ca: str

    def log(self) -> str:
        """What it was asked."""
        return self.cli("ssh", self.name, "journalctl -u docker-registry --no-pager -o cat")


def registry(cli: Cli, name: str, **options: object) -> Registry:
    """A new machine that is a registry."""
    born(cli, name, roles=[{"role": "registry", **options}])
    return Registry(cli, name, f"{cli('ip', name).strip()}:5000", str(cli.home / "machines" / name / "ca.pem"))


@pytest.fixture(scope="module")
def user(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """Somebody for all tests of this file."""
    with lab.user(tmp_path_factory.mktemp("registries")) as cli:
        yield cli


@pytest.fixture(scope="module")
def private(user: Cli, busybox: Path) -> Iterator[Registry]:
    """A registry for those who have the password, with an image in it that was pushed from another machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGISTRY_PASSWORD", PASSWORD)
        found = registry(user, "private", username="ci", password="env:REGISTRY_PASSWORD")  # noqa: S106 (a reference)
        login = {"username": "ci", "password": "env:REGISTRY_PASSWORD"}
        born(user, "builder", registries=[{"host": found.host, "ca": found.ca, **login}])
        build(user, "builder", busybox, f"{found.host}/busybox")
        user("ssh", "builder", f"docker push -q {found.host}/busybox")
        yield found


def build(cli: Cli, name: str, busybox: Path, image: str) -> None:
    """An image on a machine, from nothing."""
    client = cli.client(name) | {"DOCKER_BUILDKIT": "0"}
    run("docker", "build", "-q", "-t", image, str(busybox), env=client)


def test_pushed_from_one_machine_and_pulled_on_another(user: Cli, private: Registry) -> None:
    pull = f"docker pull -q {private.host}/busybox"
    trusted = {"host": private.host, "ca": private.ca}
    born(user, "puller")
    assert "certificate" in user.fail("ssh", "puller", pull), "its CA is not known"
    assert carry(user, "puller", registries=[trusted]) == [f"registry {private.host}"]
    assert "no basic auth" in user.fail("ssh", "puller", pull)
    carry(user, "puller", registries=[{**trusted, "username": "ci", "password": "env:REGISTRY_PASSWORD"}])
    user("ssh", "puller", pull)
    said = user("ssh", "puller", f"docker run --rm {private.host}/busybox echo it runs")
    assert said == "it runs\n"
    assert "puller: unchanged" in user("provision", "puller")
    assert carry(user, "puller") == [f"registry {private.host} removed", f"registry {private.host}"]
    assert user("ssh", "puller", "ls /root/.docker/config.json 2>/dev/null || echo none") == "none\n"
    user("ssh", "puller", f"docker rmi {private.host}/busybox")
    assert "certificate" in user.fail("ssh", "puller", pull)


def test_a_wrong_ca_is_refused(user: Cli, private: Registry, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(keys.authority("somebody else").cert)
    born(user, "wrong", registries=[{"host": private.host, "ca": str(wrong)}])
    said = user.fail("ssh", "wrong", f"docker pull -q {private.host}/busybox")
    assert "certificate signed by unknown authority" in said


def test_a_mirror_that_is_a_cache(user: Cli, private: Registry) -> None:
    """Docker Hub's images are asked for at the mirror, which gets them from the registry that it caches."""
    upstream = registry(user, "upstream")
    carry(user, "builder", registries=[{"host": upstream.host, "ca": upstream.ca}])
    image = f"{upstream.host}/library/busybox"
    user("ssh", "builder", f"docker tag {private.host}/busybox {image} && docker push -q {image}")
    cache = registry(user, "cache", cache_of=f"https://{upstream.host}", cache_ca=upstream.ca)
    mirror = {"host": cache.host, "ca": cache.ca, "mirror": True}
    born(user, "client", registries=[mirror])
    settings = json.loads(user("ssh", "client", "cat /etc/docker/daemon.json"))
    assert settings["registry-mirrors"] == [f"https://{cache.host}"]
    user("ssh", "client", "docker pull -q busybox")
    for asked in (cache, upstream):
        assert "/v2/library/busybox/manifests/latest" in asked.log()
    assert "client: unchanged" in user("provision", "client")
    assert carry(user, "client") == ["engine configured", f"registry {cache.host} removed"]
    assert "registry-mirrors" not in user("ssh", "client", "cat /etc/docker/daemon.json")


def test_the_registry_takes_a_renewed_certificate(user: Cli, private: Registry) -> None:
    user("regenerate-certs", "-y", private.name)
    same = "cmp /etc/docker/server.pem /run/docker-registry/server.pem"
    user("ssh", private.name, f"for _ in $(seq 100); do {same} >/dev/null 2>&1 && exit; sleep 0.1; done; {same}")
    assert f"{private.name}: unchanged" in user("provision", private.name)


def test_a_registry_that_is_none_any_more(user: Cli, private: Registry) -> None:
    assert carry(user, private.name) == ["role registry removed"]
    left = (
        "systemctl is-active docker-registry; ls /etc/systemd/system/docker-registry* /etc/docker/registry 2>&1; true"
    )
    said = user("ssh", private.name, left)
    assert said.startswith("inactive\n")
    assert said.count("No such file") == 2
    assert f"{private.name}: unchanged" in user("provision", private.name)
