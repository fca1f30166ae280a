"""What the tests of clouds share: the endpoints, made once and new for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tenacity
from machinekit.providers import calls, openstacklogin
from machinekit.providers.cloud import Cloud

from tests.clouds.ec2 import Ec2
from tests.clouds.openstack_server import OpenStackServer


@pytest.fixture(scope="session")
def ec2_endpoint() -> Iterator[Ec2]:
    """One for all tests of a worker."""
    with Ec2() as endpoint:
        yield endpoint


@pytest.fixture
def ec2(ec2_endpoint: Ec2) -> Ec2:
    """An EC2 endpoint with nothing in it."""
    ec2_endpoint.reset()
    return ec2_endpoint


@pytest.fixture(scope="session")
def openstack_server() -> Iterator[OpenStackServer]:
    """One for all tests of a worker."""
    with OpenStackServer() as server:
        yield server


@pytest.fixture
def server(openstack_server: OpenStackServer, environment: pytest.MonkeyPatch) -> OpenStackServer:
    """A server with nothing in it, and credentials in the environment; waits are short."""
    openstack_server.reset()
    for name, value in openstack_server.environment().items():
        environment.setenv(name, value)
    environment.setattr(openstacklogin, "_logins", {})
    environment.setattr(Cloud, "settle", 1.0)
    environment.setattr(calls, "JITTER", tenacity.wait_none())
    environment.setattr(calls, "PER_SECOND", 1000.0)
    return openstack_server
