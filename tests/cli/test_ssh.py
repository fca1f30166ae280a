"""`ssh` and `scp`: what OpenSSH's clients are called with, by programs that write it down."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from machinekit.machine import Machine
from machinekit.store import Store
from tests.conftest import Cli

RECORDER = '#!/bin/sh\n[ "$1" = -G ] && exec "$REAL" "$@"\nprintf "%s\\n" "$@" >"$RECORD"\nwhile [ "$1" ]; do\n'
RECORDER += '  if [ "$1" = -F ] && [ -f "$2" ]; then cp "$2" "$RECORD.config"; fi\n  shift\ndone\nexit 7\n'


@pytest.fixture
def record(environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the programs write what they were called with."""
    (tmp_path / "bin").mkdir()
    for program in ("ssh", "scp"):
        (tmp_path / "bin" / program).write_text(RECORDER)
        (tmp_path / "bin" / program).chmod(0o755)
    environment.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    environment.setenv("REAL", shutil.which("ssh", path=os.defpath) or "/usr/bin/false")
    environment.setenv("RECORD", str(tmp_path / "record"))
    return tmp_path / "record"


@pytest.fixture
def hosts(store: Store) -> None:
    """Two machines with SSH, one with a key of its owner's."""
    for name, address, port, key in (("a", "192.0.2.7", 22, ""), ("b", "192.0.2.8", 2222, "/keys/my key")):
        store.reserve(
            Machine(
                name,
                f"uid-{name}",
                "generic",
                "s",
                "",
                options={"ip_address": address},
                address=address,
                ssh_port=port,
                ssh_user="bob",
                ssh_key=key,
            )
        )
        store.write(name, "id_ed25519", b"key")


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["a"], ["-p", "22", "-l", "bob", "192.0.2.7"]),
        (["a", "df", "-h"], ["-p", "22", "-l", "bob", "192.0.2.7", "df", "-h"]),
        (["a", "--", "df", "-h"], ["-p", "22", "-l", "bob", "192.0.2.7", "df", "-h"]),
        (["a", "echo 'x  y'"], ["192.0.2.7", "echo 'x  y'"]),
        (["b", "-L", "80:localhost:80", "-N"], ["-p", "2222", "-l", "bob", "192.0.2.8", "-L", "80:localhost:80", "-N"]),
    ],
)
def test_ssh(store: Store, hosts: None, record: Path, words: list[str], end: list[str]) -> None:
    command = [sys.executable, "-m", "machinekit", "ssh", *words]
    result = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    assert result.returncode == 7, result.stderr
    called = record.read_text().splitlines()
    assert called[:2] == ["-F", "/dev/null"]
    assert called[-len(end) :] == end
    assert f"HostKeyAlias=uid-{words[0]}" in called
    assert "StrictHostKeyChecking=yes" in called
    key = store.directory("a") / "id_ed25519" if words[0] == "a" else "/keys/my key"
    assert f'IdentityFile="{key}"' in called


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["x", "a:/tmp"], ["x", "a:/tmp"]),
        (["-r", "-q", "a:/x", "b:/y"], ["-r", "-q", "a:/x", "b:/y"]),
        (["bob@a:/x", "localhost:/y"], ["bob@a:/x", "/y"]),
        (["./x:y", "/z:1", "a:"], ["./x:y", "/z:1", "a:"]),
    ],
)
def test_scp(cli: Cli, store: Store, hosts: None, record: Path, words: list[str], end: list[str]) -> None:
    assert cli("scp", *words).code == 7
    called = record.read_text().splitlines()
    assert called[2] == "-3"
    assert called[-len(end) :] == end
    config = record.with_suffix(".config").read_text()
    assert "Host a\nHostName 192.0.2.7\nPort 22\nUser bob\nHostKeyAlias uid-a\n" in config
    assert ("Host b\nHostName 192.0.2.8\nPort 2222\n" in config) is any(
        "b:" in word and "@" not in word for word in words
    )
    assert not Path(called[1]).exists(), "the configuration is gone afterwards"


def test_a_machine_without_ssh(cli: Cli, adopted: Machine, record: Path) -> None:
    for words in (["ssh", "node1"], ["scp", "x", "node1:/y"]):
        result = cli(*words)
        assert result.code == 1
        assert 'there is no SSH to machine "node1"' in result.err
    assert not record.exists()


def test_no_openssh(cli: Cli, hosts: None, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PATH", "/nowhere")
    result = cli("ssh", "a")
    assert result.code == 1
    assert "ssh is not installed\n  apt-get install openssh-client" in result.err
