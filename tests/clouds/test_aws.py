"""Driver aws at an EC2 endpoint: what it asks for, in how many calls, and what it says when it cannot be had."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import os
import re
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tenacity
from machinekit.providers import calls
from machinekit.providers.aws import Aws
from machinekit.providers.awsoptions import AwsOptions
from machinekit.providers.cloud import Cloud

from machinekit import cloudinit, converge, drivers, keys, reach
from machinekit.errors import DriverError, PreCheckError, UsageError
from machinekit.machine import Birth, Machine, Resource, State
from machinekit.provider import Driver
from machinekit.spec import parse_options
from machinekit.store import Store
from tests.clouds.calls import ask, launch
from tests.clouds.ec2 import Ec2
from tests.clouds.sigv4 import KEY, SECRET
from tests.conftest import Cli
from tests.providers.contract import DriverContract, Make
from tests.servers import Certificates, Server, encrypted, engine

HERE = "203.0.113.7/32"
Bound = Callable[..., Driver[Any]]


@pytest.fixture
def account(ec2: Ec2, environment: pytest.MonkeyPatch) -> Ec2:
    """The endpoint, with credentials in the environment; waits are short."""
    environment.setenv("AWS_ACCESS_KEY_ID", KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    environment.setenv("AWS_ENDPOINT_URL_EC2", ec2.url)
    environment.setattr(Cloud, "settle", 1.0)
    environment.setattr(calls, "JITTER", tenacity.wait_none())
    environment.setattr(calls, "PER_SECOND", 1000.0)
    return ec2


def machine_of(options: AwsOptions, name: str = "node1") -> Machine:
    return Machine(name, str(uuid.uuid4()), "aws", "a-store", "", dataclasses.asdict(options))


@pytest.fixture
def bound(account: Ec2, tmp_path: Path) -> Bound:
    """A driver of a fresh machine."""

    def bind(name: str = "node1", **given: Any) -> Driver[Any]:
        values = {"region": "us-east-1", "endpoint": account.url, "allow": (HERE,)} | given
        options = parse_options("aws", Aws, values)
        assert isinstance(options, AwsOptions)
        return drivers.bind(machine_of(options, name), tmp_path)

    return bind


@pytest.fixture(scope="module")
def birth() -> Birth:
    (_, public), (private, host_public) = keys.ssh_key("me"), keys.ssh_key("host")
    user_data = cloudinit.user_data("node1", "machinekit", public, private.decode(), host_public)
    return Birth("machinekit", public, private.decode(), host_public, user_data, None)


def removed(driver: Driver[Any]) -> None:
    driver.destroy()
    for resource in reversed(list(driver.machine.resources)):
        driver.release(resource)


class TestAws(DriverContract):
    @pytest.fixture
    def make(self, account: Ec2, tmp_path: Path) -> Make:
        def make(save: Callable[[], None]) -> Driver[Any]:
            options = AwsOptions(region="us-east-1", endpoint=account.url, allow=(HERE,), tags=("team=ci",))
            return drivers.bind(machine_of(options, "contract"), tmp_path, save)

        return make


def test_the_console_is_read(account: Ec2, bound: Bound) -> None:
    driver = bound()
    assert driver.console() == ""
    _launched(account, driver.machine)
    assert driver.console().startswith("Linux version 2.6.16-xenU")


# --- how often it asks


def test_eight_calls_for_a_create_and_six_for_an_rm(account: Ec2, bound: Bound, birth: Birth) -> None:
    driver = bound()
    driver.check()
    driver.create(birth)
    assert driver.find()
    assert account.calls() == [
        *("DescribeInstanceTypes", "DescribeImages", "DescribeSubnets"),
        *("ImportKeyPair", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress"),
        *("RunInstances", "DescribeInstances"),
    ]
    removed(driver)
    assert account.calls()[8:] == [
        *("DescribeInstances", "TerminateInstances", "DescribeInstances"),
        *("DescribeSecurityGroups", "DeleteSecurityGroup", "DeleteKeyPair"),
    ]
    assert account.leftovers() == []


def test_one_call_for_two_hundred_machines(account: Ec2, bound: Bound) -> None:
    everyone = [bound(f"node{number}") for number in range(200)]
    for driver in everyone[:3]:
        _launched(account, driver.machine)
    before = len(account.calls())
    found = Aws.find_all(everyone)
    assert account.calls()[before:] == ["DescribeInstances"]
    assert [found[driver.machine.uid] is not None for driver in everyone] == [True] * 3 + [False] * 197


def _launched(account: Ec2, machine: Machine) -> None:
    """An instance with the marks of a machine."""
    tags = {"machinekit.uid": machine.uid, "machinekit.name": machine.name, "machinekit.store": machine.store}
    words = {"TagSpecification.1.ResourceType": "instance"}
    for number, (key, value) in enumerate(tags.items(), 1):
        words |= {f"TagSpecification.1.Tag.{number}.Key": key, f"TagSpecification.1.Tag.{number}.Value": value}
    launch(account.driver(), **words)


# --- what it asks for


def test_everything_carries_our_marks_and_the_users_tags_from_the_request_on(
    account: Ec2, bound: Bound, birth: Birth
) -> None:
    driver = bound(tags=("team=ci", "a,b"))
    driver.create(birth)
    tags = driver.marks() | {"Name": "node1", "team": "ci", "a": "b"}
    assert [
        thing["tags"] for kind in ("instances", "volumes", "key_pairs", "groups") for thing in account.state(kind)
    ] == [tags] * 4
    assert "CreateTags" not in account.calls()


def test_only_who_may_gets_in(account: Ec2, bound: Bound, birth: Birth) -> None:
    bound(allow=("198.51.100.0/24", "2001:db8::1")).create(birth)
    (group,) = account.state("groups")
    assert sorted(group["rules"]) == sorted(
        f"tcp {port}-{port} {network}" for port in (22, 2376) for network in ("198.51.100.0/24", "2001:db8::1/128")
    )


SWARM_PORTS = ("tcp 2377", "tcp 7946", "udp 7946", "udp 4789")


def test_peers_reach_the_ports_of_a_swarm_and_no_other(account: Ec2, bound: Bound, birth: Birth) -> None:
    driver = bound(peers=("10.0.0.1/16", "2001:db8::/64"))
    driver.check()
    driver.create(birth)
    assert driver.find()
    assert len(account.calls()) == 8, "not one more"
    (group,) = account.state("groups")
    assert sorted(group["rules"]) == sorted(
        [f"tcp {port}-{port} {HERE}" for port in (22, 2376)]
        + [
            f"{port}-{port.split()[1]} {network}"
            for port in SWARM_PORTS
            for network in ("10.0.0.0/16", "2001:db8::/64")
        ]
    )
    assert driver.remarks() == []
    assert bound(peers=("0.0.0.0/0",)).remarks() == ["the Swarm's ports can be reached from everywhere (0.0.0.0/0)"]


def test_rules_of_an_attempt_that_was_cut_off(account: Ec2, bound: Bound, birth: Birth) -> None:
    """This computer has another address since: of rules that are there in part EC2 takes none."""
    driver = bound(peers=("10.0.0.0/16",))
    assert isinstance(driver, Aws)
    driver.prepare(birth)
    driver.choice = dataclasses.replace(driver.choice, allowed=("198.51.100.1/32",))
    driver.create(birth)
    (group,) = account.state("groups")
    assert len(group["rules"]) == 2 + 2 + 4
    assert "tcp 22-22 198.51.100.1/32" in group["rules"]


def test_this_computers_address_is_found_out(account: Ec2, bound: Bound, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MACHINEKIT_ADDRESS_SERVICE", f"{account.url}/_caller")
    driver = bound(allow=())
    assert driver.choice.allowed == ("127.0.0.1/32",)  # type: ignore[attr-defined]
    assert driver.remarks() == ["only 127.0.0.1/32 may reach it; --aws-allow names others"]
    environment.setenv("MACHINEKIT_ADDRESS_SERVICE", "http://127.0.0.1:1/")
    with pytest.raises(PreCheckError, match="which address this computer has") as caught:
        bound(allow=()).check()
    assert "--aws-allow" in caught.value.hint


def test_the_world_is_let_in_only_when_that_is_written_out(bound: Bound) -> None:
    assert bound(allow=("0.0.0.0/0",)).remarks() == ["SSH and the engine can be reached from everywhere (0.0.0.0/0)"]


def test_a_group_of_the_users_own_stays_as_it_is(account: Ec2, bound: Bound, birth: Birth) -> None:
    account.driver().ex_create_security_group("mine", "mine")
    driver = bound(security_group=("mine",), allow=())
    driver.create(birth)
    (mine,) = account.state("groups")
    (instance,) = account.state("instances")
    assert (mine["name"], mine["rules"], instance["groups"]) == ("mine", [], [mine["id"]])
    removed(driver)
    assert account.leftovers() == [f"groups {mine['id']}"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (
            {},
            {
                "MetadataOptions.HttpTokens": "required",
                "MetadataOptions.HttpPutResponseHopLimit": "1",
                "NetworkInterface.1.AssociatePublicIpAddress": "true",
                "BlockDeviceMapping.1.Ebs.VolumeSize": "16",
                "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
                "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
                "BlockDeviceMapping.1.Ebs.Encrypted": None,
                "InstanceMarketOptions.MarketType": None,
            },
        ),
        (
            {"spot": True, "spot_price": "0.01"},
            {"InstanceMarketOptions.MarketType": "spot", "InstanceMarketOptions.SpotOptions.MaxPrice": "0.01"},
        ),
        (
            {"encrypt": True, "kms_key": "alias/mine", "root_size": 40, "volume_type": "io1"},
            {
                "BlockDeviceMapping.1.Ebs.Encrypted": "true",
                "BlockDeviceMapping.1.Ebs.KmsKeyId": "alias/mine",
                "BlockDeviceMapping.1.Ebs.VolumeSize": "40",
            },
        ),
        ({"iam_profile": "builder"}, {"IamInstanceProfile.Name": "builder"}),
        (
            {"iam_profile": "arn:aws:iam::1:instance-profile/b"},
            {"IamInstanceProfile.Arn": "arn:aws:iam::1:instance-profile/b"},
        ),
        ({"no_public_address": True}, {"NetworkInterface.1.AssociatePublicIpAddress": "false"}),
    ],
)
def test_the_request(
    account: Ec2, bound: Bound, birth: Birth, given: dict[str, Any], asked: dict[str, str | None]
) -> None:
    from machinekit.providers.awsimages import Ami
    from machinekit.providers.awslaunch import Offer, request
    from machinekit.providers.ec2 import flattened

    offer = Offer("t3.small", Ami("ami-1", "/dev/xvda", 8), "subnet-1", "us-east-1a", bool(given.get("spot")))
    options = bound(**given).options
    flat = flattened(request(options, offer, key_pair="k", groups=["sg-1"], tags={"a": "b"}, data=b"x"))
    assert {key: flat.get(key) for key in asked} == asked


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("debian", "debian-13-amd64-20251117-2299"),
        ("debian-12", "debian-12-amd64-20251112-2294"),
        ("ubuntu", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20251022"),
        ("ubuntu-22.04", "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20251015"),
        ("amazon-linux", "al2023-ami-2023.9.20251117.1-kernel-6.1-x86_64"),
    ],
)
def test_a_family_is_the_newest_of_its_publisher(account: Ec2, bound: Bound, family: str, name: str) -> None:
    image = bound(image=family).choice.images["x86_64"]  # type: ignore[attr-defined]
    (found,) = account.driver().list_images(ex_image_ids=[image.id])
    assert found.name == name


def test_an_instance_type_decides_the_architecture(bound: Bound) -> None:
    driver = bound(image="debian", instance_type=("t4g.small", "t3.small"))
    assert driver.choice.architectures == {"t4g.small": "arm64", "t3.small": "x86_64"}  # type: ignore[attr-defined]
    assert set(driver.choice.images) == {"arm64", "x86_64"}  # type: ignore[attr-defined]


def test_a_family_is_locked_to_its_image(account: Ec2, bound: Bound) -> None:
    driver = bound(image="debian")
    pinned = Aws.pinned(driver.options)
    assert pinned == {"image": driver.choice.images["x86_64"].id}  # type: ignore[attr-defined]
    assert Aws.pinned(dataclasses.replace(driver.options, **pinned)) == pinned
    with pytest.raises(PreCheckError, match="instance types of arm64 and x86_64 have no image in common"):
        Aws.pinned(bound(instance_type=("t4g.small", "t3.small")).options)


def test_types_and_markets_are_tried_in_order(account: Ec2, bound: Bound, birth: Birth) -> None:
    account.fill(("t3.small", "", ""), ("t3.medium", "", "spot"))
    driver = bound(instance_type=("t3.small", "t3.medium"), spot=True)
    driver.create(birth)
    (instance,) = account.state("instances")
    assert (instance["type"], instance["spot"]) == ("t3.medium", False)


def test_without_capacity_nothing_is_left(account: Ec2, bound: Bound, birth: Birth) -> None:
    account.fill(("", "", ""))
    driver = bound(instance_type=("t3.small", "t3.medium"), zone="a")
    with pytest.raises(PreCheckError, match=r"no capacity: t3\.small in us-east-1a: .*; t3\.medium in us-east-1a: "):
        driver.create(birth)
    assert (account.leftovers(), driver.machine.resources) == ([], [])


def test_user_data_that_is_too_long_is_packed_or_refused(account: Ec2, bound: Bound, birth: Birth) -> None:
    long = dataclasses.replace(birth, user_data=birth.user_data + "# a comment\n" * 2000)
    bound().create(long)
    (instance,) = account.state("instances")
    data = base64.b64decode(instance["asked"]["UserData"])
    assert gzip.decompress(data).decode() == long.user_data
    random = "".join(uuid.uuid4().hex for _ in range(2000))
    with pytest.raises(PreCheckError, match="EC2 takes 16384"):
        bound("node2").create(dataclasses.replace(birth, user_data=random))
    assert len(account.state("instances")) == len(account.state("groups")) == 1  # the first one's


# --- what cannot be had


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"region": "us-esat-1"}, "there is no region us-esat-1; did you mean us-"),
        ({"instance_type": ("t3.smal",)}, "there is no instance type t3.smal in us-east-1; did you mean t3.small?"),
        ({"image": "ami-0123456789abcdef0"}, "there is no image ami-0123456789abcdef0 in us-east-1"),
        ({"region": "cn-north-1"}, "no image of debian is published in cn-north-1"),
        ({"zone": "x"}, "there is no zone us-east-1x here; did you mean us-east-1"),
        ({"subnet": "subnet-1"}, "there is no subnet subnet-1 here"),
        ({"vpc": "vpc-1"}, "there is no VPC vpc-1 here"),
        ({"security_group": ("defalt",), "allow": ()}, "there is no security group defalt in vpc-"),
    ],
)
def test_what_the_region_has_not(account: Ec2, bound: Bound, given: dict[str, Any], said: str) -> None:
    with pytest.raises(PreCheckError) as caught:
        bound(**given).check()
    assert caught.value.message.startswith(said)
    assert account.leftovers() == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": "debain"}, "'debain' is no AMI and no family; did you mean debian?"),
        ({"allow": ("everybody",)}, "'everybody' is no address and no network"),
        ({"peers": ("10.0.0.0/33",)}, "--aws-peers: '10.0.0.0/33' is no address and no network such as 203.0.113.0/24"),
        ({"spot_price": "0.1"}, "--aws-spot-price and --aws-spot-only go with --aws-spot"),
        ({"kms_key": "k"}, "--aws-kms-key goes with --aws-encrypt"),
        ({"tags": ("a,b,c",)}, "'c' is a tag without a value"),
        ({"tags": ("machinekit.uid=1",)}, "is no tag of yours to give"),
        ({"region": "Frankfurt"}, "--aws-region"),
        ({"security_group": ("mine",)}, "--aws-allow goes with the group that machinekit makes"),
        (
            {"security_group": ("mine",), "allow": (), "peers": ("10.0.0.0/8",)},
            "--aws-peers goes with the group that machinekit makes, not with --aws-security-group",
        ),
    ],
)
def test_what_is_wrong_before_anybody_is_asked(account: Ec2, bound: Bound, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        bound(**given)
    assert said in caught.value.message
    assert account.calls() == []


def test_credentials(account: Ec2, bound: Bound, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(PreCheckError, match="no credentials for AWS") as caught:
        bound().check()
    assert "$AWS_ACCESS_KEY_ID" in caught.value.hint
    assert "~/.aws/credentials" in caught.value.hint
    (tmp_path / ".aws").mkdir()
    keys_of = f"aws_access_key_id={KEY}\naws_secret_access_key="
    (tmp_path / ".aws" / "credentials").write_text(f"[work]\n{keys_of}{SECRET}\n[wrong]\n{keys_of}another\n")
    (tmp_path / ".aws" / "config").write_text("[profile work]\nregion=eu-central-1\n")
    bound(profile="work").check()
    assert bound(profile="work", region="").options.region == "eu-central-1"
    with pytest.raises(PreCheckError, match="AuthFailure"):
        bound(profile="wrong").check()
    with pytest.raises(PreCheckError, match="homework"):
        bound(profile="homework").check()
    for process, said in (
        ("/no/such", "No such file"),
        ("echo s3cret", "Expecting value"),
        ("false", "custom-process"),
    ):
        (tmp_path / ".aws" / "credentials").write_text(f"[work]\ncredential_process={process}\n")
        with pytest.raises(PreCheckError, match=said) as caught:
            bound(profile="work").check()
        assert "s3cret" not in caught.value.message


def test_without_botocore(cli: Cli, store: Store, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MACHINEKIT_CONTAINER_ENGINE", "unix:///no/such.sock")
    environment.setenv("AWS_ACCESS_KEY_ID", KEY)
    for module in ("botocore", "botocore.session", "botocore.exceptions"):
        environment.setitem(sys.modules, module, None)
    for words in ((), ("--aws-region", "eu-central-1")):
        result = cli("create", "-d", "aws", *words, "node1")
        assert (result.code, store.names()) == (3, [])
        assert "driver aws needs botocore\n  pip install 'machinekit[aws]'" in result.err
    assert cli("gc").code == 0, "nothing of ours can be there"
    assert "ok      driver aws           not set up: driver aws needs botocore" in cli("doctor").out
    store.reserve(machine_of(AwsOptions(region="eu-central-1")))
    assert "driver aws needs botocore" in cli("ls").out
    assert "driver aws needs botocore" in (asked := cli("gc")).err, "a record says that something may be there"
    assert asked.code == 1


def test_a_quota_leaves_nothing(account: Ec2, bound: Bound, birth: Birth) -> None:
    account.refuse("RunInstances", "VcpuLimitExceeded", "You have requested more vCPU capacity than your limit of 5")
    driver = bound()
    with pytest.raises(PreCheckError, match="VcpuLimitExceeded") as caught:
        driver.create(birth)
    assert "machinekit gc" in caught.value.hint
    assert (account.leftovers(), driver.machine.resources) == ([], [])


def test_an_endpoint_that_is_not_there(bound: Bound, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(calls, "ARRIVAL", 0.1)
    for endpoint in ("http://127.0.0.1:1", "http://no.such.host.invalid"):
        with pytest.raises(PreCheckError, match="the endpoint cannot be reached"):
            bound(endpoint=endpoint).check()


def test_an_endpoint_with_a_bad_certificate(bound: Bound, certificates: Certificates) -> None:
    with (
        Server(encrypted(engine, certificates.context())) as server,
        pytest.raises(PreCheckError, match=r"certificate does not verify: .*self-signed"),
    ):
        bound(endpoint=f"https://127.0.0.1:{server.port}").check()


def test_the_command_line(account: Ec2, cli: Cli) -> None:
    """Docker Machine's names, and a refusal that leaves neither record nor resource."""
    line = "create -d amazonec2 --amazonec2-region us-east-1 --amazonec2-request-spot-instance=true --aws-allow ::1"
    result = cli(*line.split(), "--amazonec2-instance-type", "t9.nano", "node1")
    assert result.code == 3
    assert "there is no instance type t9.nano in us-east-1" in result.err
    assert cli("ls", "-q").out == ""
    account.fill(("", "", ""))
    result = cli(*line.split(), "node1")
    assert (result.code, account.leftovers()) == (3, [])
    assert "no capacity" in result.err
    assert cli("ls", "-q").out == ""


