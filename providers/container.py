"""A container of the local engine that boots systemd and is used as a machine: there in seconds."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machinekit import locks, programs
from machinekit.errors import DeadlineError, DriverError, PreCheckError, nearest
from machinekit.machine import Birth, Image, Instance, Machine, Resource, State
from machinekit.provider import Capabilities, Check, Driver, Level, Options, option

from . import memory, privileges, publish

VOLUME = "volume"
SHUT_DOWN = 30  # seconds for systemd inside
PATIENCE = 90.0  # seconds for an answer of the engine
ANSWER = 20.0  # ... to a question that it need not think about
NO_ENGINE = "start the engine, or name another with --container-engine"
IMPORT = 900.0  # seconds to import an image
STATES = {
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "restarting": State.STARTING,
    "removing": State.STOPPING,
    "created": State.STOPPED,
    "exited": State.STOPPED,
    "dead": State.ERROR,
}


def _with_addresses(network: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", network):
        raise ValueError(f"{network!r} is not a name for a network")
    if network in ("host", "none"):
        raise ValueError(f"a machine needs an address of its own, which network {network!r} does not give")
    return network


@dataclass
class ContainerOptions(Options):
    """Which engine, and the shape of the container."""

    image: str = option("image to boot (see machinekit image ls)", default="")
    network: str = option("network of the engine to join", default="bridge", check=_with_addresses)
    publish: tuple[str, ...] = option(
        "[ADDRESS:]PORT:MACHINE-PORT[/udp] to forward from this computer", default=(), check=publish.check
    )
    cpus: float = option("CPUs it may use, 0 for all", default=0, ge=0)
    memory: str = option(
        "memory it may use, such as 1G; empty for all", default="", pattern=r"^([1-9][0-9]*[MG])?$", check=memory.check
    )
    engine: str = option(
        "engine that runs the container", default="unix:///var/run/docker.sock", pattern=r"^unix:///.+$"
    )


class Container(Driver[ContainerOptions]):
    """A container of the local engine."""

    Options = ContainerOptions
    capabilities = Capabilities(image="rootfs")
    floating = ("image",)

    @property
    def ssh_user(self) -> str:
        """There is no first boot that could make another user."""
        return "root"

    @property
    def image(self) -> str:
        """As given."""
        return self.options.image

    @property
    def _name(self) -> str:
        return f"{self.machine.name}-{self.machine.uid[:8]}"

    def check(self) -> None:
        """A docker client is here, the engine answers, and it has what was asked for."""
        if not shutil.which("docker"):
            raise PreCheckError("the docker client is not installed", "apt-get install docker.io")
        try:
            networks = self._docker("network", "ls", "--format", "{{.Name}}").split()
        except DriverError as error:
            raise PreCheckError(error.message, NO_ENGINE) from None
        if self.options.network not in networks:
            raise PreCheckError(
                f'the engine has no network "{self.options.network}"{nearest(self.options.network, networks)}',
                f"it has {', '.join(networks)}; docker network create makes another",
            )
        if self.options.cpus:
            there = int(self._docker("info", "--format", "{{.NCPU}}"))
            if self.options.cpus > there:
                raise PreCheckError(f"--container-cpus asks for {self.options.cpus:g} CPUs, and the engine has {there}")
        publish.check_free(self.options.publish, ours=False)

    def remarks(self) -> list[str]:
        """A container is no wall."""
        return ["a container machine is not isolated from this computer as a virtual machine is"]

    def create(self, birth: Birth) -> None:
        """Make what is missing, put in the keys before the first boot, and start."""
        assert birth.image is not None  # noqa: S101 (capabilities ask for one)
        image = self._import(birth.image)
        volume = self.plan(VOLUME, self._name)
        labels = [f"--label={key}={value}" for key, value in self.marks().items()]
        found = self.find()
        if found is None:
            self._docker("create", *labels, *self._run_options(volume), image, "/lib/systemd/systemd")
        if found is None or found.state is State.STOPPED:
            self._docker("cp", "-", f"{self._name}:/", data=_keys(birth))
            self._docker("start", self._name)

    def find(self) -> Instance | None:
        """By label, so that a container that was renamed is still found."""
        return _inspect(self._docker, [self.machine]).get(self.machine.uid)

    @classmethod
    def find_all(cls, drivers: Sequence[Driver[Any]]) -> dict[str, Instance | None]:
        """Two calls for each engine, however many machines it has."""
        found: dict[str, Instance | None] = {driver.machine.uid: None for driver in drivers}
        for engine in {driver.options.engine for driver in drivers}:
            mine = [driver for driver in drivers if driver.options.engine == engine]
            found |= _inspect(lambda *words, at=engine: _docker(at, *words), [driver.machine for driver in mine])
        return found

    def start(self) -> None:
        """Boot, or go on after a pause."""
        found = self.find()
        self._docker("unpause" if found and found.state is State.PAUSED else "start", self._name)

    def stop(self) -> None:
        """Ask systemd inside to power off."""
        self._docker("stop", "--time", str(SHUT_DOWN), self._name)

    def kill(self) -> None:
        """Cut the power; nothing when it is off."""
        try:
            self._docker("kill", self._name)
        except DriverError as error:
            if "is not running" not in error.message:
                raise

    def destroy(self) -> None:
        """Remove the container."""
        for container in _ids(self._docker, f"label=machinekit.uid={self.machine.uid}"):
            self._docker("rm", "--force", "--volumes", container)

    def release(self, resource: Resource) -> None:
        """Remove the volume of the inner engine."""
        if resource.kind == VOLUME:
            self._docker("volume", "rm", "--force", resource.name)

    @classmethod
    def account(cls, options: Any) -> tuple[Hashable, ...]:
        """The engine."""
        return (options.engine,)

    @classmethod
    def is_set_up(cls, options: Any) -> bool:
        """There is a docker client, and an engine or what is left of one."""
        return bool(shutil.which("docker")) and Path(options.engine.removeprefix("unix://")).exists()

    @classmethod
    def orphans(cls, options: Any, known: Callable[[Machine], bool]) -> list[Machine]:
        """Containers and volumes with our marks whose machine is not known."""
        found: dict[str, Machine] = {}
        listing = '{{.Label "machinekit.uid"}} {{.Label "machinekit.name"}} {{.Label "machinekit.store"}} '
        mark = ("--filter", "label=machinekit.uid", "--format")
        lines = _docker(options.engine, "ps", "--all", *mark, listing + "-").splitlines()
        lines += _docker(options.engine, "volume", "ls", *mark, listing + "{{.Name}}").splitlines()
        for line in lines:
            words = line.split(" ")
            if len(words) != 4 or not all(words):  # noqa: PLR2004
                continue  # somebody else's idea of our labels
            uid, name, store, volume = words
            orphan = found.setdefault(
                uid, Machine(name, uid, "container", store, created="", options={"engine": options.engine})
            )
            if volume != "-":
                orphan.resources.append(Resource(VOLUME, volume))
        return [orphan for orphan in found.values() if not known(orphan)]

    @classmethod
    def requirements(cls, options: Any, subject: str) -> list[Check]:
        """The engine answers the docker client."""
        try:
            version = _docker(options.engine, "version", "--format", "{{.Server.Version}}", patience=ANSWER).strip()
        except DriverError as error:
            return [Check(Level.PROBLEM, subject, error.message, NO_ENGINE)]
        return [Check(Level.OK, subject, f"the engine at {options.engine} answers, version {version}")]

    @classmethod
    def forget_image(cls, options: Any, image: Image) -> None:
        """Remove what was imported from this image, unless a container still uses it."""
        try:
            _docker(options.engine, "image", "rm", _tag(image))
        except DriverError as error:
            if not any(text in error.message for text in ("No such image", "Cannot connect", "is using its")):
                raise

    def _docker(self, *words: str, data: bytes = b"", patience: float = PATIENCE, long: bool = False) -> str:
        return _docker(self.options.engine, *words, data=data, patience=patience, long=long)

    def _import(self, image: Image) -> str:
        tag = _tag(image)
        # machines that are created together would each import it, and leave all but the last without a name
        with locks.held(image.path / ".lock-import", f"image {image.name}", "import", patience=IMPORT):
            if not self._docker("image", "ls", "--quiet", tag).strip():
                self._docker("import", str(image.path / "rootfs.tar"), tag, patience=IMPORT, long=True)
        return tag

    def _run_options(self, volume: str) -> list[str]:
        # the volume is made with the container, and never without our marks
        labels = [f"volume-label={key}={value}" for key, value in self.marks().items()]
        options = [
            *["--name", self._name, "--hostname", self.machine.name, "--network", self.options.network],
            *["--mount", ",".join([f"type=volume,source={volume},target=/var/lib/docker", *labels])],
            *["--env", "container=docker"],
            *["--stop-signal", "SIGRTMIN+3"],  # systemd's "power off"
            *["--tmpfs", "/run:exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"],  # noqa: S108
            *privileges.options(
                Path("/proc/self/status").read_text(), cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists()
            ),
        ]
        for port in map(publish.parse, self.options.publish):
            options += ["--publish", f"{port.address}:{port.port}:{port.inner}/{port.protocol}"]
        if self.options.cpus:
            options += ["--cpus", str(self.options.cpus)]
        if self.options.memory:
            options += ["--memory", self.options.memory]
        return options


def _keys(birth: Birth) -> bytes:
    """A tar of the SSH keys, to be unpacked at / before sshd starts."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        folder = tarfile.TarInfo("root/.ssh")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(folder)
        for path, text, mode in (
            ("root/.ssh/authorized_keys", birth.authorized_key, 0o600),
            ("etc/ssh/ssh_host_ed25519_key", birth.host_key, 0o600),
            ("etc/ssh/ssh_host_ed25519_key.pub", birth.host_key_public, 0o644),
        ):
            content = text.strip().encode() + b"\n"
            file = tarfile.TarInfo(path)
            file.size, file.mode = len(content), mode
            tar.addfile(file, io.BytesIO(content))
    return archive.getvalue()


