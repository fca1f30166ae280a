"""`ls`: what is shown, in what order, and as what."""

from __future__ import annotations

import json

import pytest

from machinekit.machine import Machine
from machinekit.store import Store
from tests.conftest import Cli
from tests.servers import ENGINE_VERSION


def test_the_table(
    cli: Cli, adopted: Machine, unfinished: Machine, made: Machine, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DOCKER_HOST", adopted.url)
    head, *lines = cli("ls").out.splitlines()
    assert head.split() == ["NAME", "ACTIVE", "DRIVER", "STATE", "URL", "DOCKER", "ERRORS"]
    assert [line.split() for line in lines] == [
        ["fake1", "-", "fake", "Running", made.url, f"v{ENGINE_VERSION}"],
        ["half", "-", "none", "Running", "Unknown"],
        ["node1", "*", "none", "Running", adopted.url, f"v{ENGINE_VERSION}"],
    ]


def test_a_long_error_stays_on_its_line(cli: Cli, store: Store, adopted: Machine) -> None:
    adopted.driver = "x" * 300
    store.save(adopted)
    assert len(cli("ls").out.splitlines()) == 2


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([], ["fake1", "half", "node1"]),
        (["driver=none"], ["half", "node1"]),
        (["driver=none", "driver=fake"], ["fake1", "half", "node1"]),
        (["driver=none", "name=^h"], ["half"]),
        (["state=running"], ["fake1", "half", "node1"]),
        (["state=Stopped"], []),
        (["name=1$"], ["fake1", "node1"]),
        (["name="], ["fake1", "half", "node1"]),
    ],
)
def test_filters(
    cli: Cli, adopted: Machine, unfinished: Machine, made: Machine, filters: list[str], names: list[str]
) -> None:
    words = [word for text in filters for word in ("--filter", text)]
    assert cli("ls", "-q", *words).out.split() == names
    assert [row["name"] for row in json.loads(cli("ls", "--json", *words).out)] == names


def test_json_for_programs(cli: Cli, adopted: Machine) -> None:
    assert json.loads(cli("ls", "--json").out) == [
        {
            "name": "node1",
            "active": False,
            "driver": "none",
            "state": "Running",
            "url": adopted.url,
            "engine": ENGINE_VERSION,
            "error": "",
        }
    ]


def test_nothing(cli: Cli) -> None:
    assert cli("ls", "-q").out == ""
    assert cli("ls", "--json").out == "[]\n"
    assert cli("ls").out.split() == ["NAME", "ACTIVE", "DRIVER", "STATE", "URL", "DOCKER", "ERRORS"]
