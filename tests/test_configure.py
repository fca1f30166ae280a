"""The script that changes a host's settings, run for real on a host whose root is a directory: failed, and cut off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from machinekit import engine
from machinekit.engine import Facts, File
from machinekit.spec import Spec

THEIRS = '{"log-level":  "error", "registry-mirrors": ["https://theirs.test"]}\n'
UID = "the-uid"
MIRRORS = ("https://theirs.test", "https://ours.test")
CERTIFICATES = {engine.CA: b"ca", engine.CERT: b"cert", engine.KEY: b"key"}
EACH = 1 if "MACHINEKIT_FUZZ" in os.environ else 6  # of so many steps one is tried
COUNTED = ("base64", "chmod", "cp", "mkdir", "mv", "rm", "systemctl")  # what changes something
# each kills the script and all of its subshells, itself among them, when enough of them have run
PROGRAM = """#!/bin/sh
if [ -e {root}/left ]; then
  read -r left <{root}/left
  if [ "$left" = 0 ]; then kill -KILL 0; fi
  echo $((left - 1)) >{root}/left
fi
case $0 in */systemctl) ;; *) if [ -e {root}/looming ]; then : >{root}/raced; fi ;; esac
exec {real} "$@"
"""
SYSTEMCTL = """#!/bin/sh
case $* in
  is-active*) [ -e {root}/active ] ;;
  reset-failed*) /bin/rm -f {root}/failed ;;
  start*) [ ! -e {root}/failed ] && : >{root}/active ;;
  restart*)
    /bin/rm -f {root}/active {root}/looming
    if [ -e {root}/broken ]; then
      : >{root}/looming
      exit 1
    fi
    : >{root}/active
    ;;
  stop*) /bin/rm -f {root}/active {root}/looming ;;
esac
"""


Result = subprocess.CompletedProcess[str]
# the engine goes by its settings at once, and has a container when the host says so
DOCKER = """#!/bin/sh
live=false running=0
if grep -q '"live-restore": true' {root}/etc/docker/daemon.json; then live=true; fi
if [ -e {root}/active ] && [ -e {root}/container ]; then running=1; fi
echo inactive $live $running
"""


@dataclass
class Server:
    """A host under systemd with an engine that runs with settings of its owner's."""

    root: Path

    def __post_init__(self) -> None:
        for folder in ("bin", "real", "etc/docker", "run/systemd/system"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "etc/docker/daemon.json").write_text(THEIRS)
        (self.root / "active").touch()
        for name, text in (("systemctl", SYSTEMCTL), ("docker", DOCKER)):
            (self.root / "real" / name).write_text(text.format(root=self.root))
        (self.root / "bin" / "docker").symlink_to(self.root / "real" / "docker")
        for name in COUNTED:
            real = self.root / "real" / name if name == "systemctl" else shutil.which(name)
            (self.root / "bin" / name).write_text(PROGRAM.format(root=self.root, real=real))
        for program in (
            *(self.root / "bin").iterdir(),
            self.root / "real" / "systemctl",
            self.root / "real" / "docker",
        ):
            program.chmod(0o755)

    def run(self, script: str, left: int | None = None) -> Result:
        """Run it, all of it, or until so many programs have run."""
        if left is not None:
            (self.root / "left").write_text(str(left))
        for path in ("/etc/", "/run/systemd/", "/var/lib/machinekit"):
            script = script.replace(path, f"{self.root}{path}")
        environment = {"PATH": f"{self.root}/bin:/usr/bin:/bin"}
        result = subprocess.run(
            ["sh"], input=script, env=environment, capture_output=True, text=True, check=False, start_new_session=True
        )
        (self.root / "left").unlink(missing_ok=True)
        return result

    def facts(self) -> Facts:
        """What the probe finds."""
        said = self.run(engine.probe_script().replace("/run/containerd", "/nowhere")).stdout
        facts = engine.parse_facts(said.replace(f"{self.root}/", "/").splitlines())
        facts.dockerd = "true"  # which finds nothing wrong with any settings
        return facts

    def tree(self) -> dict[str, str]:
        """Every file in /etc, but for a draft, which the next change takes for its own."""
        files = [
            path
            for folder in ("etc", "var")
            for path in (self.root / folder).rglob("*")
            if path.is_file() and path.suffix != ".draft"
        ]
        return {str(path.relative_to(self.root)): path.read_text() for path in sorted(files)}


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "root")


def wanted(facts: Facts) -> list[File]:
    return engine.wanted_files(
        Spec(labels=("a=b",)),
        facts,
        driver="fake",
        listen="tcp://0.0.0.0:2376",
        certificates=CERTIFICATES,
        original=UID,
        mirrors=MIRRORS,
    )


