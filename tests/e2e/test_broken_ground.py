"""A store that is full, read-only, lost or broken, with a real machine in it; and what doctor and gc make of that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Lab, run


@pytest.fixture
def small(lab: Lab, tmp_path: Path) -> Iterator[Cli]:
    """A user whose store is on a small file system of its own."""
    lab.rootfs("debian-12+engine")
    place = tmp_path / "small"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(place))
    try:
        with lab.user(place) as cli:
            yield cli
    finally:
        run("umount", "--lazy", str(place))


@contextmanager
def full(cli: Cli) -> Iterator[None]:
    """Every byte of the file system is taken."""
    filler = cli.home / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(cli: Cli) -> Iterator[None]:
    """Nothing can be written."""
    run("mount", "-o", "remount,ro", str(cli.home.parent))
    try:
        yield
    finally:
        run("mount", "-o", "remount,rw", str(cli.home.parent))


def contents(cli: Cli) -> dict[str, bytes]:
    """What is in the directories of the machines."""
    return {str(path): path.read_bytes() for path in (cli.home / "machines").rglob("*") if path.is_file()}


def problems(cli: Cli, *names: str) -> list[str]:
    """What doctor takes for one, which its exit code says too."""
    command = [sys.executable, "-m", "machinekit", "doctor", "--json", *names]
    result = subprocess.run(command, env=cli.environment, capture_output=True, text=True, check=False)
    found = [check["text"] for check in json.loads(result.stdout) if check["level"] == "problem"]
    assert (result.returncode, result.stderr) == (1 if found else 0, "")
    return found


def test_a_full_and_a_read_only_store(lab: Lab, small: Cli) -> None:
    cli = small
    cli("create", "-d", "container", "node1")
    before = contents(cli)
    record = cli.home / "machines" / "node1" / "machine.json"
    with full(cli):
        assert f"cannot write {record}: No space left on device" in cli.fail("rm", "-y", "node1")
        assert 'cannot write the record of "node2": No space left on device' in cli.fail(
            "create", "-d", "container", "node2"
        )
        assert contents(cli) == before
        assert "node1: unchanged" in cli("provision", "node1"), "what has nothing to save goes on"
        assert cli("ls", "-q") == "node1\n"
        assert problems(cli) == [f"0.0 GB free in {cli.home}"]
    assert problems(cli, "node1") == []
    assert "node1: certificates renewed" in cli("regenerate-certs", "-y", "node1")

    before = contents(cli)
    with read_only(cli):
        assert cli("status", "node1") == "Running\n"
        assert "DOCKER_HOST" in cli("env", "node1")
        assert cli("ssh", "node1", "echo reached") == "reached\n"
        assert json.loads(cli("ls", "--json"))[0]["error"] == ""
        for words in (
            ("stop", "node1"),
            ("provision", "node1"),
            ("rm", "-f", "node1"),
            ("regenerate-certs", "-y", "node1"),
        ):
            assert f"cannot lock {cli.home}/locks/node1: Read-only file system" in cli.fail(*words)
        assert "Read-only file system" in cli.fail("create", "-d", "container", "node2")
        assert "cannot be written" in problems(cli)
        cli("gc", "-d", "container", "--dry-run")
        assert contents(cli) == before
    with full(cli):
        assert "node1: removed" in cli("rm", "-f", "node1"), "which makes room"
    assert lab.docker("ps", "-aq", "--filter", "label=machinekit.name=node1") == ""


def test_doctor_and_gc_through_the_loss_of_a_record(lab: Lab, cli: Cli, tmp_path: Path) -> None:
    lab.rootfs("debian-12+engine")
    ours = ["-d", "container"]
    cli("create", *ours, "node1")
    assert "problem" not in cli("doctor")
    cli("ssh", "node1", "echo '{}' >/etc/docker/daemon.json")
    assert "warning node1" in (said := cli("doctor", "node1"))
    assert "not as configured: /etc/docker/daemon.json -> machinekit provision node1" in said
    cli("provision", "node1")
    assert "the host is as configured" in cli("doctor", "node1")

    record = cli.home / "machines" / "node1" / "machine.json"
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    assert f"cannot read {record}" in cli("ls")
    assert "cannot read" in cli.fail("rm", "-y", "node1")
    assert cli("gc", "-y", *ours) == "nothing that no record knows\n", "the machine of a broken record is no garbage"
    record.write_bytes(whole)
    assert "node1: unchanged" in cli("provision", "node1"), "restored from a backup"

    shutil.rmtree(record.parent)
    cli("create", *ours, "node1")
    ids = lab.docker("ps", "-q", "--filter", "label=machinekit.name=node1").split()
    (tmp_path / "other").mkdir()
    with lab.user(tmp_path / "other") as other:
        identity = (cli.home / "store-id").read_text()
        assert f"machinekit gc --store-id {identity}" in other("gc", *ours)
        other("gc", "-y", *ours)
    assert len(ids) == 2, "the lost one, which another store does not touch, and its successor"
    cli.fail("gc", *ours, code=4)
    assert "removed: instance node1" in cli("gc", "-y", *ours)
    assert lab.docker("ps", "-q", "--filter", "label=machinekit.name=node1").split() == ids[:1]
    assert len(lab.docker("volume", "ls", "-q", "--filter", "label=machinekit.name=node1").split()) == 1
    assert "node1: unchanged" in cli("provision", "node1")

    record.write_text("{")
    assert "machinekit gc finds what is left" in cli("rm", "-f", "node1")
    cli("gc", "-y", *ours)
    assert lab.docker("ps", "-aq", "--filter", "label=machinekit.name=node1") == ""
    assert lab.docker("volume", "ls", "-q", "--filter", "label=machinekit.name=node1") == ""
