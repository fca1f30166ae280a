"""Machines of a real OpenStack: made and removed, on its own services, and once through to containers.

All that needs this cloud is in this file, which is what pytest-xdist keeps in one worker: there is one at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from machinekit.providers.openstack import OpenStack

from machinekit import cloudinit, drivers, keys
from machinekit.errors import PreCheckError
from machinekit.images import Images
from machinekit.imagestore import DISK
from machinekit.machine import Birth, Image, Machine, State
from machinekit.provider import Driver
from machinekit.spec import parse_options
from tests.clouds.openstack.api import until
from tests.clouds.openstack.cloud import CACHE, OURS, Cloud, obstacle
from tests.clouds.proxy import Faults, lost, throttled
from tests.conftest import IMAGES
from tests.e2e.lab import Cli, run
from tests.providers.contract import DriverContract, Make

pytestmark = pytest.mark.clouds

SMALL = {"image": "small", "flavor": "m1.nano", "network": "public"}
Bound = Callable[..., Driver[Any]]


@pytest.fixture(scope="module")
def engine_image() -> Iterator[Future[Image]]:
    """A system with an engine, built while the cloud is: each waits for disk and network most of the time.

    Where the cloud cannot run the tests are skipped, which CI takes for a failure.
    """
    if reason := obstacle():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"OpenStack cannot run here: {reason}")
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(Images(Path(os.environ[IMAGES])).ensure, DISK, "debian-12+engine", print)


@pytest.fixture(scope="module")
def cloud(engine_image: Future[Image], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud with nothing in it."""
    with Cloud(Path(os.environ.get(CACHE) or tmp_path_factory.mktemp("cloud"))) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def with_engine(cloud: Cloud, engine_image: Future[Image]) -> str:
    """The id of the cloud's image with an engine."""
    return cloud.upload(engine_image.result(), "debian-12+engine")