@pytest.fixture
def short(environment: pytest.MonkeyPatch) -> None:
    """A create ends when the instance has an address: there is no host behind it."""
    environment.setattr(converge, "steps", lambda work: (reach.find_address,))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", ["a" * 63, "web.example.com", "x"])
def test_any_name_of_a_machine_will_do(account: Ec2, cli: Cli, name: str) -> None:
    assert cli("create", "-d", "aws", "--aws-allow", "::1", name).code == 0
    assert cli("status", name).out == "Running\n"
    assert cli("rm", "-y", name).code == 0
    assert account.leftovers() == []


@pytest.mark.usefixtures("short")
def test_the_record_tells_where_the_machines_of_the_network_reach_it(account: Ec2, cli: Cli, store: Store) -> None:
    for name, more in (("outside", ()), ("inside", ("--aws-private-address",))):
        assert cli("create", "-d", "aws", "--aws-allow", "::1", *more, name).code == 0
    first, second = account.state("instances")
    outside, inside = (store.load(name) for name in ("outside", "inside"))
    assert (outside.address, outside.peer_address) == (first["public_address"], first["private_address"])
    assert (inside.address, inside.peer_address) == (second["private_address"], "")
    before = len(account.calls())
    assert cli("ls").code == 0
    assert len(account.calls()) - before <= 2


