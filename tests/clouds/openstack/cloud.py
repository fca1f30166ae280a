"""A real OpenStack on this computer: Keystone, Glance, Placement, Nova with emulated guests, Neutron.

It runs in a namespace of its own, with two network interfaces to this computer: one has the API, the other one is the
network `public`. So programs of this computer use it as any cloud, and nothing else can reach it.

`MACHINEKIT_TEST_CLOUD=DIR` keeps what takes long to make; a run changes nothing there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property, partial
from pathlib import Path

from machinekit.machine import Image
from tests.clouds.openstack import layers, seed
from tests.clouds.openstack.api import Api, endpoint, until
from tests.clouds.openstack.namespace import Namespace
from tests.clouds.openstack.services import FAKE, PREPARE, ROWS, Services

CACHE = "MACHINEKIT_TEST_CLOUD"
PROGRAMS = ("mmdebstrap", "unshare", "nsenter", "ip", "qemu-img")
ADDRESS, HERE = "10.77.0.2", "10.77.0.1"  # of the API, and of this computer beside it
PUBLIC, OURS, PRIVATE = "10.77.1.0/24", "10.77.1.1", "10.77.2.0/24"  # networks, and this computer in the first
REGION = "RegionOne"
INTERFACES = {"mkcloud-api": ("api0", HERE), "mkcloud-net": ("net0", OURS)}  # ours, theirs, our address
FAKE_ZONE = "fake"
PATIENCE = 30.0  # seconds for another run's to end


def obstacle() -> str:
    """Why it cannot run on this computer; empty when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    return f"needs {', '.join(missing)}" if missing else ""


