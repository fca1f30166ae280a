"""What points docker clients at a machine: the texts, and what real shells make of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinekit import client

SETTINGS = {"DOCKER_TLS_VERIFY": "1", "DOCKER_HOST": "tcp://192.0.2.7:2376", "DOCKER_CERT_PATH": None}
NASTY = "a \"b\" 'c' $HOME `id` $(id) \\ \\\\ !x %i {x} ~ * # ; é"

# Every character that some shell takes for its own, letters, and what is not ASCII.
VALUE = st.text(st.sampled_from("\"'$`\\!#%&*(){}[]<>|;~?^=:, \t\n/aZ09_-@éß漢"), max_size=40)


@pytest.mark.parametrize(
    ("shell", "text"),
    [
        (
            "bash",
            'export DOCKER_TLS_VERIFY="1"\nexport DOCKER_HOST="tcp://192.0.2.7:2376"\nunset DOCKER_CERT_PATH\n'
            "# Run this command to configure your shell: \n# eval $(mk env)\n",
        ),
        (
            "fish",
            'set -gx DOCKER_TLS_VERIFY "1";\nset -gx DOCKER_HOST "tcp://192.0.2.7:2376";\nset -e DOCKER_CERT_PATH;\n'
            "# Run this command to configure your shell: \n# eval (mk env)\n",
        ),
        (
            "powershell",
            '$Env:DOCKER_TLS_VERIFY = "1"\n$Env:DOCKER_HOST = "tcp://192.0.2.7:2376"\n'
            "Remove-Item Env:\\\\DOCKER_CERT_PATH\n"
            "# Run this command to configure your shell: \n# & mk env | Invoke-Expression\n",
        ),
        (
            "cmd",
            "SET DOCKER_TLS_VERIFY=1\nSET DOCKER_HOST=tcp://192.0.2.7:2376\nSET DOCKER_CERT_PATH=\n"
            "REM Run this command to configure your shell: \n"
            "REM \t@FOR /f \"tokens=*\" %i IN ('mk env') DO @%i\n",
        ),
        (
            "tcsh",
            'setenv DOCKER_TLS_VERIFY "1";\nsetenv DOCKER_HOST "tcp://192.0.2.7:2376";\nunsetenv DOCKER_CERT_PATH;\n'
            ": Run this command to configure your shell: \n: eval `mk env`\n",
        ),
        (
            "emacs",
            '(setenv "DOCKER_TLS_VERIFY" "1")\n(setenv "DOCKER_HOST" "tcp://192.0.2.7:2376")\n'
            '(setenv "DOCKER_CERT_PATH" nil)\n;; Run this command to configure your shell: \n'
            ';; (with-temp-buffer (shell-command "mk env" (current-buffer)) (eval-buffer))\n',
        ),
        (
            "json",
            '{\n  "DOCKER_TLS_VERIFY": "1",\n  "DOCKER_HOST": "tcp://192.0.2.7:2376",\n  "DOCKER_CERT_PATH": null\n}\n',
        ),
        ("dotenv", 'DOCKER_TLS_VERIFY="1"\nDOCKER_HOST="tcp://192.0.2.7:2376"\n'),
    ],
)
def test_lines_for_each_shell(shell: str, text: str) -> None:
    assert client.shell_lines(shell, SETTINGS, "mk env") == text


@pytest.mark.parametrize("shell", ["zsh", "sh", "ksh", "a-shell-nobody-knows"])
def test_other_shells_are_bourne_shells(shell: str) -> None:
    assert client.shell_lines(shell, SETTINGS, "mk") == client.shell_lines("bash", SETTINGS, "mk")


@pytest.mark.parametrize(
    ("shell", "value", "text"),
    [
        ("bash", 'C:\\x "y" $z `w`', 'export A="C:\\\\x \\"y\\" \\$z \\`w\\`"'),
        ("fish", 'C:\\x "y" $z `w`', 'set -gx A "C:\\\\x \\"y\\" \\$z `w`";'),
        ("powershell", 'C:\\x "y" $z `w`', '$Env:A = "C:\\x `"y`" `$z ``w``"'),
        ("cmd", "C:\\x y", "SET A=C:\\x y"),
        ("tcsh", 'a"b$c`d!e\\f', 'setenv A "a"\\""b"\\$"c"\\`"d"\\!"e"\\\\"f";'),
        ("emacs", 'C:\\x "y"', '(setenv "A" "C:\\\\x \\"y\\"")'),
    ],
)
def test_quoting(shell: str, value: str, text: str) -> None:
    assert client.shell_lines(shell, {"A": value}, "mk").splitlines()[0] == text


def evaluated(shell: str, text: str, directory: Path) -> dict[str, str]:
    """The environment after a real shell has evaluated the text."""
    file = directory / "lines"
    file.write_text(text)
    # as the hints say, with the quotes that the README adds where the shell splits words
    how = {"fish": f"eval (cat {file})", "tcsh": f"source {file}"}.get(shell, f'eval "$(cat {file})"')
    before = {"PATH": os.environ["PATH"], "HOME": str(directory), "LC_ALL": "C.UTF-8", "GONE": "here"}
    result = subprocess.run([shell, "-c", f"{how}; env -0"], env=before, capture_output=True, check=True)
    assert result.stderr == b""
    return dict(pair.split("=", 1) for pair in result.stdout.decode().split("\0") if "=" in pair)


@pytest.mark.parametrize("shell", ["bash", "sh", "zsh", "fish", "tcsh"])
@settings(max_examples=15)
@given(values=st.lists(VALUE, max_size=12))
def test_real_shells_read_the_values_back(shell: str, values: list[str]) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    if shell in ("fish", "tcsh"):  # which evaluate one line
        values = [value.replace("\n", " ") for value in values]
    wanted: dict[str, str | None] = {f"V{number}": value for number, value in enumerate([*values, NASTY])}
    text = client.shell_lines(shell, wanted | {"GONE": None}, "mk env")
    with tempfile.TemporaryDirectory() as directory:
        found = evaluated(shell, text, Path(directory))
    assert {key: found.get(key) for key in wanted} == wanted
    assert "GONE" not in found


@settings(max_examples=15)
@given(values=st.lists(VALUE, max_size=12))
def test_a_shell_reads_dotenv_back(values: list[str]) -> None:
    wanted: dict[str, str | None] = {f"V{number}": value for number, value in enumerate(values)}
    with tempfile.TemporaryDirectory() as directory:
        text = f"set -a\n{client.shell_lines('dotenv', wanted, 'mk')}"
        found = evaluated("sh", text, Path(directory))
    assert {key: found.get(key) for key in wanted} == wanted


@given(values=st.dictionaries(st.text(max_size=9), st.none() | st.text(max_size=40), max_size=5))
def test_json_is_read_back(values: dict[str, str | None]) -> None:
    assert json.loads(client.shell_lines("json", values, "mk")) == values


@pytest.mark.parametrize(
    ("tls", "variables"),
    [
        (True, {"DOCKER_TLS_VERIFY": "1", "DOCKER_HOST": "tcp://h:1", "DOCKER_CERT_PATH": "/c"}),
        (False, {"DOCKER_TLS_VERIFY": None, "DOCKER_HOST": "tcp://h:1", "DOCKER_CERT_PATH": None}),
    ],
)
def test_variables(tls: bool, variables: dict[str, str | None]) -> None:
    found = client.variables("node1", "tcp://h:1", "/c", tls)
    assert found == variables | {"DOCKER_MACHINE_NAME": "node1"}
    assert tuple(found) == client.VARIABLES


@pytest.mark.parametrize(
    ("environment", "added", "restored"),
    [
        ({}, {"NO_PROXY": "192.0.2.7"}, {"NO_PROXY": None}),
        ({"NO_PROXY": "a,b"}, {"NO_PROXY": "a,b,192.0.2.7"}, {"NO_PROXY": "a,b"}),
        ({"no_proxy": "a"}, {"no_proxy": "a,192.0.2.7"}, {"no_proxy": "a"}),
        ({"no_proxy": "a", "NO_PROXY": "b"}, {"NO_PROXY": "b,192.0.2.7"}, {"NO_PROXY": "b"}),
        ({"NO_PROXY": "192.0.2.7,a"}, {"NO_PROXY": "192.0.2.7,a"}, {"NO_PROXY": "a"}),
        ({"NO_PROXY": "192.0.2.70,,a,"}, {"NO_PROXY": "192.0.2.70,a,192.0.2.7"}, {"NO_PROXY": "192.0.2.70,a"}),
    ],
)
def test_proxies(environment: dict[str, str], added: dict[str, str], restored: dict[str, str | None]) -> None:
    assert client.without_proxy("192.0.2.7", environment) == added
    assert client.proxy_restored("192.0.2.7", environment) == restored


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        (
            True,
            '--tlsverify\n--tlscacert="/c/ca.pem"\n--tlscert="/c/cert.pem"\n--tlskey="/c/key.pem"\n-H=tcp://h:1\n',
        ),
        (False, "-H=tcp://h:1\n"),
    ],
)
def test_docker_flags(tls: bool, text: str) -> None:
    assert client.docker_flags("tcp://h:1", "/c", tls) == text
