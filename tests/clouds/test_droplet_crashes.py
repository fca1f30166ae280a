"""create and rm of droplets, killed or let down at any call: where only a name tells, nothing is lost either."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import tenacity
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from libcloud.common.digitalocean import DigitalOcean_v2_Connection
from machinekit.providers import calls
from machinekit.providers.cloud import Cloud
from machinekit.providers.digitalocean import DigitalOceanOptions

from machinekit import converge
from machinekit.machine import Phase
from tests.clouds.digitalocean import TOKEN, DigitalOcean
from tests.clouds.test_crashes import SETTLE, UNLISTED, User, until_nothing
from tests.crashing import step
from tests.test_crashes import FUZZ

DROPLETS, DROPLET = "POST /v2/droplets", "DELETE /v2/droplets/ID"
ACTIONS = ("GET /v2/regions", "GET /v2/sizes", "GET /v2/images", "GET /v2/droplets", DROPLETS, DROPLET)
FAULTS: dict[str, dict[str, Any]] = {
    "throttled": {"status": 429, "code": "too_many_requests", "message": "API Rate limit exceeded."},
    "failed": {"status": 500, "code": "server_error", "message": "Unexpected server-side error"},
    "refused": {"status": 403, "code": "forbidden", "message": "You do not have access"},
    "full": {"status": 422, "code": "unprocessable_entity", "message": "it will exceed your droplet limit"},
    "lost": {"applied": True},
    "gateway": {"applied": True, "status": 504},
    "cut": {},
}


@pytest.fixture
def api(environment: pytest.MonkeyPatch, direct: pytest.MonkeyPatch) -> Iterator[DigitalOcean]:
    """The endpoint; every call of its API is a step at which a command can be killed."""
    environment.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    environment.setattr(Cloud, "settle", SETTLE)
    environment.setattr(calls, "JITTER", tenacity.wait_none())
    environment.setattr(calls, "PER_SECOND", 1000.0)
    environment.setattr(converge, "steps", lambda work: (converge.find_address,))
    real: Any = DigitalOcean_v2_Connection.request

    def watched(self: Any, action: str, *args: Any, **more: Any) -> Any:
        with step(action):
            return real(self, action, *args, **more)

    environment.setattr(DigitalOcean_v2_Connection, "request", watched)
    with DigitalOcean(unlisted_for=UNLISTED) as api:
        yield api


class DropletUser(User):
    """The same with an account at DigitalOcean."""

    driver = "digitalocean"

    def chosen(self) -> Any:
        """As it comes."""
        return DigitalOceanOptions(access_token=TOKEN, endpoint=self.endpoint.url)

    def check_one(self) -> None:
        """There is one droplet, the machine's."""
        record = self.store.load("a")
        assert record.phase is Phase.READY
        assert [each.asked["name"] for each in self.endpoint.droplets.values()] == [f"a-mk{uuid.UUID(record.uid).hex}"]

    def check_nothing(self) -> None:
        """Neither in the account nor in the store."""
        assert self.endpoint.droplets == {}
        assert not self.store.exists("a")

    def is_leaving(self) -> bool:
        """An `rm` has begun, which only another `rm` ends."""
        return self.store.exists("a") and self.store.load("a").phase is Phase.REMOVING


@pytest.fixture
def user(api: DigitalOcean) -> Iterator[DropletUser]:
    one = DropletUser(api)
    yield one
    one.end()


@pytest.mark.clouds
@pytest.mark.parametrize("ending", ["create", "rm", "gc"])
@pytest.mark.parametrize("verb", ["create", "rm"])
def test_a_kill_at_each_call(user: DropletUser, verb: str, ending: str) -> None:
    for kill in itertools.count():
        if verb == "rm":
            user.create()
        life = user.attempt(verb, kill)
        if not life.dead:
            break
        if ending == "create" and not user.is_leaving():
            user.create()
            user.check_one()
        if ending == "gc":
            user.lose_the_record()
            until_nothing(user)
        user.rm()
        user.check_nothing()
    assert kill >= 2 * 3, "it made that many calls"


class Accidents(RuleBasedStateMachine):
    """One user's droplet, and everything that can happen to the commands."""

    api: DigitalOcean

    def __init__(self) -> None:
        super().__init__()
        self.api.clear()
        self.user = DropletUser(self.api)

    @rule(verb=st.sampled_from(["create", "create", "rm", "gc"]), kill=st.integers(-8, 14))
    def command(self, verb: str, kill: int) -> None:
        """Killed or not."""
        self.user.attempt(verb, max(kill, -1))

    @rule(action=st.sampled_from(ACTIONS), fault=st.sampled_from(list(FAULTS)))
    def accident(self, action: str, fault: str) -> None:
        """It happens to the next such call."""
        self.api.arm(action, **FAULTS[fault])

    @precondition(lambda self: self.user.store.exists("a"))
    @rule()
    def create_again(self) -> None:
        """Without accidents it ends with one droplet."""
        self.api.faults.armed.clear()
        if not self.user.is_leaving():
            self.user.create()
            self.user.check_one()

    def teardown(self) -> None:
        """In the end nothing is left."""
        self.api.faults.armed.clear()
        self.user.rm()
        until_nothing(self.user)
        self.user.end()


@pytest.mark.clouds
def test_any_accidents(api: DigitalOcean, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accidents, "api", api, raising=False)
    run_state_machine_as_test(
        Accidents, settings=settings(max_examples=60 * FUZZ, stateful_step_count=6, print_blob=True)
    )
