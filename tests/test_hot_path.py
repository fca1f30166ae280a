"""A CI job calls these several times a build: what they must not import, as a real process shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from machinekit.providers.none import NoneOptions

from machinekit.create import create
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told
from tests.servers import Certificates, Server, encrypted, engine

HEAVY = {"pydantic", "paramiko", "libcloud", "jinja2", "cryptography", "rich", "yaml", "requests", "asyncio"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("env node1", 'export DOCKER_TLS_VERIFY="1"'),
        ("env --shell fish --no-proxy node1", "set -gx NO_PROXY"),
        ("env -u", "unset DOCKER_HOST"),
        ("config node1", "--tlsverify"),
        ("url node1", "tcp://127.0.0.1:"),
        ("ip node1", "127.0.0.1"),
        ("status node1", "Running"),
        ("inspect node1", '"name": "node1"'),
        ("active", "node1"),
        ("ls -q", "node1"),
        ("version", "machinekit "),
    ],
)
def test_the_hot_path_is_light(store: Store, told: Told, certificates: Certificates, words: str, said: str) -> None:
    with Server(encrypted(engine, certificates.context())) as server:
        url = f"tcp://127.0.0.1:{server.port}"
        options = NoneOptions(url, *map(str, certificates.client_files))
        create(store, "node1", driver="none", options=options, spec=Spec(), progress=told)
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "machinekit", *words.split()],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "DOCKER_HOST": url},
        )
    assert result.returncode == 0, result.stderr[-2000:]
    assert said in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if "import time:" in line}
    assert "machinekit.cli" in imported, "the list of imports was not read"
    assert not HEAVY & {module.partition(".")[0] for module in imported}
