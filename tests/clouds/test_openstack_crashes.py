"""create and rm on an OpenStack, killed or let down at any call: what comes next leaves one machine or nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from machinekit.providers.openstack import OpenStack
from machinekit.providers.openstackapi import Connection

from machinekit import converge
from machinekit.machine import Phase
from machinekit.spec import parse_options
from tests.clouds.openstack_server import Fault, OpenStackServer
from tests.clouds.test_crashes import SETTLE, UNLISTED, User, until_nothing
from tests.clouds.test_openstack import GIVEN
from tests.crashing import step
from tests.test_crashes import FUZZ

CALLS = (
    *("GET .*/images", "GET .*/networks", "POST .*/security-groups"),
    *("POST .*/security-group-rules", "POST .*/floatingips", "POST .*/servers", "GET .*/servers/[^/]+"),
    *("GET .*/ports", "PUT .*/floatingips/.*", "DELETE .*/servers/.*", "GET .*/security-groups"),
    *("DELETE .*/security-groups/.*", "DELETE .*/floatingips/.*"),
)
FAULTS: dict[str, Callable[[str], Fault]] = {
    "throttled": lambda call: Fault(call, 429),
    "failed": lambda call: Fault(call, 500),
    "refused": lambda call: Fault(call, 403, "Policy doesn't allow it to be performed."),
    "expired": lambda call: Fault(call, 401),
    "full": lambda call: Fault(call, 409, "No valid host was found."),
    "lost": lambda call: Fault(call, applied=True),
    "gateway": lambda call: Fault(call, 504, applied=True),
    "hung": lambda call: Fault(call, silence=1),
}


@pytest.fixture
def account(server: OpenStackServer, environment: pytest.MonkeyPatch) -> OpenStackServer:
    """The server; every call of its APIs is a step at which a command can be killed."""
    environment.setattr("machinekit.providers.cloud.Cloud.settle", SETTLE)
    environment.setattr("machinekit.providers.openstackapi.TIMEOUT", 0.7)
    environment.setattr(converge, "steps", lambda work: (converge.find_address,))
    real = Connection.request

    def watched(self: Any, action: str, **more: Any) -> Any:
        with step(f"{more.get('method', 'GET')} {action}"):
            return real(self, action, **more)

    environment.setattr(Connection, "request", watched)
    server.account.unlisted = UNLISTED
    return server


class OpenStackUser(User):
    """The same with an account of an OpenStack."""

    driver = "openstack"

    def chosen(self) -> Any:
        """With a floating IP, so that there is more to lose."""
        return parse_options("openstack", OpenStack, GIVEN | {"floating_ip_pool": "public"})

    def check_one(self) -> None:
        """There is one machine, with all that belongs to it."""
        record, account = self.store.load("a"), self.endpoint.account
        assert record.phase is Phase.READY
        assert [each["metadata"]["machinekit.uid"] for each in account.servers.values()] == [record.uid]
        assert len(account.security_groups) == 1
        assert [each["floating_ip_address"] for each in account.floatingips.values()] == [record.address]
        assert len(account.security_group_rules) == 2


@pytest.fixture
def user(account: OpenStackServer) -> Iterator[OpenStackUser]:
    one = OpenStackUser(account)
    yield one
    one.end()


@pytest.mark.clouds
@pytest.mark.parametrize("ending", ["create", "rm", "gc"])
@pytest.mark.parametrize("verb", ["create", "rm"])
def test_a_kill_at_each_call(user: OpenStackUser, verb: str, ending: str) -> None:
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
    assert kill >= 2 * 7, "it made that many calls"


class Accidents(RuleBasedStateMachine):
    """One user's machine on an OpenStack, and everything that can happen to the commands."""

    server: OpenStackServer

    def __init__(self) -> None:
        super().__init__()
        self.server.reset()
        self.server.account.unlisted = UNLISTED
        self.user = OpenStackUser(self.server)

    @rule(verb=st.sampled_from(["create", "create", "rm", "gc"]), kill=st.integers(-8, 26))
    def command(self, verb: str, kill: int) -> None:
        """Killed or not."""
        self.user.attempt(verb, max(kill, -1))

    @rule(call=st.sampled_from(CALLS), fault=st.sampled_from(list(FAULTS)))
    def accident(self, call: str, fault: str) -> None:
        """It happens to the next such call."""
        self.server.account.faults.append(FAULTS[fault](call))

    @rule(full=st.booleans())
    def host(self, full: bool) -> None:
        """There is room, or a server ends in an error."""
        self.server.account.full = full

    @precondition(lambda self: self.user.store.exists("a"))
    @rule()
    def create_again(self) -> None:
        """Without accidents it ends with one machine."""
        self._calm()
        if self.user.store.load("a").phase is not Phase.REMOVING:
            self.user.create()
            self.user.check_one()

    def teardown(self) -> None:
        """In the end nothing is left."""
        self._calm()
        self.user.rm()
        until_nothing(self.user)
        self.user.end()

    def _calm(self) -> None:
        self.server.account.faults.clear()
        self.server.account.full = False


@pytest.mark.clouds
def test_any_accidents(account: OpenStackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accidents, "server", account, raising=False)
    run_state_machine_as_test(
        Accidents, settings=settings(max_examples=60 * FUZZ, stateful_step_count=6, print_blob=True)
    )
