"""Twenty servers at once that are only remembered: made by us, and by OpenStack's own client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.clouds.openstack.cloud import FAKE_ZONE, Cloud
from tests.e2e.lab import run

NAMES = [f"node{number}" for number in range(20)]
# The command line, but nobody waits for a host: there is none.
OURS = """
import sys
from machinekit import cli, converge, reach
converge.steps = lambda work: (reach.find_address,)
sys.exit(cli.main())
"""
THEIRS = """
import concurrent.futures, sys
import openstack
verb, zone, *names = sys.argv[1:]
cloud = openstack.connect()

def make(name):
    made = cloud.compute.create_server(name=name, availability_zone=zone, **asked)
    cloud.compute.wait_for_server(made, wait=600)

def remove(name):
    gone = cloud.compute.find_server(name)
    cloud.compute.delete_server(gone)
    cloud.compute.wait_for_delete(gone, wait=600)

if verb == "create":
    asked = {
        "image_id": cloud.image.find_image("small").id,
        "flavor_id": cloud.compute.find_flavor("m1.nano").id,
        "networks": [{"uuid": cloud.network.find_network("public").id}],
    }
with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
    list(pool.map({"create": make, "rm": remove}[verb], names))
"""


def measured(cloud: Cloud, python: Path, home: Path) -> Iterator[tuple[float, float]]:
    """The seconds that we take and that Nova takes, again and again, in an environment with machinekit installed."""
    environment = cloud.environment(cloud.admin) | {"MACHINEKIT_HOME": str(home), "HOME": str(home)}
    asked = {"image": "small", "flavor": "m1.nano", "network": "public", "availability-zone": FAKE_ZONE}
    options = [word for key, value in asked.items() for word in (f"--openstack-{key}", value)]
    while True:
        theirs = _seconds([str(python), "-c", THEIRS, "create", FAKE_ZONE, *NAMES], environment)
        run(str(python), "-c", THEIRS, "rm", FAKE_ZONE, *NAMES, env=environment)
        ours = _seconds([str(python), "-c", OURS, "create", "-d", "openstack", *options, *NAMES], environment)
        run(str(python), "-m", "machinekit", "rm", "-y", *NAMES, env=environment)
        yield ours, theirs


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.monotonic()
    run(*command, env=environment)
    return time.monotonic() - started
