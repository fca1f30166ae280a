"""What can be asked for of a server of an OpenStack."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from machinekit.errors import PreCheckError
from machinekit.provider import absolute, option

from . import firewall, openstacklogin
from .account import CloudOptions

ALLOW = "--openstack-allow"
PEERS = "--openstack-peers"


def separated(texts: tuple[str, ...]) -> tuple[str, ...]:
    """An option's check: Docker Machine has several in one, with commas."""
    return tuple(dict.fromkeys(word.strip() for text in texts for word in text.split(",") if word.strip()))


@dataclass
class OpenStackOptions(CloudOptions):
    """Which account, project and region, and the shape of the server."""

    cloud: str = option("cloud of clouds.yaml", default="", aliases=("OS_CLOUD",))
    region: str = option("region; may be left out where there is one", default="", aliases=("OS_REGION_NAME",))
    auth_url: str = option("URL of Keystone, where the credentials do not say it", default="")
    project: str = option(
        "project, by name or id, where the credentials do not say it",
        default="",
        flags=("--openstack-tenant-name", "--openstack-tenant-id"),
    )
    image: str = option(
        "image, by name or id",
        default="",
        aliases=("OS_IMAGE_NAME", "OS_IMAGE_ID"),
        flags=("--openstack-image-name", "--openstack-image-id"),
    )
    flavor: str = option(
        "size, by name or id",
        default="",
        aliases=("OS_FLAVOR_NAME", "OS_FLAVOR_ID"),
        flags=("--openstack-flavor-name", "--openstack-flavor-id"),
    )
    network: str = option(
        "network, by name or id; may be left out where there is one",
        default="",
        aliases=("OS_NETWORK_NAME", "OS_NETWORK_ID"),
        flags=("--openstack-net-name", "--openstack-net-id"),
    )
    floating_ip_pool: str = option(
        "external network to take a floating IP from, by name or id",
        default="",
        aliases=("OS_FLOATINGIP_POOL",),
        flags=("--openstack-floatingip-pool",),
    )
    ip_version: Literal["4", "6"] = option("which of its addresses counts", default="4", aliases=("OS_IP_VERSION",))
    allow: tuple[str, ...] = option(
        "address or network that may reach SSH and the engine; this computer's alone without one",
        default=(),
        check=firewall.networks,
    )
    peers: tuple[str, ...] = firewall.peers()
    security_group: tuple[str, ...] = option(
        "group of your own, by name or id, instead of one that machinekit makes; it stays as it is",
        default=(),
        aliases=("OS_SECURITY_GROUPS",),
        flags=("--openstack-sec-groups",),
        check=separated,
    )
    availability_zone: str = option("availability zone", default="", aliases=("OS_AVAILABILITY_ZONE",))
    server_group: str = option("server group, by name or id, whose policy tells the host", default="")
    volume_size: int = option(
        "boot from a volume of that many GB, which goes with the machine; 0 for the flavor's own disk",
        default=0,
        ge=0,
        le=16384,
    )
    config_drive: bool = option(
        "hand user-data over on a drive; without one the cloud needs its metadata service",
        default=True,
        aliases=("OS_CONFIG_DRIVE",),
    )
    user_data: str = option(
        "file with user-data of your own, which is merged with ours",
        default="",
        aliases=("OS_USER_DATA_FILE",),
        flags=("--openstack-user-data-file",),
        check=absolute,
    )

    def check(self) -> None:
        """What does not fit together; account and region are kept, so that no other one is taken for them later."""
        firewall.check_groups(self.security_group, "--openstack-security-group", {ALLOW: self.allow, PEERS: self.peers})
        with suppress(PreCheckError):  # the driver's own check tells
            for field, value in openstacklogin.account(self.cloud, self.region).items():
                setattr(self, field, getattr(self, field) or value)
