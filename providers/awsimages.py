"""The AMIs that publishers keep up to date, looked up in the region and never written down here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machinekit.errors import PreCheckError

from .calls import CloudError, Kind

if TYPE_CHECKING:
    from .account import Api

DEBIAN = {"aws": "136693071363"}  # https://wiki.debian.org/Cloud/AmazonEC2Image
UBUNTU = {  # https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
    "aws": "099720109477",
    "aws-cn": "837727238323",
    "aws-us-gov": "513442679011",
}
AMAZON = dict.fromkeys(("aws", "aws-cn", "aws-us-gov"), "amazon")
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}  # and what Debian and Ubuntu say


@dataclass(frozen=True)
class Family:
    """Who publishes images, in each partition of AWS, and how they are called."""

    owners: Mapping[str, str]
    name: str


_DEBIAN_12 = Family(DEBIAN, "debian-12-{debian}-*")
_DEBIAN_13 = Family(DEBIAN, "debian-13-{debian}-*")
_UBUNTU_22 = Family(UBUNTU, "ubuntu/images/hvm-ssd*/ubuntu-jammy-22.04-{debian}-server-*")
_UBUNTU_24 = Family(UBUNTU, "ubuntu/images/hvm-ssd*/ubuntu-noble-24.04-{debian}-server-*")
_AMAZON_2023 = Family(AMAZON, "al2023-ami-2023.*-kernel-*-{architecture}")
FAMILIES = {
    "debian": _DEBIAN_13,
    "debian-12": _DEBIAN_12,
    "debian-13": _DEBIAN_13,
    "ubuntu": _UBUNTU_24,
    "ubuntu-22.04": _UBUNTU_22,
    "ubuntu-24.04": _UBUNTU_24,
    "amazon-linux": _AMAZON_2023,
    "amazon-linux-2023": _AMAZON_2023,
}


@dataclass(frozen=True)
class Ami:
    """An image: its root device's name, and the least size of it in GB."""

    id: str
    root: str
    size: int


def find(api: Api, image: str, region: str, architectures: Sequence[str]) -> dict[str, Ami]:
    """The image for each architecture, in one call; raises PreCheckError for one that is not there."""
    wanted = {"ImageId": [image]} if image.startswith("ami-") else _newest(image, region, architectures)
    try:
        answer = api.call("find the image", api.driver.ask, "DescribeImages", **wanted)
    except CloudError as error:
        if error.kind is not Kind.NOT_FOUND and "InvalidAMIID" not in error.message:
            raise
        raise PreCheckError(f"there is no image {image} in {region}", "an AMI is of one region alone") from None
    found = _by_architecture(answer)
    if missing := [architecture for architecture in architectures if architecture not in found]:
        what = f"{image} is for {', '.join(found)}" if found else f"there is no image {image} in {region}"
        raise PreCheckError(
            f"{what}, and the instance type needs {', '.join(missing)}",
            "give another --aws-image or --aws-instance-type",
        )
    return found


def _newest(family: str, region: str, architectures: Sequence[str]) -> dict[str, object]:
    from .ec2 import filtered

    known = FAMILIES[family]
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    if partition not in known.owners:
        raise PreCheckError(f"no image of {family} is published in {region}", "give an AMI with --aws-image")
    names = [known.name.format(debian=ARCHITECTURES.get(each, each), architecture=each) for each in architectures]
    filters = {"name": names, "state": ["available"], "virtualization-type": ["hvm"], "root-device-type": ["ebs"]}
    return {"Owner": [known.owners[partition]], "Filter": filtered(filters)}


def _by_architecture(answer: object) -> dict[str, Ami]:
    """The newest of each, by the date of its making."""
    from .ec2 import items, text

    found: dict[str, tuple[str, Ami]] = {}
    for item in items(answer, "imagesSet/item"):  # type: ignore[arg-type]
        root = text(item, "rootDeviceName")
        sizes = [
            int(text(disk, "ebs/volumeSize") or 0)
            for disk in items(item, "blockDeviceMapping/item")
            if text(disk, "deviceName") == root
        ]
        made, ami = text(item, "creationDate"), Ami(text(item, "imageId"), root, max(sizes, default=0))
        architecture = text(item, "architecture")
        if architecture not in found or made > found[architecture][0]:
            found[architecture] = (made, ami)
    return {architecture: ami for architecture, (_, ami) in found.items()}
