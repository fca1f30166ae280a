"""The request that makes an instance of Amazon EC2. Builder only.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .awsimages import Ami
from .awsoptions import AwsOptions
from .firewall import Door

USER_DATA = 16 * 1024  # bytes, the most that EC2 takes


@dataclass(frozen=True)
class Offer:
    """One way to have the instance."""

    instance_type: str
    image: Ami
    subnet: str
    zone: str
    spot: bool

    def __str__(self) -> str:
        return f"{self.instance_type} in {self.zone}{' as spot' if self.spot else ''}"


def request(
    options: AwsOptions, offer: Offer, *, key_pair: str, groups: Sequence[str], tags: Mapping[str, str], data: bytes
) -> dict[str, Any]:
    """RunInstances' parameters but for the token; everything that is made carries the `tags` from its first moment."""
    return {
        "ImageId": offer.image.id,
        "InstanceType": offer.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": key_pair,
        "UserData": base64.b64encode(data).decode(),
        "NetworkInterface": [
            {
                "DeviceIndex": 0,
                "SubnetId": offer.subnet,
                "SecurityGroupId": list(groups),
                "AssociatePublicIpAddress": not options.no_public_address,
                "DeleteOnTermination": True,
            }
        ],
        "BlockDeviceMapping": [{"DeviceName": offer.image.root, "Ebs": _disk(options, offer.image)}],
        # who asks for the user-data must be the instance itself: no container, no forwarded request
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
        "IamInstanceProfile": _profile(options.iam_profile),
        "InstanceMarketOptions": _market(options) if offer.spot else None,
        "TagSpecification": tagged(tags, "instance", "volume", "network-interface"),
    }


def tagged(tags: Mapping[str, str], *kinds: str) -> list[dict[str, Any]]:
    """The tags for each kind of thing that a request makes."""
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": kind, "Tag": pairs} for kind in kinds]


def ingress(doors: Sequence[Door]) -> list[dict[str, Any]]:
    """The rules of a security group with these doors."""
    return [
        {
            "IpProtocol": door.protocol,
            "FromPort": door.port,
            "ToPort": door.port,
            "IpRanges": [{"CidrIp": network} for network in door.networks if ":" not in network] or None,
            "Ipv6Ranges": [{"CidrIpv6": network} for network in door.networks if ":" in network] or None,
        }
        for door in doors
    ]


def _disk(options: AwsOptions, image: Ami) -> dict[str, Any]:
    disk = {"VolumeSize": max(options.root_size, image.size), "VolumeType": options.volume_type}
    encryption = {"Encrypted": True, "KmsKeyId": options.kms_key or None} if options.encrypt else {}
    return disk | {"DeleteOnTermination": True} | encryption


def _profile(name: str) -> dict[str, str] | None:
    return {"Arn" if name.startswith("arn:") else "Name": name} if name else None


def _market(options: AwsOptions) -> dict[str, Any]:
    return {
        "MarketType": "spot",
        "SpotOptions": {"MaxPrice": options.spot_price or None, "SpotInstanceType": "one-time"},
    }
