"""A fleet of real machines: made of a file, changed by hand, mended, changed in the file, destroyed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.lab import Cli, Lab, run

FLEET = """
version: 1
name: ci
defaults:
  driver: container
  container: {{engine: "{engine}"}}
  engine: {{opts: [{opts}]}}
  labels: {{tier: {tier}}}
  files: [{{path: /etc/motd, content: "{motd}"}}]
  roles: [{{role: script, run: ./run, check: ./check}}]
machines:
  - name: m{{index}}
    count: {count}
"""


def write(
    lab: Lab, file: Path, *, opts: str = "log-level=warn", tier: str = "a", motd: str = "hello", count: int = 2
) -> None:
    file.write_text(FLEET.format(engine=lab.socket, opts=opts, tier=tier, motd=motd, count=count))
    (file.parent / "run").write_text("touch /etc/was-here\n")
    (file.parent / "check").write_text("[ -e /etc/was-here ] || { echo it was not; exit 1; }\n")


def settings(cli: Cli, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(cli("ssh", name, "cat /etc/docker/daemon.json"))
    return found


def test_a_fleet_follows_its_file(lab: Lab, cli: Cli, tmp_path: Path) -> None:
    lab.rootfs("debian-12+engine")
    file = tmp_path / "machinekit.yaml"
    write(lab, file)
    fleet = ("--file", str(file))
    assert "ci: 2 to create" in cli("plan", *fleet)
    said = cli("apply", *fleet, "--yes")
    assert "m1: engine configured, file /etc/motd, role script, created" in said
    assert "m2: engine configured, file /etc/motd, role script, created" in said
    assert cli("plan", *fleet) == "ci: 2 unchanged\n"

    # what others do to the machines
    cli(
        "ssh",
        "m1",
        "sudo sed -i s/warn/debug/ /etc/docker/daemon.json; sudo rm /etc/was-here; echo | sudo tee /etc/motd",
    )
    cli("stop", "m2")
    assert cli("plan", *fleet).splitlines() == [
        "~ change   m1 (container)",
        "    ~ /etc/docker/daemon.json: log-level changed on the host -> as configured",
        "    ~ file /etc/motd: other content -> as in the file",
        "    ~ role script: it was not -> as in the file",
        "~ change   m2 (container)",
        "    ~ instance: stopped -> running",
        "ci: 2 to change",
    ]
    cli("apply", *fleet, "--yes")
    assert cli("plan", *fleet) == "ci: 2 unchanged\n"
    assert settings(cli, "m1")["log-level"] == "warn"
    lab.docker("rm", "-f", lab.docker("ps", "-q", "--filter", "label=machinekit.name=m2").strip())
    assert "~ instance: gone -> running (only a new machine can have it)" in cli("plan", *fleet)
    cli("apply", *fleet, "--yes")
    assert cli("plan", *fleet) == "ci: 2 unchanged\n"

    # what the file says now: one setting goes, one comes, one machine comes
    born = json.loads(cli("inspect", "m1"))["created"]
    write(lab, file, opts="max-concurrent-downloads=2", tier="b", motd="good bye", count=3)
    said = cli("plan", *fleet)
    assert "~ engine.opts: log-level=warn -> max-concurrent-downloads=2" in said
    assert "~ files./etc/motd" in said
    assert "ci: 1 to create, 2 to change" in said
    cli("apply", *fleet, "--yes")
    assert cli("plan", *fleet) == "ci: 3 unchanged\n"
    assert json.loads(cli("inspect", "m1"))["created"] == born
    found = settings(cli, "m1")
    assert found["max-concurrent-downloads"] == 2
    assert cli("ssh", "m1", "cat /etc/motd") == "good bye"
    assert "log-level" not in found
    info = json.loads(run("docker", "info", "--format", "{{json .}}", env=cli.client("m1")))
    assert {label for label in info["Labels"] if label.startswith("tier")} == {"tier=b"}

    cli("destroy", *fleet, "--yes")
    assert cli("ls", "-q") == ""
    assert lab.docker("ps", "-aq", "--filter", "label=machinekit.uid") == ""