@pytest.fixture
def account(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The plain user's, in the environment; nothing of ours is left in it by any test."""
    for name, value in cloud.environment(cloud.ci).items():
        monkeypatch.setenv(name, value)
    yield cloud
    left = leftovers(cloud)
    clear(cloud)  # so that one test's failure stays its own
    assert left == []


def leftovers(cloud: Cloud) -> list[Any]:
    """What is in the account that was not there from the beginning."""
    ask = cloud.ci.get
    groups = [each for each in ask("network", "/security-groups")["security_groups"] if each["name"] != "default"]
    return [
        *ask("compute", "/servers/detail")["servers"],
        *groups,
        *ask("network", "/floatingips")["floatingips"],
    ]


def clear(cloud: Cloud) -> None:
    """Remove all of that."""
    ci = cloud.ci
    for server in ci.get("compute", "/servers")["servers"]:
        ci.delete("compute", f"/servers/{server['id']}")
    until(lambda: not ci.get("compute", "/servers")["servers"], "the servers are gone", 120)
    for left in leftovers(cloud):
        kind = "security-groups" if "security_group_rules" in left else "floatingips"
        ci.delete("network", f"/{kind}/{left['id']}")


@pytest.fixture
def bound(account: Cloud, tmp_path: Path) -> Bound:
    """A driver of a fresh machine."""

    def bind(name: str = "node1", save: Callable[[], None] = lambda: None, **given: Any) -> Driver[Any]:
        options = parse_options("openstack", OpenStack, SMALL | given)
        machine = Machine(name, str(uuid.uuid4()), "openstack", "a-store", "", dataclasses.asdict(options))
        return drivers.bind(machine, tmp_path, save)

    return bind


@pytest.fixture(scope="module")
def birth() -> Birth:
    (_, public), (private, host_public) = keys.ssh_key("me"), keys.ssh_key("host")
    user_data = cloudinit.user_data("node1", "machinekit", public, private.decode(), host_public)
    return Birth("machinekit", public, private.decode(), host_public, user_data, None)


def removed(driver: Driver[Any]) -> None:
    driver.destroy()
    for resource in reversed(list(driver.machine.resources)):
        driver.release(resource)


class TestOpenStack(DriverContract):
    patience: ClassVar[float] = 120.0

    @pytest.fixture
    def make(self, bound: Bound) -> Make:
        return lambda save: bound("contract", save)


def test_a_floating_ip_and_an_application_credential_of_clouds_yaml(
    account: Cloud, bound: Bound, birth: Birth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in account.environment(account.ci):
        monkeypatch.delenv(name)
    (tmp_path / "clouds.yaml").write_text(account.clouds_yaml())
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    driver = bound(cloud="ci-credential", network="private", floating_ip_pool="public", peers=("10.0.0.0/24",))
    driver.check()
    assert driver.remarks() == [f"only {OURS}/32 may reach it; --openstack-allow names others"]
    driver.create(birth)
    (address,) = account.ci.get("network", "/floatingips")["floatingips"]
    until(lambda: _address(driver) == address["floating_ip_address"], "the floating IP is told", 60)
    (group,) = (each for each in leftovers(account) if "security_group_rules" in each)
    opened = {
        (rule["protocol"], rule["port_range_min"], rule["port_range_max"], rule["remote_ip_prefix"])
        for rule in group["security_group_rules"]
        if rule["direction"] == "ingress"
    }
    assert opened == {
        *(("tcp", port, port, f"{OURS}/32") for port in (22, 2376)),
        *(("tcp", port, port, "10.0.0.0/24") for port in (2377, 7946)),
        *(("udp", port, port, "10.0.0.0/24") for port in (7946, 4789)),
    }
    found = driver.find()
    assert found
    assert found.peer_address == address["fixed_ip_address"]
    until(lambda: _listens(_address(driver), 22), "the door is open")
    with pytest.raises(TimeoutError):  # a host without the group would refuse
        socket.create_connection((_address(driver), 80), 2)
    removed(driver)


def _address(driver: Driver[Any]) -> str:
    found = driver.find()
    return found.address if found else ""


def _listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 2):
        return True
    return False


def test_five_at_once(bound: Bound, birth: Birth) -> None:
    # some of one name, as other stores may have them, and names at the edge of what we take
    five = [bound(name) for name in ("node", "node", "node", "a" * 63, "web.example.com")]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda driver: driver.create(birth), five))
        found = [instance for instance in OpenStack.find_all(five).values() if instance]
        assert [instance.state for instance in found] == [State.RUNNING] * 5
        assert len({instance.address for instance in found}) == 5
        until(lambda: bool(five[0].console().strip()), "its console shows something", 60)
        removed(five[0])
        assert [each is None for each in OpenStack.find_all(five).values()] == [True, False, False, False, False]
        list(pool.map(removed, five))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": "twin"}, "there are 2 images of the name twin"),
        ({"network": "twin"}, "there are 2 networks of the name twin"),
        ({"network": ""}, "which network"),
        ({"flavor": "m1.nan"}, "no flavor m1.nan; did you mean m1.nano"),
        ({"image": "smal"}, "no image smal; did you mean small"),
        ({"floating_ip_pool": "private"}, "no external network private; there are|no external network private"),
        ({"availability_zone": "nowhere"}, "no availability zone nowhere"),
        ({"security_group": ("nope",)}, "no security group nope"),
        ({"region": "RegionTwo"}, "no region RegionTwo; did you mean RegionOne"),
    ],
)
def test_what_is_not_there(bound: Bound, given: Any, message: str) -> None:
    with pytest.raises(PreCheckError, match=message):
        bound(**given).check()


def test_quotas(account: Cloud, bound: Bound, birth: Birth) -> None:
    _allow(account, "compute", instances=0)
    with pytest.raises(PreCheckError, match="0 of 0 instances are used, and this needs 1"):
        bound().check()
    driver = bound()
    _allow(account, "compute", instances=6)
    driver.check()
    for service, kind, before in (("compute", "instances", 6), ("network", "security_group", 8)):
        _allow(account, service, **{kind: 0})  # it was reached after we have looked
        with pytest.raises(PreCheckError, match="Quota exceeded"):
            driver.create(birth)
        _allow(account, service, **{kind: before})
        assert driver.machine.resources == []
        assert leftovers(account) == []


