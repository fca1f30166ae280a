"""The requests that make a server of an OpenStack and open it. Builders only.

https://docs.openstack.org/api-ref/compute/#create-server and https://docs.openstack.org/api-ref/network/v2/
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .firewall import Door
from .openstackoptions import OpenStackOptions

USER_DATA = 65535 // 4 * 3  # bytes, the most that Nova takes: it counts them as base64


@dataclass(frozen=True)
class Choice:
    """What was looked up, by id. `groups` are the user's own; without any, one is made that lets `allowed` in."""

    image: str
    flavor: str
    network: str
    pool: str
    groups: tuple[str, ...]
    allowed: tuple[str, ...]
    zone: str
    server_group: str


def request(
    options: OpenStackOptions,
    choice: Choice,
    *,
    name: str,
    groups: Sequence[str],
    marks: Mapping[str, str],
    data: bytes,
) -> dict[str, Any]:
    """The body of the request for the server, which carries the marks from its first moment."""
    server: dict[str, Any] = {
        "name": name,
        "flavorRef": choice.flavor,
        "metadata": dict(marks),
        "user_data": base64.b64encode(data).decode(),
        "networks": [{"uuid": choice.network}],
        "security_groups": [{"name": group} for group in groups],  # Nova takes an id for a name
        "config_drive": options.config_drive,
    }
    if choice.zone:
        server["availability_zone"] = choice.zone
    if options.volume_size:
        server["block_device_mapping_v2"] = [
            {
                "boot_index": 0,
                "uuid": choice.image,
                "source_type": "image",
                "destination_type": "volume",
                "volume_size": options.volume_size,
                "delete_on_termination": True,
            }
        ]
    else:
        server["imageRef"] = choice.image
    hints = {"os:scheduler_hints": {"group": choice.server_group}} if choice.server_group else {}
    return {"server": server} | hints


def rules(group: str, doors: Sequence[Door]) -> list[dict[str, Any]]:
    """The rules of a security group with these doors."""
    return [
        {
            "security_group_id": group,
            "direction": "ingress",
            "ethertype": "IPv6" if ":" in network else "IPv4",
            "protocol": door.protocol,
            "port_range_min": door.port,
            "port_range_max": door.port,
            "remote_ip_prefix": network,
        }
        for door in doors
        for network in door.networks
    ]


def told(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a rule of a group from the others."""
    return rule["protocol"], rule["port_range_min"], rule["remote_ip_prefix"]


def described(marks: Mapping[str, str]) -> str:
    """The marks as the description of what has no metadata."""
    return " ".join(f"{key}={value}" for key, value in marks.items())


def marks_in(description: str) -> dict[str, str]:
    """The marks that a description tells, or whatever it has."""
    return dict(word.split("=", 1) for word in (description or "").split() if "=" in word)