def before(facts: Facts) -> list[File]:
    return engine.restored_files(Spec(labels=("a=b",)), facts, UID, driver="fake", listen="tcp://0.0.0.0:2376")


class Change(Protocol):
    """What changes the host; with `left` only as far as so many programs go."""

    def __call__(self, server: Server, left: int | None = None) -> Result: ...


def configure(server: Server, left: int | None = None) -> Result:
    """As `create` and `provision` do it."""
    facts = server.facts()
    result = server.run(engine.configure_script(engine.to_put(wanted(facts), facts), facts, UID), left)
    if result.returncode == 0:
        facts = server.facts()
        assert engine.to_change(wanted(facts), facts) == []
    return result


def restore(server: Server, left: int | None = None) -> Result:
    """As `rm --restore` does it."""
    facts = server.facts()
    files = engine.to_put(before(facts), facts)
    return server.run(engine.configure_script(files, facts, UID) if files else "", left)


def test_there_and_back(server: Server) -> None:
    first = server.tree()
    assert configure(server).returncode == 0
    settings = json.loads((server.root / "etc/docker/daemon.json").read_text())
    assert settings["log-level"] == "error"
    assert settings["labels"] == ["provider=fake", "a=b"]
    assert settings["registry-mirrors"] == [*MIRRORS]
    assert server.facts().mirrors == "https://ours.test ", "the other one was there before"
    assert restore(server).returncode == 0
    assert server.tree() == first


def without_mirrors(server: Server, left: int | None = None) -> Result:
    """As when the registries have left the machine's setup."""
    facts = server.facts()
    files = engine.wanted_files(
        *(Spec(labels=("a=b",)), facts), driver="fake", listen="tcp://0.0.0.0:2376", certificates=CERTIFICATES
    )
    return server.run(engine.configure_script(engine.to_put(files, facts), facts, UID), left)


def test_a_mirror_of_a_registry_goes_with_it(server: Server) -> None:
    configure(server)
    assert without_mirrors(server).returncode == 0
    settings = json.loads((server.root / "etc/docker/daemon.json").read_text())
    assert settings["registry-mirrors"] == ["https://theirs.test"]
    assert not (server.root / "var/lib/machinekit/mirrors").exists()


def test_an_engine_that_failed_too_often_starts_again(server: Server) -> None:
    (server.root / "active").unlink()
    (server.root / "failed").touch()
    assert server.run(engine.start_script()).returncode == 0
    assert (server.root / "active").exists()


def test_an_engine_that_does_not_start_with_new_settings(server: Server) -> None:
    first = server.tree()
    fails(server, configure)
    assert server.tree().pop(f"etc/docker/daemon.json.before-{UID}") == THEIRS
    assert restore(server).returncode == 0
    assert server.tree() == first


def test_an_engine_that_does_not_start_with_its_old_settings(server: Server) -> None:
    first = server.tree()
    configure(server)
    fails(server, restore)
    assert restore(server).returncode == 0, "what was there before us is still known"
    assert server.tree() == first


def fails(server: Server, change: Change) -> None:
    """The engine does not come up with this change, and everything is put back."""
    (server.root / "broken").touch()
    before = {path: text for path, text in server.tree().items() if UID not in path}
    result = change(server)
    assert result.returncode == 1
    assert "the settings from before are back" in result.stdout
    assert {path: text for path, text in server.tree().items() if UID not in path} == before
    assert not (server.root / "raced").exists(), "systemd may start it again with half of the old settings"
    (server.root / "broken").unlink()


@pytest.mark.parametrize(
    ("first", "change", "after"),
    [
        ([], configure, [configure, restore]),
        ([], configure, [restore]),
        ([configure], restore, [restore]),
        ([configure], without_mirrors, [without_mirrors, restore]),
        ([configure], without_mirrors, [restore]),
    ],
    ids=[
        *("a change goes on", "a change is taken back", "a restoration goes on"),
        *("mirrors that go", "mirrors that go are taken back"),
    ],
)
def test_cut_off_at_every_step(server: Server, first: list[Change], change: Change, after: list[Change]) -> None:
    (server.root / "container").touch()
    there, cuts = server.tree(), 0
    while True:
        for each in first:
            assert each(server).returncode == 0
        if change(server, cuts).returncode == 0:
            break
        for each in after:
            assert each(server).returncode == 0
        assert server.tree() == there, f"after {cuts} programs"
        assert (server.root / "active").exists()
        cuts += EACH
    assert cuts > 30
