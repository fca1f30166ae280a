"""What the unit tests share: an empty store, a command line in this process, a provider in memory."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from machinekit.providers.generic import GenericOptions

from machinekit import cli as command_line
from machinekit import reference, secret, web
from machinekit.errors import UsageError
from machinekit.store import Store
from tests.providers.fake import Fake, FakeCloud
from tests.servers import Certificates, FakeHost, Server, encrypted, engine

# no database: the checkout stays clean; no deadline: CI is slow at times
hypothesis.settings.register_profile("machinekit", max_examples=50, deadline=None, database=None)
hypothesis.settings.register_profile("fuzz", hypothesis.settings.get_profile("machinekit"), max_examples=1000)
hypothesis.settings.load_profile("machinekit")


IMAGES = "MACHINEKIT_TEST_IMAGES"


def pytest_configure(config: pytest.Config) -> None:
    """Workers share the images; a folder of yours in $MACHINEKIT_TEST_IMAGES spares the builds of every run.

    It is here because the workers inherit what is set before they start: the conftest of a folder below comes later.
    """
    if IMAGES not in os.environ:
        os.environ[IMAGES] = tempfile.mkdtemp(prefix="machinekit-images-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ[IMAGES]))


@dataclass
class Told:
    """A Progress that keeps what it was told."""

    steps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)  # what a person would answer

    def ask(self, question: str) -> str | None:
        """What a person would say."""
        return self.secrets.get(question)

    def step(self, machine: str, text: str) -> None:
        """Keep it."""
        self.steps.append(text)

    def done(self, machine: str, seconds: float) -> None:
        """A step that ends has begun."""
        assert self.steps
        assert seconds >= 0

    def part(self, machine: str, text: str) -> None:
        """A step that is part done has begun; keep it."""
        assert self.steps
        self.parts.append(text)

    def note(self, machine: str, text: str) -> None:
        """Keep it."""
        self.notes.append(f"{machine}: {text}")

    def confirm(self, machine: str, question: str) -> bool:
        """There is nobody to ask."""
        raise UsageError(question)


@dataclass(frozen=True)
class Result:
    """What a command line did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which nothing is chosen, and whose home is empty."""
    ours = ("MACHINE", "DOCKER", "ENGINE", "GENERIC", "FAKE", "AWS_", "OS_", "DIGITALOCEAN_")
    for variable in list(os.environ):
        if variable.startswith(ours) or variable.lower() == "no_proxy":
            monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # this computer's role is none of the tests' business
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("MACHINEKIT_HOME", str(tmp_path / "home"))
    return monkeypatch


@pytest.fixture
def store(environment: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """An empty store; the command line finds it too."""
    return Store(tmp_path / "home")


@pytest.fixture
def told() -> Told:
    """Somebody to tell the progress to."""
    return Told()


@pytest.fixture
def cli(store: Store, environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """The command line as a shell would call it."""

    def call(*words: str) -> Result:
        environment.setattr(sys, "argv", ["machinekit", *words])
        code = command_line.main()
        sys.stdout.flush()
        return Result(code, *capfd.readouterr())

    return call


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    """A server that somebody else made, with an engine for us to set up."""
    directory = tmp_path / "host"
    directory.mkdir()
    with FakeHost(directory) as host:
        (directory / "key").write_bytes(host.private)
        (directory / "key").chmod(0o600)
        yield host


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA, a client and a server on loopback."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


def install_fake(site: Path) -> Path:
    """Put the package of the driver `fake` where Python finds it once the folder is in its path."""
    package = site / "machinekit_fake-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: machinekit-fake\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[machinekit.providers]\nfake = tests.providers.fake:Fake\n")
    return site


@pytest.fixture
def cloud(
    environment: pytest.MonkeyPatch, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeCloud]:
    """A provider in memory, installed the way a third party's package is, with one engine behind all its instances."""
    environment.syspath_prepend(install_fake(tmp_path_factory.mktemp("site")))
    environment.setenv("FAKE_TOKEN", "s3cret")
    with Server(encrypted(engine, certificates.context())) as server:
        cloud = FakeCloud(server.port, certificates.client_files)
        environment.setattr(Fake, "cloud", cloud, raising=False)
        yield cloud


def adopting(host: FakeHost, **options: Any) -> GenericOptions:
    """The options that make a machine of that server."""
    key = str(host.directory / "key")
    found = {"ssh_port": host.port, "ssh_key": key, "engine_port": host.engine.port, **options}
    return GenericOptions("127.0.0.1", **found)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A way to servers on loopback that no proxy of this computer is in, and no waiting between tries."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setattr(web, "PAUSE", 0)
    return monkeypatch


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are asked for anew, as in a process of its own."""
    monkeypatch.setattr(secret, "_answers", {})
    monkeypatch.setattr(reference, "_values", {})


@pytest.fixture
def as_at_a_terminal() -> Iterator[None]:
    """A job in the background of a shell starts its programs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
