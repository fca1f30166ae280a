"""Where in AWS: credentials, regions, types, subnets and groups, and what to say of those that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machinekit.errors import NotSetUpError, PreCheckError, nearest

from .calls import CloudError

if TYPE_CHECKING:
    from .account import Api

HOME = "us-east-1"  # where one lands without a region, as with Docker Machine
ADVICE = (
    "looked for in $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, the profile (--aws-profile, $AWS_PROFILE) in "
    "~/.aws/credentials and ~/.aws/config (keys, credential_process, roles, SSO), and the instance's own role"
)


@dataclass(frozen=True)
class Subnet:
    """Where an instance can be put."""

    id: str
    vpc: str
    zone: str
    cidr: str
    free: int


def credentials(profile: str) -> tuple[str, str, str | None]:
    """Key, secret and session token from AWS's own chain; raises PreCheckError where there are none."""
    session = _session(profile)
    from botocore.exceptions import BotoCoreError

    try:
        found = session.get_credentials()
        frozen = found.get_frozen_credentials() if found else None
    except (BotoCoreError, OSError, ValueError) as error:  # the latter of a credential_process and what it prints
        raise PreCheckError(f"no credentials for AWS: {error}", ADVICE) from None
    if not frozen or not frozen.access_key:
        raise NotSetUpError("no credentials for AWS", ADVICE)
    return frozen.access_key, frozen.secret_key, frozen.token


def default_region(profile: str) -> str:
    """The profile's region; raises ValueError for a profile that is not there."""
    session = _session(profile)
    from botocore.exceptions import BotoCoreError

    try:
        return session.get_config_variable("region") or HOME
    except BotoCoreError as error:
        raise ValueError(str(error)) from None


def _session(profile: str) -> Any:
    try:
        import botocore.session
    except ImportError:
        raise NotSetUpError("driver aws needs botocore", "pip install 'machinekit[aws]'") from None
    return botocore.session.Session(profile=profile or None)


def check_region(api: Api, region: str) -> None:
    """Raise PreCheckError for a region that AWS has not; one call, and only for one that nobody here has heard of."""
    from . import ec2

    known = ec2.regions()
    if region in known:
        return
    try:
        answer = api.call("list the regions", api.driver.elsewhere(HOME).ask, "DescribeRegions", AllRegions=True)
        known = [ec2.text(item, "regionName") for item in ec2.items(answer, "regionInfo/item")]
    except CloudError:
        pass  # the nearest that we know is still better than none
    if region not in known:
        there = ", ".join(sorted(known))
        raise PreCheckError(f"there is no region {region}{nearest(region, known)}", f"regions: {there}")


def architectures(api: Api, types: Sequence[str]) -> dict[str, str]:
    """Each instance type's architecture; raises PreCheckError for a type that the region has not."""
    from .ec2 import items, text

    try:
        answer = api.call("find the instance type", api.driver.ask, "DescribeInstanceTypes", InstanceType=list(types))
    except CloudError as error:
        if "InvalidInstanceType" not in error.message:
            raise
        answer = None
    found = (
        {}
        if answer is None
        else {
            text(item, "instanceType"): text(item, "processorInfo/supportedArchitectures/item[last()]")
            for item in items(answer, "instanceTypeSet/item")
        }
    )
    if missing := [kind for kind in types if kind not in found]:
        raise PreCheckError(
            f"there is no instance type {missing[0]} in {api.driver.region_name}{nearest(missing[0], _offered(api))}",
            "https://aws.amazon.com/ec2/instance-types/ has them all",
        )
    return found


def _offered(api: Api) -> list[str]:
    """Every instance type of the region."""
    from .ec2 import items, text

    offered: list[str] = []
    page: dict[str, str] = {}
    while True:
        answer = api.call("list the instance types", api.driver.ask, "DescribeInstanceTypeOfferings", **page)
        offered += [text(item, "instanceType") for item in items(answer, "instanceTypeOfferingSet/item")]
        if not (token := text(answer, "nextToken")):
            return offered
        page = {"NextToken": token}


def subnets(api: Api, vpc: str, subnet: str, zone: str, region: str) -> tuple[Subnet, ...]:
    """The subnets to try, the one with most addresses first, one of each zone; raises PreCheckError for none."""
    from .ec2 import filtered, items, text

    full_zone = f"{region}{zone}" if len(zone) == 1 else zone
    filters = {
        "subnet-id": [subnet] if subnet else [],
        "vpc-id": [vpc] if vpc else [],
        "availability-zone": [full_zone] if zone else [],
        "default-for-az": ["true"] if not (subnet or vpc) else [],
    }
    wanted = filtered({name: values for name, values in filters.items() if values})
    answer = api.call("find the subnet", api.driver.ask, "DescribeSubnets", Filter=wanted)
    found = [
        Subnet(
            text(item, "subnetId"),
            text(item, "vpcId"),
            text(item, "availabilityZone"),
            text(item, "cidrBlock"),
            int(text(item, "availableIpAddressCount") or 0),
        )
        for item in items(answer, "subnetSet/item")
    ]
    if not found:
        raise _no_subnet(api, vpc, subnet, full_zone)
    by_zone: dict[str, Subnet] = {}
    for each in sorted(found, key=lambda each: -each.free):
        by_zone.setdefault(each.zone, each)
    return tuple(by_zone.values())


def _no_subnet(api: Api, vpc: str, subnet: str, zone: str) -> PreCheckError:
    from .ec2 import items, text

    answer = api.call("list the subnets", api.driver.ask, "DescribeSubnets")
    there = [
        (text(item, "subnetId"), text(item, "vpcId"), text(item, "availabilityZone"))
        for item in items(answer, "subnetSet/item")
    ]
    for name, wanted, column in (("subnet", subnet, 0), ("VPC", vpc, 1), ("zone", zone, 2)):
        known = sorted({row[column] for row in there})
        if wanted and wanted not in known:
            return PreCheckError(
                f"there is no {name} {wanted} here{nearest(wanted, known)}", f"there are: {', '.join(known) or 'none'}"
            )
    what = " ".join(filter(None, [subnet, vpc and f"in {vpc}", zone and f"in {zone}"]))
    return PreCheckError(
        f"there is no {'subnet' if what else 'default subnet'} {what}".rstrip(), "name one with --aws-subnet"
    )


def groups(api: Api, names: Sequence[str], vpc: str) -> tuple[str, ...]:
    """The ids of the user's own groups, by id or name in the VPC; raises PreCheckError for one that is not there."""
    from .ec2 import filtered, items, text

    if not names:
        return ()
    wanted = filtered({"vpc-id": [vpc]})
    answer = api.call("find the security groups", api.driver.ask, "DescribeSecurityGroups", Filter=wanted)
    ids = {text(item, "groupName"): text(item, "groupId") for item in items(answer, "securityGroupInfo/item")}
    if missing := [name for name in names if name not in ids and name not in ids.values()]:
        raise PreCheckError(
            f"there is no security group {missing[0]} in {vpc}{nearest(missing[0], [*ids, *ids.values()])}",
            f"there are: {', '.join(sorted(ids))}",
        )
    return tuple(ids.get(name, name) for name in names)
