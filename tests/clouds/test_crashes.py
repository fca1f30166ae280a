"""create and rm on a cloud, killed or let down at any call: what comes next leaves one machine or nothing."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tenacity
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from machinekit.providers import calls
from machinekit.providers.awsoptions import AwsOptions
from machinekit.providers.cloud import Cloud
from machinekit.providers.ec2 import Connection

from machinekit import converge, gc, lifecycle
from machinekit.create import create
from machinekit.errors import MachinekitError
from machinekit.machine import Phase
from machinekit.spec import Spec
from machinekit.store import Store
from tests.clouds.ec2 import Ec2
from tests.clouds.sigv4 import KEY, SECRET
from tests.conftest import Told
from tests.crashing import Life, living, step
from tests.providers.fake import Killed
from tests.test_crashes import FUZZ

UNLISTED, SETTLE = 0.15, 0.5  # seconds
ACTIONS = (
    *("DescribeInstanceTypes", "DescribeImages", "DescribeSubnets", "ImportKeyPair", "CreateSecurityGroup"),
    *("AuthorizeSecurityGroupIngress", "RunInstances", "DescribeInstances", "TerminateInstances"),
    *("DescribeSecurityGroups", "DeleteSecurityGroup", "DeleteKeyPair"),
)
FAULTS: dict[str, Callable[[Ec2, str], None]] = {
    "throttled": lambda endpoint, action: endpoint.refuse(action, "RequestLimitExceeded"),
    "failed": lambda endpoint, action: endpoint.refuse(action, "InternalError"),
    "refused": lambda endpoint, action: endpoint.refuse(action, "UnauthorizedOperation"),
    "full": lambda endpoint, action: endpoint.refuse(action, "InsufficientInstanceCapacity"),
    "lost": lambda endpoint, action: endpoint.lose(action),
    "gateway": lambda endpoint, action: endpoint.lose(action, gateway=True),
    "hung": lambda endpoint, action: endpoint.hang(action, 1),
}


@pytest.fixture
def account(ec2: Ec2, environment: pytest.MonkeyPatch) -> Ec2:
    """The endpoint; every call of its API is a step at which a command can be killed."""
    environment.setenv("AWS_ACCESS_KEY_ID", KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    environment.setattr(Cloud, "settle", SETTLE)
    environment.setattr(calls, "JITTER", tenacity.wait_none())
    environment.setattr(calls, "PER_SECOND", 1000.0)
    environment.setattr("machinekit.providers.aws.TIMEOUT", 0.7)
    environment.setattr(converge, "steps", lambda work: (converge.find_address,))
    real = Connection.request

    def watched(self: Any, action: str, params: Any = None, **more: Any) -> Any:
        with step(params["Action"]):
            return real(self, action, params, **more)

    environment.setattr(Connection, "request", watched)
    ec2.unlisted_for(UNLISTED)
    return ec2


class User:
    """Somebody with an account, a store, and the commands `create`, `rm` and `gc`."""

    driver: ClassVar[str] = "aws"

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self.home = Path(tempfile.mkdtemp(prefix="machinekit-clouds-"))
        self.store = Store(self.home / "store")
        self.options = self.chosen()

    def chosen(self) -> Any:
        """The driver's options."""
        return AwsOptions(region="us-east-1", endpoint=self.endpoint.url, allow=("203.0.113.7/32",))

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

    def check_one(self) -> None:
        """There is one machine, with all that belongs to it."""
        assert self.store.load("a").phase is Phase.READY
        running = [each for each in self.endpoint.state("instances") if each["state"] == "running"]
        assert [each["tags"]["machinekit.uid"] for each in running] == [self.store.load("a").uid]
        assert len(self.endpoint.state("key_pairs")) == len(self.endpoint.state("groups")) == 1

    def check_nothing(self) -> None:
        """Neither in the account nor in the store."""
        assert self.endpoint.leftovers() == []
        assert not self.store.exists("a")

    def end(self) -> None:
        """Take everything away."""
        shutil.rmtree(self.home)


@pytest.fixture
def user(account: Ec2) -> Iterator[User]:
    one = User(account)
    yield one
    one.end()


@pytest.mark.clouds
@pytest.mark.parametrize("ending", ["create", "rm", "gc"])
@pytest.mark.parametrize("verb", ["create", "rm"])
def test_a_kill_at_each_call(user: User, verb: str, ending: str) -> None:
    for kill in itertools.count():
        if verb == "rm":
            user.create()
        life = user.attempt(verb, kill)
        if not life.dead:
            break
        if ending == "create" and not (user.store.exists("a") and user.store.load("a").phase is Phase.REMOVING):
            user.create()
            user.check_one()
        if ending == "gc":
            user.lose_the_record()
            until_nothing(user)
        user.rm()
        user.check_nothing()
    assert kill > 2 * 5, "it made that many calls"


def until_nothing(user: User) -> None:
    """gc sees what is listed: an account may need a moment to list what was made."""
    time.sleep(UNLISTED)
    user.gc()
    user.check_nothing()


class Accidents(RuleBasedStateMachine):
    """One user's machine on a cloud, and everything that can happen to the commands."""

    endpoint: Ec2

    def __init__(self) -> None:
        super().__init__()
        self.endpoint.reset()
        self.endpoint.unlisted_for(UNLISTED)
        self.user = User(self.endpoint)

    @rule(verb=st.sampled_from(["create", "create", "rm", "gc"]), kill=st.integers(-8, 18))
    def command(self, verb: str, kill: int) -> None:
        """Killed or not."""
        self.user.attempt(verb, max(kill, -1))

    @rule(action=st.sampled_from(ACTIONS), fault=st.sampled_from(list(FAULTS)))
    def accident(self, action: str, fault: str) -> None:
        """It happens to the next such call."""
        FAULTS[fault](self.endpoint, action)

    @precondition(lambda self: self.user.store.exists("a"))
    @rule()
    def create_again(self) -> None:
        """Without accidents it ends with one machine."""
        self.endpoint.calm()
        if self.user.store.load("a").phase is not Phase.REMOVING:
            self.user.create()
            self.user.check_one()

    def teardown(self) -> None:
        """In the end nothing is left."""
        self.endpoint.calm()
        self.user.rm()
        self.user.gc()
        self.user.check_nothing()
        self.user.end()


@pytest.mark.clouds
def test_any_accidents(account: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accidents, "endpoint", account, raising=False)
    run_state_machine_as_test(
        Accidents, settings=settings(max_examples=60 * FUZZ, stateful_step_count=6, print_blob=True)
    )
