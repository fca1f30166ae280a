"""Drivers are found by name, through the same door for everybody, and bound to records."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from machinekit import drivers
from machinekit.errors import DriverError, StoreError, UsageError
from machinekit.machine import Machine
from tests.providers.fake import Fake, FakeCloud, FakeOptions


def test_a_third_partys_driver_is_found(cloud: FakeCloud) -> None:
    assert drivers.load("fake") is sys.modules["tests.providers.fake"].Fake is Fake
    assert "fake" in drivers.names()
    assert drivers.names() == sorted(set(drivers.names()))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kemu", 'driver "kemu" not found; did you mean qemu?'),
        ("generc", 'driver "generc" not found; did you mean generic?'),
        ("xyz", 'driver "xyz" not found'),
        ("", 'driver "" not found'),
    ],
)
def test_an_unknown_driver(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        drivers.load(name)
    assert caught.value.message == said
    assert f"installed drivers: {', '.join(drivers.names())}" in caught.value.hint


@pytest.mark.parametrize(
    ("variables", "token"),
    [
        ({}, ""),
        ({"FAKE_TOKEN": "theirs"}, "theirs"),
        ({"MACHINEKIT_FAKE_TOKEN": "ours", "FAKE_TOKEN": "theirs"}, "ours"),
    ],
)
def test_secrets_come_from_the_environment_again(
    cloud: FakeCloud, environment: pytest.MonkeyPatch, variables: dict[str, str], token: str
) -> None:
    environment.delenv("FAKE_TOKEN")
    for key, value in variables.items():
        environment.setenv(key, value)
    machine = Machine("node1", "uid", "fake", "store", "", options={"size": 2, "tags": ["a"], "spot": False})
    driver = drivers.bind(machine, Path("/nowhere"))
    assert driver.options == FakeOptions(token, 2, ["a"])  # type: ignore[arg-type]  # JSON has no tuples
    assert (driver.machine, driver.directory) == (machine, Path("/nowhere"))


@pytest.mark.parametrize(
    ("driver", "field", "flag", "variable"),
    [
        ("qemu", "memory", "--qemu-memory", "MACHINEKIT_QEMU_MEMORY"),
        ("generic", "ip_address", "--generic-ip-address", "MACHINEKIT_GENERIC_IP_ADDRESS"),
        ("my-cloud", "api_key", "--my-cloud-api-key", "MACHINEKIT_MY_CLOUD_API_KEY"),
    ],
)
def test_names_of_options(driver: str, field: str, flag: str, variable: str) -> None:
    assert drivers.flag(driver, field) == flag
    assert drivers.variables(driver, field, ("ALIAS",)) == [variable, "ALIAS"]


@pytest.mark.parametrize("name", drivers.names())
def test_every_option_of_every_driver_has_help_and_one_name(name: str) -> None:
    infos = drivers.load(name).Options.infos()
    assert all(info.help and not info.help.endswith(".") for info in infos.values())
    names = [variable for field, info in infos.items() for variable in drivers.variables(name, field, info.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "options", [{"size": "2"}, {"tags": "a"}, {"spot": "no"}, {"colour": "red"}, {"size": None}, {"tags": {"a": 1}}]
)
def test_options_of_another_kind_are_refused(cloud: FakeCloud, options: dict[str, object]) -> None:
    machine = Machine("node1", "uid", "fake", "store", "", options=options)
    with pytest.raises(StoreError, match='the options of "node1" are not those of driver fake'):
        drivers.bind(machine, Path("/nowhere"))


def test_a_driver_that_is_not_installed_any_more() -> None:
    with pytest.raises(DriverError, match='driver "gone" not found') as caught:
        drivers.bind(Machine("node1", "uid", "gone", "store", ""), Path("/nowhere"))
    assert caught.value.hint == "install the package that has driver gone"


def test_a_driver_that_cannot_be_loaded(
    cloud: FakeCloud, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    package = tmp_path_factory.mktemp("site") / "machinekit_bad-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: machinekit-bad\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[machinekit.providers]\nbad = no.such.module:Bad\n")
    environment.syspath_prepend(package.parent)
    with pytest.raises(DriverError, match='driver "bad" cannot be loaded: No module named'):
        drivers.load("bad")
