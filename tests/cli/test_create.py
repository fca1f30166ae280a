"""`create`: flags, environment and defaults become options; results for people and for programs."""

from __future__ import annotations

import json
import urllib.request

import pytest

from machinekit.store import Store
from tests.conftest import Cli
from tests.providers.fake import FakeCloud


@pytest.mark.parametrize(
    ("words", "variables", "options"),
    [
        ([], {}, {"size": 1, "tags": [], "spot": False, "image": "newest"}),
        (["--fake-size", "7", "--fake-spot"], {}, {"size": 7, "tags": [], "spot": True, "image": "newest"}),
        (
            ["--fake-tags", "a,b", "--fake-tags=c"],
            {},
            {"size": 1, "tags": ["a,b", "c"], "spot": False, "image": "newest"},
        ),
        (
            [],
            {"MACHINEKIT_FAKE_SIZE": "7", "FAKE_TAGS": "a,b"},
            {"size": 7, "tags": ["a", "b"], "spot": False, "image": "newest"},
        ),
        (
            [],
            {"MACHINEKIT_FAKE_TAGS": "a", "FAKE_TAGS": "b"},
            {"size": 1, "tags": ["a"], "spot": False, "image": "newest"},
        ),
        (
            [],
            {"MACHINEKIT_FAKE_SPOT": "true", "MACHINEKIT_FAKE_SIZE": ""},
            {"size": 1, "tags": [], "spot": True, "image": "newest"},
        ),
        (["--no-fake-spot"], {"MACHINEKIT_FAKE_SPOT": "1"}, {"size": 1, "tags": [], "spot": False, "image": "newest"}),
        (["--fake-size=8"], {"MACHINEKIT_FAKE_SIZE": "7"}, {"size": 8, "tags": [], "spot": False, "image": "newest"}),
    ],
)
def test_the_drivers_options(
    cli: Cli,
    store: Store,
    cloud: FakeCloud,
    environment: pytest.MonkeyPatch,
    words: list[str],
    variables: dict[str, str],
    options: dict[str, object],
) -> None:
    for key, value in variables.items():
        environment.setenv(key, value)
    result = cli("create", "--driver", "fake", *words, "node1")
    assert (result.code, result.err) == (0, "")
    assert store.load("node1").options == options
    assert "(unchanged)" in cli("create", "--driver", "fake", *words, "node1").out


@pytest.mark.parametrize(
    ("words", "variables", "spec"),
    [
        ([], {}, {"engine": "distro", "labels": []}),
        (["--engine", "docker"], {}, {"engine": "docker"}),
        (["--engine-label", "a=b", "--engine-label", "c=d,e"], {}, {"labels": ["a=b", "c=d,e"]}),
        (["--engine-opt=log-level=warn"], {}, {"opts": ["log-level=warn"]}),
        (["--engine-insecure-registry", "r:5000"], {}, {"insecure_registries": ["r:5000"]}),
        (["--engine-registry-mirror", "https://m"], {}, {"registry_mirrors": ["https://m"]}),
        ([], {"ENGINE_REGISTRY_MIRROR": "https://m"}, {"registry_mirrors": ["https://m"]}),
        (["--engine-registry-mirror", "http://a"], {"ENGINE_REGISTRY_MIRROR": "b"}, {"registry_mirrors": ["http://a"]}),
        (["--tls-san", "x.test", "--tls-san=192.0.2.9"], {}, {"tls_sans": ["x.test", "192.0.2.9"]}),
        (
            ["--engine", "script"],
            {"MACHINE_DOCKER_INSTALL_URL": "https://x.test"},
            {"engine": "script", "install_url": "https://x.test"},
        ),
    ],
)
def test_the_engines_options(
    cli: Cli,
    store: Store,
    cloud: FakeCloud,
    environment: pytest.MonkeyPatch,
    words: list[str],
    variables: dict[str, str],
    spec: dict[str, object],
) -> None:
    for key, value in variables.items():
        environment.setenv(key, value)
    assert cli("create", "-d", "fake", *words, "node1").code == 0
    assert spec.items() <= store.load("node1").spec.items()


