"""The command line as a whole: what it refuses and how, its exit codes, its help."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

import machinekit
from machinekit import cli as command_line
from machinekit.store import Store
from tests.conftest import Cli, Result

EXAMPLES = [
    (name, words[1:])
    for name in command_line.COMMANDS
    for line in command_line.load(name).examples.splitlines()
    for shown in [line.strip().partition("      ")[0]]
    for text in re.findall(r"machinekit [^;|)\"]+", shown.partition(": ")[2] or shown)
    if (words := shlex.split(text, posix=True))
]


@pytest.mark.parametrize("words", [["version"], ["-v"], ["--version"]])
def test_the_version(cli: Cli, words: list[str]) -> None:
    assert cli(*words) == Result(0, f"machinekit {machinekit.__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        *"url ip config env status inspect use start stop restart kill provision ssh version".split(),
        *["rm -y", "rm -f", "regenerate-certs -f"],
    ],
)
@pytest.mark.parametrize("name", ["nod1", "..", "a/b"])
def test_a_machine_that_does_not_exist(cli: Cli, store: Store, words: str, name: str) -> None:
    result = cli(*words.split(), name)
    assert (result.code, result.out) == (1, "")
    assert f'machinekit: machine "{name}" does not exist' in result.err
    assert "machinekit ls" in result.err
    assert not store.home.exists()


def test_without_a_name_the_machine_default_is_meant(cli: Cli) -> None:
    for command in ("url", "ip", "env", "config", "status", "inspect", "start", "stop", "provision"):
        assert 'machine "default" does not exist' in cli(command).err


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_every_command_has_help_with_an_example(cli: Cli, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli(name, "--help")
    said = capfd.readouterr().out
    command = command_line.load(name)
    assert caught.value.code == 0
    assert said.startswith(f"usage: machinekit {name}")
    assert (command.__doc__ or "").strip() in said
    assert command.examples in said
    assert "machinekit " in command.examples


def test_help_lists_every_command(cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli("--help")
    said = capfd.readouterr().out
    assert [name for name in command_line.COMMANDS if not re.search(rf"^ +{name} ", said, re.MULTILINE)] == []


@pytest.mark.parametrize(("command", "words"), EXAMPLES, ids=lambda value: " ".join(value)[:50])
def test_the_examples_are_command_lines(command: str, words: list[str]) -> None:
    words = ["none" if word == "NAME" else word for word in words if word != "--help"]
    parsed = command_line.parser_for(None, words).parse_args(words)
    assert parsed.command_name in command_line.COMMANDS
    assert command in words or command in {"env", "use"}


def test_every_command_has_examples_that_were_tried() -> None:
    assert {command for command, _ in EXAMPLES} == set(command_line.COMMANDS)


@pytest.mark.parametrize("words", [["-s", "{0}", "ls", "-q"], ["--storage-path", "{0}", "ls", "-q"]])
def test_the_store_can_be_elsewhere(cli: Cli, store: Store, words: list[str]) -> None:
    elsewhere = store.home.parent / "elsewhere"
    (elsewhere / "machines" / "there").mkdir(parents=True)
    assert cli(*(word.format(elsewhere) for word in words)).out == "there\n"
    assert cli("ls", "-q").out == ""


@pytest.mark.parametrize(
    ("words", "variable", "shown"),
    [(["-D"], "", True), ([], "1", True), ([], "", False)],
)
def test_debug(store: Store, words: list[str], variable: str, shown: bool) -> None:
    script = (
        "import logging, sys, machinekit.cli as c; c.main(sys.argv[1:]);"
        "logging.getLogger('machinekit.providers.aws').debug('seen'); logging.getLogger('botocore').debug('s3cret')"
    )
    command = [sys.executable, "-c", script, *words, "ls", "-q"]
    environment = os.environ | {"MACHINE_DEBUG": variable}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ("seen" in result.stderr) is shown
    assert "s3cret" not in result.stderr  # a cloud's library logs the tokens that it sends


def test_a_reader_that_leaves_is_no_error(store: Store) -> None:
    for number in range(3000):
        (store.machines / f"a-rather-long-name-{number}").mkdir(parents=True)
    script = f"{sys.executable} -m machinekit ls -q | head -n 1"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "a-rather-long-name-0\n"
    assert result.stderr == ""
