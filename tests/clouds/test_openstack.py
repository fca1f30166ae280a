"""Driver openstack at a small OpenStack: what it asks for, in how many calls, and what it says when it cannot."""

from __future__ import annotations

import dataclasses
import json
import ssl
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from machinekit.providers import calls
from machinekit.providers.account import INSTANCE
from machinekit.providers.openstack import OpenStack

from machinekit import cloudinit, converge, drivers, keys, reach
from machinekit.errors import PreCheckError
from machinekit.machine import Birth, Machine
from machinekit.provider import Driver
from machinekit.spec import parse_options
from machinekit.store import CA, SERVER_CERT, SERVER_KEY
from tests.clouds.openstack_server import CREDENTIAL, PASSWORD, SECRET, Fault, OpenStackServer
from tests.conftest import Cli
from tests.providers.contract import DriverContract, Make
from tests.servers import Certificates

HERE = "203.0.113.7/32"
GIVEN = {"image": "debian-12", "flavor": "m1.small", "allow": (HERE,)}
Bound = Callable[..., Driver[Any]]


@pytest.fixture
def bound(server: OpenStackServer, tmp_path: Path) -> Bound:
    """A driver of a fresh machine."""

    def bind(name: str = "node1", **given: Any) -> Driver[Any]:
        options = parse_options("openstack", OpenStack, GIVEN | given)
        return drivers.bind(machine_of(options, name), tmp_path)

    return bind


def machine_of(options: Any, name: str = "node1") -> Machine:
    return Machine(name, str(uuid.uuid4()), "openstack", "a-store", "", dataclasses.asdict(options))


def several(driver: Driver[Any], number: int) -> list[Driver[Any]]:
    """As many machines with the same options."""
    options = driver.options
    return [
        OpenStack(machine_of(options, f"node{each}"), options, driver.directory, lambda: None) for each in range(number)
    ]


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
    @pytest.fixture
    def make(self, server: OpenStackServer, tmp_path: Path) -> Make:
        def make(save: Callable[[], None]) -> Driver[Any]:
            options = parse_options("openstack", OpenStack, GIVEN | {"floating_ip_pool": "public"})
            return drivers.bind(machine_of(options, "contract"), tmp_path, save)

        return make


# --- how often it asks


def test_nine_calls_for_a_create_and_five_for_an_rm(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    driver = bound()
    driver.check()
    driver.create(birth)
    assert driver.find()
    (made,) = server.account.servers
    asked = [call.replace(made, "ID") for call in server.account.calls if "/v3" not in call]
    assert asked == [
        *("GET /v2/images", "GET /v2.1/flavors/detail", "GET /v2.0/networks", "GET /v2.1/limits"),
        *("POST /v2.0/security-groups", "POST /v2.0/security-group-rules"),
        *("POST /v2.1/servers", "GET /v2.1/servers/ID", "GET /v2.1/servers/ID"),
    ]
    server.account.calls.clear()
    removed(driver)
    assert [call.rpartition("/")[0] if "DELETE" in call else call for call in server.account.calls] == [
        *("GET /v2.1/servers/detail", "DELETE /v2.1/servers", "GET /v2.1/servers/detail"),
        *("GET /v2.0/security-groups", "DELETE /v2.0/security-groups"),
    ]
    assert server.account.leftovers() == []


def test_machines_of_a_process_share_a_login_and_what_was_looked_up(server: OpenStackServer, bound: Bound) -> None:
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda driver: driver.check(), several(bound(), 20)))
    asked = Counter(server.account.calls)
    assert asked.pop("GET /v2.1/limits") == 20
    assert set(asked.values()) == {1}, asked


def test_a_name_is_locked_to_an_id(server: OpenStackServer, bound: Bound) -> None:
    driver = bound()
    pinned = OpenStack.pinned(driver.options)
    assert pinned == {"image": driver.choice.image}  # type: ignore[attr-defined]
    assert OpenStack.pinned(dataclasses.replace(driver.options, **pinned)) == pinned
    with pytest.raises(PreCheckError, match="there are 2 images of the name twin"):
        OpenStack.pinned(bound(image="twin").options)


