"""The examples do what they say."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Lab, run

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))


def test_build_on_a_fresh_machine(lab: Lab, cli: Cli, busybox: Path, tmp_path: Path) -> None:
    lab.rootfs("debian-12+engine")
    path = f"{Path(sys.executable).parent}:{cli.environment['PATH']}"
    environment = cli.environment | {"MACHINE_DRIVER": "container", "DOCKER_BUILDKIT": "0", "PATH": path}
    output = tmp_path / "image.tar"
    script = str(EXAMPLES / "build-on-a-fresh-machine.sh")
    said = run(script, str(busybox), "app:1", str(output), env=environment)
    assert ": removed" in said
    with tarfile.open(output) as archive:
        assert "manifest.json" in archive.getnames()
    assert cli("ls", "-q") == ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_a_fleet_file_is_right(cli: Cli, file: Path) -> None:
    assert f"{file}: fleet {file.stem}, " in cli("validate", "--file", str(file))


@pytest.mark.parametrize(("name", "image"), [("swarm", ""), ("laptop", "debian-12+engine")])
def test_a_fleet_is_made_of_its_file(lab: Lab, cli: Cli, tmp_path: Path, name: str, image: str) -> None:
    (lab.disk if image else lab.rootfs)(image or "debian-12+engine")
    text = (EXAMPLES / f"{name}.yaml").read_text()
    file = tmp_path / f"{name}.yaml"
    file.write_text(
        text.replace("driver: container\n", f"driver: container\n  container: {{engine: '{lab.socket}'}}\n")
    )
    cli("apply", "--yes", "--file", str(file))
    assert cli("plan", "--file", str(file)).endswith(" unchanged\n")
    machine = cli("ls", "-q").split()[0]
    assert run("docker", "info", "--format", "{{.Name}}", env=cli.client(machine)) == f"{machine}\n"
    cli("destroy", "--yes", "--file", str(file))
    assert cli("ls", "-q") == ""
