"""create and rm on AWS, killed or let down at any call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
from machinekit.providers.awsoptions import AwsOptions
from machinekit.providers.ec2 import Connection

from tests.clouds.accidents import UNLISTED, CrashContract, User, hurry, watch
from tests.clouds.ec2 import Ec2
from tests.clouds.sigv4 import KEY, SECRET


class AwsUser(User):
    """Somebody with an account at an EC2 endpoint."""

    driver = "aws"
    calls = (
        *("DescribeInstanceTypes", "DescribeImages", "DescribeSubnets", "ImportKeyPair", "CreateSecurityGroup"),
        *("AuthorizeSecurityGroupIngress", "RunInstances", "DescribeInstances", "TerminateInstances"),
        *("DescribeSecurityGroups", "DeleteSecurityGroup", "DeleteKeyPair"),
    )
    faults: ClassVar[dict[str, Callable[[Ec2, str], None]]] = {
        "throttled": lambda endpoint, action: endpoint.refuse(action, "RequestLimitExceeded"),
        "failed": lambda endpoint, action: endpoint.refuse(action, "InternalError"),
        "refused": lambda endpoint, action: endpoint.refuse(action, "UnauthorizedOperation"),
        "full": lambda endpoint, action: endpoint.refuse(action, "InsufficientInstanceCapacity"),
        "lost": lambda endpoint, action: endpoint.lose(action),
        "gateway": lambda endpoint, action: endpoint.lose(action, gateway=True),
        "hung": lambda endpoint, action: endpoint.hang(action, 1),
    }

    def chosen(self) -> Any:
        """A region at the endpoint."""
        return AwsOptions(region="us-east-1", endpoint=self.endpoint.url, allow=("203.0.113.7/32",))

    def empty(self) -> None:
        """A new endpoint."""
        self.endpoint.reset()
        self.endpoint.unlisted_for(UNLISTED)

    def calm(self) -> None:
        """As it was."""
        self.endpoint.calm()

    def check_one(self) -> None:
        """An instance, a key pair and a group."""
        running = [each for each in self.endpoint.state("instances") if each["state"] == "running"]
        assert [each["tags"]["machinekit.uid"] for each in running] == [self.store.load("a").uid]
        assert len(self.endpoint.state("key_pairs")) == len(self.endpoint.state("groups")) == 1

    def left(self) -> list[str]:
        """Anything."""
        return list(self.endpoint.leftovers())


class TestAws(CrashContract):
    fewest = 5

    @pytest.fixture
    def user(self, ec2: Ec2, environment: pytest.MonkeyPatch) -> Callable[[], User]:
        environment.setenv("AWS_ACCESS_KEY_ID", KEY)
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        hurry(environment)
        environment.setattr("machinekit.providers.aws.TIMEOUT", 0.7)
        watch(environment, Connection, lambda path, params, **more: str(params["Action"]))
        return partial(AwsUser, ec2)
