"""A laboratory on this computer: an engine of its own, images, hosts to adopt, and the command line."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from machinekit.providers.container import Container, ContainerOptions

from machinekit import keys, ssh
from machinekit.images import Images
from machinekit.machine import Birth, Machine

PROGRAMS = ("dockerd", "docker", "docker-compose", "iptables", "ip", "mmdebstrap", "qemu-system-x86_64", "qemu-img")


def obstacle() -> str:
    """Why real hosts cannot run on this computer; empty when they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    return f"needs {', '.join(missing)}" if missing else ""


@dataclass
class Lab:
    """Everything lives under `root`, but for the `images`, which others may share; `cleanup` leaves nothing of it."""

    root: Path
    images: Path
    number: int = -1  # of the bridge, so that two laboratories can run at once
    engine: subprocess.Popen[bytes] | None = None
    _hosts: list[Container] = field(default_factory=list)

    @property
    def socket(self) -> str:
        """The laboratory's own engine."""
        return f"unix://{self.root}/engine/docker.sock"

    @property
    def bridge(self) -> str:
        """The laboratory's own network interface."""
        return bridge_name(self.number)

    @property
    def gateway(self) -> str:
        """This computer, as the hosts see it."""
        return f"172.30.{200 + self.number}.1"

    def start(self) -> None:
        """Start the engine on a bridge of its own."""
        home = self.root / "engine"
        home.mkdir()
        self.images.mkdir(exist_ok=True)
        self.number = next(number for number in range(50) if _add_bridge(number))
        run("ip", "address", "add", f"{self.gateway}/24", "dev", self.bridge)
        # two engines that start at once would take each other's firewall rules away
        with self.alone(), (home / "log").open("wb") as log:
            words = [f"--data-root={home}/data", f"--exec-root={home}/exec", f"--pidfile={home}/pid"]
            words += [f"--host={self.socket}", f"--bridge={self.bridge}"]
            self.engine = subprocess.Popen(["dockerd", *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            for _ in range(600):
                version = subprocess.run(["docker", "-H", self.socket, "version"], capture_output=True, check=False)
                if version.returncode == 0:
                    return
                time.sleep(0.1)
        raise RuntimeError((home / "log").read_text()[-3000:])

    def cleanup(self) -> None:
        """Remove hosts, engine and bridge."""
        if self.engine and self.engine.poll() is None:
            containers = self.docker("ps", "-aq").split()
            if containers:
                self.docker("rm", "-f", "-v", *containers)
            self.engine.terminate()
            self.engine.wait(120)
        if self.number >= 0:
            run("ip", "link", "delete", self.bridge)
        shutil.rmtree(self.root, ignore_errors=True)

    def docker(self, *words: str, stdin: bytes | None = None) -> str:
        """The laboratory engine's own client."""
        return run("docker", "-H", self.socket, *words, stdin=stdin)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One laboratory at a time, of those that share the images."""
        descriptor = os.open(self.images, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def rootfs(self, name: str) -> None:
        """Have the image for container machines, building it once."""
        Images(self.images).ensure("rootfs", name, print)

    def disk(self, name: str) -> None:
        """Have the image for virtual machines, building it once."""
        Images(self.images).ensure("disk", name, print)

    @contextmanager
    def user(self, directory: Path) -> Iterator[Cli]:
        """Somebody with an empty store that shares the laboratory's images; their machines are removed at the end."""
        home = directory / "home"
        home.mkdir(mode=0o700)
        (home / "images").symlink_to(self.images)
        cli = Cli(self, home)
        try:
            yield cli
        finally:
            for name in cli("ls", "-q").split():
                cli("rm", "-f", name)

    @contextmanager
    def host(self, image: str = "debian-12") -> Iterator[Host]:
        """A bare server somebody else made: systemd, sshd, a key for root, nothing of machinekit."""
        self.rootfs(image)
        directory = self.root / "hosts" / uuid.uuid4().hex
        directory.mkdir(parents=True)
        private, public = keys.ssh_key("owner")
        host_private, host_public = keys.ssh_key("host")
        key = directory / "key"
        key.write_bytes(private)
        key.chmod(0o600)
        machine = Machine(f"host-{uuid.uuid4().hex[:6]}", str(uuid.uuid4()), "container", "lab", "")
        driver = Container(machine, ContainerOptions(engine=self.socket), directory, lambda: None)
        try:
            driver.create(
                Birth("root", public, host_private.decode(), host_public, "", Images(self.images).find("rootfs", image))
            )
            found = driver.find()
            assert found is not None
            host = Host(self, driver, found.address, key, host_public)
            host.login().close()
            yield host
        finally:
            driver.destroy()
            for resource in machine.resources:
                driver.release(resource)


@dataclass
class Host:
    """A server of the laboratory."""

    lab: Lab
    driver: Container
    address: str
    key: Path
    host_key: str

    @property
    def fingerprint(self) -> str:
        """What the owner reads off the host with ssh-keygen."""
        return ssh.fingerprint(self.host_key)

    def login(self) -> ssh.Connection:
        """A connection that is not the product's."""
        known = self.key.with_name("known_hosts")
        known.write_text(f"host {self.host_key}\n")
        return ssh.wait_connect(ssh.Host(self.address, 22, "root", "host", known, self.key), 60, newborn=True)

    def sh(self, script: str) -> str:
        """Run a script on it, past SSH, so that it counts no execution."""
        return self.lab.docker("exec", "-i", self.driver._name, "sh", "-eu", stdin=script.encode())

    def count_executions(self) -> None:
        """Let sshd log every command from now on."""
        self.sh("echo 'LogLevel VERBOSE' >/etc/ssh/sshd_config.d/count.conf; systemctl reload ssh")

    def executions(self) -> int:
        """How many commands sshd has started."""
        return self.sh("journalctl -u ssh --no-pager -o cat").count("Starting session: ")


@dataclass
class Cli:
    """The command line with a store of its own, as a user runs it."""

    lab: Lab
    home: Path
    variables: dict[str, str] = field(default_factory=dict)  # that this user's shell has set beside

    @property
    def environment(self) -> dict[str, str]:
        """What the user's shell has set."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "MACHINE"))}
        return (
            ours
            | self.variables
            | {
                "MACHINEKIT_HOME": str(self.home),
                "MACHINEKIT_CONTAINER_ENGINE": self.lab.socket,
                "DOCKER_CONFIG": str(self.home / "docker-config"),
                "SHELL": "/bin/bash",
            }
        )

    def __call__(self, *words: str, stdin: str = "") -> str:
        """Run it; the test fails with its output when it fails."""
        return run(sys.executable, "-m", "machinekit", *words, env=self.environment, stdin=stdin.encode())

    def fail(self, *words: str, code: int = 1) -> str:
        """Run it where it must fail with this exit code; returns stderr."""
        result = subprocess.run(
            [sys.executable, "-m", "machinekit", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == code, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr
        return result.stderr

    def client(self, name: str) -> dict[str, str]:
        """The environment after eval "$(machinekit env NAME)", as bash evaluates it."""
        script = f'eval "$({sys.executable} -m machinekit env {name})"; env -0'
        output = run("bash", "-euc", script, env=self.environment)
        return dict(line.split("=", 1) for line in output.split("\0") if "=" in line)


def bridge_name(number: int) -> str:
    """A laboratory's network interface."""
    return f"mkit{number}"


def _add_bridge(number: int) -> bool:
    """Take the number, unless another laboratory has it."""
    words = ["ip", "link", "add", "name", bridge_name(number), "type", "bridge"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode != 0 and "File exists" not in result.stderr:
        raise AssertionError(f"{' '.join(words)}: {result.stderr}")
    return result.returncode == 0


def free_port() -> int:
    """A port of this computer that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def wait_for_port(address: str, port: int) -> None:
    """Until somebody listens there."""
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens at {address}:{port}")


def run(*command: str, env: dict[str, str] | None = None, stdin: bytes | None = None, cwd: Path | None = None) -> str:
    """Run a program; an error shows everything it said."""
    result = subprocess.run(command, capture_output=True, check=False, env=env, input=stdin or b"", cwd=cwd)
    output = result.stdout.decode(errors="replace")
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {result.returncode}\n{output}\n{result.stderr.decode()}")
    return output
