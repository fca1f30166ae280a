"""What EC2 checks and fills in before it launches an instance, and moto does not."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from tests.clouds.ec2_moto import PROFILE, Parameters, Refusal

USER_DATA = 16384  # bytes, before base64
NO_CAPACITY = "We currently do not have sufficient {} capacity in the Availability Zone you requested ({})."
DISK = {"VolumeSize": "8", "VolumeType": "gp3", "DeleteOnTermination": "true"}  # as the images have it

Full = Sequence[tuple[str, str, str]]  # type, zone, market; "" is any


def filled(backend: Any, given: Parameters, full: Full) -> Parameters:
    """The parameters with EC2's defaults for the network and the root disk; raises Refusal where EC2 would."""
    (image,) = backend.describe_images(ami_ids=[given.get("ImageId", "")])
    if image.state != "available":
        raise Refusal("InvalidAMIID.Unavailable", f"The image id '[{image.id}]' is no longer available")
    _check_type(given.get("InstanceType", "m1.small"), image.architecture)
    _check_user_data(given.get("UserData", ""))
    if (key := given.get("KeyName")) and key not in backend.key_pairs:
        raise Refusal("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
    if (profile := given.get("IamInstanceProfile.Name", PROFILE)) != PROFILE:
        text = f"Value ({profile}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
        raise Refusal("InvalidParameterValue", text)
    return _root_disk(given, image.root_device_name) | _network(backend, given, full) | given


def settle_in(instance: Any, given: Parameters) -> None:
    """Let an instance's interfaces go with it and have their tags, and its groups be known as its own."""
    for nic in instance.nics.values():
        nic.delete_on_termination = True
        nic.add_tags(_tags(given, "network-interface"))
        instance.security_groups = instance.security_groups or list(nic.group_set)


def let_go(instance: Any) -> None:
    """Let it be terminated again, which moto would refuse for the interfaces that went with it."""
    for nic in instance.nics.values():
        nic.delete_on_termination = False


def _tags(given: Parameters, kind: str) -> Parameters:
    """What a create request says for one kind of resource."""
    (part, *_) = [key.removesuffix("ResourceType") for key, value in given.items() if value == kind] or [""]
    keys = [key for key in given if part and key.startswith(part) and key.endswith(".Key")]
    return {given[key]: given.get(f"{key.removesuffix('Key')}Value", "") for key in keys}


def _check_type(wanted: str, architecture: str) -> None:
    about = INSTANCE_TYPES.get(wanted)
    if about is None:
        raise Refusal("InvalidParameterValue", f"Invalid value '{wanted}' for InstanceType.")
    has = about["ProcessorInfo"]["SupportedArchitectures"]
    if architecture not in has:
        text = f"The architecture '{','.join(has)}' of the specified instance type does not match the architecture "
        raise Refusal("InvalidParameterValue", f"{text}'{architecture}' of the specified AMI.")


def _check_user_data(text: str) -> None:
    try:
        user_data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refusal("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if len(user_data) > USER_DATA:
        raise Refusal("InvalidParameterValue", f"User data is limited to {USER_DATA} bytes")


def _root_disk(given: Parameters, name: str) -> Parameters:
    """The root disk as the image has it, for what is not said of it."""
    names = {key.split(".")[1]: value for key, value in given.items() if key.endswith(".DeviceName")}
    number = next((number for number, value in names.items() if value == name), str(len(names) + 1))
    disk = f"BlockDeviceMapping.{number}"
    size = given.get(f"{disk}.Ebs.VolumeSize", DISK["VolumeSize"])
    if int(size) < int(DISK["VolumeSize"]):
        text = f"Volume of size {size}GB is smaller than snapshot, expect size >= {DISK['VolumeSize']}GB"
        raise Refusal("InvalidBlockDeviceMapping", text)
    return {f"{disk}.DeviceName": name} | {f"{disk}.Ebs.{key}": value for key, value in DISK.items()}


def _network(backend: Any, given: Parameters, full: Full) -> Parameters:
    """The default subnet of a zone that can have it, unless a subnet was given."""
    place = "SubnetId"
    if "NetworkInterface.1.DeviceIndex" in given:
        if any(key.startswith(("SubnetId", "SecurityGroup")) for key in given):
            text = "Network interfaces and an instance-level subnet ID or security groups may not be specified together"
            raise Refusal("InvalidParameterCombination", text)
        place = "NetworkInterface.1.SubnetId"
    defaults = {zone: subnet.id for zone, subnet in sorted(backend.get_default_subnets().items())}
    if place in given:
        defaults = {backend.get_subnet(given[place]).availability_zone: given[place]}
    elif wanted := given.get("Placement.AvailabilityZone"):
        if wanted not in defaults:
            raise Refusal("InvalidParameterValue", f"Invalid availability zone: [{wanted}]")
        defaults = {wanted: defaults[wanted]}
    return {place: defaults[_zone(backend.region_name, list(defaults), given, full)]}


def _zone(region: str, zones: list[str], given: Parameters, full: Full) -> str:
    """The first of the zones that has the type, and room for it."""
    wanted, market = given.get("InstanceType", "m1.small"), given.get("InstanceMarketOptions.MarketType", "on-demand")
    offers = INSTANCE_TYPE_OFFERINGS["availability-zone"][region]
    has = {offer["Location"] for offer in offers if offer["InstanceType"] == wanted}
    offering = [zone for zone in zones if zone in has]
    if not offering:
        text = f"Your requested instance type ({wanted}) is not supported in your requested Availability Zone"
        raise Refusal("Unsupported", f"{text} ({', '.join(zones)}).")
    for zone in offering:
        asked = (wanted, zone, market)
        if not any(all(part in ("", own) for part, own in zip(lack, asked, strict=True)) for lack in full):
            return zone
    raise Refusal("InsufficientInstanceCapacity", NO_CAPACITY.format(wanted, ", ".join(offering)), 500)
