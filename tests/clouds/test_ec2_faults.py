"""The EC2 endpoint fails as it is told to: through libcloud, as a driver will see it."""

from __future__ import annotations

import pytest
import requests
from libcloud.common.types import MalformedResponseError

from machinekit import keys
from tests.clouds.calls import ERRORS, ask, image, launch, one, states, tagged, texts, until
from tests.clouds.ec2 import Ec2


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("RequestLimitExceeded", 503),
        ("InternalError", 500),
        ("InsufficientInstanceCapacity", 500),
        ("VcpuLimitExceeded", 400),
        ("UnauthorizedOperation", 403),
        ("AuthFailure", 401),
    ],
)
def test_a_refusal_has_no_effect(ec2: Ec2, code: str, status: int) -> None:
    driver = ec2.driver()
    ec2.refuse("RunInstances", code, "not today", skip=1, count=2)
    first = launch(driver, "t1")
    for _ in range(2):
        with pytest.raises(ERRORS, match=f"{code}.*not today") as refused:
            launch(driver, "t2")
        assert getattr(refused.value, "http_code", status) == status
    assert len(ec2.state("instances")) == 1
    assert launch(driver, "t2") != first
    assert ec2.calls().count("RunInstances") == 4


def test_any_action_can_be_refused(ec2: Ec2) -> None:
    driver = ec2.driver()
    ec2.refuse("*", "InternalError", skip=2)
    driver.list_key_pairs()
    driver.list_key_pairs()
    with pytest.raises(ERRORS, match="InternalError"):
        driver.ex_list_subnets()
    assert driver.ex_list_subnets()


def test_silence(ec2: Ec2) -> None:
    impatient, driver = ec2.driver(timeout=1), ec2.driver()
    given = {"ImageId": image(driver), "InstanceType": "t3.micro", "MinCount": "1", "MaxCount": "1", "ClientToken": "t"}
    ec2.hang("RunInstances", 2)
    with pytest.raises(requests.exceptions.Timeout):
        ask(impatient, "RunInstances", given)
    assert ec2.state("instances") == []
    ec2.lose("RunInstances", seconds=2)
    with pytest.raises(requests.exceptions.Timeout):
        ask(impatient, "RunInstances", given)
    (made,) = ec2.state("instances")
    assert one(ask(driver, "RunInstances", given), "instanceId") == made["id"]


def test_an_answer_that_is_lost(ec2: Ec2) -> None:
    driver = ec2.driver()
    ec2.lose("RunInstances")
    with pytest.raises(requests.exceptions.ConnectionError):
        launch(driver, "t1")
    ec2.lose("RunInstances", gateway=True)
    with pytest.raises(MalformedResponseError, match="504 Gateway Time-out"):  # a gateway does not speak EC2's XML
        launch(driver, "t2")
    made = [instance["id"] for instance in ec2.state("instances")]
    assert [launch(driver, "t1"), launch(driver, "t2")] == made
    ec2.lose("TerminateInstances", count=2)
    for instance in made:
        with pytest.raises(requests.exceptions.ConnectionError):
            ask(driver, "TerminateInstances", {"InstanceId.1": instance})
    assert states(ec2) == ["terminated"] * 2


def test_what_is_new_is_not_listed_at_once(ec2: Ec2) -> None:
    driver = ec2.driver()
    driver.import_key_pair_from_string("old", keys.ssh_key("me")[1])
    ec2.unlisted_for(60)
    made = launch(driver, **tagged(1, "instance"))
    driver.import_key_pair_from_string("new", keys.ssh_key("me")[1])
    driver.ex_create_security_group("new", "d")
    assert driver.list_nodes() == []
    assert [pair.name for pair in driver.list_key_pairs()] == ["old"]
    assert [group.name for group in driver.ex_get_security_groups()] == ["default"]
    assert texts(ask(driver, "DescribeTags"), "resourceId") == []
    with pytest.raises(ERRORS, match=r"InvalidInstanceID\.NotFound"):
        ask(driver, "DescribeInstances", {"InstanceId.1": made})
    with pytest.raises(ERRORS, match=r"InvalidKeyPair\.Duplicate"):
        driver.import_key_pair_from_string("new", keys.ssh_key("me")[1])
    ask(driver, "TerminateInstances", {"InstanceId.1": made})  # it is there all the same

    ec2.reset()
    ec2.unlisted_for(0.5)
    made = launch(driver)
    assert until(lambda: [node.id for node in driver.list_nodes()], [made]) > 0.2


def test_no_capacity(ec2: Ec2) -> None:
    driver = ec2.driver()
    spot = {"InstanceMarketOptions.MarketType": "spot"}
    ec2.fill(("t3.micro", "us-east-1a", ""), ("", "", "spot"), ("t3.small", "", ""))
    launch(driver)  # where there is room
    assert ec2.state("instances")[0]["zone"] == "us-east-1b"
    for more in (spot, {"InstanceType": "t3.small"}, {"Placement.AvailabilityZone": "us-east-1a"}):
        with pytest.raises(ERRORS, match="InsufficientInstanceCapacity"):
            launch(driver, **more)
    assert len(ec2.state("instances")) == 1
    ec2.fill()
    launch(driver, **spot)


def test_an_instance_takes_its_time(ec2: Ec2) -> None:
    driver = ec2.driver()
    ec2.take_time(pending=60, shutting_down=60)
    group = driver.ex_create_security_group("g", "d")["group_id"]
    made = launch(driver, **{"SecurityGroupId.1": group})
    assert states(ec2) == ["pending"]
    with pytest.raises(ERRORS, match="IncorrectInstanceState"):
        ask(driver, "StopInstances", {"InstanceId.1": made})
    ask(driver, "TerminateInstances", {"InstanceId.1": made})
    assert states(ec2) == ["shutting-down"]
    with pytest.raises(ERRORS, match="DependencyViolation"):
        driver.ex_delete_security_group_by_id(group)

    ec2.take_time(pending=0.5, stopping=0.5, shutting_down=0.5)
    second = launch(driver)
    for action, state in (("", "running"), ("StopInstances", "stopped"), ("TerminateInstances", "terminated")):
        if action:
            ask(driver, action, {"InstanceId.1": second})
        assert until(lambda: states(ec2)[1], state) > 0.2
    assert states(ec2)[0] == "shutting-down"


def test_latency_and_times(ec2: Ec2) -> None:
    driver = ec2.driver()
    ec2.slow_down(0.2)
    driver.list_key_pairs()
    driver.list_key_pairs()
    first, second = ec2.times()
    assert second - first >= 0.2
