"""The examples do what they say."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

from tests.e2e.lab import Cli, Lab, run

EXAMPLES = Path(__file__).parents[2] / "examples"


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
