"""The drivers that need nothing but this process keep the contract."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machinekit import drivers
from machinekit.errors import DriverError
from machinekit.machine import Birth, Machine, State
from machinekit.provider import Driver
from tests.providers.contract import DriverContract, Make
from tests.providers.fake import Fake, FakeCloud, FakeOptions, Killed


def making(driver: str, directory: Path, **options: object) -> Make:
    """A `make` for a driver that needs nothing else."""

    def make(save: Callable[[], None]) -> Driver[Any]:
        machine = Machine("contract", str(uuid.uuid4()), driver, store="a-store", created="", options=options)
        return drivers.bind(machine, directory, save)

    return make


class TestFake(DriverContract):
    @pytest.fixture
    def make(self, cloud: FakeCloud, tmp_path: Path) -> Make:
        return making("fake", tmp_path, size=3, tags=("a", "b"), spot=True)


class TestGeneric(DriverContract):
    leaves_traces = False

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return making("generic", tmp_path, ip_address="192.0.2.7", ssh_port=2222)


class TestNoDriver(DriverContract):
    leaves_traces = False

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return making("none", tmp_path, url="tcp://192.0.2.7:2376")


class Forgetful(Fake):
    """Makes the disk before it is journalled."""

    def create(self, birth: Birth) -> None:
        """The wrong way round."""
        self.cloud.disks["loose"] = self.marks()
        super().create(birth)


class Doubling(Fake):
    """Finds nothing once it is stopped."""

    def stop(self) -> None:
        """Lose it."""
        self.cloud.instances.pop(self.machine.uid, None)


@pytest.mark.parametrize(
    ("driver", "test", "said"),
    [
        (Forgetful, "test_nothing_is_made_that_is_not_journalled", "before it was journalled"),
        (Doubling, "test_the_life_of_an_instance", "not Stopped within"),
    ],
)
def test_the_contract_finds_a_broken_driver(
    cloud: FakeCloud, tmp_path: Path, driver: type[Fake], test: str, said: str
) -> None:
    contract = DriverContract()
    contract.patience = 0.1  # type: ignore[misc]  # of this object only
    birth = Birth("machinekit", "key", "host key", "public", "", None)

    def make(save: Callable[[], None]) -> Driver[FakeOptions]:
        return driver(Machine("contract", str(uuid.uuid4()), "fake", "a", ""), FakeOptions("s3cret"), tmp_path, save)

    with pytest.raises(AssertionError, match=said):
        getattr(contract, test)(make, birth)


def test_a_fake_that_dies_has_done_what_it_was_asked_for(cloud: FakeCloud, tmp_path: Path) -> None:
    driver = making("fake", tmp_path)(lambda: None)
    cloud.dying.add("create")
    with pytest.raises(Killed):
        driver.create(Birth("machinekit", "", "", "", "", None))
    found = driver.find()
    assert found is not None
    assert found.state is State.RUNNING
    cloud.failing.add("stop")
    with pytest.raises(DriverError, match="refuses to stop"):
        driver.stop()
