"""What the core relies on: the one test that every driver passes, in memory and on real hosts."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, get_origin, get_type_hints

import pytest

from machinekit import cloudinit, drivers, keys
from machinekit.machine import Birth, Image, Instance, Machine, State
from machinekit.provider import Driver, Level
from machinekit.spec import model, storable

Make = Callable[[Callable[[], None]], Driver[Any]]


class FullDiskError(Exception):
    """The store cannot be written."""


class Journal:
    """The record on disk: what it held each time it was saved."""

    def __init__(self) -> None:
        self.driver: Driver[Any] | None = None
        self.saved: list[Machine] = []

    def save(self) -> None:
        """As the store does it: through JSON."""
        assert self.driver is not None, "a driver must not save while it is made"
        self.saved.append(Machine.from_json(json.loads(json.dumps(self.driver.machine.to_json()))))


class DriverContract:
    """Subclass as TestXxx, give the fixture `make`, and the fixture `image` where the driver boots one.

    `make` is a function from what saves the record to a driver that is bound to a machine nobody has seen,
    whose name is in the entry points and whose options are in the machine's record. One instance is made
    for the whole class, so that slow drivers can pass here too.
    """

    patience: ClassVar[float] = 60.0  # seconds for an instance to reach a state
    leaves_traces: ClassVar[bool] = True  # whether it makes things that outlive the machine's directory

    @pytest.fixture
    def make(self) -> Make:
        """A fresh machine with its driver."""
        raise NotImplementedError

    @pytest.fixture
    def image(self) -> Image | None:
        """The image to boot."""
        return None

    @pytest.fixture
    def birth(self, image: Image | None) -> Birth:
        """What `create` gives to a new instance."""
        (_, public), (host_private, host_public) = keys.ssh_key("contract"), keys.ssh_key("host")
        host_key = host_private.decode()
        user_data = cloudinit.user_data("contract", "machinekit", public, host_key, host_public)
        return Birth("machinekit", public, host_key.strip(), host_public, user_data, image)

    def test_every_option_is_declared_in_full(self, make: Make) -> None:
        driver = make(lambda: None)
        hints, infos = get_type_hints(type(driver.options)), driver.Options.infos()
        assert list(hints) == list(infos), "every field is made by option()"
        for name, info in infos.items():
            assert info.help.strip(), f"{name} has no help"
            plain = hints[name] in (str, int, float, bool, tuple[str, ...])
            assert plain or get_origin(hints[name]) is Literal, f"{name} is of no kind that a flag can have"
        assert (type(driver.options).__doc__ or "").strip(), "the options have no docstring"
        assert (type(driver).__doc__ or "").strip(), "the driver has no docstring"

    def test_options_survive_the_record(self, make: Make) -> None:
        driver = make(lambda: None)
        stored = json.loads(json.dumps(storable(driver.options)))
        secrets = {name: getattr(driver.options, name) for name, i in driver.Options.infos().items() if i.secret}
        assert not set(stored) & set(secrets), "a secret is never stored"
        again = driver.Options(**dict(model(driver.Options)(**stored, **secrets)))
        assert dataclasses.asdict(again) == dataclasses.asdict(driver.options)
        again.check()

    def test_what_floats_is_an_option(self, make: Make) -> None:
        driver = make(lambda: None)
        assert set(driver.floating) <= driver.Options.infos().keys()
        if driver.capabilities.image:
            assert driver.floating, "which image is meant is for a lock to tell"

    def test_requirements_are_told_in_lines(self, make: Make) -> None:
        driver = make(lambda: None)
        for check in type(driver).requirements(driver.options, "here"):
            assert check.subject == "here"
            assert check.text.strip(), "nothing is said"
            assert "\n" not in check.text, "more than a line"
            assert bool(check.do) is (check.level is not Level.OK), f"what is to be done about {check.text!r}?"

    def test_nothing_is_made_that_is_not_journalled(self, make: Make, birth: Birth) -> None:
        def full() -> None:
            raise FullDiskError

        driver = make(full)
        if not driver.capabilities.births:
            driver.create(birth)  # saves nothing, or it would raise
            assert driver.machine.resources == []
            return
        before = driver.find()
        try:
            driver.create(birth)
        except FullDiskError:
            assert before is None
            assert driver.find() is None, "the instance was made although the record could not be saved"
            assert self._orphans(driver) == [], "something was made before it was journalled"
        else:
            assert driver.machine.resources == [], "a resource was made that is in no record on disk"
            driver.destroy()

    def test_the_life_of_an_instance(self, make: Make, birth: Birth) -> None:
        journal = Journal()
        driver = journal.driver = make(journal.save)
        try:
            self._create(driver, birth, journal)
            if driver.capabilities.power:
                self._power(driver)
            self._find_without_memory(driver)
        finally:
            self._destroy(driver)

    def _create(self, driver: Driver[Any], birth: Birth, journal: Journal) -> None:
        driver.check()
        before = driver.find()
        assert (before is None) is driver.capabilities.births, f"found before create: {before}"
        driver.create(birth)
        first = self._wait(driver, State.RUNNING)
        assert first.address, "a running instance has an address"
        assert first == driver.find(), "find says the same twice"
        resources = list(driver.machine.resources)
        if resources:
            assert journal.saved, "nothing was saved"
            assert journal.saved[-1].resources == resources, "a resource is not on disk"
        driver.create(birth)
        assert self._wait(driver, State.RUNNING) == first, "create again made another instance"
        assert driver.machine.resources == resources, "create again made another resource"

    def _power(self, driver: Driver[Any]) -> None:
        steps = (("stop", State.STOPPED), ("start", State.RUNNING), ("kill", State.STOPPED), ("start", State.RUNNING))
        for verb, state in steps:
            for time_ in ("first", "second"):
                try:
                    getattr(driver, verb)()
                except Exception as error:
                    raise AssertionError(f"{verb}, the {time_} time: {error}") from error
                self._wait(driver, state)

    def _find_without_memory(self, driver: Driver[Any]) -> None:
        """Only the uid and the options count; nothing that an object remembers."""
        found = driver.find()
        fresh = Machine.from_json(json.loads(json.dumps(driver.machine.to_json())))
        other = drivers.bind(fresh, driver.directory)
        assert other.find() == found, "a new process finds something else"
        assert type(driver).find_all([driver, other]) == {driver.machine.uid: found}, "find_all and find disagree"

        assert all(driver.marks().values()), "every mark has a value"
        if not self.leaves_traces:
            assert self._orphans(driver) == []
            return
        listed = self._orphans(driver)
        assert [orphan.uid for orphan in listed] == [driver.machine.uid], "not listed although nobody knows it"
        assert (listed[0].name, listed[0].store) == (driver.machine.name, driver.machine.store)
        assert set(listed[0].resources) == set(driver.machine.resources)
        known = type(driver).orphans(driver.options, lambda machine: machine.uid == driver.machine.uid)
        assert driver.machine.uid not in [orphan.uid for orphan in known], "listed although it is known"

    def _destroy(self, driver: Driver[Any]) -> None:
        if orphans := self._orphans(driver):
            shutil.rmtree(driver.directory)  # this is how something becomes an orphan
            assert self._orphans(driver) == orphans, "not listed any more when its directory is gone"
        with tempfile.TemporaryDirectory() as empty:
            for orphan in orphans:
                self._remove(drivers.bind(orphan, Path(empty)))
                assert driver.find() is None, "an orphan's record is not enough to destroy it"
        driver.directory.mkdir(exist_ok=True)
        assert self._orphans(driver) == [], "something is left of the orphan"
        for _ in range(2):
            self._remove(driver)
            found = driver.find()
            assert (found is None) is driver.capabilities.births, f"found after destroy: {found}"
        assert self._orphans(driver) == [], "something is left"

    def _remove(self, driver: Driver[Any]) -> None:
        driver.destroy()
        for resource in reversed(driver.machine.resources):
            driver.release(resource)

    def _orphans(self, driver: Driver[Any]) -> list[Machine]:
        """Ours only: other tests may use the same provider."""
        mine = driver.machine.uid
        return [orphan for orphan in type(driver).orphans(driver.options, lambda _: False) if orphan.uid == mine]

    def _wait(self, driver: Driver[Any], state: State) -> Instance:
        deadline = time.monotonic() + self.patience
        while True:
            found = driver.find()
            if found and found.state is state and (found.address or state is not State.RUNNING):
                return found
            assert time.monotonic() < deadline, f"not {state} within {self.patience:.0f} s: {found}"
            time.sleep(0.1)
