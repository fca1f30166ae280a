"""Droplets, at a small DigitalOcean on loopback: the contract, what goes wrong, and what people get wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tenacity
from machinekit.providers import calls, credentials
from machinekit.providers.calls import CloudError, Kind
from machinekit.providers.digitalocean import DigitalOcean
from machinekit.providers.plain import NAMED

from machinekit.errors import PreCheckError
from machinekit.machine import Birth, State
from machinekit.store import Store
from tests.clouds.digitalocean import TOKEN
from tests.clouds.digitalocean import DigitalOcean as Api
from tests.conftest import Cli
from tests.providers.contract import DriverContract, Make
from tests.providers.test_contract import making

BIRTH = Birth("machinekit", "ssh-ed25519 AAAA", "", "", "#cloud-config\n{}", None)


@pytest.fixture
def api(environment: pytest.MonkeyPatch, direct: pytest.MonkeyPatch) -> Iterator[Api]:
    """The endpoint, where the environment says."""
    with Api() as api:
        environment.setenv("DIGITALOCEAN_TOKEN", TOKEN)
        environment.setenv("DIGITALOCEAN_API_URL", api.url)
        environment.setattr(DigitalOcean, "settle", 0.6)
        environment.setattr(calls, "JITTER", tenacity.wait_random(0, 0.2))
        environment.setattr(calls, "ARRIVAL", 0.5)
        environment.setattr(calls, "PER_SECOND", 1000.0)
        yield api


@pytest.fixture
def make(api: Api, tmp_path: Path) -> Make:
    return making("digitalocean", tmp_path, endpoint=api.url)


class TestDigitalOcean(DriverContract):
    @pytest.fixture
    def make(self, api: Api, tmp_path: Path) -> Make:
        api.boot, api.acting, api.unlisted_for = 0.3, 0.2, 0.3
        return making("digitalocean", tmp_path, endpoint=api.url, tags=("web",), monitoring=True)


def test_what_is_asked_for(api: Api, tmp_path: Path) -> None:
    driver = making("digitalocean", tmp_path, endpoint=api.url, tags=("mine",), ipv6=True)(lambda: None)
    driver.machine.name = "Web.1-"
    driver.create(BIRTH)
    (droplet,) = api.droplets.values()
    assert NAMED.fullmatch(droplet.asked["name"])
    assert DigitalOcean.marks_on(driver._mine()[0]) == driver.marks()  # type: ignore[attr-defined]
    assert droplet.asked["tags"] == ["machinekit:a-store", "mine"]
    wanted = {"ipv6": True, "backups": False, "monitoring": False, "private_networking": False}
    assert wanted.items() <= droplet.asked.items()
    assert (droplet.asked["region"], droplet.asked["size"], droplet.asked["image"]) == ("nyc3", "s-1vcpu-1gb", 7001)
    assert droplet.asked["user_data"] == BIRTH.user_data
    assert "from everywhere" in driver.remarks()[0]
    assert api.actions.count("POST /v2/droplets") == 1
    assert len(api.actions) <= 8
    found = driver.find()
    assert found
    assert found.peer_address == f"10.132.0.{droplet.id % 250}"


@pytest.mark.parametrize(
    "fault",
    [
        {"applied": True},  # the answer is lost
        {"applied": True, "status": 504},  # a gateway's page instead
        {},  # the connection is lost, with no effect
        {"status": 500, "code": "server_error", "message": "Unexpected server-side error"},
        {"status": 503},
        {"status": 429, "code": "too_many_requests", "message": "API Rate limit exceeded."},
        {"applied": True, "count": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("unlisted_for", [0, 0.3])
def test_one_droplet_whatever_happens_to_its_request(
    api: Api, make: Make, fault: dict[str, object], unlisted_for: float
) -> None:
    api.unlisted_for = unlisted_for
    driver = make(lambda: None)
    api.arm("POST /v2/droplets", **fault)
    driver.create(BIRTH)
    assert len(api.droplets) == 1
    assert driver.find()
    driver.destroy()
    assert (api.droplets, driver.machine.resources) == ({}, [])


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {}, {"status": 429, "code": "x", "message": "y"}, {"applied": True}]
)
def test_faults_elsewhere_pass(api: Api, make: Make, fault: dict[str, object]) -> None:
    driver = make(lambda: None)
    for action in ("regions", "sizes", "images", "droplets"):
        api.arm(f"GET /v2/{action}", **fault)
    driver.check()
    driver.create(BIRTH)
    assert driver.find()
    api.arm("DELETE /v2/droplets/ID", **fault)
    driver.destroy()
    assert api.droplets == {}


def test_a_refusal_leaves_nothing(api: Api, make: Make) -> None:
    api.droplet_limit = 0
    driver = make(lambda: None)
    with pytest.raises(PreCheckError, match="exceed your droplet limit") as refused:
        driver.create(BIRTH)
    assert "machinekit gc" in refused.value.hint
    assert (api.droplets, driver.machine.resources) == ({}, [])


def test_a_droplet_that_is_busy_is_waited_for(api: Api, make: Make) -> None:
    api.boot = 0.7
    driver = make(lambda: None)
    driver.create(BIRTH)
    driver.destroy()
    assert api.droplets == {}
    assert api.actions.count("DELETE /v2/droplets/ID") > 1


def test_the_rate_limit_is_kept(api: Api, make: Make) -> None:
    """The server says how long to leave it alone."""
    api.rate_limit, api.window = 3, 1.5
    driver, started = make(lambda: None), time.monotonic()
    driver.check()
    driver.create(BIRTH)
    assert driver.find()
    assert time.monotonic() - started > api.window
    assert len(api.droplets) == 1


def test_removing_what_is_gone_or_cannot_be_removed(api: Api, make: Make) -> None:
    driver = make(lambda: None)
    driver.create(BIRTH)
    api.arm("DELETE /v2/droplets/ID", status=403, code="forbidden", message="You do not have access")
    with pytest.raises(CloudError, match="You do not have access") as refused:
        driver.destroy()
    assert refused.value.kind is Kind.AUTH
    found = driver.find()
    assert found
    assert found.state is State.RUNNING
    api.arm("DELETE /v2/droplets/ID", applied=True)  # somebody else's removal looks the same
    driver.destroy()
    driver.destroy()
    assert api.droplets == {}


def test_one_list_for_all(api: Api, tmp_path: Path) -> None:
    bound = [making("digitalocean", tmp_path, endpoint=api.url)(lambda: None) for _ in range(3)]
    for driver in bound[:2]:
        driver.create(BIRTH)
    api.calls.clear()
    found = DigitalOcean.find_all(bound)
    assert [found[driver.machine.uid] is not None for driver in bound] == [True, True, False]
    assert api.actions == ["GET /v2/droplets"]


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ("--digitalocean-region nyc4", "there is no region nyc4; did you mean nyc3?", "there are: ams3, fra1, nyc3"),
        ("--digitalocean-size s-1vcpu-2gb", "no size s-1vcpu-2gb; did you mean s-", "there are: g-2vcpu-8gb, s-1vcpu"),
        ("--digitalocean-region ams3 --digitalocean-size g-2vcpu-8gb", "no size g-2vcpu-8gb", "are: s-1vcpu-1gb, s-2"),
        ("--digitalocean-image debian-31-x64", "no image debian-31-x64; did you mean debian-13-x64?", "ubuntu-24-04"),
        ("--digitalocean-image twice", "there are 2 images called twice", "give the id of one: 8002, 8003"),
        ("--digitalocean-image ''", "no image is given", "there are: 8001"),
        ("--digitalocean-userdata /nowhere", "cannot read /nowhere: No such file", ""),
        ("--digitalocean-access-token wrong", "Unable to authenticate you", "looked for in $DIGITALOCEAN_TOKEN"),
        ("--digitalocean-endpoint http://127.0.0.1:9", "the endpoint cannot be reached", "check the network"),
    ],
)
def test_bad_input(api: Api, cli: Cli, store: Store, options: str, said: str, hint: str) -> None:
    words = [word.strip("'") for word in options.split()]
    result = cli("create", "-d", "digitalocean", *words, "web")
    assert result.code == 3
    assert said in result.err
    assert hint in result.err
    assert (store.names(), api.droplets) == ([], {})
    assert "POST /v2/droplets" not in api.actions


@pytest.mark.parametrize("endpoint", ["http://a:nine", "http://a:99999", "http://[::1", "http://me:s3cret@a"])
def test_an_endpoint_that_is_none(api: Api, cli: Cli, store: Store, endpoint: str) -> None:
    result = cli("create", "-d", "digitalocean", "--digitalocean-endpoint", endpoint, "web")
    assert (result.code, store.names()) == (2, [])
    assert result.err.startswith("machinekit: --digitalocean-endpoint: ")
    assert "s3cret" not in result.err


def test_no_token(api: Api, cli: Cli, environment: pytest.MonkeyPatch) -> None:
    environment.delenv("DIGITALOCEAN_TOKEN")
    result = cli("create", "-d", "digitalocean", "web")
    assert result.code == 3
    assert "there is no token" in result.err
    assert "--digitalocean-token-command and the config.yaml of doctl" in result.err
    assert api.actions == []
    assert not DigitalOcean.is_set_up(DigitalOcean.Options())


@pytest.mark.parametrize("character", ["\r", "\n", "\u2026"])
def test_a_token_that_cannot_be_sent_is_not_shown(
    api: Api, cli: Cli, environment: pytest.MonkeyPatch, character: str
) -> None:
    environment.setenv("DIGITALOCEAN_TOKEN", f"s3cret{character}token")
    result = cli("create", "-d", "digitalocean", "web")
    assert (result.code, api.actions) == (3, [])
    assert "the credentials have a character that cannot be sent" in result.err
    assert "$DIGITALOCEAN_TOKEN" in result.err
    assert "s3cret" not in result.out + result.err


def test_where_the_token_comes_from(
    api: Api, environment: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("DIGITALOCEAN_TOKEN")
    environment.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "doctl").mkdir()
    kept = tmp_path / "doctl" / "config.yaml"

    def token(**options: str) -> str:
        told: str = DigitalOcean.connect(DigitalOcean.Options(**options)).key
        return told

    kept.write_text("access-token: of-doctl\ncontext: default\nauth-contexts:\n  work: of-work\n")
    assert token() == "of-doctl"
    kept.write_text("access-token: of-doctl\ncontext: work\nauth-contexts:\n  work: of-work\n")
    assert token() == "of-work"
    assert token(token_command="echo of-command; echo x") == "of-command"  # noqa: S106 (a command)
    assert token(token_command="echo of-command", access_token="given") == "given"  # noqa: S106 (of nothing)
    assert token(token_command="printf '\\377'") == "\udcff", "refused when it is sent"  # noqa: S106
    with pytest.raises(PreCheckError, match="'exit 3' printed no secret: it says nothing"):
        token(token_command="exit 3")  # noqa: S106
    kept.write_text("access-token: [")
    with pytest.raises(PreCheckError, match=r"cannot read .*config.yaml"):
        token()


def test_a_command_that_prints_a_secret_runs_once(tmp_path: Path) -> None:
    command = f"echo x >>{tmp_path}/ran; echo secret"
    assert [credentials.printed(command) for _ in range(2)] == ["secret", "secret"]
    assert (tmp_path / "ran").read_text() == "x\n"


def test_at_most_60_lines() -> None:
    """With its options: what a cloud costs."""
    source = Path(str(sys.modules[DigitalOcean.__module__].__file__))
    assert len(source.read_text().splitlines()) <= 60
