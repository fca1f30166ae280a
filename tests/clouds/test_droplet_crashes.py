"""create and rm of droplets, killed or let down at any call: where only a name tells, nothing is lost either."""

from __future__ import annotations

import itertools
import time
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

from machinekit import converge, gc
from machinekit.create import create
from machinekit.machine import Phase
from machinekit.spec import Spec
from tests.clouds.digitalocean import TOKEN, DigitalOcean
from tests.clouds.test_crashes import User
from tests.conftest import Told
from tests.crashing import step
from tests.test_crashes import FUZZ

UNLISTED, SETTLE = 0.1, 0.3  # seconds
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
    """Somebody with an account at DigitalOcean."""

    def __init__(self, api: DigitalOcean) -> None:
        super().__init__(api)  # type: ignore[arg-type]  # only what is below looks into it
        self.api = api
        self.droplet = DigitalOceanOptions(access_token=TOKEN, endpoint=api.url)

    def create(self) -> None:
        create(self.store, "a", driver="digitalocean", options=self.droplet, spec=Spec(), progress=Told())

    def gc(self) -> None:
        for garbage in gc.find(self.store, [("digitalocean", self.droplet)]).garbage:
            gc.remove(self.store, garbage)

    def check_one(self) -> None:
        (droplet,) = self.api.droplets.values()
        assert self.store.load("a").uid.replace("-", "") in droplet.asked["name"]

    def check_nothing(self) -> None:
        assert self.api.droplets == {}
        assert not self.store.exists("a")

    def is_leaving(self) -> bool:
        """An `rm` has begun, which only another `rm` ends."""
        return self.store.exists("a") and self.store.load("a").phase is Phase.REMOVING


@pytest.mark.parametrize("ending", ["create", "rm", "gc"])
@pytest.mark.parametrize("verb", ["create", "rm"])
def test_a_kill_at_each_call(api: DigitalOcean, verb: str, ending: str) -> None:
    for kill in itertools.count():
        user = DropletUser(api)
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
            time.sleep(UNLISTED)
            user.gc()
            user.check_nothing()
        user.rm()
        user.check_nothing()
        user.end()
    user.rm()
    user.end()
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
        self.user.gc()
        self.user.check_nothing()
        self.user.end()


@pytest.mark.clouds
def test_any_accidents(api: DigitalOcean, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accidents, "api", api, raising=False)
    run_state_machine_as_test(
        Accidents, settings=settings(max_examples=60 * FUZZ, stateful_step_count=6, print_blob=True)
    )
