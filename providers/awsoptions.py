"""What can be asked for of an instance of Amazon EC2."""

from __future__ import annotations

from dataclasses import dataclass

from machinekit.errors import nearest
from machinekit.provider import absolute, option

from . import awsimages, awsplaces, firewall
from .account import CloudOptions
from .calls import ENDPOINT_RULES

ALLOW = "--aws-allow"
PEERS = "--aws-peers"


def tagged(words: tuple[str, ...]) -> tuple[str, ...]:
    """Tags as KEY=VALUE; Docker Machine's lists of keys and values in turn are taken too. Raises ValueError."""
    words = tuple(piece for word in words for piece in ([word] if "=" in word else word.split(",")) if piece)
    plain = [word for word in words if "=" not in word]
    if len(plain) % 2:
        raise ValueError(f"{plain[-1]!r} is a tag without a value: write KEY=VALUE")
    pairs = [word for word in words if "=" in word]
    pairs += [f"{key}={value}" for key, value in zip(plain[::2], plain[1::2], strict=True)]
    if bad := next((pair for pair in pairs if pair.startswith(("=", "aws:", "machinekit."))), ""):
        raise ValueError(f"{bad!r} is no tag of yours to give")
    return tuple(pairs)


@dataclass
class AwsOptions(CloudOptions):
    """Which account and region, and the shape of the instance."""

    user_data: str = option(
        "file with user-data of your own, which is merged with ours",
        default="",
        aliases=("AWS_USERDATA",),
        flags=("--amazonec2-userdata",),
        check=absolute,
    )
    region: str = option(
        "region",
        default="",
        aliases=("AWS_REGION", "AWS_DEFAULT_REGION"),
        flags=("--amazonec2-region",),
        pattern=r"^([a-z]{2}(-[a-z]+)+-[0-9]+)?$",
    )
    profile: str = option("profile of ~/.aws with the credentials", default="", aliases=("AWS_PROFILE",))
    image: str = option(
        f"AMI, or the newest of a family: {', '.join(awsimages.FAMILIES)}",
        default="debian",
        aliases=("AWS_AMI",),
        flags=("--amazonec2-ami",),
    )
    instance_type: tuple[str, ...] = option(
        "instance type; the next one counts where there is no capacity",
        default=("t3.small",),
        aliases=("AWS_INSTANCE_TYPE",),
        flags=("--amazonec2-instance-type",),
        min_length=1,
    )
    spot: bool = option(
        "take spare capacity, which AWS may take back", default=False, flags=("--amazonec2-request-spot-instance",)
    )
    spot_price: str = option(
        "the most to pay for it an hour, in dollars; empty for the price on demand",
        default="",
        flags=("--amazonec2-spot-price",),
        pattern=r"^([0-9]+(\.[0-9]+)?)?$",
    )
    spot_only: bool = option("rather no machine than one on demand", default=False)
    vpc: str = option(
        "VPC; empty for the default one", default="", aliases=("AWS_VPC_ID",), flags=("--amazonec2-vpc-id",)
    )
    subnet: str = option("subnet", default="", aliases=("AWS_SUBNET_ID",), flags=("--amazonec2-subnet-id",))
    zone: str = option(
        "availability zone, such as a; empty for any", default="", aliases=("AWS_ZONE",), flags=("--amazonec2-zone",)
    )
    private_address: bool = option(
        "connect to the private address", default=False, flags=("--amazonec2-use-private-address",)
    )
    no_public_address: bool = option(
        "have no public address", default=False, flags=("--amazonec2-private-address-only",)
    )
    allow: tuple[str, ...] = option(
        "address or network that may reach SSH and the engine; this computer's alone without one",
        default=(),
        check=firewall.networks,
    )
    peers: tuple[str, ...] = firewall.peers()
    security_group: tuple[str, ...] = option(
        "group of your own instead of one that machinekit makes; it stays as it is",
        default=(),
        aliases=("AWS_SECURITY_GROUP",),
        flags=("--amazonec2-security-group",),
    )
    root_size: int = option(
        "size of the disk in GB",
        default=16,
        aliases=("AWS_ROOT_SIZE",),
        flags=("--amazonec2-root-size",),
        ge=1,
        le=16384,
    )
    volume_type: str = option(
        "type of the disk", default="gp3", aliases=("AWS_VOLUME_TYPE",), flags=("--amazonec2-volume-type",)
    )
    encrypt: bool = option("encrypt the disk", default=False)
    kms_key: str = option("key to encrypt it with, instead of the account's own", default="")
    iam_profile: str = option(
        "instance profile, by name or ARN",
        default="",
        aliases=("AWS_INSTANCE_PROFILE",),
        flags=("--amazonec2-iam-instance-profile",),
    )
    tags: tuple[str, ...] = option(
        "tag KEY=VALUE for all that is made",
        default=(),
        aliases=("AWS_TAGS",),
        flags=("--aws-tag", "--amazonec2-tags"),
        check=tagged,
    )
    endpoint: str = option(
        "URL of another endpoint",
        default="",
        aliases=("AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        flags=("--amazonec2-endpoint",),
        **ENDPOINT_RULES,
    )

    def check(self) -> None:
        """What does not fit together; the region is the profile's where none is given."""
        if (self.spot_price or self.spot_only) and not self.spot:
            raise ValueError("--aws-spot-price and --aws-spot-only go with --aws-spot")
        if self.kms_key and not self.encrypt:
            raise ValueError("--aws-kms-key goes with --aws-encrypt")
        firewall.check_groups(self.security_group, "--aws-security-group", {ALLOW: self.allow, PEERS: self.peers})
        if not self.image.startswith("ami-") and self.image not in awsimages.FAMILIES:
            raise ValueError(f"{self.image!r} is no AMI and no family{nearest(self.image, awsimages.FAMILIES)}")
        self.region = self.region or awsplaces.default_region(self.profile)
