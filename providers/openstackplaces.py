"""What an OpenStack has: images, flavors, networks, groups and quotas, and what to say of those that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from machinekit.errors import PreCheckError, nearest

from .openstacklogin import AN_ID

if TYPE_CHECKING:
    from .account import Api

Thing = Mapping[str, Any]
MANY = 1000  # images in one answer, the most that Glance gives
SHOWN = 30  # names in a hint


def image(api: Api, wanted: str) -> Thing:
    """The image; one call when it is there."""
    query = {"id": f"in:{wanted}"} if AN_ID.fullmatch(wanted) else {"name": wanted}
    found = _images(api, **query) if wanted else []
    return chosen("image", wanted, found or _images(api), "--openstack-image")


def _images(api: Api, **query: str) -> list[Thing]:
    answer = api.call("find the image", api.driver.ask, "image", "GET", "/images", status="active", limit=MANY, **query)
    found: list[Thing] = answer["images"]
    return found


def flavor(api: Api, wanted: str, image: Thing, volume_size: int) -> Thing:
    """The flavor, which the image fits."""
    there = api.call("list the flavors", api.driver.all, "compute", "/flavors/detail", "flavors")
    found = chosen("flavor", wanted, there, "--openstack-flavor")
    disk = volume_size or found["disk"]
    if found["ram"] < image.get("min_ram", 0) or (disk and disk < image.get("min_disk", 0)):
        needs = f"{image.get('min_ram', 0)} MB of memory and {image.get('min_disk', 0)} GB of disk"
        raise PreCheckError(
            f"flavor {found['name']} has {found['ram']} MB of memory and {disk} GB of disk, "
            f"and image {image['name']} needs {needs}",
            "give another --openstack-flavor, or --openstack-volume-size",
        )
    return found


def networks(api: Api, wanted: str, pool: str) -> tuple[Thing, Thing | None]:
    """The network of the machine, the only one where none is given, and that of its floating IP."""
    there = api.call("list the networks", api.driver.all, "network", "/networks", "networks")
    outside = [each for each in there if each.get("router:external")]
    own = [
        each for each in there if not each.get("router:external") and each.get("project_id") == api.driver.login.project
    ]
    shared = [each for each in there if each.get("shared") and not each.get("router:external")]
    candidates = there if wanted else own or shared or outside
    network = candidates[0] if len(candidates) == 1 else chosen("network", wanted, candidates, "--openstack-network")
    return network, chosen("external network", pool, outside, "--openstack-floating-ip-pool") if pool else None


def subnet(api: Api, network: str, version: str) -> str:
    """The first of a network's IP ranges that we may see; empty for none."""
    fields = {"network_id": network, "ip_version": version, "fields": "cidr"}
    found = api.call("list the subnets", api.driver.all, "network", "/subnets", "subnets", **fields)
    return str(found[0]["cidr"]) if found else ""


def groups(api: Api, wanted: Sequence[str]) -> tuple[str, ...]:
    """The ids of the user's own security groups."""
    if not wanted:
        return ()
    query = {"project_id": api.driver.login.project, "fields": ["id", "name"]}
    there = api.call(
        "list the security groups", api.driver.all, "network", "/security-groups", "security_groups", **query
    )
    return tuple(str(chosen("security group", each, there, "--openstack-security-group")["id"]) for each in wanted)


def zone(api: Api, wanted: str) -> str:
    """The availability zone; empty for any."""
    if not wanted:
        return ""
    answer = api.call("list the zones", api.driver.ask, "compute", "GET", "/os-availability-zone")
    there = [{"id": each["zoneName"], "name": each["zoneName"]} for each in answer["availabilityZoneInfo"]]
    return str(chosen("availability zone", wanted, there, "--openstack-availability-zone")["name"])


def server_group(api: Api, wanted: str) -> str:
    """The server group's id; empty for none."""
    if not wanted:
        return ""
    there = api.call("list the server groups", api.driver.all, "compute", "/os-server-groups", "server_groups")
    return str(chosen("server group", wanted, there, "--openstack-server-group")["id"])


def check_quota(api: Api, flavor: Thing) -> None:
    """Raise PreCheckError where one more machine is too many."""
    limits = api.call("ask for the quota", api.driver.ask, "compute", "GET", "/limits")["limits"]["absolute"]
    for what, used, most, needed in (
        ("instances", "totalInstancesUsed", "maxTotalInstances", 1),
        ("cores", "totalCoresUsed", "maxTotalCores", flavor["vcpus"]),
        ("MB of memory", "totalRAMUsed", "maxTotalRAMSize", flavor["ram"]),
    ):
        if 0 <= limits.get(most, -1) < limits.get(used, 0) + needed:
            raise PreCheckError(
                f"the quota is reached: {limits[used]} of {limits[most]} {what} are used, and this needs {needed}",
                "remove what is not needed (machinekit gc finds what was forgotten), or ask the provider for more",
            )


def chosen(what: str, wanted: str, there: Sequence[Thing], flag: str) -> Thing:
    """The one with that id or that name; raises PreCheckError for none, and for several of one name."""
    named = [each for each in there if each["name"] == wanted]
    found = [each for each in there if each["id"] == wanted] or named
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(str(each["id"]) for each in found)
        raise PreCheckError(f"there are {len(found)} {what}s of the name {wanted}", f"give an id with {flag}: {ids}")
    names = sorted({str(each["name"] or each["id"]) for each in there})
    known = ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
    if not wanted:
        raise PreCheckError(f"which {what}? There is {'more than one' if names else 'none'}", f"{flag}: {known}")
    raise PreCheckError(f"there is no {what} {wanted}{nearest(wanted, names)}", f"there are: {known or 'none'}")
