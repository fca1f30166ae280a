"""`completion`: what a shell is answered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from machinekit.machine import Machine
from machinekit.store import Store
from tests.conftest import Cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_is_code(cli: Cli, shell: str) -> None:
    code = cli("completion", shell).out
    assert "machinekit" in code
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    result = subprocess.run([shell, "-n"], input=code, text=True, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("machinekit sta", {"start", "status"}),
        ("machinekit url n", {"node1", "node2"}),
        ("machinekit rm node1 n", {"node1", "node2"}),
        ("machinekit create --driver qe", {"qemu"}),
        ("machinekit ls --qu", {"--quiet"}),
        ("machinekit image pull f", {"fedora"}),
        ("machinekit image build debian-11", {"debian-11"}),
        ("machinekit image rm m", {"mine"}),
        ("machinekit create --qemu-image ub", {"ubuntu-22.04", "ubuntu-24.04"}),
        ("machinekit create --qemu-image debian-13", {"debian-13", "debian-13+engine"}),
    ],
)
def test_answers(store: Store, line: str, answers: set[str]) -> None:
    for name in ("node1", "node2", "web"):
        store.reserve(Machine(name, f"uid-{name}", "none", "s", ""))
    (store.images / "disk" / "mine").mkdir(parents=True)
    (store.images / "disk" / "mine" / "image.json").write_text('{"build": "b", "created": "2026-01-01"}')
    answer = store.home / "answer"
    environment = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    environment |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_IFS": "\n"}
    command = [sys.executable, "-m", "machinekit"]
    subprocess.run(command, env=environment, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    assert {word.strip() for word in answer.read_text().split("\n")} == answers
