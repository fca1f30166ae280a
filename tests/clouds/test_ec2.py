"""The EC2 endpoint behaves as EC2 does: through libcloud, as a driver will see it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from machinekit import keys
from tests.clouds.calls import AMAZON, DEBIAN, ERRORS, UBUNTU, ask, b64, image, launch, one, states, tagged, texts
from tests.clouds.ec2 import Ec2
from tests.clouds.sigv4 import KEY, SECRET, SESSION_KEY, SESSION_TOKEN


def test_from_create_to_the_end(ec2: Ec2) -> None:
    driver = ec2.driver()
    (size,) = [size for size in driver.list_sizes() if size.id == "t3.micro"]
    (newest,) = driver.list_images(ex_image_ids=[image(driver)])
    public = keys.ssh_key("me")[1]
    assert driver.import_key_pair_from_string("mine", public).fingerprint
    group = driver.ex_create_security_group("mine", "of one machine")["group_id"]
    assert driver.ex_authorize_security_group_ingress(group, 22, 22, cidr_ips=["203.0.113.7/32"])
    (subnet, *_) = driver.ex_list_subnets()
    node = driver.create_node(
        "n1", size, newest, ex_keyname="mine", ex_subnet=subnet, ex_security_group_ids=[group], ex_userdata="#!/bin/sh"
    )
    assert driver.ex_create_tags(node, {"machinekit.uid": "u1", "colour": "blue"})

    (instance,) = ec2.state("instances")
    assert instance["tags"] == {"Name": "n1", "machinekit.uid": "u1", "colour": "blue"}
    assert (instance["user_data"], instance["groups"], instance["state"]) == ("#!/bin/sh", [group], "running")
    assert instance["private_address"].startswith("127.31.")
    assert instance["public_address"].startswith("127.198.")
    assert ec2.state("groups")[0]["rules"] == ["tcp 22-22 203.0.113.7/32"]
    (listed,) = driver.list_nodes(ex_filters={"tag:machinekit.uid": "u1"})
    assert (listed.public_ips, listed.state) == ([instance["public_address"]], "running")

    assert driver.stop_node(node)
    assert states(ec2) == ["stopped"]
    with pytest.raises(ERRORS, match="IncorrectInstanceState"):
        driver.reboot_node(node)
    assert driver.start_node(node)
    assert driver.reboot_node(node)
    (again,) = ec2.state("instances")
    assert (again["state"], again["boots"]) == ("running", 3)
    assert again["private_address"] == instance["private_address"]
    assert again["public_address"] != instance["public_address"]

    assert driver.destroy_node(node)
    assert driver.destroy_node(node)
    assert driver.delete_key_pair(driver.list_key_pairs()[0])
    assert driver.ex_delete_security_group_by_id(group)
    assert ec2.leftovers() == []
    assert texts(ask(driver, "DescribeTags"), "resourceId") == [node.id] * 3  # it is shown for a while yet
    assert [action for action in ec2.calls() if not action.startswith("Describe")] == (
        "ImportKeyPair CreateSecurityGroup AuthorizeSecurityGroupIngress RunInstances CreateTags StopInstances "
        "RebootInstances StartInstances RebootInstances TerminateInstances TerminateInstances DeleteKeyPair "
        "DeleteSecurityGroup"
    ).split()


def test_what_is_asked_for_can_be_read_back(ec2: Ec2) -> None:
    driver = ec2.driver()
    asked = {
        "MetadataOptions.HttpTokens": "required",
        "MetadataOptions.HttpPutResponseHopLimit": "1",
        "InstanceMarketOptions.MarketType": "spot",
        "InstanceMarketOptions.SpotOptions.MaxPrice": "0.01",
        "BlockDeviceMapping.1.DeviceName": "/dev/xvda",
        "BlockDeviceMapping.1.Ebs.VolumeSize": "20",
        "BlockDeviceMapping.1.Ebs.Encrypted": "true",
        "BlockDeviceMapping.1.Ebs.KmsKeyId": "alias/mine",
        "IamInstanceProfile.Name": "machines",
        **tagged(1, "instance"),
        **tagged(2, "volume"),
        **tagged(3, "network-interface"),
        **tagged(4, "spot-instances-request"),
    }
    launch(driver, **asked)
    answer = ask(driver, "DescribeInstances")
    assert one(answer, "httpTokens") == "required"
    assert one(answer, "instanceLifecycle") == "spot"
    assert "true" in texts(answer, "deleteOnTermination")
    assert one(answer, "arn").endswith("instance-profile/machines")
    volumes = ask(driver, "DescribeVolumes", {"Filter.1.Name": "tag:uid", "Filter.1.Value.1": "of a volume"})
    assert (one(volumes, "size"), one(volumes, "encrypted"), one(volumes, "kmsKeyId")) == ("20", "true", "alias/mine")
    (instance,) = ec2.state("instances")
    assert instance["spot"]
    assert asked.items() <= instance["asked"].items()
    assert [interface["tags"] for interface in ec2.state("interfaces")] == [{"uid": "of a network-interface"}]
    public = keys.ssh_key("me")[1]
    made = {"KeyName": "k", "PublicKeyMaterial": b64(public), **tagged(1, "key-pair")}
    ask(driver, "ImportKeyPair", made)
    ask(driver, "CreateSecurityGroup", {"GroupName": "g", "GroupDescription": "d", **tagged(1, "security-group")})
    assert [pair["tags"] for pair in ec2.state("key_pairs")] == [{"uid": "of a key-pair"}]
    assert [group["tags"] for group in ec2.state("groups")] == [{"uid": "of a security-group"}]


def test_a_token_makes_one_instance(ec2: Ec2) -> None:
    driver = ec2.driver()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: launch(ec2.driver(), "t1"), range(8)))
    assert len(set(made)) == 1
    assert len(ec2.state("instances")) == 1
    with pytest.raises(ERRORS, match="IdempotentParameterMismatch"):
        launch(driver, "t1", InstanceType="t3.small")
    assert launch(driver, "t2") not in made
    ask(driver, "TerminateInstances", {"InstanceId.1": made[0]})
    assert launch(driver, "t1") == made[0]  # and not a new one
    assert states(ec2) == ["terminated", "running"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"InstanceType": "t9.nano"}, "InvalidParameterValue: Invalid value 't9.nano' for InstanceType"),
        ({"InstanceType": "t4g.micro"}, "InvalidParameterValue: The architecture"),
        ({"ImageId": "ami-0123456789abcdef0"}, r"InvalidAMIID\.NotFound"),
        ({"KeyName": "nobody's"}, "KeyPairDoesNotExist"),  # libcloud's own words
        ({"SubnetId": "subnet-0123"}, r"InvalidSubnetID\.NotFound"),
        ({"SecurityGroupId.1": "sg-0123"}, r"InvalidGroup\.NotFound"),
        ({"Placement.AvailabilityZone": "us-east-1x"}, "InvalidParameterValue: Invalid availability zone"),
        ({"IamInstanceProfile.Name": "x"}, r"InvalidParameterValue.*iamInstanceProfile\.name"),
        ({"UserData": b64("x" * 16385)}, "InvalidParameterValue: User data is limited to 16384 bytes"),
        ({"UserData": "%"}, r"InvalidUserData\.Malformed"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue: .*ClientToken"),
        (tagged(1, "instance") | {"TagSpecification.1.Tag.1.Value": "x" * 257}, "InvalidParameterValue: .*Value"),
        (
            {"NetworkInterface.1.DeviceIndex": "0", "SecurityGroupId.1": "sg-0123"},
            "InvalidParameterCombination: Network interfaces",
        ),
        (
            {"BlockDeviceMapping.1.DeviceName": "/dev/xvda", "BlockDeviceMapping.1.Ebs.VolumeSize": "4"},
            "InvalidBlockDeviceMapping: Volume of size 4GB is smaller",
        ),
    ],
)
def test_what_cannot_be_launched(ec2: Ec2, more: dict[str, str], said: str) -> None:
    with pytest.raises(ERRORS, match=said):
        launch(ec2.driver(), **more)
    assert ec2.leftovers() == []


def test_other_refusals(ec2: Ec2) -> None:
    driver = ec2.driver()
    driver.ex_create_security_group("g", "d")
    with pytest.raises(ERRORS, match=r"InvalidGroup\.Duplicate"):
        driver.ex_create_security_group("g", "d")
    for name, description in (("sg-1", "d"), ("g" * 256, "d"), ("g2", "its owner's")):
        with pytest.raises(ERRORS, match="InvalidParameterValue"):
            driver.ex_create_security_group(name, description)
    with pytest.raises(ERRORS, match=r"InvalidInstanceType: .*t9\.nano"):
        ask(driver, "DescribeInstanceTypes", {"InstanceType.1": "t9.nano"})
    with pytest.raises(ERRORS, match="InvalidAction"):
        ask(driver, "MakeCoffee")


@pytest.mark.parametrize(
    ("key", "secret", "token", "accepted"),
    [
        (KEY, SECRET, None, True),
        (SESSION_KEY, SECRET, SESSION_TOKEN, True),
        ("AKIAWRONGWRONGWRONGX", SECRET, None, False),
        (KEY, "another secret", None, False),
        (SESSION_KEY, SECRET, "an old one", False),
    ],
)
def test_credentials(ec2: Ec2, key: str, secret: str, token: str | None, accepted: bool) -> None:
    driver = ec2.driver(key=key, secret=secret, token=token)
    if accepted:
        assert driver.ex_list_subnets()
    else:
        with pytest.raises(ERRORS, match="AuthFailure"):
            driver.ex_list_subnets()


@pytest.mark.parametrize("machine", ["x86_64", "arm64"])
def test_images_and_what_only_looks_like_them(ec2: Ec2, machine: str) -> None:
    driver = ec2.driver()
    debian = "amd64" if machine == "x86_64" else machine
    for owner, pattern, newest in (
        (DEBIAN, f"debian-12-{debian}-*", f"debian-12-{debian}-20251112-2294"),
        (DEBIAN, f"debian-13-{debian}-*", f"debian-13-{debian}-20251117-2299"),
        (UBUNTU, f"ubuntu/images/*/ubuntu-jammy-22.04-{debian}-server-*", "-20251015"),
        (UBUNTU, f"ubuntu/images/*/ubuntu-noble-24.04-{debian}-server-*", "-20251022"),
        (AMAZON, f"al2023-ami-2023.*-kernel-6.1-{machine}", f"al2023-ami-2023.9.20251117.1-kernel-6.1-{machine}"),
        ("amazon", f"al2023-ami-2023.*-kernel-6.1-{machine}", f"al2023-ami-2023.9.20251117.1-kernel-6.1-{machine}"),
    ):
        (found,) = driver.list_images(ex_image_ids=[image(driver, owner, pattern)])
        assert found.name.endswith(newest)
        assert found.extra["architecture"] == machine
    everything = driver.list_images(ex_filters={"architecture": machine})
    names = [image.name for image in everything]
    assert len(names) > len(set(names)), "a stranger has one of the same name"
    assert "failed" in {image.extra["state"] for image in everything}
    assert not any(name.endswith("-20251101") for name in names), "a deprecated one"
    assert {image.id for image in everything}.isdisjoint(image.id for image in ec2.driver("eu-west-1").list_images())


def test_a_disk_under_another_name_is_one_more_and_stays(ec2: Ec2) -> None:
    driver = ec2.driver()
    made = launch(
        driver, **{"BlockDeviceMapping.1.DeviceName": "/dev/sda1", "BlockDeviceMapping.1.Ebs.VolumeSize": "20"}
    )
    assert {(volume["device"], volume["size"]) for volume in ec2.state("volumes")} == {
        ("/dev/sda1", 20),
        ("/dev/xvda", 8),
    }
    ask(driver, "TerminateInstances", {"InstanceId.1": made})
    assert [thing.partition(" ")[0] for thing in ec2.leftovers()] == ["volumes"]


def test_addresses(ec2: Ec2) -> None:
    driver = ec2.driver()
    inside = {"NetworkInterface.1.DeviceIndex": "0", "NetworkInterface.1.AssociatePublicIpAddress": "false"}
    launch(driver, **inside)
    assert ec2.state("instances")[0]["public_address"] == ""
    address = driver.ex_allocate_address()
    driver.ex_associate_address_with_node(driver.list_nodes()[0], address)
    assert ec2.state("instances")[0]["public_address"] == address.ip
    assert f"addresses {ec2.state('addresses')[0]['id']}" in ec2.leftovers()


def test_a_whole_account_in_one_call(ec2: Ec2) -> None:
    driver = ec2.driver()
    ask(
        driver,
        "RunInstances",
        {"ImageId": image(driver), "InstanceType": "t3.micro", "MinCount": "200", "MaxCount": "200"}
        | {f"TagSpecification.1.Tag.{n}.{part}": f"t{n}" for n in (1, 2, 3) for part in ("Key", "Value")}
        | {"TagSpecification.1.ResourceType": "instance"},
    )
    launch(ec2.driver("eu-west-1"))
    before = len(ec2.calls())
    assert len(driver.list_nodes(ex_filters={"tag:t1": "t1"})) == 200
    assert ec2.calls()[before:] == ["DescribeInstances", "DescribeAddresses"]
    assert len({instance["private_address"] for instance in ec2.state("instances")}) == 200


def test_the_callers_address(ec2: Ec2) -> None:
    assert requests.get(f"{ec2.url}/_caller", timeout=5).text == "127.0.0.1\n"
    assert ec2.calls() == []


def test_it_dies_with_its_parent() -> None:
    script = "import sys; from tests.clouds.ec2 import Ec2; print(Ec2().__enter__().port, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        socket.create_connection(("127.0.0.1", port)).close()
        parent.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    pytest.fail("it still listens")
