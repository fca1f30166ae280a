"""The contract's own few lines: declarations, marks, the journal."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from machinekit.providers.none import NoDriver, NoneOptions

from machinekit import provider
from machinekit.machine import Machine, Resource
from machinekit.provider import OptionInfo, Options, option
from tests.providers.fake import Fake, FakeOptions


@dataclass
class Declared(Options):
    """One of each."""

    needed: str = option("it is needed", min_length=1)
    size: int = option("how large", default=3, aliases=("SIZE",), ge=1)
    word: str = option("a password", default="", secret=True)


def test_a_declaration_is_read_back() -> None:
    assert Declared.infos() == {
        "needed": OptionInfo("it is needed", rules={"min_length": 1}),
        "size": OptionInfo("how large", aliases=("SIZE",), rules={"ge": 1}),
        "word": OptionInfo("a password", secret=True),
    }
    assert Declared("x") == Declared("x", 3, "")
    with pytest.raises(TypeError):
        Declared()


def test_a_resource_is_journalled_before_each_try_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1000)
    monkeypatch.setattr(provider, "time", SimpleNamespace(time=lambda: next(clock)))
    saved: list[list[tuple[str, int]]] = []
    machine = Machine("node1", "uid", "fake", "s", "")
    driver = Fake(
        machine,
        FakeOptions("t"),
        Path("/nowhere"),
        lambda: saved.append([(r.kind, r.planned) for r in machine.resources]),
    )
    assert driver.plan("disk", "d1") == "d1"
    assert driver.plan("disk", "d1") == "d1"
    assert driver.plan("key", "d1") == "d1"
    driver.forget(Resource("disk", "d1"))
    assert saved == [
        [("disk", 1000)],
        [("disk", 1001)],
        [("disk", 1001), ("key", 1002)],
        [("key", 1002)],
    ]


def test_marks_say_whose_it_is() -> None:
    driver = Fake(Machine("node1", "uid", "fake", "a-store", ""), FakeOptions("t"), Path("/nowhere"), print)
    assert driver.marks() == {"machinekit.uid": "uid", "machinekit.name": "node1", "machinekit.store": "a-store"}


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("tcp://192.0.2.7:2376", "192.0.2.7", 2376),
        ("tcp://[2001:db8::1]:1", "2001:db8::1", 1),
        ("tcp://a.test:99", "a.test", 99),
        ("unix:///run/docker.sock", "localhost", 2376),
    ],
)
def test_the_address_of_an_engine_that_is_there(url: str, address: str, port: int) -> None:
    driver = NoDriver(Machine("n", "u", "none", "s", ""), NoneOptions(url), Path("/nowhere"), print)
    found = driver.find()
    assert (found.address, found.engine_port) == (address, port)


@pytest.mark.parametrize("verb", ["start", "stop", "kill"])
def test_a_driver_without_power_has_no_such_verbs(verb: str) -> None:
    driver = NoDriver(Machine("n", "u", "none", "s", ""), NoneOptions("unix:///s"), Path("/nowhere"), print)
    with pytest.raises(NotImplementedError):
        getattr(driver, verb)()
