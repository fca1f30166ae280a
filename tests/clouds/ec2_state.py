"""What an account has in a region, for tests that look without a call of the API."""

from __future__ import annotations

import base64
from typing import Any

from tests.clouds.ec2_moto import tags_of
from tests.clouds.ec2_region import Region

State = dict[str, list[dict[str, Any]]]


def state(region: Region) -> State:
    """Everything that would cost or remain, by kind."""
    region.settle()
    backend = region.backend
    groups = [group for groups in backend.groups.values() for group in groups.values() if not group.is_default]
    return {
        "instances": [_instance(region, instance) for instance in region.instances()],
        "volumes": [_volume(region, volume) for volume in backend.volumes.values()],
        "key_pairs": [_one(region, pair, name=pair.key_name) for pair in backend.key_pairs.values()],
        "groups": [_one(region, group, name=group.name, rules=_rules(group)) for group in groups],
        "addresses": [_one(region, address, address=address.public_ip) for address in backend.addresses],
        "interfaces": [_one(region, interface) for interface in backend.enis.values()],
    }


def _one(region: Region, resource: Any, **more: Any) -> dict[str, Any]:
    return {"id": resource.id, "region": region.name, "tags": tags_of(region.backend, resource.id), **more}


def _instance(region: Region, instance: Any) -> dict[str, Any]:
    launched = region.launched[instance.id]
    return _one(
        region,
        instance,
        state=instance.state,
        type=instance.instance_type,
        zone=instance.availability_zone,
        spot=instance.lifecycle == "spot",
        private_address=instance.private_ip,
        public_address=instance.public_ip or "",
        groups=[group.id for group in instance.security_groups],
        user_data=base64.b64decode(launched.parameters.get("UserData", "")).decode(errors="replace"),
        boots=1 + launched.boots[instance.id],
        asked=launched.parameters,
    )


def _volume(region: Region, volume: Any) -> dict[str, Any]:
    used = volume.attachment
    return _one(
        region,
        volume,
        size=volume.size,
        type=volume.volume_type,
        encrypted=volume.encrypted,
        kms_key=volume.kms_key_id or "",
        instance=used.instance.id if used else "",
        device=used.device if used else "",
    )


def _rules(group: Any) -> list[str]:
    """Such as "tcp 22-22 203.0.113.7/32"."""
    return sorted(
        f"{rule.ip_protocol} {rule.from_port}-{rule.to_port} {''.join(rule.ip_range.values())}"
        for rule in group.ingress_rules
    )
