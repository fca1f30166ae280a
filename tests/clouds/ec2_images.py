"""The images of an EC2 region: what the publishers of three families have there, and what only looks like it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models.amis import Ami

DEBIAN = "136693071363"  # https://wiki.debian.org/Cloud/AmazonEC2Image
UBUNTU = "099720109477"  # https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
AMAZON = "137112412989"
STRANGER = "210987654321"
AVAILABLE, FAILED, DEPRECATED = "available", "failed", "deprecated"

# Names have {amd} where Debian and Ubuntu say amd64, and {x86} where Amazon says x86_64.
_DEBIAN = "debian-12-{amd}-", "debian-13-{amd}-"
_JAMMY = "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{amd}-server-"
_NOBLE = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{amd}-server-"
_AL2023 = "al2023-ami-{}-kernel-6.1-{{x86}}"
_IMAGES = (
    (DEBIAN, _DEBIAN[0] + "20250814-2204", "2025-08-14", AVAILABLE),
    (DEBIAN, _DEBIAN[0] + "20251112-2294", "2025-11-12", AVAILABLE),
    (DEBIAN, _DEBIAN[1] + "20250814-2204", "2025-08-14", AVAILABLE),
    (DEBIAN, _DEBIAN[1] + "20251117-2299", "2025-11-17", AVAILABLE),
    (UBUNTU, _JAMMY + "20250712", "2025-07-12", AVAILABLE),
    (UBUNTU, _JAMMY + "20251015", "2025-10-15", AVAILABLE),
    (UBUNTU, _NOBLE + "20250805", "2025-08-05", AVAILABLE),
    (UBUNTU, _NOBLE + "20251022", "2025-10-22", AVAILABLE),
    (AMAZON, _AL2023.format("2023.8.20250818.0"), "2025-08-18", AVAILABLE),
    (AMAZON, _AL2023.format("2023.9.20251117.1"), "2025-11-17", AVAILABLE),
    # newer than the right one, and not it
    (STRANGER, _DEBIAN[0] + "20251112-2294", "2025-11-20", AVAILABLE),
    (STRANGER, _NOBLE + "20251022", "2025-11-20", AVAILABLE),
    (STRANGER, _AL2023.format("2023.9.20251120.0"), "2025-11-20", AVAILABLE),
    (DEBIAN, "debian-12-backports-{amd}-20251118-2300", "2025-11-18", AVAILABLE),
    (DEBIAN, _DEBIAN[1] + "20251119-2301", "2025-11-19", FAILED),
    (UBUNTU, "ubuntu/images-testing/hvm-ssd-gp3/ubuntu-noble-daily-{amd}-server-20251120", "2025-11-20", AVAILABLE),
    (UBUNTU, "ubuntu-minimal/images/hvm-ssd-gp3/ubuntu-noble-24.04-{amd}-minimal-20251119", "2025-11-19", AVAILABLE),
    (AMAZON, "al2023-ami-minimal-2023.9.20251117.1-kernel-6.1-{x86}", "2025-11-18", AVAILABLE),
    (AMAZON, "al2023-ami-ecs-hvm-2023.0.20251118-kernel-6.1-{x86}", "2025-11-18", AVAILABLE),
    # withdrawn: as new as the right one
    (UBUNTU, _JAMMY + "20251101", "2025-11-01", DEPRECATED),
)


class Image(Ami):
    """An image with a root disk as its publishers make it."""

    deprecation_time: datetime | None = None

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """What an instance gets unless it asks for something else."""
        disk = {"SnapshotId": self.ebs_snapshot.id, "VolumeSize": 8, "VolumeType": "gp3", "DeleteOnTermination": True}
        return [{"DeviceName": self.root_device_name, "Ebs": disk | {"Encrypted": False}}]


def images(backend: Any) -> list[Image]:
    """Every image of a region; each region has its own ids for them."""
    return [
        _image(backend, owner, name.format(amd=debian, x86=machine), machine, date, state)
        for owner, name, date, state in _IMAGES
        for debian, machine in (("amd64", "x86_64"), ("arm64", "arm64"))
    ]


def _image(backend: Any, owner: str, name: str, machine: str, date: str, state: str) -> Image:
    region: str = backend.region_name
    made = datetime.fromisoformat(f"{date}T12:00:00").replace(tzinfo=UTC)
    image = Image(
        backend,
        f"ami-{hashlib.sha256(f'{region} {owner} {name}'.encode()).hexdigest()[:17]}",
        name=name,
        description=name,
        owner_id=owner,
        owner_alias="amazon" if owner == AMAZON else None,
        public=True,
        virtualization_type="hvm",
        hypervisor="xen",
        architecture=machine,
        state=FAILED if state == FAILED else AVAILABLE,
        creation_date=made,
        root_device_type="ebs",
        root_device_name="/dev/sda1" if owner == UBUNTU else "/dev/xvda",
        region_name=f"{region}a",
    )
    if state == DEPRECATED:
        image.deprecation_time = made
    return image