def test_one_call_for_two_hundred_machines(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    everyone = several(bound(), 200)
    for driver in everyone[:3]:
        driver.create(birth)
    server.account.calls.clear()
    found = OpenStack.find_all(everyone)
    assert server.account.calls == ["GET /v2.1/servers/detail"]
    assert [found[driver.machine.uid] is not None for driver in everyone] == [True] * 3 + [False] * 197


def test_a_token_that_was_revoked(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    driver = bound()
    driver.check()
    server.account.tokens.clear()
    driver.create(birth)
    assert driver.find()


# --- what it asks for


def test_the_server(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    driver = bound(
        floating_ip_pool="public", availability_zone="north", server_group="apart", volume_size=20, allow=("::/0", HERE)
    )
    driver.check()
    assert driver.remarks() == ["SSH and the engine can be reached from everywhere (::/0, 203.0.113.7/32)"]
    driver.create(birth)
    (made,), account = server.account.servers.values(), server.account
    assert made["metadata"] == driver.marks()
    assert (made["availability_zone"], made["config_drive"]) == ("north", True)
    assert made["networks"] == [{"uuid": account.networks[0]["id"]}]
    assert made["hints"] == {"group": account.server_groups[0]["id"]}
    (volume,) = made["block_device_mapping_v2"]
    assert "imageRef" not in made
    assert (volume["uuid"], volume["volume_size"]) == (account.images[0]["id"], 20)
    assert volume["delete_on_termination"] is True
    rules = {
        (rule["ethertype"], rule["remote_ip_prefix"], rule["port_range_min"])
        for rule in account.security_group_rules.values()
    }
    assert rules == {("IPv6", "::/0", 22), ("IPv6", "::/0", 2376), ("IPv4", HERE, 22), ("IPv4", HERE, 2376)}
    (address,) = account.floatingips.values()
    instance = driver.find()
    assert instance
    assert (instance.address, instance.peer_address) == (address["floating_ip_address"], "203.0.113.7")
    removed(driver)
    assert account.leftovers() == []


SWARM_PORTS = {("tcp", 2377), ("tcp", 7946), ("udp", 7946), ("udp", 4789)}


def opened(server: OpenStackServer) -> list[tuple[str, int, str]]:
    """The rules that there are."""
    rules = server.account.security_group_rules.values()
    assert all(rule["port_range_min"] == rule["port_range_max"] for rule in rules)
    return sorted((rule["protocol"], rule["port_range_min"], rule["remote_ip_prefix"]) for rule in rules)


def test_peers_reach_the_ports_of_a_swarm_and_no_other(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    driver = bound(peers=("10.0.0.1/16", "2001:db8::/64"))
    driver.check()
    driver.create(birth)
    assert driver.find()
    assert len([call for call in server.account.calls if "/v3" not in call]) == 9, "not one more"
    assert opened(server) == sorted(
        [("tcp", port, HERE) for port in (22, 2376)]
        + [(*port, network) for port in SWARM_PORTS for network in ("10.0.0.0/16", "2001:db8::/64")]
    )
    assert driver.remarks() == []
    assert bound(peers=("::/0",)).remarks() == ["the Swarm's ports can be reached from everywhere (::/0)"]


def test_rules_for_peers_of_an_attempt_that_was_cut_off(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    driver = bound(peers=("10.0.0.0/16",))
    assert isinstance(driver, OpenStack)
    driver.prepare(birth)
    everything, rules = opened(server), server.account.security_group_rules
    (lost,) = (key for key, rule in rules.items() if (rule["protocol"], rule["port_range_min"]) == ("udp", 7946))
    del rules[lost]
    driver.create(birth)
    assert opened(server) == everything


def test_groups_of_ones_own_stay_as_they_are(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    (group,) = [{"id": "g1", "name": "web", "description": "", "born": 0.0}]
    server.account.security_groups["g1"] = group
    driver = bound(security_group=("web",), allow=())
    driver.create(birth)
    (made,) = server.account.servers.values()
    assert made["security_groups"] == [{"name": "g1"}]
    removed(driver)
    assert server.account.leftovers() == [group]
    assert not server.account.security_group_rules


def test_rules_of_an_attempt_that_was_cut_off(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    driver = bound()
    assert isinstance(driver, OpenStack)
    driver.prepare(birth)
    lost, kept = server.account.security_group_rules
    del server.account.security_group_rules[lost]
    driver.create(birth)
    assert len(server.account.security_group_rules) == 2
    assert kept in server.account.security_group_rules
    assert len(server.account.security_groups) == 1


def test_a_server_that_no_host_takes(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    server.account.full = True
    driver = bound(floating_ip_pool="public")
    with pytest.raises(PreCheckError, match="No valid host") as refused:
        driver.create(birth)
    assert "another zone" in refused.value.hint
    assert server.account.leftovers() == []
    assert driver.machine.resources == []


def test_a_server_that_no_host_took_before_is_made_again(server: OpenStackServer, bound: Bound, birth: Birth) -> None:
    server.account.full = True
    driver = bound()
    assert isinstance(driver, OpenStack)
    driver.prepare(birth)
    driver.plan(INSTANCE, driver.machine.uid)
    driver.order(birth, "")
    server.account.full = False
    drivers.bind(driver.machine, driver.directory).create(birth)
    assert [each["state"] for each in server.account.servers.values()] == ["ACTIVE"]
    assert len(server.account.security_groups) == 1


@pytest.mark.parametrize(("verb", "state"), [("stop", "SHUTOFF"), ("start", "ACTIVE")])
def test_a_server_that_is_at_it(server: OpenStackServer, bound: Bound, birth: Birth, verb: str, state: str) -> None:
    driver = bound()
    driver.create(birth)
    (made,) = server.account.servers.values()
    made["state"] = "ACTIVE" if verb == "stop" else "SHUTOFF"
    server.account.faults.append(Fault("POST .*/action", 0, applied=True))
    getattr(driver, verb)()
    assert made["state"] == state


# --- who asks


def test_clouds_yaml_and_application_credentials(
    server: OpenStackServer, bound: Bound, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in server.environment():
        environment.delenv(name)
    secrets = {"application_credential_id": CREDENTIAL, "application_credential_secret": SECRET}
    password = {"username": "ci", "project_id": "0" * 32, "user_domain_id": "default", "password": PASSWORD}
    clouds = {
        "one": {"auth": {"auth_url": f"{server.url}/v3"} | secrets, "auth_type": "v3applicationcredential"},
        "two": {"auth": {"auth_url": f"{server.url}/v3"} | password, "regions": ["north", "south"]},
    }
    file = tmp_path / "clouds.yaml"
    file.write_text(json.dumps({"clouds": clouds}))
    environment.setenv("OS_CLIENT_CONFIG_FILE", str(file))
    one = bound(cloud="one", region="south")
    one.check()
    assert one.machine.options["auth_url"] == f"{server.url}/v3"
    with pytest.raises(PreCheckError, match="which region") as refused:
        bound(cloud="one").check()
    assert "north, south" in refused.value.message
    assert OpenStack.account(bound(cloud="two").options) == ("two", "north", f"{server.url}/v3", "0" * 32)


def test_never_another_account(server: OpenStackServer, bound: Bound, environment: pytest.MonkeyPatch) -> None:
    driver = bound()
    assert driver.machine.options["project"] == "ci"
    environment.setenv("OS_PROJECT_NAME", "another")
    with pytest.raises(PreCheckError, match="for project another, and not for ci"):
        driver.find()
    environment.setenv("OS_PROJECT_NAME", "ci")
    environment.setenv("OS_AUTH_URL", "http://another.example:5000/v3")
    with pytest.raises(PreCheckError, match=r"are for http://another.example:5000/v3, and not for"):
        driver.destroy()


# --- what it says when it cannot

TWINS = "there are 2 {}s of the name twin"


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"image": "debian-13"}, "no image debian-13; did you mean debian-12", "debian-12, huge, twin, ubuntu"),
        ({"image": ""}, "which image", "--openstack-image: debian-12"),
        ({"image": "twin"}, TWINS.format("image"), "--openstack-image: "),
        ({"image": "huge"}, "m1.small has 1024 MB of memory and 8 GB of disk, and image huge needs 65536 MB", "flavor"),
        ({"flavor": "m1.smal"}, "no flavor m1.smal; did you mean m1.small", "m1.large, m1.small"),
        ({"flavor": ""}, "which flavor", "--openstack-flavor: m1.large, m1.small"),
        ({"network": "privat"}, "no network privat; did you mean private", "private, public, theirs"),
        ({"network": "0" * 32}, "no network 0", "there are: "),
        ({"floating_ip_pool": "private"}, "no external network private", "there are: public"),
        ({"availability_zone": "nort"}, "no availability zone nort; did you mean north", "north, nova"),
        ({"server_group": "twin"}, TWINS.format("server group"), "--openstack-server-group: "),
        ({"security_group": ("nope",), "allow": ()}, "no security group nope", "there are: none"),
        ({"region": "nort"}, "no region nort; did you mean north", "north, south"),
    ],
)
def test_what_is_not_there(server: OpenStackServer, bound: Bound, given: Any, message: str, hint: str) -> None:
    with pytest.raises(PreCheckError, match=message) as refused:
        bound(**given).check()
    assert hint in refused.value.hint
    if "TWINS" in message:
        assert refused.value.hint.count("-") > 8, "both ids"
    assert not [call for call in server.account.calls if not call.startswith("GET") and "/auth/" not in call]


def test_two_networks_of_ones_own(server: OpenStackServer, bound: Bound) -> None:
    server.account.networks.append({**server.account.networks[0], "id": "n2", "name": "other"})
    with pytest.raises(PreCheckError, match="which network") as refused:
        bound().check()
    assert refused.value.hint == "--openstack-network: other, private"
    bound(network="n2").check()


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        ({"maxTotalInstances": 0}, "0 of 0 instances are used, and this needs 1"),
        ({"maxTotalCores": 1}, "0 of 1 cores are used, and this needs 2"),
        ({"maxTotalRAMSize": 1023}, "0 of 1023 MB of memory are used, and this needs 1024"),
    ],
)
def test_no_quota(server: OpenStackServer, bound: Bound, quota: Any, message: str) -> None:
    server.account.quota |= quota
    with pytest.raises(PreCheckError, match=message):
        bound().check()


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("POST .*/security-groups", 409, "Quota exceeded for resources: ['security_group']."),
        ("POST .*/floatingips", 409, "No more IP addresses available on network public."),
        ("POST .*/servers", 403, "Quota exceeded for ram: Requested 1024, but already used 6144 of 6144 ram"),
        ("POST .*/servers", 400, "Block Device Mapping is Invalid."),
    ],
)
def test_a_refusal_leaves_nothing(
    server: OpenStackServer, bound: Bound, birth: Birth, path: str, status: int, text: str
) -> None:
    server.account.faults.append(Fault(path, status, text))
    driver = bound(floating_ip_pool="public")
    with pytest.raises(PreCheckError) as refused:
        driver.create(birth)
    assert text in refused.value.message
    assert server.account.leftovers() == []
    assert driver.machine.resources == []


def test_wrong_and_missing_credentials(server: OpenStackServer, cli: Cli, environment: pytest.MonkeyPatch) -> None:
    words = ["create", "-d", "openstack", "--openstack-image-name", "debian-12", "--openstack-flavor-id", "m1.small"]
    environment.setenv("OS_PASSWORD", "wrong")
    refused = cli(*words, "node1")
    assert refused.code == 3
    for text in ("requires authentication", "clouds.yaml", "$OS_APPLICATION_CREDENTIAL_ID", "~/.config/openstack"):
        assert text in refused.err
    environment.setenv("OS_CLOUD", "nope")
    assert "Cloud nope was not found" in cli(*words, "node1").err
    for name in ("OS_CLOUD", "OS_AUTH_URL"):
        environment.delenv(name)
    missing = cli(*words, "node1")
    assert missing.code == 3
    assert "no credentials for OpenStack" in missing.err
    assert cli(*words, "--openstack-password", "x", "node1").code == 2


@pytest.mark.parametrize("name", ["a" * 63, "web.example.com", "x"])
def test_any_name_of_a_machine_will_do(
    server: OpenStackServer, cli: Cli, environment: pytest.MonkeyPatch, name: str
) -> None:
    """The real one is asked in tests/e2e/test_openstack.py."""
    environment.setattr(converge, "steps", lambda work: (reach.find_address,))  # there is no host behind it
    words = ["--openstack-image", "debian-12", "--openstack-flavor", "m1.small", "--openstack-allow", HERE]
    assert cli("create", "-d", "openstack", *words, name).code == 0
    assert cli("status", name).out == "Running\n"
    assert cli("rm", "-y", name).code == 0
    assert server.leftovers() == []


def test_no_capacity_leaves_nothing(server: OpenStackServer, cli: Cli) -> None:
    server.account.full = True
    words = ["--openstack-image", "debian-12", "--openstack-flavor", "m1.small", "--openstack-allow", HERE]
    refused = cli("create", "-d", "openstack", *words, "node1")
    assert (refused.code, cli("ls", "-q").out, server.leftovers()) == (3, "", [])
    assert "No valid host was found" in refused.err


def test_a_certificate_that_nobody_knows(
    bound: Bound, certificates: Certificates, environment: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.directory / SERVER_CERT, certificates.directory / SERVER_KEY)
    with OpenStackServer(context) as server:
        environment.setenv("OS_AUTH_URL", f"{server.url}/v3")
        with pytest.raises(PreCheckError, match="the endpoint's certificate does not verify"):
            bound().check()
        environment.setenv("OS_CACERT", str(certificates.directory / CA))
        bound().check()


def test_nobody_answers(bound: Bound, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(calls, "ARRIVAL", 0.2)
    environment.setenv("OS_AUTH_URL", "http://127.0.0.1:9/v3")
    with pytest.raises(PreCheckError, match=r"cannot be reached.*Connection refused"):
        bound().check()
