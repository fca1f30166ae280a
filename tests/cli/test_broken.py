"""A store on broken ground: every command says what is wrong, none overwrites anything, the rest goes on working."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machinekit.machine import Machine
from machinekit.record import RECORD
from machinekit.store import Store
from tests.broken import SAID, broken
from tests.conftest import Cli
from tests.providers.fake import FakeCloud

COMMANDS = (
    "create -d fake bad",
    "start bad",
    "stop bad",
    "kill bad",
    "restart bad",
    "provision bad",
    "regenerate-certs -y bad",
    "rm -y bad",
    "use bad",
    "env bad",
    "config bad",
    "url bad",
    "ip bad",
    "status bad",
    "inspect bad",
    "version bad",
    "ssh bad",
    "scp bad:/a /b",
)
# a record that can be read, of a driver that is not here: what needs no driver says what else it lacks
WITHOUT_DRIVER = {
    "create -d fake bad": "--driver: 'no-such-driver' -> 'fake'",
    **dict.fromkeys(("use bad", "env bad", "config bad", "url bad", "ip bad", "version bad"), "has no address yet"),
    **dict.fromkeys(("ssh bad", "scp bad:/a /b"), "there is no SSH to machine"),
}


def contents(store: Store) -> dict[str, object]:
    """Everything among the machines: names, modes, times and bytes."""

    def of(path: Path) -> object:
        about = path.lstat()
        plain = path.is_file() and not path.is_symlink()
        there = path.read_bytes() if plain else path.readlink() if path.is_symlink() else None
        return about.st_mode, about.st_mtime_ns, there

    return {str(path): of(path) for path in store.machines.rglob("*")}


@pytest.mark.parametrize("kind", SAID)
def test_every_command_says_what_is_wrong_and_changes_nothing(cli: Cli, store: Store, made: Machine, kind: str) -> None:
    broken(store, kind)
    before = contents(store)
    for command in COMMANDS:
        if kind == "driver" and command == "inspect bad":
            continue  # there is nothing that it needs a driver for
        result = cli(*command.split())
        said = WITHOUT_DRIVER.get(command, SAID[kind]) if kind == "driver" else SAID[kind]
        assert (result.code, result.out.replace("bad: Removing\n", "")) == (1, ""), command
        assert said in result.err, command
        assert contents(store) == before, command


@pytest.mark.parametrize("kind", SAID)
def test_the_rest_goes_on_working(cli: Cli, store: Store, made: Machine, cloud: FakeCloud, kind: str) -> None:
    broken(store, kind)
    (store.machines / "no\nname").mkdir()
    assert cli("ls", "-q").out == "bad\nfake1\n"
    assert cli("ls", "-q", "--filter", "state=running").out == "fake1\n"
    result = cli("ls", "--json")
    rows = {row["name"]: row for row in json.loads(result.out)}
    assert (result.code, list(rows)) == (0, ["bad", "fake1", r"no\nname"])
    assert SAID[kind] in rows["bad"]["error"]
    assert (rows["bad"]["state"], rows["fake1"]["state"], rows["fake1"]["error"]) == ("Error", "Running", "")
    table = cli("ls").out.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "bad", "fake1", r"no\nname"]
    assert SAID[kind] in table[1]
    assert cli("url", "fake1").code == 0
    assert cli("provision", "fake1").code == 0
    assert cli("image", "ls").code == 0
    result = cli("doctor", "--json")
    assert (result.code, result.err) == (1, "")
    problems = [check for check in json.loads(result.out) if check["subject"] == "bad" and check["level"] == "problem"]
    assert SAID[kind] in problems[-1]["text"]
    assert problems[-1]["do"]
    assert cli("doctor", "fake1").code == 0
    assert cli("rm", "-y", "fake1").code == 0
    assert (cloud.instances, cloud.disks) == ({}, {})


@pytest.mark.parametrize("kind", sorted(set(SAID) - {"none"}))
def test_rm_f_says_what_may_be_left_and_gc_finds_it(cli: Cli, store: Store, cloud: FakeCloud, kind: str) -> None:
    assert cli("create", "-d", "fake", "bad").code == 0
    (store.directory("bad") / RECORD).unlink()
    left = {path.name: path for path in store.directory("bad").iterdir()}
    assert cli("gc", "-y", "-d", "fake").code == 0
    assert len(cloud.instances) == 1, "a record that was lost protects its machine"
    for path in left.values():
        path.unlink()
    store.directory("bad").rmdir()
    broken(store, kind)
    result = cli("rm", "-f", "bad")
    assert (result.code, result.out.splitlines()[-1]) == (0, "bad: removed")
    assert "bad: forgotten, but perhaps not gone: " in result.out
    assert "machinekit gc finds what is left" in result.out
    assert store.names() == []
    assert cli("gc", "-y", "-d", "fake").code == 0
    assert (cloud.instances, cloud.disks) == ({}, {})


def test_rm_f_leaves_what_is_not_ours(cli: Cli, store: Store) -> None:
    broken(store, "none")
    result = cli("rm", "-f", "bad")
    assert (result.code, "it has no machine.json" in result.err, "move it away" in result.err) == (1, True, True)
    assert (store.machines / "bad" / "mine.txt").read_text() == "mine"


def test_a_machine_behind_a_link(cli: Cli, store: Store, made: Machine, tmp_path: Path, cloud: FakeCloud) -> None:
    store.directory("fake1").rename(tmp_path / "elsewhere")
    store.directory("fake1").symlink_to(tmp_path / "elsewhere")
    assert cli("provision", "fake1").code == 0
    assert cli("rm", "-y", "fake1").code == 0
    assert cloud.instances == {}
    assert list(store.machines.iterdir()) == []