def _allow(account: Cloud, service: str, **quota: int) -> None:
    project = account.ci.get("identity", "/auth/projects")["projects"][0]["id"]
    path, key = {"compute": ("/os-quota-sets", "quota_set"), "network": ("/quotas", "quota")}[service]
    account.admin.put(service, f"{path}/{project}", {key: quota})


def test_no_host_takes_it(account: Cloud, bound: Bound, birth: Birth) -> None:
    flavor = {"flavor": {"name": "m1.wide", "ram": 64, "disk": 1_000_000, "vcpus": 1}}
    made = account.admin.post("compute", "/flavors", flavor)["flavor"]["id"]
    driver = bound(flavor="m1.wide")
    with pytest.raises(PreCheckError, match="No valid host"):
        driver.create(birth)
    assert driver.machine.resources == []
    account.admin.delete("compute", f"/flavors/{made}")


def test_server_groups(account: Cloud, bound: Bound, birth: Birth) -> None:
    described = {"name": "apart", "policy": "anti-affinity"}
    made = account.ci.post("compute", "/os-server-groups", {"server_group": described})["server_group"]["id"]
    first, second = bound(server_group="apart", availability_zone="nova"), bound(server_group="apart")
    first.create(birth)
    with pytest.raises(PreCheckError, match="could not build the server"):
        second.create(birth)  # there is one host
    removed(first)
    account.ci.delete("compute", f"/os-server-groups/{made}")


def test_answers_that_are_lost(account: Cloud, bound: Bound, birth: Birth, monkeypatch: pytest.MonkeyPatch) -> None:
    with Faults(account.endpoints) as proxy:
        monkeypatch.setenv("OS_AUTH_URL", proxy.url(account.environment(account.ci)["OS_AUTH_URL"]))
        proxy.unlisted = 5
        proxy.inject(
            throttled("GET", ".*/limits"),
            lost("POST", ".*/security-groups"),
            lost("POST", ".*/security-group-rules", status=504),
            lost("POST", ".*/servers"),
            lost("DELETE", ".*/servers/.*"),
        )
        driver = bound()
        driver.create(birth)
        assert len(account.ci.get("compute", "/servers")["servers"]) == 1
        assert proxy.count("POST", ".*/servers") == proxy.count("POST", ".*/security-groups") == 1
        removed(driver)
        assert not proxy.faults or all(not fault.count for fault in proxy.faults)


def test_wrong_credentials(account: Cloud, cli: Cli) -> None:
    words = ("create", "-d", "openstack", "--openstack-image", "small", "--openstack-flavor", "m1.nano", "node1")
    cli.variables |= account.environment(account.ci) | {"OS_PASSWORD": "wrong"}
    assert "requires authentication" in cli.fail(*words, code=3)


def test_from_nothing_to_containers_and_back(
    account: Cloud,
    with_engine: str,
    cli: Cli,
    busybox: Path,
) -> None:
    cli.variables |= account.environment(account.ci)
    words = ["create", "-d", "openstack", "--openstack-image-id", with_engine, "--openstack-flavor-name", "m1.small"]
    words += ["--openstack-net-name", "private", "--openstack-floatingip-pool", "public", "--engine", "distro", "node1"]
    said = cli(*words)
    (address,) = account.ci.get("network", "/floatingips")["floatingips"]
    assert f"node1: ready at tcp://{address['floating_ip_address']}:2376" in said
    client = cli.client("node1")
    run("docker", "build", "-q", "-t", "busybox", str(busybox), env=client | {"DOCKER_BUILDKIT": "0"})
    assert run("docker", "run", "--rm", "busybox", "echo", "it runs", env=client) == "it runs\n"
    assert "(unchanged)" in cli(*words)
    assert "Running" in cli("ls")

    shutil.rmtree(cli.home / "machines" / "node1")  # this is how something becomes an orphan
    assert "node1" in cli("gc", "-y", "--driver", "openstack")
    assert leftovers(account) == []
