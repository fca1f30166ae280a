"""A swarm of container machines: killed while it is made, and a service that outlives the exchange of a worker.

The kernel of the computer may lack IPVS, which virtual addresses and the ingress network stand on. So the service is
found by its tasks' addresses (dnsrr), which needs the overlay's VXLAN alone.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machinekit.store import Store
from machinekit.swarmstate import Roster
from tests.e2e.lab import Cli, Lab, run
from tests.test_swarm import Killer

MACHINES = """
version: 1
name: ci
defaults: {{driver: container, container: {{engine: "{engine}"}}}}
machines:
  - name: m-1
  - name: w-{{index}}
    count: 2
    labels: {{tier: web}}
"""
SWARM = "swarm: {managers: [m-1], workers: ['w-{index}']}\n"

SERVE = "mkdir /www; hostname >/www/index.html; exec httpd -f -p 8080 -h /www"
# busybox's own clients look names up through libraries that are not in the image
ADDRESSES = r"nslookup web 127.0.0.11 | sed -n 's/^Address: *\(10[0-9.]*\)$/\1/p'"
GET = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 $ip 8080 | tail -n 1"
EACH = f"for ip in $({ADDRESSES}); do {GET}; done"
CLIENT = f"""
while :; do
  said=nobody tries=0
  for ip in $({ADDRESSES}); do
    tries=$((tries + 1))
    if [ -n "$({GET})" ]; then said=$tries; break; fi
  done
  echo $said
  sleep 0.05
done
"""


def docker(cli: Cli, name: str, *words: str) -> str:
    """The client of a machine."""
    return run("docker", *words, env=cli.client(name) | {"DOCKER_BUILDKIT": "0"})


def until(true: Callable[[], bool], seconds: float = 180) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def nodes(cli: Cli) -> dict[str, str]:
    """What m-1 tells of each node."""
    listed = docker(
        cli, "m-1", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}"
    )
    return dict(line.strip().split(" ", 1) for line in listed.splitlines())


def answers(cli: Cli, name: str) -> set[str]:
    """Which tasks answer a container of a machine, over the overlay network."""
    return set(docker(cli, name, "run", "--rm", "--network", "net", "busybox", "sh", "-c", EACH).split())


def running(cli: Cli) -> set[str]:
    """The host names of the service's tasks that run."""
    ids = docker(cli, "m-1", "service", "ps", "-q", "--filter", "desired-state=running", "web").split()
    tasks = json.loads(docker(cli, "m-1", "inspect", "--type", "task", *ids)) if ids else []
    return {
        task["Status"]["ContainerStatus"]["ContainerID"][:12] for task in tasks if task["Status"]["State"] == "running"
    }


def heard(cli: Cli) -> Counter[str]:
    """How often the client has had an answer at once, at a later try, or from nobody."""
    return Counter(docker(cli, "m-1", "logs", "client").split())


def image(cli: Cli, name: str, context: Path) -> None:
    """Have the image on a machine: there is no registry."""
    docker(cli, name, "build", "-q", "-t", "busybox", str(context))


def serve(cli: Cli, context: Path) -> None:
    """Start the service, and hear it from every node."""
    names = ("m-1", "w-1", "w-2")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: image(cli, name, context), names))
    docker(cli, "m-1", "network", "create", "-d", "overlay", "--attachable", "net")
    docker(
        *(cli, "m-1", "service", "create", "--detach", "--name", "web", "--network", "net", "--replicas", "3"),
        *("--endpoint-mode", "dnsrr", "--stop-grace-period", "2s", "--no-resolve-image", "busybox", "sh", "-c", SERVE),
    )
    until(lambda: len(running(cli)) == 3)
    for name in names:
        until(lambda: answers(cli, name) == running(cli))  # noqa: B023


