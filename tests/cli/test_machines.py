"""`start`, `stop`, `restart`, `kill`, `provision`, `regenerate-certs`, `rm`, `use`: on several machines at once."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from machinekit.machine import Machine, State
from machinekit.store import Store
from tests.conftest import Cli
from tests.providers.fake import FakeCloud


@pytest.mark.parametrize(
    ("command", "before", "said"),
    [
        ("stop", State.RUNNING, "stopped"),
        ("stop", State.STOPPED, "unchanged"),
        ("kill", State.RUNNING, "stopped"),
        ("start", State.STOPPED, "started"),
        ("start", State.RUNNING, "unchanged"),
        ("restart", State.RUNNING, "stopped, started"),
        ("provision", State.RUNNING, "unchanged"),
    ],
)
def test_verbs_on_several_machines(cli: Cli, cloud: FakeCloud, command: str, before: State, said: str) -> None:
    assert cli("create", "-d", "fake", "a", "b").code == 0
    for instance in cloud.instances.values():
        instance.state = before
    result = cli(command, "a", "b", "a")
    assert (result.code, result.err) == (0, "")
    assert {f"a: {said}", f"b: {said}"} <= set(result.out.splitlines())


def test_one_failure_does_not_stop_the_others(cli: Cli, made: Machine, adopted: Machine, cloud: FakeCloud) -> None:
    result = cli("stop", "node1", "fake1")
    assert result.code == 1
    assert "fake1: stopped" in result.out.splitlines()
    assert 'machinekit: "node1" cannot be powered on or off' in result.err
    cloud.failing.add("find")
    result = cli("start", "fake1")
    assert (result.code, result.err.splitlines()[0]) == (1, "machinekit: fake1: the provider refuses to find")


@pytest.mark.parametrize("words", [["-y"], ["-f"], ["--force"]])
def test_rm(cli: Cli, store: Store, made: Machine, adopted: Machine, cloud: FakeCloud, words: list[str]) -> None:
    result = cli("rm", *words, "fake1", "node1")
    assert (result.code, result.err) == (0, "")
    assert {"fake1: removed", "node1: removed"} <= set(result.out.splitlines())
    assert (store.names(), cloud.instances, cloud.disks) == ([], {}, {})


def test_a_wrong_name_does_not_keep_the_others(cli: Cli, store: Store, made: Machine) -> None:
    result = cli("rm", "-y", "fake1", "fake2")
    assert (result.code, result.out) == (1, "fake1: Removing\nfake1: removed\n")
    assert 'machine "fake2" does not exist' in result.err
    assert store.names() == []


def test_rm_of_what_the_provider_keeps(cli: Cli, store: Store, made: Machine, cloud: FakeCloud) -> None:
    cloud.failing.add("destroy")
    assert cli("rm", "-y", "fake1").code == 1
    assert store.names() == ["fake1"]
    result = cli("rm", "-f", "fake1")
    assert result.code == 0
    assert "forgotten, but perhaps not gone" in result.out
    assert store.names() == []


@pytest.mark.parametrize("words", [["rm", "node1"], ["regenerate-certs", "node1"]])
def test_without_a_terminal_nobody_is_asked(
    cli: Cli, store: Store, adopted: Machine, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        result = cli(*words)
    assert result.code == 2
    assert "there is no terminal" in result.err
    assert "add -y" in result.err
    assert store.names() == ["node1"]


@pytest.mark.parametrize(("answer", "left", "code"), [("y\n", [], 0), ("YES\n", [], 0), ("n\n", ["node1"], 1)])
def test_on_a_terminal_one_is_asked(store: Store, adopted: Machine, answer: str, left: list[str], code: int) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "machinekit", "rm", "node1"]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, text=True) as process:
        os.write(controller, answer.encode())
        said, _ = process.communicate(timeout=30)
    os.close(controller)
    os.close(terminal)
    assert process.returncode == code
    assert "About to remove node1: the machines with all that is on them" in said
    assert "Are you sure? (y/n): " in said
    assert store.names() == left


def test_use_makes_a_context_only_of_what_answers(
    cli: Cli,
    store: Store,
    adopted: Machine,
    unfinished: Machine,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    environment.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    assert cli("use", "half").code == 1
    assert not (tmp_path / "docker").exists()
    result = cli("use", "node1")
    assert (result.code, result.out, result.err) == (0, "docker now talks to node1 (context node1)\n", "")
    assert json.loads((tmp_path / "docker" / "config.json").read_text()) == {"currentContext": "node1"}
    environment.setenv("DOCKER_HOST", adopted.url)
    assert "DOCKER_HOST or DOCKER_CONTEXT comes first" in cli("use", "node1").err
    cli("rm", "-y", "node1")
    assert json.loads((tmp_path / "docker" / "config.json").read_text()) == {}
