"""`env` and `config`: printed only after the engine has answered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from machinekit import client
from machinekit.machine import Machine, State
from machinekit.store import Store
from tests.conftest import Cli
from tests.providers.fake import FakeCloud


def test_env_sets_what_a_docker_client_reads(cli: Cli, store: Store, adopted: Machine) -> None:
    result = cli("env", "node1")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        'export DOCKER_TLS_VERIFY="1"\n'
        f'export DOCKER_HOST="{adopted.url}"\n'
        f'export DOCKER_CERT_PATH="{store.home}/machines/node1"\n'
        'export DOCKER_MACHINE_NAME="node1"\n'
        "# Run this command to configure your shell: \n"
        "# eval $(machinekit env node1)\n"
    )


def test_without_tls_the_variables_of_another_machine_are_unset(cli: Cli, plain: Machine) -> None:
    settings = json.loads(cli("env", "--shell", "json", "plain").out)
    assert settings["DOCKER_TLS_VERIFY"] is None
    assert settings["DOCKER_CERT_PATH"] is None
    assert cli("config", "plain").out == f"-H={plain.url}\n"


@pytest.mark.parametrize("shell", client.SHELLS)
def test_every_shell(cli: Cli, adopted: Machine, shell: str) -> None:
    result = cli("env", "--shell", shell, "node1")
    assert result.code == 0
    assert adopted.url in result.out


@pytest.mark.parametrize(
    ("variable", "starts"),
    [
        ("/bin/bash", "export "),
        ("/usr/bin/fish", "set -gx "),
        ("/bin/csh", "setenv "),
        ("/bin/tcsh", "setenv "),
        ("/usr/bin/pwsh", "$Env:"),
        ("/bin/ksh", "export "),
    ],
)
def test_the_shell_is_guessed(
    cli: Cli, adopted: Machine, environment: pytest.MonkeyPatch, variable: str, starts: str
) -> None:
    environment.setattr(os, "getppid", os.getpid)  # no shell, whoever runs the tests
    environment.setenv("SHELL", variable)
    assert cli("env", "node1").out.startswith(starts)


def test_no_shell_to_guess(cli: Cli, adopted: Machine, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(os, "getppid", os.getpid)
    environment.delenv("SHELL")
    result = cli("env", "node1")
    assert (result.code, result.out) == (2, "")
    assert "--shell bash|zsh" in result.err


@pytest.mark.parametrize("command", ["env", "config"])
def test_an_engine_that_does_not_answer_prints_nothing_to_evaluate(
    cli: Cli, store: Store, adopted: Machine, unfinished: Machine, command: str
) -> None:
    adopted.url = "tcp://127.0.0.1:1"
    store.save(adopted)
    for name, said in (("node1", "does not answer: Connection refused"), ("half", "has no address yet")):
        result = cli(command, name)
        assert (result.code, result.out) == (1, "")
        assert said in result.err


def test_unset(cli: Cli, environment: pytest.MonkeyPatch) -> None:
    result = cli("env", "-u")
    assert result.code == 0
    assert result.out.splitlines()[:4] == [f"unset {variable}" for variable in client.VARIABLES]


def test_no_proxy_and_back(cli: Cli, adopted: Machine, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NO_PROXY", "a.test")
    assert 'export NO_PROXY="a.test,127.0.0.1"\n' in cli("env", "--no-proxy", "node1").out
    environment.setenv("NO_PROXY", "a.test,127.0.0.1")
    environment.setenv("DOCKER_MACHINE_NAME", "node1")
    assert 'export NO_PROXY="a.test"\n' in cli("env", "-u", "--no-proxy").out


def test_the_hint_repeats_the_call(cli: Cli, store: Store, adopted: Machine) -> None:
    said = cli("-s", str(store.home), "env", "--shell", "fish", "node1").out
    assert said.endswith(f"# eval (machinekit -s {store.home} env --shell fish node1)\n")


def test_config_is_what_docker_takes(cli: Cli, store: Store, adopted: Machine) -> None:
    directory = store.directory("node1")
    said = cli("config", "node1").out
    assert said == (
        f'--tlsverify\n--tlscacert="{directory}/ca.pem"\n--tlscert="{directory}/cert.pem"\n'
        f'--tlskey="{directory}/key.pem"\n-H={adopted.url}\n'
    )
    if not shutil.which("docker"):
        pytest.skip("the docker client is not installed")
    words = said.replace('"', "").split()
    command = ["docker", *words, "version", "--format", "{{.Server.Version}}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "certificate" not in result.stderr


@pytest.mark.parametrize("words", [["env", "fake1"], ["config", "fake1"], ["use", "fake1"]])
@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.STOPPED, 'machine "fake1" is stopped\n  machinekit start fake1'),
        (State.PAUSED, 'machine "fake1" is paused\n  machinekit start fake1'),
        (None, 'the instance of "fake1" does not exist any more\n  machinekit rm fake1'),
        (State.RUNNING, "the engine at tcp://127.0.0.1:1 does not answer"),
    ],
)
def test_why_an_engine_does_not_answer(
    cli: Cli, store: Store, made: Machine, cloud: FakeCloud, words: list[str], state: State | None, said: str
) -> None:
    made.url = "tcp://127.0.0.1:1"
    store.save(made)
    if state:
        cloud.instances[made.uid].state = state
    else:
        cloud.instances.clear()
    result = cli(*words)
    assert result.code == 1
    assert said in result.err
    cloud.failing.add("find")
    assert "the engine at tcp://127.0.0.1:1 does not answer" in cli(*words).err
