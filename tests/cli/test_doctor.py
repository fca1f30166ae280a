"""`doctor`: lines, JSON, colours and exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from machinekit.machine import Machine
from machinekit.store import CLIENT_KEY, Store
from tests.conftest import Cli
from tests.providers.fake import FakeCloud


def test_a_line_for_each_check(cli: Cli, adopted: Machine) -> None:
    result = cli("doctor", "node1")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "ok      node1  the record can be read"
    assert lines[-1] == "ok      node1  the engine answers over TLS, version 29.1.2"


def test_what_to_do_is_on_the_same_line(cli: Cli, store: Store, adopted: Machine) -> None:
    key = store.directory("node1") / CLIENT_KEY
    key.chmod(0o644)
    result = cli("doctor", "node1")
    assert result.code == 1
    assert f"problem node1  {key} can be reached by others (mode 644) -> chmod 600 {key}\n" in result.out
    found = [check for check in json.loads(cli("doctor", "--json", "node1").out) if check["level"] != "ok"]
    assert found == [
        {
            "level": "problem",
            "subject": "node1",
            "text": f"{key} can be reached by others (mode 644)",
            "do": f"chmod 600 {key}",
        }
    ]


def test_warnings_are_no_failure(cli: Cli, unfinished: Machine) -> None:
    result = cli("doctor", "half")
    assert (result.code, result.out.split()[0]) == (0, "warning")


def test_only_the_machines_that_were_named(cli: Cli, adopted: Machine, made: Machine, unfinished: Machine) -> None:
    subjects = [check["subject"] for check in json.loads(cli("doctor", "--json", "fake1", "half").out)]
    assert list(dict.fromkeys(subjects)) == ["fake1", "half"]
    subjects = [check["subject"] for check in json.loads(cli("doctor", "--json").out)]
    assert [name for name in dict.fromkeys(subjects) if " " not in name] == [
        "store",
        "images",
        "fake1",
        "half",
        "node1",
    ]
    assert subjects[0] == "this computer"
    result = cli("doctor", "fake2")
    assert (result.code, result.out) == (1, "")
    assert 'machine "fake2" does not exist' in result.err


def test_the_environment_sets_what_drivers_are_asked_with(cli: Cli, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MACHINEKIT_CONTAINER_ENGINE", "unix:///no/such.sock")
    environment.setenv("MACHINEKIT_QEMU_CPUS", "many")
    found = {check["subject"]: check for check in json.loads(cli("doctor", "--json").out)}
    assert "/no/such.sock" in found["driver container"]["text"] or "not installed" in found["driver container"]["text"]
    assert found["driver qemu"]["level"] == "warning"
    assert "$MACHINEKIT_QEMU_CPUS" in found["driver qemu"]["text"]


def test_colours_only_on_a_terminal(store: Store, cloud: FakeCloud, unfinished: Machine, cli: Cli) -> None:
    assert "\x1b[" not in cli("doctor", "half").out
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "machinekit", "doctor", "half"]
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=terminal, stdin=terminal, env=environment) as process:
        assert process.wait(60) == 0
    os.close(terminal)
    said = os.read(controller, 10_000).decode()
    os.close(controller)
    assert "\x1b[33mwarning" in said
    assert said.count("\x1b[") == 2, "only the word"
