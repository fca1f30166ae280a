"""A lock on real machines: what is made of it later is what was made of it before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Lab

IMAGE = "debian-12+engine"
FLEET = """
version: 1
name: ci
defaults: {{driver: container, container: {{engine: "{engine}"}}, engine: {{opts: [log-level=warn]}}}}
machines:
  - name: "m{{index}}"
    count: {count}
    files: [{{path: /etc/motd, content: "ours\\n"}}, {{path: /etc/key, secret: "env:LOCK_KEY", mode: "0600"}}]
    roles: [{{role: registry}}]
"""


@pytest.fixture
def file(lab: Lab, cli: Cli, tmp_path: Path) -> Path:
    """The file of one machine, with images that are this user's alone: one of them comes to be another."""
    lab.rootfs(IMAGE)
    (cli.home / "images").unlink()
    own = cli.home / "images" / "rootfs"
    own.mkdir(parents=True)
    shutil.copytree(lab.images / "rootfs" / IMAGE, own / IMAGE, copy_function=shutil.copy)
    cli.variables["LOCK_KEY"] = "s3cret-of-the-lock"
    return write(lab, tmp_path / "machinekit.yaml", 1)


def write(lab: Lab, file: Path, count: int) -> Path:
    file.write_text(FLEET.format(engine=lab.socket, count=count))
    return file


def rebuild(cli: Cli, build: str) -> None:
    """Have the image be of another build, as one that was built again is."""
    about = cli.home / "images" / "rootfs" / IMAGE / "image.json"
    about.chmod(0o644)
    about.write_text(json.dumps(json.loads(about.read_text()) | {"build": build}))


def test_machines_of_one_lock_are_the_same(lab: Lab, cli: Cli, file: Path) -> None:
    fleet = ("--file", str(file))
    assert "no machine tells the version of its engine" in cli.fail("lock", *fleet)
    cli("apply", *fleet, "--yes")
    assert cli("lock", *fleet).endswith("machinekit.lock: m{index}\n")
    text = file.with_suffix(".lock").read_text()
    installed = cli("ssh", "m1", "dpkg-query -W -f '${Version}' docker.io")
    assert f"    engine: {installed}\n" in text
    role = cli("ssh", "m1", "dpkg-query -W -f '${Version}' docker-registry")
    assert f"      registry:\n        version: {role}\n" in text
    build = json.loads((cli.home / "images" / "rootfs" / IMAGE / "image.json").read_text())["build"]
    assert f"      name: {IMAGE}\n      build: {build}\n" in text

    # held to it from now on, and another one is made of it
    write(lab, file, 2)
    said = cli("plan", *fleet, "--locked")
    assert "~ engine.version: none -> " in said
    assert f"~ roles.registry: version: none -> {role}\n" in said
    cli("apply", *fleet, "--yes", "--locked")
    held = "containerd\ndocker-registry\ndocker.io\nrunc\n"
    assert {cli("ssh", name, "apt-mark showhold") for name in ("m1", "m2")} == {held}
    assert cli("plan", *fleet, "--locked") == cli("plan", *fleet) == "ci: 2 unchanged\n"
    first, second = (cli("manifest", name) for name in ("m1", "m2"))
    assert first == second
    assert "s3cret" not in first
    found = json.loads(cli("manifest", "--json", "m1"))
    assert found["packages"]["docker.io"] == installed
    assert found["engine"]["package"] == f"docker.io {installed}"
    assert found["roles"]["registry"]["versions"] == {"docker-registry": role}
    assert found["files"]["/etc/key"] == "secret 0600 root:root"
    assert len(found["packages"]) > 100

    # what somebody changes on one is seen
    cli("ssh", "m2", "echo theirs | sudo tee -a /etc/motd")
    differing = {key for key, value in json.loads(cli("manifest", "--json", "m2")).items() if value != found[key]}
    assert differing == {"files"}

    # another build of the image is another image
    rebuild(cli, "another")
    write(lab, file, 3)
    said = cli.fail("apply", *fleet, "--yes", "--locked")
    assert f"the lock has image {IMAGE} (build {build}), and the one here is build another" in said
    assert cli("ls", "-q").split() == ["m1", "m2"]
    cli("lock", *fleet, "--update", "m{index}")
    assert "build: another" in file.with_suffix(".lock").read_text()
    said = cli("plan", *fleet, "--locked")
    assert "ci: 1 to create, 1 to replace, 1 unchanged" in said, "m1 was born without a lock"
    assert f"~ image: {IMAGE} (build {build}) -> {IMAGE} (build another)" in said
