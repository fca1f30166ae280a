"""Any provider of libcloud's: at the small DigitalOcean, at EC2's endpoint, and where no machine can be made."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
from libcloud.compute.base import NodeDriver
from libcloud.compute.drivers.kamatera import KamateraNodeDriver
from machinekit.providers import calls
from machinekit.providers.calls import CloudError
from machinekit.providers.libcloud import Libcloud, values

from machinekit.errors import PreCheckError
from machinekit.machine import Birth
from machinekit.provider import Driver
from machinekit.store import Store
from tests.clouds.digitalocean import TOKEN
from tests.clouds.digitalocean import DigitalOcean as Api
from tests.clouds.ec2 import Ec2
from tests.clouds.sigv4 import KEY, SECRET
from tests.conftest import Cli
from tests.providers.contract import DriverContract, Make
from tests.providers.test_contract import making

BIRTH = Birth("machinekit", "ssh-ed25519 AAAA", "", "", "#cloud-config\n{}", None)
SHAPE = {"image": "debian-13-x64", "size": "s-1vcpu-1gb", "location": "nyc3"}


@pytest.fixture
def quick(environment: pytest.MonkeyPatch, direct: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Waits are short."""
    environment.setattr(Libcloud, "settle", 0.6)
    environment.setattr(calls, "JITTER", tenacity.wait_random(0, 0.2))
    environment.setattr(calls, "ARRIVAL", 0.5)
    environment.setattr(calls, "PER_SECOND", 1000.0)
    return environment


@pytest.fixture
def api(quick: pytest.MonkeyPatch) -> Iterator[Api]:
    quick.setenv("LIBCLOUD_KEY", TOKEN)
    with Api() as api:
        yield api


@pytest.fixture
def at_digitalocean(api: Api, tmp_path: Path) -> Make:
    return making("libcloud", tmp_path, provider="digitalocean", endpoint=api.url, **SHAPE)


class TestAtEc2(DriverContract):
    """With metadata: gc finds what is forgotten."""

    @pytest.fixture
    def make(self, ec2: Ec2, quick: pytest.MonkeyPatch, tmp_path: Path) -> Make:
        quick.setenv("LIBCLOUD_KEY", KEY)
        quick.setenv("LIBCLOUD_SECRET", SECRET)
        image = ec2.driver().list_images(ex_owner="136693071363")[0].id
        argument = ("region=us-east-1", 'signature_version="4"')
        shape = {"image": image, "size": "t3.micro", "argument": argument}
        return making("libcloud", tmp_path, provider="ec2", endpoint=ec2.url, **shape)


class TestAtDigitalOcean(DriverContract):
    """With a name alone."""

    leaves_traces = False

    @pytest.fixture
    def make(self, at_digitalocean: Make, api: Api) -> Make:
        api.boot, api.acting, api.unlisted_for = 0.3, 0.2, 0.3
        return at_digitalocean


def test_what_is_asked_for(api: Api, tmp_path: Path) -> None:
    extra = ('ex_create_attr={"tags": ["mine"], "ipv6": true}',)
    driver = making("libcloud", tmp_path, provider="digitalocean", endpoint=api.url, extra=extra, **SHAPE)(lambda: None)
    driver.check()
    driver.create(BIRTH)
    (droplet,) = api.droplets.values()
    wanted = {"region": "nyc3", "size": "s-1vcpu-1gb", "image": 7001, "user_data": BIRTH.user_data, "ipv6": True}
    assert wanted.items() <= droplet.asked.items()
    assert droplet.asked["tags"] == ["mine"]
    assert (driver.ssh_user, driver.carries_host_key) == ("machinekit", True)
    said = "\n".join(driver.remarks())
    assert "no firewall" in said
    assert "gc finds nothing that is forgotten there" in said
    assert "user-data" not in said


def test_one_instance_although_the_answer_is_lost(api: Api, at_digitalocean: Make) -> None:
    api.unlisted_for = 0.3
    api.arm("POST /v2/droplets", applied=True)
    driver = at_digitalocean(lambda: None)
    driver.create(BIRTH)
    assert len(api.droplets) == 1
    driver.destroy()
    assert api.droplets == {}