@pytest.mark.parametrize("words", [["-d", "fake"], ["-dfake"], ["--driver=fake"], []])
def test_the_driver_is_chosen(
    cli: Cli, store: Store, cloud: FakeCloud, environment: pytest.MonkeyPatch, words: list[str]
) -> None:
    if not words:
        environment.setenv("MACHINE_DRIVER", "fake")
    assert cli("create", *words, "--fake-size", "2").code == 0
    assert store.load("default").driver == "fake"


def test_people_are_told_each_step_and_each_result(cli: Cli, cloud: FakeCloud) -> None:
    result = cli("create", "-d", "fake", "b", "a", "b")
    lines = result.out.splitlines()
    ready = [f"{name}: ready at tcp://127.0.0.1:{cloud.engine_port} (created)" for name in ("a", "b")]
    assert sorted(line for line in lines if ": ready" in line) == ready
    assert "a: Creating the instance" in lines
    assert (result.code, result.err) == (0, "")


def test_programs_get_json_and_progress_goes_to_stderr(cli: Cli, store: Store, cloud: FakeCloud) -> None:
    result = cli("create", "-d", "fake", "--json", "a", "b")
    assert json.loads(result.out) == [store.read("a"), store.read("b")]
    assert "a: Creating the instance" in result.err


def test_one_failure_does_not_stop_the_others(cli: Cli, store: Store, cloud: FakeCloud) -> None:
    cli("create", "-d", "fake", "b")
    result = cli("create", "-d", "fake", "--fake-size", "2", "a", "b", "c")
    assert result.code == 1
    assert 'machinekit: Docker machine "b" already exists, with other options:\n  --fake-size: 1 -> 2' in result.err
    assert store.names() == ["a", "b", "c"]
    ready = [line.partition(":")[0] for line in result.out.splitlines() if ": ready at" in line]
    assert sorted(ready) == ["a", "c"]


@pytest.mark.parametrize(("failing", "code"), [("check", 3), ("create", 1)])
def test_exit_codes(cli: Cli, cloud: FakeCloud, failing: str, code: int) -> None:
    cloud.failing.add(failing)
    assert cli("create", "-d", "fake", "a").code == code


def test_a_secret_is_nowhere_to_be_seen(cli: Cli, store: Store, cloud: FakeCloud) -> None:
    results = [cli("-D", "create", "-d", "fake", "--json", "a"), cli("inspect", "a"), cli("ls", "--json")]
    assert not [result for result in results if "s3cret" in result.out + result.err]


def test_help_shows_the_chosen_drivers_options(cli: Cli, cloud: FakeCloud, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli("create", "-d", "fake", "--help")
    said = " ".join(capfd.readouterr().out.split())
    for text in (
        "--fake-token TOKEN API token (required) [$FAKE_TOKEN]",
        "--fake-size SIZE size in GB, 100 % of which is yours (1) [$MACHINEKIT_FAKE_SIZE]",
        "--fake-tags TAGS tag, repeatable [$FAKE_TAGS]",
        "--fake-spot, --no-fake-spot take a cheap one",
        "--engine-label LABEL engine label, name=value, repeatable",
        "registry mirror URL, repeatable [$ENGINE_REGISTRY_MIRROR]",
    ):
        assert text in said
    assert "--qemu-" not in said


def test_a_proxy_counts_for_this_computer_too(cli: Cli, cloud: FakeCloud, environment: pytest.MonkeyPatch) -> None:
    """Images are pulled and built through it."""
    for variable in ("http_proxy", "https_proxy", "no_proxy"):
        environment.setenv(variable, "")
        environment.setenv(variable.upper(), "")  # so that they are as before afterwards
    assert cli("create", "-d", "fake", "--proxy", "http://proxy.test:3128", "--no-proxy", ".corp", "node1").code == 0
    assert urllib.request.getproxies()["https"] == "http://proxy.test:3128"
    assert urllib.request.proxy_bypass("registry.corp")
    assert not urllib.request.proxy_bypass("cloud.example")
