"""create and rm of droplets, killed or let down at any call: where only a name tells, nothing is lost either."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import pytest
from libcloud.common.digitalocean import DigitalOcean_v2_Connection
from machinekit.providers.digitalocean import DigitalOceanOptions

from tests.clouds.accidents import UNLISTED, CrashContract, User, hurry, watch
from tests.clouds.digitalocean import TOKEN, DigitalOcean


def _fault(**what: Any) -> Callable[[DigitalOcean, str], None]:
    return lambda api, call: api.arm(call, **what)


class DropletUser(User):
    """Somebody with an account at DigitalOcean."""

    driver = "digitalocean"
    calls = (
        *("GET /v2/regions", "GET /v2/sizes", "GET /v2/images", "GET /v2/droplets"),
        *("POST /v2/droplets", "DELETE /v2/droplets/ID"),
    )
    faults: ClassVar[dict[str, Callable[[DigitalOcean, str], None]]] = {
        "throttled": _fault(status=429, code="too_many_requests", message="API Rate limit exceeded."),
        "failed": _fault(status=500, code="server_error", message="Unexpected server-side error"),
        "refused": _fault(status=403, code="forbidden", message="You do not have access"),
        "full": _fault(status=422, code="unprocessable_entity", message="it will exceed your droplet limit"),
        "lost": _fault(applied=True),
        "gateway": _fault(applied=True, status=504),
        "cut": _fault(),
    }

    def chosen(self) -> Any:
        """As it comes."""
        return DigitalOceanOptions(access_token=TOKEN, endpoint=self.endpoint.url)

    def empty(self) -> None:
        """No droplets."""
        self.endpoint.clear()

    def calm(self) -> None:
        """As it was."""
        self.endpoint.faults.armed.clear()

    def check_one(self) -> None:
        """The machine's droplet."""
        name = f"a-mk{uuid.UUID(self.store.load('a').uid).hex}"
        assert [each.asked["name"] for each in self.endpoint.droplets.values()] == [name]

    def left(self) -> list[Any]:
        """Any droplet."""
        return list(self.endpoint.droplets)


class TestDigitalOcean(CrashContract):
    fewest = 3

    @pytest.fixture
    def user(self, environment: pytest.MonkeyPatch, direct: pytest.MonkeyPatch) -> Iterator[Callable[[], User]]:
        environment.setenv("DIGITALOCEAN_TOKEN", TOKEN)
        hurry(environment)
        watch(environment, DigitalOcean_v2_Connection, lambda action, *args, **more: action)
        with DigitalOcean(unlisted_for=UNLISTED) as api:
            yield partial(DropletUser, api)
