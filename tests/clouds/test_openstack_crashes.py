"""create and rm on an OpenStack, killed or let down at any call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
from machinekit.providers.openstack import OpenStack
from machinekit.providers.openstackapi import Connection

from machinekit.spec import parse_options
from tests.clouds.accidents import UNLISTED, CrashContract, User, hurry, watch
from tests.clouds.openstack_server import Fault, OpenStackServer
from tests.clouds.test_openstack import GIVEN


def _fault(*what: Any, **more: Any) -> Callable[[OpenStackServer, str], None]:
    return lambda server, call: server.account.faults.append(Fault(call, *what, **more))


def _full(server: OpenStackServer, call: str) -> None:
    """Every server that is asked for from now on ends in an error."""
    server.account.full = True


class OpenStackUser(User):
    """Somebody with a project at an OpenStack."""

    driver = "openstack"
    calls = (
        *("GET .*/images", "GET .*/networks", "POST .*/security-groups", "POST .*/security-group-rules"),
        *("POST .*/floatingips", "POST .*/servers", "GET .*/servers/[^/]+", "GET .*/ports", "PUT .*/floatingips/.*"),
        *("DELETE .*/servers/.*", "GET .*/security-groups", "DELETE .*/security-groups/.*", "DELETE .*/floatingips/.*"),
    )
    faults: ClassVar[dict[str, Callable[[OpenStackServer, str], None]]] = {
        "throttled": _fault(429),
        "failed": _fault(500),
        "refused": _fault(403, "Policy doesn't allow it to be performed."),
        "expired": _fault(401),
        "full": _fault(409, "No valid host was found."),
        "lost": _fault(applied=True),
        "gateway": _fault(504, applied=True),
        "hung": _fault(silence=1),
        "no host": _full,
    }

    def chosen(self) -> Any:
        """With a floating IP, so that there is more to lose."""
        return parse_options("openstack", OpenStack, GIVEN | {"floating_ip_pool": "public"})

    def empty(self) -> None:
        """A new project."""
        self.endpoint.reset()
        self.endpoint.account.unlisted = UNLISTED

    def calm(self) -> None:
        """As it was."""
        self.endpoint.account.faults.clear()
        self.endpoint.account.full = False

    def check_one(self) -> None:
        """A server that has the floating IP, and a group that is open."""
        record, account = self.store.load("a"), self.endpoint.account
        assert [each["metadata"]["machinekit.uid"] for each in account.servers.values()] == [record.uid]
        assert [each["floating_ip_address"] for each in account.floatingips.values()] == [record.address]
        assert len(account.security_groups) == 1
        assert len(account.security_group_rules) == 2

    def left(self) -> list[Any]:
        """Anything."""
        return list(self.endpoint.leftovers())


class TestOpenStack(CrashContract):
    fewest = 7

    @pytest.fixture
    def user(self, server: OpenStackServer, environment: pytest.MonkeyPatch) -> Callable[[], User]:
        hurry(environment)
        environment.setattr("machinekit.providers.openstackapi.TIMEOUT", 0.7)
        watch(environment, Connection, lambda path, **more: f"{more.get('method', 'GET')} {path}")
        return partial(OpenStackUser, server)
