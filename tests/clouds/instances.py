"""Real hosts at the addresses of an EC2 endpoint's instances: containers whose cloud-init applies their user-data."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from machinekit.providers import privileges

from machinekit import bootstrap
from machinekit.images import Images
from machinekit.imagestore import DRAFT
from machinekit.machine import Image
from tests.clouds.ec2 import Ec2
from tests.e2e.lab import Lab, run

IMAGE = "debian-12-cloud"
SEED = "var/lib/cloud/seed/nocloud-net"
SHUT_DOWN = "20"  # seconds for systemd inside
_FOR_CLOUD = r"""
mkdir -p "$1/etc/cloud/cloud.cfg.d"
cat >"$1/etc/cloud/cloud.cfg.d/90-machinekit.cfg" <<END
datasource_list: [NoCloud, None]
network: {config: disabled}
locale: false
apt_preserve_sources_list: true
grub_dpkg: {enabled: false}
ssh: {emit_keys_to_console: false}
END
"""


class Power(NamedTuple):
    """How a container should be: on, off or gone; its public address; how often it has booted."""

    state: str
    public: str = ""
    boots: int = 0


GONE = Power("gone")


@contextmanager
def real_instances(lab: Lab) -> Iterator[Instances]:
    """An EC2 endpoint with a host at both addresses of each instance, which only this computer can reach."""
    vpc, public = f"10.{120 + lab.number}.0.0/16", f"198.18.{lab.number}.0/24"
    network = f"mkvpc{lab.number}"  # and its bridge
    named = ["-o", f"com.docker.network.bridge.name={network}"]
    tag = _import(lab, image(lab))
    lab.docker("network", "create", "--subnet", vpc, *named, network)
    try:
        run("ip", "route", "add", public, "dev", network)
        with Ec2(vpc, public) as ec2:
            instances = Instances(lab, ec2, network, tag)
            try:
                yield instances
            finally:
                instances.end()
    finally:
        lab.docker("network", "rm", network)


class Instances:
    """The hosts: while an instance runs, a system with an engine that has booted with its user-data."""

    def __init__(self, lab: Lab, ec2: Ec2, network: str, image: str) -> None:
        self.ec2 = ec2
        self._lab, self._network, self._image = lab, network, image
        self._steps: dict[str, Future[None]] = {}  # by instance: the last one, after which comes the next
        self._power: dict[str, Power] = {}  # and what it makes of it
        self._made: set[str] = set()
        self._pool = ThreadPoolExecutor(4)
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def sh(self, identity: str, script: str) -> str:
        """Run a script in an instance, past SSH."""
        return self._lab.docker("exec", "-i", identity, "sh", "-eu", stdin=script.encode())

    def settle(self) -> None:
        """Wait until each host is as its instance is just now; raises what went wrong with one."""
        while not self._settled():
            self._complain()
            time.sleep(0.05)
        self._complain()

    def reset(self) -> None:
        """Make the endpoint new; the hosts are gone."""
        self.ec2.reset()
        self.settle()

    def end(self) -> None:
        """Remove the hosts; what went wrong with one of them is raised."""
        self._over.set()
        self._watcher.join()
        self._pool.shutdown()
        for identity in self._made:
            self._lab.docker("rm", "-f", "-v", identity)
        self._complain()

    def _settled(self) -> bool:
        found = {instance["id"]: instance for instance in self.ec2.state("instances")}
        busy = [step for step in list(self._steps.values()) if not step.done()]
        return not busy and all(
            self._power.get(identity, GONE) == _power(found.get(identity)) for identity in {*found, *list(self._power)}
        )

    def _complain(self) -> None:
        for step in list(self._steps.values()):
            if step.done():
                step.result()

    def _watch(self) -> None:
        """Let each host follow its instance, one step after the other; one that fails is left as it is."""
        while not self._over.wait(0.1):
            found = {instance["id"]: instance for instance in self.ec2.state("instances")}
            for identity in found.keys() | self._power.keys():
                step = self._steps.get(identity)
                if step and (not step.done() or step.exception()):
                    continue
                instance = found.get(identity)
                before, wanted = self._power.get(identity, GONE), _power(instance)
                if wanted != before:
                    self._steps[identity] = self._pool.submit(self._step, identity, instance, before, wanted)
                    self._power[identity] = wanted
                elif wanted == GONE:
                    self._steps.pop(identity, None)
                    self._power.pop(identity, None)

    def _step(self, identity: str, instance: Any, before: Power, wanted: Power) -> None:
        docker = self._lab.docker
        match wanted.state:
            case "on":
                if identity not in self._made:
                    self._create(instance)
                if before.state == "on" and before.boots != wanted.boots:
                    docker("stop", "--time", SHUT_DOWN, identity)
                docker("start", identity)
                if wanted.public:
                    self.sh(identity, f"ip address replace {wanted.public}/32 dev eth0")
            case "off" if identity in self._made:
                docker("stop", "--time", SHUT_DOWN, identity)
            case "gone" if identity in self._made:
                docker("rm", "-f", "-v", identity)
                self._made.remove(identity)

    def _create(self, instance: dict[str, Any]) -> None:
        identity, address = instance["id"], instance["private_address"]
        self._lab.docker(
            *["create", "--name", identity, "--network", self._network, "--ip", address],
            *["--hostname", f"ip-{address.replace('.', '-')}", "--volume", "/var/lib/docker"],
            *["--env", "container=docker", "--stop-signal", "SIGRTMIN+3"],  # systemd's "power off"
            *["--tmpfs", "/run:exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"],  # noqa: S108
            *privileges.options(
                Path("/proc/self/status").read_text(), cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists()
            ),
            *[self._image, "/lib/systemd/systemd"],
        )
        self._made.add(identity)
        self._lab.docker("cp", "-", f"{identity}:/", stdin=_seed(identity, instance["asked"].get("UserData", "")))


def image(lab: Lab) -> Image:
    """Debian with sshd, cloud-init and an engine; built once."""
    images = Images(lab.images)
    with images.alone("rootfs", IMAGE, "build", print) as target:
        if found := images.find("rootfs", IMAGE):
            return found
        draft = Path(tempfile.mkdtemp(prefix=f"{DRAFT}{IMAGE}-", dir=target.parent))
        packages, setup = f"{bootstrap._BASE} cloud-init", bootstrap._FOR_ROOTFS + _FOR_CLOUD
        bootstrap._bootstrap(f"debian-12{bootstrap.WITH_ENGINE}", draft / bootstrap.ROOTFS, packages, setup)
        return images.settle(draft, "rootfs", IMAGE, {})


def _import(lab: Lab, image: Image) -> str:
    tag = f"{image.name}:{image.build}"
    if not lab.docker("image", "ls", "--quiet", tag).strip():
        lab.docker("import", str(image.path / bootstrap.ROOTFS), tag)
    return tag


def _power(instance: dict[str, Any] | None) -> Power:
    if instance and instance["state"] in ("pending", "running"):
        return Power("on", instance["public_address"], instance["boots"])
    return Power("off") if instance and instance["state"] in ("stopping", "stopped") else GONE


def _seed(identity: str, user_data: str) -> bytes:
    """What cloud-init looks for at its first boot, as a tar."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in (
            ("meta-data", json.dumps({"instance-id": identity}).encode()),
            ("user-data", base64.b64decode(user_data)),
        ):
            file = tarfile.TarInfo(f"{SEED}/{name}")
            file.size = len(content)
            tar.addfile(file, io.BytesIO(content))
    return archive.getvalue()