@pytest.mark.usefixtures("short")
def test_rm_of_what_is_gone_and_of_what_cannot_be_removed(account: Ec2, cli: Cli) -> None:
    cli("create", "-d", "aws", "--aws-allow", "::1", "node1")
    account.refuse("TerminateInstances", "UnauthorizedOperation")
    result = cli("rm", "-y", "node1")
    assert (result.code, cli("ls", "-q").out) == (1, "node1\n")
    assert "node1: cannot remove the instance: UnauthorizedOperation" in result.err
    (instance,) = account.state("instances")
    ask(account.driver(), "TerminateInstances", {"InstanceId.1": instance["id"]})
    assert cli("status", "node1").out == "Not Found\n"
    assert cli("rm", "-y", "node1").code == 0
    assert (account.leftovers(), cli("ls", "-q").out) == ([], "")


# --- what goes wrong


FAULTS: dict[str, Callable[[Ec2, str], None]] = {
    "throttled": lambda ec2, action: ec2.refuse(action, "RequestLimitExceeded", count=2),
    "failed": lambda ec2, action: ec2.refuse(action, "InternalError"),
    "lost": lambda ec2, action: ec2.lose(action),
    "gateway": lambda ec2, action: ec2.lose(action, gateway=True),
}
MAKING = (
    *("DescribeInstanceTypes", "DescribeImages", "DescribeSubnets", "ImportKeyPair", "CreateSecurityGroup"),
    *("AuthorizeSecurityGroupIngress", "RunInstances"),
)
REMOVING = ("DescribeInstances", "TerminateInstances", "DescribeSecurityGroups", "DeleteSecurityGroup", "DeleteKeyPair")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("action", [*MAKING, *REMOVING])
def test_what_passes_is_got_over(account: Ec2, bound: Bound, birth: Birth, action: str, fault: str) -> None:
    driver = bound()
    if action in MAKING:
        FAULTS[fault](account, action)
    driver.check()
    driver.create(birth)
    found = driver.find()
    assert found
    assert found.state is State.RUNNING
    assert len(account.state("instances")) == 1
    if action in REMOVING:
        FAULTS[fault](account, action)
    removed(driver)
    assert account.leftovers() == []


