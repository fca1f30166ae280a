"""What the tests of clouds share: the endpoints, made once and new for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clouds.ec2 import Ec2


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
