"""No secret is where it does not belong: not in the store, in logs, in process lists, on the host, in its log."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from machinekit.providers.qemu import SEED, Qemu, QemuOptions

from machinekit import cloudinit, keys
from machinekit.images import Images
from machinekit.machine import Birth, Machine
from machinekit.store import CA_KEY, CLIENT_KEY, HOST_KEY, SERVER_KEY, SSH_KEY
from tests.e2e.lab import Cli, Host, Lab

TOKEN = f"token-{uuid.uuid4().hex}"
PRIVATE_KEYS = (CA_KEY, CLIENT_KEY, HOST_KEY, SERVER_KEY, SSH_KEY)
# where a key of ours may be on a host
HOMES = {SERVER_KEY: ["/etc/docker/server-key.pem"], HOST_KEY: ["/etc/ssh/ssh_host_ed25519_key"]}

# A third party's driver that wants a secret and adopts an engine.
VAULT = """
from dataclasses import dataclass
from machinekit.machine import Instance, State
from machinekit.provider import Capabilities, Driver, Options, option

@dataclass
class VaultOptions(Options):
    url: str = option("engine URL")
    token: str = option("API token", aliases=("VAULT_TOKEN",), secret=True, pattern="^token-[0-9a-f]{32}$")

class Vault(Driver[VaultOptions]):
    Options = VaultOptions
    capabilities = Capabilities(ssh=False, births=False)
    certificates = None

    @property
    def engine_url(self):
        return self.options.url

    def create(self, birth):
        assert self.options.token

    def find(self):
        assert self.options.token
        return Instance(State.RUNNING, "localhost")

    def destroy(self):
        pass
"""


def body(pem: str) -> str:
    """What only this key has: a line from the middle of it."""
    lines = pem.strip().splitlines()
    return lines[len(lines) // 2 if len(lines) > 3 else 1]


def forms(secret: str) -> list[bytes]:
    """A secret as it is, and where Base64 may start in the middle of a text."""
    encoded = [base64.b64encode(b" " * shift + secret.encode())[4:-4] for shift in range(3)]
    return [secret.encode(), *encoded]


@dataclass
class Sampler:
    """What every process of this computer shows of itself, those inside the hosts among them, while it runs."""

    seen: set[tuple[str, bytes]] = field(default_factory=set)  # "cmdline" or "environ", and the content
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Sampler:
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.01):
            for folder in Path("/proc").glob("[0-9]*"):
                for kind in ("cmdline", "environ"):
                    try:
                        self.seen.add((kind, (folder / kind).read_bytes()))
                    except OSError:  # it has ended
                        continue


@dataclass
class Story:
    """What happened to the machines `box`, `web` and `vault`, and what was said."""

    cli: Cli
    host: Host
    sampler: Sampler
    said: list[str] = field(default_factory=list)

    def tell(self, *words: str) -> None:
        """Run a command at debug level and keep all that it says."""
        command = [sys.executable, "-m", "machinekit", "-D", *words]
        result = subprocess.run(command, env=self.cli.environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        self.said += [result.stdout, result.stderr]

    def keys(self, machine: str) -> dict[str, str]:
        """The machine's private keys by file."""
        folder = self.cli.home / "machines" / machine
        return {file: (folder / file).read_text() for file in PRIVATE_KEYS if (folder / file).exists()}

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret by where it lives."""
        found = {"token": TOKEN}
        for machine in ("box", "web"):
            found |= {f"{machine}/{file}": body(pem) for file, pem in self.keys(machine).items()}
        return found | {"owner's key": body(self.host.key.read_text())}


@pytest.fixture(scope="module")
def story(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A life of three machines, watched."""
    lab.rootfs("debian-12+engine")
    site = tmp_path_factory.mktemp("site")
    package = site / "machinekit_vault-1.0.dist-info"
    package.mkdir()
    (site / "machinekit_vault.py").write_text(VAULT)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: machinekit-vault\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[machinekit.providers]\nvault = machinekit_vault:Vault\n")
    with pytest.MonkeyPatch.context() as patch, lab.host("debian-12+engine") as host:
        patch.setenv("PYTHONPATH", str(site))
        patch.setenv("VAULT_TOKEN", TOKEN)
        with lab.user(tmp_path_factory.mktemp("secrets")) as cli, Sampler() as sampler:
            story = Story(cli, host, sampler)
            story.tell("create", "-d", "vault", "--vault-url", lab.socket, "--json", "vault")
            story.tell("create", "-d", "container", "--json", "box")
            adopt = ["-d", "generic", "--generic-ip-address", host.address, "--generic-ssh-key", str(host.key)]
            story.tell("create", *adopt, "--json", "web")
            for words in ("ls", "ls --json", "inspect box", "inspect vault", "status vault", "use box", "env web"):
                story.tell(*words.split())
            for words in ("config box", "url web", "provision box", "regenerate-certs -y web", "ssh box true"):
                story.tell(*words.split())
            yield story


def test_what_is_a_secret(story: Story) -> None:
    """The other tests would hold for nothing if none were looked for."""
    assert set(story.secrets) == {
        *(f"box/{file}" for file in PRIVATE_KEYS),
        *(f"web/{file}" for file in (CA_KEY, CLIENT_KEY, SERVER_KEY)),
        *("token", "owner's key"),
    }
    assert min(map(len, story.secrets.values())) > 30
    assert len(set(story.secrets.values())) == len(story.secrets)
    assert any(b"machinekit" in shown and b"create" in shown for kind, shown in story.sampler.seen if kind == "cmdline")
    assert sum(map(len, story.said)) > 1000


