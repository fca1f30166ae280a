"""What the cloud offers: flavors, networks, images, and a plain user with a quota."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.clouds.openstack.api import Api, until

PUBLIC, PRIVATE, TWIN = "public", "private", "twin"  # networks
SMALL = "small"  # an image
FLAVORS = {"m1.nano": (192, 1, 1), "m1.small": (1024, 8, 2)}  # MiB of memory, GiB of disk, CPUs
USER = "ci"
QUOTA = {"instances": 6, "cores": 10, "ram": 6144, "server_groups": 2}
NETWORK_QUOTA = {"port": 20, "security_group": 8, "floatingip": 2}
AGENTS = 3  # of the bridge, DHCP and the router
PORTS = 4  # of two DHCP servers, and a router's two
LINE = "console=ttyS0 quiet"


def user(admin: Api) -> Api:
    """A project with a quota, and its only member."""
    domain = {"domain_id": "default"}
    project = admin.post("identity", "/projects", {"project": {"name": USER, **domain}})["project"]["id"]
    api = Api(admin.address, USER, USER, secrets.token_hex(16))
    described = {"name": USER, "password": api.password, **domain}
    made = admin.post("identity", "/users", {"user": described})["user"]["id"]
    role = next(each["id"] for each in admin.get("identity", "/roles")["roles"] if each["name"] == "member")
    admin.put("identity", f"/projects/{project}/users/{made}/roles/{role}")
    admin.put("compute", f"/os-quota-sets/{project}", {"quota_set": QUOTA})
    admin.put("network", f"/quotas/{project}", {"quota": NETWORK_QUOTA})
    return api


def lift_quota(admin: Api) -> None:
    """Let the admin make as many servers as there is room for."""
    project = admin.get("identity", f"/projects?name={admin.project}")["projects"][0]["id"]
    unlimited = dict.fromkeys(("instances", "cores", "ram"), -1)
    admin.put("compute", f"/os-quota-sets/{project}", {"quota_set": unlimited})
    admin.put("network", f"/quotas/{project}", {"quota": {"security_group": -1}})


def application_credential(api: Api) -> tuple[str, str]:
    """Id and secret of a new one of the user."""
    api.login()
    described = {"application_credential": {"name": "test"}}
    made = api.post("identity", f"/users/{api.id}/application_credentials", described)["application_credential"]
    return made["id"], made["secret"]


def flavors(admin: Api) -> None:
    """A size for each guest."""
    for name, (memory, disk, cpus) in FLAVORS.items():
        described = {"name": name, "ram": memory, "disk": disk, "vcpus": cpus}
        admin.post("compute", "/flavors", {"flavor": described})


def networks(admin: Api, api: Api, public: str, private: str) -> None:
    """One that this computer is on, one behind a router to it, and two of one name."""
    # a port that is bound before its agent is known stays unbound
    until(lambda: len(_alive(admin)) == AGENTS, "Neutron's agents have reported")
    shape = {"provider:network_type": "flat", "provider:physical_network": "provider"}
    kind = {"name": PUBLIC, "shared": True, "router:external": True}
    outer = admin.post("network", "/networks", {"network": kind | shape})["network"]["id"]
    prefix = public.rpartition(".")[0]
    pool = [{"start": f"{prefix}.50", "end": f"{prefix}.250"}]
    _subnet(admin, outer, public, gateway_ip=None, allocation_pools=pool)  # it leads nowhere but to this computer
    own = api.post("network", "/networks", {"network": {"name": PRIVATE}})["network"]["id"]
    subnet = _subnet(api, own, private)
    described = {"name": "router", "external_gateway_info": {"network_id": outer}}
    router = api.post("network", "/routers", {"router": described})["router"]["id"]
    api.put("network", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    for _ in range(2):
        api.post("network", "/networks", {"network": {"name": TWIN}})
    until(lambda: _all_active(admin), "DHCP and the router are up")


def images(admin: Api, guest: Path) -> None:
    """The small guest, and two of one name."""
    kernel = image(admin, "small-kernel", "aki", guest / "vmlinuz")
    initrd = image(admin, "small-initrd", "ari", guest / "initrd.gz")
    boot = {"kernel_id": kernel, "ramdisk_id": initrd, "os_command_line": LINE, "hw_cdrom_bus": "ide"}
    image(admin, SMALL, "raw", bytes(1 << 20), **boot)
    for _ in range(2):
        image(admin, TWIN, "raw", bytes(512))


def image(admin: Api, name: str, form: str, content: Path | bytes, **properties: str) -> str:
    """Upload one that everybody may use; returns its id."""
    container = form if form in ("aki", "ari") else "bare"
    described = {"name": name, "disk_format": form, "container_format": container, "visibility": "public"}
    made: str = admin.post("image", "/images", described | properties)["id"]
    admin.put("image", f"/images/{made}/file", content if isinstance(content, bytes) else content.read_bytes())
    return made


def wait_for_host(admin: Api, name: str) -> None:
    """Until servers can be placed on the compute host."""

    def ready() -> bool:
        hosts = [each["hypervisor_hostname"] for each in admin.get("compute", "/os-hypervisors")["hypervisors"]]
        found = admin.get("placement", f"/resource_providers?name={name}")["resource_providers"]
        if name not in hosts or not found:
            return False
        inventory = admin.get("placement", f"/resource_providers/{found[0]['uuid']}/inventories")
        return "VCPU" in inventory["inventories"]

    until(ready, f"the compute host {name} is ready")


def _alive(admin: Api) -> list[str]:
    return [agent["binary"] for agent in admin.get("network", "/agents")["agents"] if agent["alive"]]


def _all_active(admin: Api) -> bool:
    ports = admin.get("network", "/ports")["ports"]
    return len(ports) == PORTS and all(port["status"] == "ACTIVE" for port in ports)


def together(*tasks: Callable[[], Any]) -> list[Any]:
    """Run functions at once."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        futures: list[Future[Any]] = [pool.submit(task) for task in tasks]
        return [future.result() for future in futures]


def _subnet(api: Api, network: str, cidr: str, **more: Any) -> str:
    described = {"network_id": network, "ip_version": 4, "cidr": cidr, **more}
    made: str = api.post("network", "/subnets", {"subnet": described})["subnet"]["id"]
    return made