def test_a_call_that_hangs_ends_and_is_made_again(
    account: Ec2, bound: Bound, birth: Birth, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr("machinekit.providers.aws.TIMEOUT", 0.5)
    account.hang("RunInstances", 2)
    started = time.monotonic()
    bound().create(birth)
    assert time.monotonic() - started < 2
    assert len(account.state("instances")) == 1


def test_what_is_not_listed_yet_is_waited_for(account: Ec2, bound: Bound, birth: Birth) -> None:
    account.unlisted_for(0.6)
    driver = bound()
    driver.create(birth)
    assert driver.find()
    removed(driver)
    assert account.leftovers() == []


def test_a_twin_is_removed(account: Ec2, bound: Bound, birth: Birth) -> None:
    driver = bound()
    for _ in range(2):
        _launched(account, driver.machine)
    driver.plan("key pair", driver.label)  # type: ignore[attr-defined]
    driver.create(birth)
    assert sorted(instance["state"] for instance in account.state("instances")) == ["running", "terminated"]


def test_an_account_that_does_not_answer_keeps_the_record(account: Ec2, bound: Bound, birth: Birth) -> None:
    driver = bound()
    driver.create(birth)
    account.refuse("TerminateInstances", "UnauthorizedOperation")
    with pytest.raises(DriverError, match="cannot remove the instance: UnauthorizedOperation"):
        driver.destroy()
    assert Resource("key pair", driver.label) in driver.machine.resources  # type: ignore[attr-defined]


def test_a_group_is_removed_when_its_instance_has_gone(account: Ec2, bound: Bound, birth: Birth) -> None:
    account.take_time(shutting_down=0.5)
    driver = bound()
    driver.create(birth)
    removed(driver)
    assert account.leftovers() == []
    assert account.calls().count("DeleteSecurityGroup") > 1


def test_gc_and_doctor_tell_of_credentials_that_fail(account: Ec2, cli: Cli, environment: pytest.MonkeyPatch) -> None:
    """What was forgotten there would go on costing money."""
    environment.delenv("AWS_ACCESS_KEY_ID")
    assert cli("gc").code == 0
    home = Path(os.environ["HOME"])
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text("[default]\ncredential_process=/bin/false\n")
    result = cli("gc")
    assert result.code == 1
    assert result.err.startswith("machinekit: driver aws: no credentials for AWS: ")
    assert re.search(r"^warning +driver aws +no credentials for AWS", cli("doctor").out, re.MULTILINE)