def test_a_service_outlives_the_exchange_of_a_worker(lab: Lab, cli: Cli, busybox: Path, tmp_path: Path) -> None:
    lab.rootfs("debian-12+engine")
    store, file = Store(cli.home), tmp_path / "machinekit.yaml"
    machines = MACHINES.format(engine=lab.socket)
    file.write_text(machines)
    fleet = ("--file", str(file))
    cli("apply", "--yes", *fleet)
    roster = Roster(("m-1",), ("w-1", "w-2"), {"w-1": {"tier": "web"}, "w-2": {"tier": "web"}})
    killer = Killer(store)
    for _ in range(3):
        assert killer(roster, kill=1)[0] == -signal.SIGKILL  # after its first change
    killer.end()
    file.write_text(machines + SWARM)
    assert "~ swarm: " in cli("plan", *fleet)
    cli("apply", "--yes", *fleet)
    assert nodes(cli) == {"m-1": "Ready Active Leader", "w-1": "Ready Active", "w-2": "Ready Active"}
    assert cli("plan", *fleet) == "ci: 3 unchanged\n"
    assert docker(cli, "m-1", "node", "inspect", "--format", "{{.Spec.Labels.tier}}", "w-1") == "web\n"

    serve(cli, busybox)
    docker(cli, "m-1", "run", "-d", "--name", "client", "--network", "net", "busybox", "sh", "-c", CLIENT)
    until(lambda: heard(cli)["1"] > 50)
    uid = store.load("w-2").uid
    assert "they end with the machine" not in cli("apply", "--yes", "--replace", "w-2", *fleet)  # all had another place
    assert store.load("w-2").uid != uid
    assert nodes(cli) == {"m-1": "Ready Active Leader", "w-1": "Ready Active", "w-2": "Ready Active"}
    image(cli, "w-2", busybox)
    until(lambda: len(running(cli)) == 3)
    until(lambda: answers(cli, "w-2") == running(cli))
    count = heard(cli)
    print(count)  # noqa: T201
    assert count["nobody"] == 0
    assert count["1"] > 0.95 * count.total()

    # one worker less, of which a killed apply has written nothing down, and then no swarm at all
    forgotten = store.load("w-2")
    forgotten.swarm = ""
    store.save(forgotten)
    file.write_text(machines.replace("count: 2", "count: 1") + SWARM)
    cli("apply", "--yes", *fleet)
    assert nodes(cli) == {"m-1": "Ready Active Leader", "w-1": "Ready Active"}
    assert cli("plan", *fleet) == "ci: 2 unchanged\n"
    cli("destroy", "--yes", *fleet)
    assert cli("ls", "-q") == ""


def test_a_worker_whose_address_another_one_has_joins_anew(lab: Lab, cli: Cli, busybox: Path, tmp_path: Path) -> None:
    lab.rootfs("debian-12+engine")
    store, file = Store(cli.home), tmp_path / "machinekit.yaml"
    file.write_text(MACHINES.format(engine=lab.socket) + SWARM)
    fleet = ("--file", str(file))
    cli("apply", "--yes", *fleet)
    serve(cli, busybox)
    # the engine below hands out the lowest address that is free
    low, high = sorted(("w-1", "w-2"), key=lambda name: store.load(name).address)
    cli("stop", low, high)
    before = store.load(low).address
    cli("start", high)
    assert store.load(high).address == before
    cli("start", low)
    assert "~ swarm: as it is -> join the swarm as a worker" in cli("plan", *fleet)
    cli("apply", "--yes", *fleet)
    assert cli("plan", *fleet) == "ci: 3 unchanged\n"
    for name in (low, high):
        until(lambda: len(running(cli)) == 3 and answers(cli, name) == running(cli))  # noqa: B023

    # one of two managers is lost for good, and the way out is the one of docs/swarm.md
    file.write_text(file.read_text().replace("[m-1], workers: ['w-{index}']", "[m-1, w-1], workers: [w-2]"))
    cli("apply", "--yes", *fleet)
    assert nodes(cli)["w-1"] == "Ready Active Reachable"
    lab.docker("rm", "--force", "--volumes", store.load("w-1").resources[0].name)
    assert "the swarm has lost its quorum" in cli.fail("apply", "--yes", *fleet)
    cli("ssh", "m-1", "docker", "swarm", "init", "--force-new-cluster", "--advertise-addr", store.load("m-1").address)
    cli("apply", "--yes", "--target", "w-1", *fleet)
    until(lambda: nodes(cli)["w-2"] == "Ready Active")  # it has to find the manager first
    assert nodes(cli)["w-1"] == "Ready Active Reachable"
    assert cli("plan", *fleet) == "ci: 3 unchanged\n"
