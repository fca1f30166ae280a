"""`gc`: what is listed, when one is asked, and what the exit code says."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from machinekit.machine import Machine
from machinekit.record import RECORD
from machinekit.store import Store
from tests.conftest import Cli
from tests.providers.fake import FakeCloud, FakeInstance

THEIRS = {"machinekit.uid": "u", "machinekit.name": "node9", "machinekit.store": "their-store"}


@pytest.fixture(autouse=True)
def no_engine(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This computer may have an engine, whose machines are none of a test's business."""
    for variable, value in (
        ("MACHINEKIT_CONTAINER_ENGINE", f"unix://{tmp_path}/none.sock"),
        ("MACHINE_DRIVER", "container"),  # counts for create alone
    ):
        environment.setenv(variable, value)


@pytest.fixture
def lost(store: Store, made: Machine) -> Machine:
    """A machine whose directory is gone."""
    with store.lock("fake1", "test", print):
        store.remove("fake1")
    return made


def test_nothing(cli: Cli, made: Machine) -> None:
    assert cli("gc", "-d", "fake") == (result := cli("gc", "-y", "-d", "fake"))
    assert (result.code, result.out, result.err) == (0, "nothing that no record knows\n", "")


@pytest.mark.parametrize("words", [[], ["-n"], ["-y", "--dry-run"], ["--json"]])
def test_what_is_only_listed(cli: Cli, lost: Machine, cloud: FakeCloud, words: list[str]) -> None:
    result = cli("gc", "-d", "fake", *words)
    assert (result.code, result.err) == (4, "")
    assert len(cloud.instances) == 1
    if "--json" in words:
        assert json.loads(result.out)["garbage"] == [
            {
                "kind": "instance",
                "machine": "fake1",
                "what": f"driver fake, disk fake1-{lost.uid[:8]}",
                "store": lost.store,
                "removed": False,
            }
        ]
    else:
        assert result.out.splitlines()[1].split() == [
            "instance",
            "fake1",
            "driver",
            "fake,",
            "disk",
            f"fake1-{lost.uid[:8]}",
        ]


def test_a_dry_run_changes_nothing(cli: Cli, store: Store, made: Machine, lost: Machine) -> None:
    for folder in (store.machines / ".draft-node2", store.removed / "node3", store.locks):
        folder.mkdir(parents=True, exist_ok=True)
    (store.locks / "node4").touch()
    before = {str(path): path.lstat().st_mtime_ns for path in store.home.rglob("*")}
    first = cli("gc", "-n", "-d", "fake")
    assert len(first.out.splitlines()) == 5
    assert cli("gc", "-n", "-d", "fake") == first
    assert {str(path): path.lstat().st_mtime_ns for path in store.home.rglob("*")} == before
    assert cli("gc", "-y", "-d", "fake").code == 0
    assert [*store.machines.iterdir(), *store.removed.iterdir(), *store.locks.iterdir()] == []


@pytest.mark.parametrize("words", [["-y"], ["-y", "--json"]])
def test_what_is_removed(cli: Cli, lost: Machine, cloud: FakeCloud, words: list[str]) -> None:
    result = cli("gc", "-d", "fake", *words)
    assert (result.code, result.err) == (0, "")
    assert (cloud.instances, cloud.disks) == ({}, {})
    if "--json" in words:
        assert [each["removed"] for each in json.loads(result.out)["garbage"]] == [True]
    else:
        assert result.out.splitlines()[-1] == "removed: instance fake1"


def test_what_cannot_be_removed(cli: Cli, lost: Machine, cloud: FakeCloud, store: Store) -> None:
    (store.machines / ".draft-node2").mkdir()
    cloud.failing_once.add("destroy")
    result = cli("gc", "-y", "-d", "fake")
    assert (result.code, result.out.splitlines()[-1]) == (1, "removed: file node2")
    assert result.err == "machinekit: fake1: the provider refuses to destroy\n"
    assert len(cloud.instances) == 1
    assert cli("gc", "-y", "-d", "fake").code == 0


def test_every_driver_that_can_be_asked_is(
    cli: Cli, lost: Machine, cloud: FakeCloud, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """generic and none have required options, aws has no credentials; the engine of container has ended."""
    (tmp_path / "engine").touch()
    environment.setenv("MACHINEKIT_CONTAINER_ENGINE", f"unix://{tmp_path}/engine")
    result = cli("gc", "-y")
    assert result.code == 1
    assert result.err.startswith("machinekit: driver container: ")
    assert cloud.instances == {}
    assert [each["driver"] for each in json.loads(cli("gc", "--json").out)["silent"]] == ["container"]


def test_a_drivers_options_are_flags(
    cli: Cli, lost: Machine, cloud: FakeCloud, environment: pytest.MonkeyPatch
) -> None:
    environment.delenv("FAKE_TOKEN")
    assert "--fake-token is required" in cli("gc", "-d", "fake").err
    assert "fake" not in cli("gc").err, "without its required option it is passed over"
    assert cli("gc", "-d", "fake", "--fake-token", "wrong").code == 1
    assert cli("gc", "-y", "-d", "fake", "--fake-token", "s3cret").code == 0
    assert cloud.instances == {}


def test_other_stores(cli: Cli, made: Machine, cloud: FakeCloud) -> None:
    cloud.instances["u"] = FakeInstance(THEIRS)
    result = cli("gc", "-y", "-d", "fake")
    assert (result.code, len(cloud.instances)) == (0, 2)
    assert "1 thing was made by another store; if that one is lost: machinekit gc --store-id their-store" in result.out
    assert cli("gc", "-d", "fake", "--store-id", "their-store").code == 4
    assert cli("gc", "-y", "-d", "fake", "--store-id", "their-store").code == 0
    assert list(cloud.instances) == [made.uid]


def test_unfinished_machines(cli: Cli, unfinished: Machine) -> None:
    result = cli("gc", "-d", "qemu")
    assert result.code == 0
    hint = 'machine "half" was not created to the end: run the same machinekit create again, or machinekit rm'
    assert result.out.splitlines()[-1] == hint
    assert json.loads(cli("gc", "--json", "-d", "qemu").out)["unfinished"][0]["machine"] == "half"


def test_an_unreadable_record_protects(cli: Cli, store: Store, made: Machine, cloud: FakeCloud) -> None:
    (store.directory("fake1") / RECORD).write_text("{")
    assert cli("gc", "-y", "-d", "fake").code == 0
    assert len(cloud.instances) == 1


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 4, 1)])
def test_on_a_terminal_one_is_asked(store: Store, cli: Cli, answer: str, code: int, left: int) -> None:
    draft = store.machines / ".draft-node2"
    draft.mkdir(parents=True)
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "machinekit", "gc", "-d", "qemu"]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, text=True) as process:
        os.write(controller, answer.encode())
        said, _ = process.communicate(timeout=60)
    os.close(controller)
    os.close(terminal)
    assert process.returncode == code
    assert "Remove all of it? (y/n): " in said
    assert draft.exists() == bool(left)
