"""The cloud that the tests run on is one: guests boot and are reached, doors are shut, quotas hold."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError

import pytest

from machinekit import keys
from tests.clouds.openstack import seed
from tests.clouds.openstack.api import until
from tests.clouds.openstack.cloud import FAKE_ZONE, REGION, Cloud
from tests.clouds.openstack.guest import Guest, boot, named
from tests.clouds.proxy import Faults, lost
from tests.e2e.lab import run

LIST = """
import json, os, sys
from libcloud.compute.providers import get_driver
driver = get_driver("openstack")(
    sys.argv[1], sys.argv[2], ex_force_auth_version=sys.argv[3],
    ex_force_auth_url=os.environ["OS_AUTH_URL"].removesuffix("/v3"),
    ex_tenant_name=os.environ.get("OS_PROJECT_NAME"), ex_domain_name="Default", ex_tenant_domain_id="default",
    ex_force_service_region=os.environ["OS_REGION_NAME"], api_version="2.2", timeout=60)
json.dump([[node.name for node in driver.list_nodes()], [image.name for image in driver.list_images()]], sys.stdout)
"""


@pytest.fixture(scope="module")
def guest(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A small one, for whoever comes first to open the door."""
    guest = boot(cloud.ci, tmp_path_factory.mktemp("guest"), seed.SMALL, "m1.nano")
    guest.wait_for("ACTIVE")
    yield guest
    guest.destroy()


def test_a_guest_is_reached_once_its_group_lets_us_in(cloud: Cloud, guest: Guest) -> None:
    until(lambda: "up after" in guest.console, "the guest is up")
    with pytest.raises(TimeoutError):
        socket.create_connection((guest.address, 22), 2)
    seed.open_ports(cloud.ci, 22)
    with closing(guest.login()) as connection:
        assert connection.run("hostname; id -u", patience=20) == ["guest.novalocal", "0"]


def test_the_power_button(guest: Guest) -> None:
    guest.act(**{"os-stop": None})
    guest.wait_for("SHUTOFF", patience=45)  # after 60 s Nova cuts the power
    guest.act(**{"os-start": None})
    guest.wait_for("ACTIVE")
    guest.login().close()


def test_a_floating_address_leads_to_a_guest(cloud: Cloud, tmp_path: Path) -> None:
    guest = boot(cloud.ci, tmp_path / "guest", seed.SMALL, "m1.nano", seed.PRIVATE)
    guest.wait_for("ACTIVE")
    port = cloud.ci.get("network", f"/ports?device_id={guest.id}")["ports"][0]["id"]
    pool = named(cloud.ci, "network", "networks", seed.PUBLIC)
    asked = {"floatingip": {"floating_network_id": pool, "port_id": port}}
    address = cloud.ci.post("network", "/floatingips", asked)["floatingip"]
    until(lambda: guest.address == address["floating_ip_address"], "Nova knows of the address")
    guest.login().close()
    guest.destroy()
    cloud.ci.delete("network", f"/floatingips/{address['id']}")


def test_an_engine_runs_in_a_guest(cloud: Cloud, with_engine: str, tmp_path: Path) -> None:
    guest = boot(cloud.ci, tmp_path / "guest", "debian-12+engine", "m1.small")
    guest.wait_for("ACTIVE")
    with closing(guest.login(600)) as connection:
        said = connection.run("hostname; systemctl start docker; docker version -f '{{.Server.Os}}'", patience=300)
    assert (said[0], said[-1]) == ("guest", "linux")
    guest.destroy()


def test_a_quota_is_enforced(cloud: Cloud, tmp_path: Path) -> None:
    with pytest.raises(HTTPError, match=r"403.*Quota exceeded"):
        boot(cloud.ci, tmp_path / "guest", seed.SMALL, "m1.nano", min_count=seed.QUOTA["instances"] * 2)


def test_ambiguous_names(cloud: Cloud) -> None:
    for service, kind in (("network", "networks"), ("image", "images")):
        found = cloud.ci.get(service, f"/{kind}?name={seed.TWIN}")[kind]
        assert len(found) == 2


@pytest.mark.parametrize("kind", ["password", "application credential"])
def test_libcloud_is_led_through_the_proxy(cloud: Cloud, kind: str) -> None:
    with Faults(cloud.endpoints) as proxy:
        identity = proxy.url(cloud.endpoints[0])
        if kind == "password":
            environment, login = (
                cloud.environment(cloud.ci, identity),
                (cloud.ci.user, cloud.ci.password, "3.x_password"),
            )
        else:
            environment, login = cloud.credential_environment(identity), (*cloud.credential, "3.x_appcred")
        _, images = json.loads(run(sys.executable, "-c", LIST, *login, env=environment))
        assert images.count(seed.TWIN) == 2
        assert proxy.count("POST", "/v3/auth/tokens")
        assert proxy.count("GET", "/v2.1/servers/detail") == 1
        assert proxy.count("GET", "/v2/images") == 1


def test_a_lost_answer_leaves_a_key_pair(cloud: Cloud) -> None:
    with Faults(cloud.endpoints) as proxy:
        proxy.inject(lost("POST", "/v2.1/os-keypairs", status=504))
        ci = dataclasses.replace(cloud.ci, through=proxy.url)
        with pytest.raises(HTTPError, match="504"):
            ci.post("compute", "/os-keypairs", {"keypair": {"name": "lost", "public_key": keys.ssh_key("")[1]}})
    cloud.ci.delete("compute", "/os-keypairs/lost")


def test_many_servers_that_are_only_remembered(cloud: Cloud, tmp_path: Path) -> None:
    cloud.start_fake_host()
    guests = [
        boot(cloud.admin, tmp_path / str(number), seed.SMALL, "m1.nano", availability_zone=FAKE_ZONE)
        for number in range(8)
    ]
    for guest in guests:
        guest.wait_for("ACTIVE")
    for guest in guests:
        guest.destroy()


def test_clouds_yaml_and_environment_say_the_same(cloud: Cloud) -> None:
    clouds = json.loads(cloud.clouds_yaml())["clouds"]
    assert set(clouds) == {"admin", "ci", "ci-credential"}
    assert clouds["ci"]["auth"]["password"] == cloud.environment(cloud.ci)["OS_PASSWORD"]
    assert clouds["ci"]["region_name"] == REGION
    assert clouds["ci-credential"]["auth_type"] == "v3applicationcredential"
