"""A thousand machines, and an apply that is killed in the middle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from machinekit.store import Store
from tests.fleetprogram import Table
from tests.providers.fake import FakeCloud

COUNT = 1000
ROUNDS = 12
PATIENCE = 300.0


@pytest.fixture
def program(cloud: FakeCloud, environment: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The command line in a process of its own, whose provider is a file."""
    environment.setenv("CERTIFICATES", str(cloud.certificates[0].parent))
    environment.setenv("PYTHONPATH", os.pathsep.join([*sys.path[:1], str(Path.cwd())]))
    return [sys.executable, "-m", "tests.fleetprogram", str(tmp_path / "cloud"), str(cloud.engine_port)]


@pytest.mark.usefixtures("as_at_a_terminal")
def test_ctrl_c_begins_nothing_new_and_says_how_to_go_on(
    store: Store, program: list[str], environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, instances = tmp_path / "machinekit.yaml", Table(tmp_path / "cloud", "instances")
    file.write_text("version: 1\nname: ci\nmachines: [{name: 'm{index}', count: 8, driver: fake}]\n")
    command = [*program, "apply", "--yes", "--parallel", "2", "--file", str(file)]
    environment.setenv("FAKE_CALL", "0.2")
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + PATIENCE
        while len(instances) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert "machinekit: interrupted" in said
    assert ", m5, m6, m7, m8\n" in said  # not begun
    assert "run machinekit apply again" in said
    assert len(store.names()) <= 4
    environment.setenv("FAKE_CALL", "0")
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert len(store.names()) == len(instances) == 8


def test_exactly_as_many_as_the_file_says(store: Store, program: list[str], tmp_path: Path) -> None:
    file, database = tmp_path / "machinekit.yaml", tmp_path / "cloud"
    file.write_text(f"version: 1\nname: ci\nmachines: [{{name: 'm{{index}}', count: {COUNT}, driver: fake}}]\n")
    command = [*program, "apply", "--yes", "--parallel", "32", "--file", str(file)]
    instances, disks = Table(database, "instances"), Table(database, "disks")
    with (tmp_path / "log").open("wb") as log:
        for until in (COUNT // 10, COUNT // 2):
            killed = subprocess.Popen(command, stdout=log, stderr=log)
            deadline = time.monotonic() + PATIENCE
            while len(instances) < until and killed.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            killed.kill()
            assert killed.wait() == -9, (tmp_path / "log").read_text()[-2000:]
            assert len(instances) < COUNT
        ended = subprocess.run(command, stdout=log, stderr=log, check=False)
    assert ended.returncode == 0, (tmp_path / "log").read_text()[-2000:]
    records = {store.load(name).uid: name for name in store.names()}
    assert sorted(records.values()) == sorted(f"m{number}" for number in range(1, COUNT + 1))
    assert {instance.marks["machinekit.uid"] for instance in instances.values()} == set(instances) == set(records)
    assert {marks["machinekit.uid"] for marks in disks.values()} == set(records)
    assert len(disks) == COUNT


def test_killed_anywhere_in_any_change(
    store: Store, program: list[str], environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, plan, chance = tmp_path / "machinekit.yaml", tmp_path / "plan", random.Random(ROUNDS)  # noqa: S311 (no secret)
    instances, disks = Table(tmp_path / "cloud", "instances"), Table(tmp_path / "cloud", "disks")
    environment.setenv("FAKE_CALL", "0.03")

    def ended(*words: str) -> int:
        result = subprocess.run([*program, *words], capture_output=True, text=True, check=False)
        assert "Traceback" not in result.stderr, result.stderr
        return result.returncode

    assert ended("create", "-d", "fake", "mine") == 0  # which no file has
    mine = store.load("mine").uid
    for number in range(ROUNDS):
        count, size, tier = chance.randint(0, 5), chance.choice("12"), chance.choice("ab")
        about = f"driver: fake, labels: {{tier: {tier}}}, fake: {{size: {size}}}"
        file.write_text(f"version: 1\nname: ci\nmachines: [{{name: 'm{{index}}', count: {count}, {about}}}]\n")
        words = ["destroy" if number % 4 == 3 else "apply", "--yes", "--file", str(file)]
        if number % 3 == 2:
            assert ended("plan", "--file", str(file), "--out", str(plan)) == 0
            words = ["apply", "--yes", str(plan)]
        with subprocess.Popen([*program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0.3, 2))
            process.send_signal(chance.choice((signal.SIGKILL, signal.SIGTERM)))
        assert store.load("mine").uid == mine in instances
        if number % 2:
            assert ended("apply", "--yes", "--file", str(file)) == 0
            records = {store.load(name).uid for name in store.names()}
            assert len(records) == count + 1
            assert records == set(instances) == {marks["machinekit.uid"] for marks in disks.values()}