def test_nothing_is_said(story: Story) -> None:
    said = "\n".join(story.said).encode()
    assert [name for name, secret in story.secrets.items() if any(form in said for form in forms(secret))] == []


def test_nothing_is_in_a_process_list(story: Story) -> None:
    shown = {
        kind: b"\n".join(text for each, text in story.sampler.seen if each == kind) for kind in ("cmdline", "environ")
    }
    for name, secret in story.secrets.items():
        assert not any(form in shown["cmdline"] for form in forms(secret)), name
        if name != "token":  # which its owner put into the environment
            assert not any(form in shown["environ"] for form in forms(secret)), name


def test_each_secret_is_in_one_file_of_the_store(story: Story) -> None:
    machines, docker = story.cli.home / "machines", story.cli.home / "docker-config"
    files = [path for folder in (machines, docker) for path in folder.rglob("*") if path.is_file()]
    found: dict[str, list[str]] = {name: [] for name in story.secrets}
    for path in files:
        content = path.read_bytes()
        for name, secret in story.secrets.items():
            if any(form in content for form in forms(secret)):
                found[name].append(str(path.relative_to(machines)) if machines in path.parents else "docker context")
    expected = {name: [name] for name in story.secrets if "/" in name} | {"token": [], "owner's key": []}
    # what `use` is for: any docker client finds the key of the machine's client there
    expected[f"box/{CLIENT_KEY}"] = [f"box/{CLIENT_KEY}", "docker context"]
    assert found == expected


def test_the_host_has_its_own_keys_alone(story: Story) -> None:
    """Files, shell history, temporary files, logs and the journal."""
    (box,) = story.host.lab.docker("ps", "-q", "--filter", "label=machinekit.name=box").split()
    for machine, container in (("box", box), ("web", story.host.driver._name)):
        for name, secret in story.secrets.items():
            script = "grep -rlaFf - /etc /root /home /tmp /run /var/log /var/tmp /var/lib/systemd /opt /srv || true"
            needles = b"\n".join(forms(secret))
            places = story.host.lab.docker("exec", "-i", container, "sh", "-c", script, stdin=needles).split()
            owner, _, file = name.partition("/")
            assert sorted(places) == (HOMES.get(file, []) if owner == machine else []), (machine, name)
        for file in (path for places in HOMES.values() for path in places):
            assert story.host.lab.docker("exec", container, "stat", "-c", "%a %u", file) == "600 0\n"
        journal = story.host.lab.docker("exec", container, "journalctl", "--no-pager", "-o", "cat").encode()
        assert [name for name, secret in story.secrets.items() if any(form in journal for form in forms(secret))] == []


def test_a_wrong_secret_is_not_repeated(story: Story) -> None:
    wrong = "--vault-token=tokn-0123456789"
    said = story.cli.fail("create", "-d", "vault", "--vault-url", "unix:///s", wrong, "other", code=2)
    assert "--vault-token does not have the right form: API token" in said
    assert "0123456789" not in said


@pytest.mark.parametrize("umask", ["000", "077"])
def test_everything_is_its_owners_alone(lab: Lab, tmp_path: Path, umask: str) -> None:
    """Whatever the umask of the shell."""
    with lab.user(tmp_path) as cli:
        script = f'umask {umask}; "$@" create -d container a && "$@" use a && "$@" regenerate-certs -y a'
        command = ["sh", "-euc", script, "-", sys.executable, "-m", "machinekit"]
        subprocess.run(command, env=cli.environment, check=True, capture_output=True)
        assert wrong_modes(cli.home) == []


def test_a_virtual_machine_keeps_its_secrets(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed has the host key, which the machine needs before anybody can log in; QEMU knows nothing else of us."""
    lab.disk("debian-12+engine")
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    private, public = keys.ssh_key("host")
    client, authorized = keys.ssh_key("client")
    data = cloudinit.user_data("vm", "machinekit", authorized, private.decode(), public)
    image = Images(lab.images).find("disk", "debian-12+engine")
    directory = tmp_path / "vm"
    directory.mkdir(mode=0o700)
    uid = str(uuid.uuid4())
    driver = Qemu(Machine("vm", uid, "qemu", "lab", ""), QemuOptions(), directory, lambda: None)
    before = os.umask(0)
    try:
        driver.create(Birth("machinekit", authorized, private.decode(), public, data, image))
    finally:
        os.umask(before)
    try:
        (process,) = [folder for folder in Path("/proc").glob("[0-9]*") if uid.encode() in _shown(folder, "cmdline")]
        assert TOKEN.encode() not in _shown(process, "environ")
        assert body(private.decode()).encode() not in _shown(process, "cmdline")
        assert body(private.decode()).encode() in (directory / SEED).read_bytes()
        assert body(client.decode()).encode() not in (directory / SEED).read_bytes()
        shared = {"base", "vmlinuz", "initrd.img"}  # links to the image, which has no secret
        assert [path for path in wrong_modes(directory) if path not in shared] == []
    finally:
        driver.destroy()


def _shown(process: Path, kind: str) -> bytes:
    try:
        return (process / kind).read_bytes()
    except OSError:
        return b""


def wrong_modes(folder: Path) -> list[str]:
    """What below a folder others than its owner may use."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [str(path.relative_to(folder)) for path in paths if path.lstat().st_mode & 0o077]
