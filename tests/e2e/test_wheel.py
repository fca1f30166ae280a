"""The wheel works without the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.e2e.lab import Lab, run

ROOT = Path(__file__).parents[2]


def test_in_a_clean_environment(lab: Lab, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    run(str(tmp_path / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel))
    environment = {"MACHINEKIT_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}

    def machinekit(*words: str) -> str:
        return run(str(tmp_path / "venv" / "bin" / "machinekit"), *words, env=environment, cwd=tmp_path)

    assert machinekit("--help").startswith("usage: machinekit")
    assert machinekit("ls").split()[0] == "NAME"
    assert "(created)" in machinekit("create", "-d", "none", "--none-url", lab.socket, "here")
    assert f'export DOCKER_HOST="{lab.socket}"' in machinekit("env", "here")
    machinekit("doctor")  # every driver is asked, those too whose libraries are extras
    machinekit("gc", "--dry-run")
    for driver in (
        "qemu",
        "container",
        "generic",
        "aws",
        "openstack",
        "digitalocean",
        "libcloud",
    ):  # their files are inside, and so are the templates
        assert f"--{driver}-" in machinekit("create", "-d", driver, "--help")
    (templates,) = (tmp_path / "venv").glob("lib/*/site-packages/machinekit/templates")
    ours = {path.relative_to(ROOT / "templates") for path in (ROOT / "templates").rglob("*") if path.is_file()}
    assert {path.relative_to(templates) for path in templates.rglob("*") if path.is_file()} == ours
