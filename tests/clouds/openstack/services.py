"""The programs of the cloud: what is started, in which order, and when it is up."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.clouds.openstack.api import answers, endpoint, until
from tests.clouds.openstack.namespace import Namespace

# one thread a process: Nova's API is not made for more. libcloud and uwsgi do not agree on when to keep a connection.
WSGI = [
    *["uwsgi", "--plugin", "python3", "--master", "--need-app", "--lazy-apps", "--enable-threads", "--threads", "1"],
    *["--thunder-lock", "--buffer-size", "65535", "--die-on-term", "--add-header", "Connection: close"],
]
NEUTRON = ["--config-file", "/etc/neutron/neutron.conf", "--config-file"]
COMPUTE = ["nova-compute", "--config-file", "/etc/nova/nova.conf"]  # and not the package's, which says KVM
RABBITMQ = {
    "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",  # do not spin when idle
}
PREPARE = "install -d -o mysql /run/mysqld; install -d /run/dbus"


@dataclass(frozen=True)
class Service:
    """A program; it is up when its API answers, or its socket is there."""

    name: str
    words: list[str]
    api: str = ""
    socket: str = ""
    variables: dict[str, str] = field(default_factory=dict)


def _wsgi(name: str, program: str, api: str, port: int, processes: int) -> Service:
    words = ["--http-socket", f"0.0.0.0:{port}", "--wsgi-file", program, "--processes", str(processes)]
    return Service(name, [*WSGI, *words], api)


# Each row waits for the one before.
ROWS = (
    (
        Service("mariadb", ["mariadbd"], socket="run/mysqld/mysqld.sock"),
        Service("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], variables=RABBITMQ),
        Service("memcached", ["memcached", "-u", "memcache", "-l", "127.0.0.1"]),
        Service("dbus", ["dbus-daemon", "--system", "--nofork"]),
        Service("virtlogd", ["virtlogd"]),
        Service("libvirt", ["libvirtd"], socket="run/libvirt/libvirt-sock"),
    ),
    (
        _wsgi("keystone", "/usr/bin/keystone-wsgi-public", "identity", 5000, 2),
        _wsgi("placement", "/usr/bin/placement-api", "placement", 8778, 1),
        Service("neutron", ["neutron-server", *NEUTRON, "/etc/neutron/plugins/ml2/ml2_conf.ini"], "network"),
        _wsgi("nova-api", "/usr/bin/nova-api-wsgi", "compute", 8774, 2),
        Service("glance", ["glance-api"], "image"),
        Service("nova-conductor", ["nova-conductor"]),
        Service("nova-scheduler", ["nova-scheduler"]),
    ),
    (
        Service("nova-compute", COMPUTE),
        Service(
            "neutron-linuxbridge",
            ["neutron-linuxbridge-agent", *NEUTRON, "/etc/neutron/plugins/ml2/linuxbridge_agent.ini"],
        ),
        Service("neutron-dhcp", ["neutron-dhcp-agent", *NEUTRON, "/etc/neutron/dhcp_agent.ini"]),
        Service("neutron-l3", ["neutron-l3-agent", *NEUTRON, "/etc/neutron/l3_agent.ini"]),
    ),
)
FAKE = Service("nova-compute-fake", [*COMPUTE, "--config-file", "/etc/nova/fake.conf"])


class Services:
    """What runs in the namespace; `logs` has a file for each. They end with the namespace."""

    def __init__(self, namespace: Namespace, address: str, logs: Path) -> None:
        self._namespace, self._address, self._logs = namespace, address, logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, services: Iterable[Service]) -> None:
        """Start them, and wait until they are up."""
        services = list(services)
        for service in services:
            with self.log(service.name).open("wb") as log:
                self._running[service.name] = self._namespace.spawn(*service.words, log=log, **service.variables)
        for service in services:
            until(partial(self._is_up, service), f"{service.name} is up", pause=0.1)

    def log(self, name: str) -> Path:
        """What a service says."""
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Raise AssertionError with its last words when one has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                tail = self.log(name).read_text(errors="replace")[-3000:]
                raise AssertionError(f"{name} has ended with {process.returncode}:\n{tail}")

    def reap(self) -> None:
        """After the namespace has ended."""
        for process in self._running.values():
            process.wait()

    def _is_up(self, service: Service) -> bool:
        self.check()
        if service.socket:
            return _listens(self._namespace.root / service.socket)
        return not service.api or answers(endpoint(self._address, service.api))


def _listens(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