@pytest.mark.parametrize(
    ("options", "code", "said", "hint"),
    [
        ("--libcloud-provider linod", 2, "libcloud has no 'linod'; did you mean linode? (it has", ", vultr)"),
        ("--libcloud-argument x", 2, "--libcloud-argument: 'x' is not of the form NAME=VALUE", ""),
        ("--libcloud-extra 1x=2", 2, "--libcloud-extra: '1x=2' is not of the form NAME=VALUE", ""),
        (
            "--libcloud-image debian-31-x64",
            3,
            "no image debian-31-x64; did you mean debian-13-x64?",
            "ubuntu-24-04-x64",
        ),
        ("--libcloud-image", 3, "no image is given", "there are: 8001"),
        ("--libcloud-size s-9", 3, "there is no size s-9", "s-2vcpu-2gb"),
        ("--libcloud-size", 3, "no size is given", "s-2vcpu-2gb"),
        ("--libcloud-location nyc4", 3, "there is no location nyc4; did you mean nyc3?", "ams3"),
        ("--libcloud-location", 3, "missing a required argument: 'location'", "--libcloud-location says where"),
        ("--libcloud-extra nosuch=1", 3, "got an unexpected keyword argument 'nosuch'", "--libcloud-extra"),
        ("--libcloud-argument api_version=v1", 3, "cannot be made: Driver no longer supported", "--libcloud-argument"),
        ("--libcloud-key wrong", 3, "Unable to authenticate you", "looked for in $LIBCLOUD_KEY"),
        ("--libcloud-endpoint http://127.0.0.1:9", 3, "the endpoint cannot be reached", "check the network"),
        ("--libcloud-provider scaleway", 3, "neither user-data nor an SSH key", "adopt it with driver generic"),
    ],
)
def test_bad_input(api: Api, cli: Cli, store: Store, options: str, code: int, said: str, hint: str) -> None:
    good = {"provider": "digitalocean", "endpoint": api.url, **SHAPE}
    flag, _, value = options.partition(" ")
    words = [f"--libcloud-{name}={text}" for name, text in good.items()]
    result = cli("create", "-d", "libcloud", *words, f"{flag}={value}", "web")
    assert said in result.err
    assert hint in result.err
    assert result.code == code
    assert (store.names(), api.droplets) == ([], {})


def test_no_key(api: Api, cli: Cli, environment: pytest.MonkeyPatch) -> None:
    environment.delenv("LIBCLOUD_KEY")
    result = cli("create", "-d", "libcloud", "--libcloud-provider", "digitalocean", "web")
    assert result.code == 3
    assert "there is no key" in result.err
    assert "--libcloud-key-command" in result.err


def bound(tmp_path: Path, provider: str, **options: Any) -> Driver[Any]:
    return making("libcloud", tmp_path, provider=provider, **options)(lambda: None)


def test_without_user_data_the_key_goes_in_by_itself(quick: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quick.setenv("LIBCLOUD_KEY", "me")
    quick.setenv("LIBCLOUD_SECRET", "secret")
    driver = bound(tmp_path, "kamatera", extra=("ex_dailybackup=true",))
    assert (driver.ssh_user, driver.carries_host_key) == ("root", False)
    said = "\n".join(driver.remarks())
    assert "the SSH host key is pinned when first seen" in said
    request = driver.request(BIRTH)  # type: ignore[attr-defined]
    assert request["auth"].pubkey == BIRTH.authorized_key
    inspect.signature(KamateraNodeDriver.create_node).bind(None, "n", 1, 2, 3, **request)
    with pytest.raises(PreCheckError, match="libcloud can give no user-data to kamatera"):
        bound(tmp_path, "kamatera", user_data="/etc/hostname").check()


def test_what_cannot_be_started_or_stopped_is_said(quick: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quick.setenv("LIBCLOUD_KEY", "0")
    driver = bound(tmp_path, "dummy")
    assert "libcloud cannot start or stop instances of dummy" in driver.remarks()
    node = driver.api.driver.list_nodes()[0]  # type: ignore[attr-defined]
    with pytest.raises(CloudError, match="libcloud cannot stop instances of dummy"):
        driver.switch("kill", node)  # type: ignore[attr-defined]
    with pytest.raises(PreCheckError, match="neither user-data nor an SSH key"):
        driver.check()


def test_secrets_from_commands(quick: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = bound(tmp_path, "kamatera", key_command="echo me", secret_command="echo hush")  # noqa: S106 (a command)
    opened: NodeDriver = driver.api.driver  # type: ignore[attr-defined]
    assert (opened.key, opened.secret) == ("me", "hush")
    assert opened.connection.timeout == calls.TIMEOUT


def test_values() -> None:
    words = ("a=x", "b=1", "c=true", 'd="1"', 'e=["x"]', "f=", "g=a=b")
    assert values(words) == {"a": "x", "b": 1, "c": True, "d": "1", "e": ["x"], "f": "", "g": "a=b"}