class Cloud:
    """From `with` on until its end, and not longer than this process. One at a time on a computer."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._ends = ExitStack()

    def __enter__(self) -> Cloud:
        with self._ends as ends:
            ends.enter_context(_alone())
            self.cache.mkdir(parents=True, exist_ok=True)
            base = layers.installed(self.cache)
            configured = layers.configured(self.cache, base, ADDRESS)
            run = self.cache / "run"
            layers.remove(run)  # of a test that was killed
            (run / "logs").mkdir(parents=True)
            ends.callback(layers.remove, run)
            self.namespace = Namespace([configured, base], run / "upper")
            self.services = Services(self.namespace, ADDRESS, run / "logs")
            ends.callback(self.services.reap)
            ends.enter_context(self.namespace)
            self.admin = Api(ADDRESS, "admin", "admin", (configured / layers.PASSWORD).read_text())
            self._connect()
            self.namespace.run("sh", "-eu", stdin=PREPARE)
            for row in ROWS:
                self.services.start(row)
            self._offer(base / "guest")
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *problem: object) -> None:
        self._ends.close()

    # --- how to use it

    @property
    def endpoints(self) -> list[str]:
        """The URLs of its APIs, as a proxy in front of them needs them."""
        return [endpoint(ADDRESS, service) for service in ("identity", "compute", "network", "image", "placement")]

    @cached_property
    def credential(self) -> tuple[str, str]:
        """Id and secret of an application credential of the plain user."""
        return seed.application_credential(self.ci)

    def environment(self, api: Api, identity: str = "") -> dict[str, str]:
        """The OS_* variables of a user, as its dashboard offers them; `identity` is another URL of Keystone."""
        return {
            **self._common(identity),
            "OS_USERNAME": api.user,
            "OS_PASSWORD": api.password,
            "OS_PROJECT_NAME": api.project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
        }

    def credential_environment(self, identity: str = "") -> dict[str, str]:
        """The OS_* variables of the plain user's application credential."""
        name, secret = self.credential
        return {
            **self._common(identity),
            "OS_AUTH_TYPE": "v3applicationcredential",
            "OS_APPLICATION_CREDENTIAL_ID": name,
            "OS_APPLICATION_CREDENTIAL_SECRET": secret,
        }

    def clouds_yaml(self, identity: str = "") -> str:
        """The clouds `admin`, `ci` and `ci-credential`."""
        users = {api.user: self.environment(api, identity) for api in (self.admin, self.ci)}
        users["ci-credential"] = self.credential_environment(identity)
        return json.dumps({"clouds": {name: _entry(variables) for name, variables in users.items()}})

    def upload(self, image: Image, name: str) -> str:
        """Make a system image that machinekit has built one of the cloud's; returns its id."""
        with tempfile.TemporaryDirectory(dir=self.cache) as directory:
            disk = Path(directory, "disk.qcow2")
            subprocess.run(["qemu-img", "convert", "-O", "qcow2", image.path / "disk.raw", disk], check=True)
            kernel = seed.image(self.admin, f"{name}-kernel", "aki", image.path / "vmlinuz")
            initrd = seed.image(self.admin, f"{name}-initrd", "ari", image.path / "initrd.img")
            line = "root=/dev/vda rw console=ttyS0"
            boot = {"kernel_id": kernel, "ramdisk_id": initrd, "os_command_line": line}
            return seed.image(self.admin, name, "qcow2", disk, **boot)

    def start_fake_host(self) -> None:
        """A second compute host, in the zone FAKE_ZONE, that only remembers its servers."""
        # an agent for its ports, as far as Neutron asks: one that has just been heard of
        self.namespace.run("mysql", "neutron", "-e", _FAKE_AGENT)
        self.services.start([FAKE])
        seed.wait_for_host(self.admin, "fake")
        zone = {"aggregate": {"name": FAKE_ZONE, "availability_zone": FAKE_ZONE}}
        made = self.admin.post("compute", "/os-aggregates", zone)["aggregate"]["id"]
        self.admin.post("compute", f"/os-aggregates/{made}/action", {"add_host": {"host": "fake"}})
        seed.lift_quota(self.admin)

    def _common(self, identity: str) -> dict[str, str]:
        url = identity or endpoint(ADDRESS, "identity")
        return {
            "OS_AUTH_URL": f"{url}/v3",
            "OS_REGION_NAME": REGION,
            "OS_IDENTITY_API_VERSION": "3",
            "no_proxy": ADDRESS,
        }

    # --- how it comes up

    def _connect(self) -> None:
        """Plug the interfaces in; they go when the namespace does."""
        for ours, (theirs, address) in INTERFACES.items():
            pair = ["ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", str(self.namespace.pid)]
            until(partial(_succeeds, pair), f"{ours} of an earlier run is gone", 10)
            subprocess.run(["ip", "address", "add", f"{address}/24", "dev", ours], check=True)
            subprocess.run(["ip", "link", "set", ours, "up"], check=True)
            self.namespace.run("ip", "link", "set", theirs, "up")
        self.namespace.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "api0")

    def _offer(self, guest: Path) -> None:
        def user_and_networks() -> Api:
            api = seed.user(self.admin)
            seed.networks(self.admin, api, PUBLIC, PRIVATE)
            return api

        self.ci, *_ = seed.together(
            user_and_networks,
            lambda: seed.flavors(self.admin),
            lambda: seed.images(self.admin, guest),
            lambda: seed.wait_for_host(self.admin, "lab"),
        )
        self.services.check()


# what the agent of the first host reports, with a heart that beat in the future
_FAKE_AGENT = """
insert into agents (id, agent_type, `binary`, topic, host, availability_zone, admin_state_up, created_at, started_at,
    heartbeat_timestamp, configurations, `load`)
  select uuid(), agent_type, `binary`, topic, 'fake', availability_zone, 1, now(), now(),
    '2100-01-01', configurations, 0
  from agents where host = 'lab' and agent_type = 'Linux bridge agent'
"""


def _succeeds(words: list[str]) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _entry(variables: dict[str, str]) -> dict[str, object]:
    """A cloud of clouds.yaml, of the same in the environment."""
    plain = {name[3:].lower(): value for name, value in variables.items() if name.startswith("OS_")}
    entry: dict[str, object] = {name: plain.pop(name) for name in ("region_name", "identity_api_version")}
    if kind := plain.pop("auth_type", ""):
        entry["auth_type"] = kind
    return entry | {"auth": plain}


@contextmanager
def _alone() -> Iterator[None]:
    """Any other cloud on this computer has the same addresses; one that is ending is waited for."""
    # a name of the kernel's, which goes with us however we end
    with closing(socket.socket(socket.AF_UNIX)) as name:
        until(partial(_bound, name), "the OpenStack of another run on this computer has ended", PATIENCE)
        yield


def _bound(name: socket.socket) -> bool:
    try:
        name.bind("\0machinekit-test-cloud")
    except OSError:
        return False
    return True