def _tag(image: Image) -> str:
    return f"machinekit/{image.name.replace('+', '-')}:{image.build}"


def _ids(docker: Callable[..., str], *filters: str) -> list[str]:
    words = [word for text in filters for word in ("--filter", text)]
    return docker("ps", "--all", "--quiet", "--no-trunc", *words).split()


def _inspect(docker: Callable[..., str], machines: Sequence[Machine]) -> dict[str, Instance | None]:
    wanted = {machine.uid for machine in machines}
    label = f"label=machinekit.uid={machines[0].uid}" if len(machines) == 1 else "label=machinekit.uid"
    ids = _ids(docker, label)
    found: dict[str, Instance | None] = {}
    for data in _described(docker, ids):
        uid = data["Config"]["Labels"]["machinekit.uid"]
        if uid in wanted:
            networks = data["NetworkSettings"]["Networks"].values()
            address = next((network["IPAddress"] for network in networks if network["IPAddress"]), "")
            found[uid] = Instance(STATES.get(data["State"]["Status"], State.ERROR), address)
    return found


def _described(docker: Callable[..., str], ids: list[str]) -> list[dict[str, Any]]:
    """What the engine says of the containers; one that goes meanwhile is left out."""
    while ids:
        try:
            described: list[dict[str, Any]] = json.loads(docker("inspect", "--type", "container", *ids))
        except DriverError as error:
            gone = re.search(r"No such container: (\S+)", error.message)
            if not gone:
                raise
            ids = [container for container in ids if container != gone[1]]
        else:
            return described
    return []


def _docker(engine: str, *words: str, data: bytes = b"", patience: float = PATIENCE, long: bool = False) -> str:
    """Run the docker client against this engine, whatever DOCKER_HOST or context the user's shell points to."""
    command = ["docker", "--host", engine, *words]
    try:
        environment = programs.given("DOCKER_CONFIG")
        result = programs.run(command, data=data, environment=environment, patience=patience, long=long)
    except FileNotFoundError:
        raise DriverError("the docker client is not installed", "apt-get install docker.io") from None
    except DeadlineError:
        raise DriverError(f"docker {words[0]}: no answer within {patience:g} s", f"the engine is {engine}") from None
    if result.returncode != 0:
        said = result.stderr.decode(errors="replace").strip().removeprefix("Error response from daemon: ")
        raise DriverError(f"docker {words[0]}: {said}", f"the engine is {engine}")
    return result.stdout.decode()
