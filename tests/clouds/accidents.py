"""What every cloud's driver outlives: a kill at each call of create and rm, and any accidents in any order.

What comes next leaves one machine or nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tenacity
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from machinekit.providers import calls
from machinekit.providers.cloud import Cloud

from machinekit import converge, gc, lifecycle, reach
from machinekit.create import create
from machinekit.errors import MachinekitError
from machinekit.machine import Phase
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told
from tests.crashing import Life, living, step
from tests.providers.fake import Killed
from tests.test_crashes import FUZZ

UNLISTED, SETTLE = 0.15, 0.5  # seconds


class User(ABC):
    """Somebody with an empty account, an empty store, and the commands `create`, `rm` and `gc`."""

    driver: ClassVar[str]
    calls: ClassVar[Sequence[str]]  # of the account's API
    faults: ClassVar[Mapping[str, Callable[[Any, str], None]]]  # what can happen to such a call at the endpoint

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self.home = Path(tempfile.mkdtemp(prefix="machinekit-clouds-"))
        self.store = Store(self.home / "store")
        self.options = self.chosen()
        self.empty()

    @abstractmethod
    def chosen(self) -> Any:
        """The driver's options."""

    @abstractmethod
    def empty(self) -> None:
        """Make the account a new one, which lists what is made after UNLISTED seconds."""

    @abstractmethod
    def calm(self) -> None:
        """No more accidents."""

    @abstractmethod
    def check_one(self) -> None:
        """There is one machine, with all that belongs to it."""

    @abstractmethod
    def left(self) -> Sequence[object]:
        """What is in the account."""

    def check_nothing(self) -> None:
        """Neither in the account nor in the store."""
        assert list(self.left()) == []
        assert not self.store.exists("a")

    def create(self) -> None:
        """It ends with one instance, or says why not."""
        create(self.store, "a", driver=self.driver, options=self.options, spec=Spec(), progress=Told())

    def rm(self) -> None:
        """A machine that is not there is gone."""
        if self.store.exists("a"):
            lifecycle.remove(self.store, "a", Told())

    def gc(self) -> None:
        """Everything that is found is removed."""
        for garbage in gc.find(self.store, [(self.driver, self.options)]).garbage:
            gc.remove(self.store, garbage)

    def gc_of_all(self) -> None:
        """It sees what is listed: an account may need a moment to list what was made."""
        time.sleep(UNLISTED)
        self.gc()
        self.check_nothing()

    def create_again(self) -> None:
        """It ends with one machine, but for one whose `rm` has begun, which only another `rm` ends."""
        if not (self.store.exists("a") and self.store.load("a").phase is Phase.REMOVING):
            self.create()
            assert self.store.load("a").phase is Phase.READY
            self.check_one()

    def lose_the_record(self) -> None:
        """As `rm -f` does, or a disk that breaks."""
        if self.store.exists("a"):
            shutil.rmtree(self.store.directory("a"))

    def attempt(self, verb: str, kill: int = -1) -> Life:
        """Run a command that may be killed at a call, before or after its effect, or may fail."""
        life = Life(kill)
        with contextlib.suppress(Killed, MachinekitError), living(life):
            getattr(self, verb)()
        return life

    def end(self) -> None:
        """Take the store away."""
        shutil.rmtree(self.home)


class Accidents(RuleBasedStateMachine):
    """One user's machine on a cloud, and everything that can happen to the commands."""

    new_user: ClassVar[Callable[[], User]]

    def __init__(self) -> None:
        super().__init__()
        self.user = type(self).new_user()

    @rule(verb=st.sampled_from(["create", "create", "rm", "gc"]), kill=st.integers(-8, 24))
    def command(self, verb: str, kill: int) -> None:
        """Killed or not."""
        self.user.attempt(verb, max(kill, -1))

    @rule(data=st.data())
    def accident(self, data: st.DataObject) -> None:
        """It happens to the next such call."""
        call = data.draw(st.sampled_from(self.user.calls))
        fault = data.draw(st.sampled_from(list(self.user.faults)))
        self.user.faults[fault](self.user.endpoint, call)

    @precondition(lambda self: self.user.store.exists("a"))
    @rule()
    def create_again(self) -> None:
        """Without accidents it ends with one machine."""
        self.user.calm()
        self.user.create_again()

    def teardown(self) -> None:
        """In the end nothing is left."""
        self.user.calm()
        self.user.rm()
        self.user.gc_of_all()
        self.user.end()


@pytest.mark.clouds
class CrashContract:
    """Subclass as TestXxx, and give the fixture `user`: a function that makes a user of an empty account."""

    fewest: ClassVar[int]  # calls that a create or an rm makes

    @pytest.fixture
    def user(self) -> Callable[[], User]:
        """As said above."""
        raise NotImplementedError

    @pytest.mark.parametrize("ending", ["create", "rm", "gc"])
    @pytest.mark.parametrize("verb", ["create", "rm"])
    def test_a_kill_at_each_call(self, user: Callable[[], User], verb: str, ending: str) -> None:
        one = user()
        for kill in itertools.count():
            if verb == "rm":
                one.create()
            if not one.attempt(verb, kill).dead:
                break
            if ending == "create":
                one.create_again()
            if ending == "gc":
                one.lose_the_record()
                one.gc_of_all()
            one.rm()
            one.check_nothing()
        assert kill >= 2 * self.fewest, "it made that many calls"
        one.end()

    def test_any_accidents(self, user: Callable[[], User]) -> None:
        class ToOne(Accidents):
            new_user = staticmethod(user)

        often = settings(max_examples=60 * FUZZ, stateful_step_count=6, print_blob=True)
        run_state_machine_as_test(ToOne, settings=often)


def hurry(environment: pytest.MonkeyPatch) -> None:
    """Let waits be short; a create ends when the instance has an address, as there is no host behind it."""
    environment.setattr(Cloud, "settle", SETTLE)
    environment.setattr(calls, "JITTER", tenacity.wait_none())
    environment.setattr(calls, "PER_SECOND", 1000.0)
    environment.setattr(converge, "steps", lambda work: (reach.find_address,))


def watch(environment: pytest.MonkeyPatch, connection: Any, name: Callable[..., str]) -> None:
    """Make every request of libcloud's connection a step at which a command can be killed."""
    real = connection.request

    def watched(self: Any, *args: Any, **more: Any) -> Any:
        with step(name(*args, **more)):
            return real(self, *args, **more)

    environment.setattr(connection, "request", watched)
