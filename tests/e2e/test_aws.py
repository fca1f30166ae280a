"""Machines of AWS, at an EC2 endpoint whose instances are real hosts: from nothing to containers, and to nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinekit import swarm
from machinekit.store import Store
from machinekit.swarmstate import Roster
from tests.clouds.instances import Instances
from tests.clouds.sigv4 import KEY, SECRET
from tests.conftest import Told
from tests.e2e.lab import Cli, run

pytestmark = pytest.mark.clouds

OWN = """#cloud-config
hostname: theirs
users: [{name: carol, shell: /bin/sh}]
write_files: [{path: /etc/own, content: mine}]
runcmd: [[touch, /var/lib/own]]
"""
NODE_ADDRESS = "{{.Swarm.NodeAddr}}"


@pytest.fixture
def account(instances: Instances, cli: Cli) -> Iterator[Instances]:
    """An empty account, whose credentials the user has."""
    instances.reset()
    cli.variables |= {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL_EC2": instances.ec2.url,
        "MACHINEKIT_ADDRESS_SERVICE": f"{instances.ec2.url}/_caller",
    }
    yield instances
    for name in cli("ls", "-q").split():
        cli("rm", "-f", name)
    instances.reset()


def test_from_nothing_to_containers_and_back(account: Instances, cli: Cli, busybox: Path, tmp_path: Path) -> None:
    own = tmp_path / "user-data"
    own.write_text(OWN)
    said = cli("create", "--driver", "aws", "--aws-user-data", str(own), "--aws-tag", "team=ci", "node1")
    assert "only 127.0.0.1/32 may reach it" in said
    (instance,) = account.ec2.state("instances")
    assert f"node1: ready at tcp://{instance['public_address']}:2376" in said
    client = cli.client("node1")
    run("docker", "build", "-q", "-t", "busybox", str(busybox), env=client | {"DOCKER_BUILDKIT": "0"})
    assert run("docker", "run", "--rm", "busybox", "echo", "it runs", env=client) == "it runs\n"

    # as a swarm it is known at the address that stays
    store, roster, told = Store(cli.home), Roster(("node1",)), Told()
    assert store.load("node1").peer_address == instance["private_address"]
    swarm.converge(store, roster, told)
    assert run("docker", "info", "--format", NODE_ADDRESS, env=client).strip() == instance["private_address"]

    # the user's own user-data had its effect, and ours stayed
    assert cli("ssh", "node1", "cat /etc/own; echo; hostname; id -un carol; id -un").split() == [
        *("mine", "node1", "carol", "machinekit")
    ]
    account.sh(instance["id"], "cloud-init status --wait >/dev/null; test -e /var/lib/own")

    # what every process inside can read is no key of the host any more
    shown = account.sh(instance["id"], "cat /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub")
    data = account.sh(instance["id"], "cat /var/lib/cloud/seed/nocloud-net/user-data")
    private, public = shown.split("-----END OPENSSH PRIVATE KEY-----\n")
    assert private.splitlines()[3] not in data
    record = cli.home / "machines" / "node1"
    assert public.split()[1] in (record / "known_hosts").read_text()
    assert len((record / "known_hosts").read_text().splitlines()) == 1
    assert not list(record.glob("ssh_host*"))
    assert account.sh(instance["id"], "stat -c %a /etc/ssh/ssh_host_ed25519_key").strip() == "600"
    assert "(unchanged)" in cli(
        "create", "--driver", "aws", "--aws-user-data", str(own), "--aws-tag", "team=ci", "node1"
    )

    # off and on again it has another address
    cli("stop", "node1")
    assert cli("status", "node1").strip() == "Stopped"
    cli("start", "node1")
    (again,) = account.ec2.state("instances")
    assert again["public_address"] != instance["public_address"]
    assert cli("url", "node1").strip() == f"tcp://{again['public_address']}:2376"
    assert run("docker", "run", "--rm", "busybox", "echo", "again", env=cli.client("node1")) == "again\n"
    assert swarm.converge(store, roster, told) == []

    assert "node1" in cli("ls")
    problems = [check for check in json.loads(cli("doctor", "--json", "node1")) if check["level"] == "problem"]
    assert problems == []
    cli("rm", "-y", "node1")
    assert account.ec2.leftovers() == []
    assert cli("ls", "-q") == ""


def test_a_machine_whose_record_is_lost_is_found(account: Instances, cli: Cli) -> None:
    cli("create", "--driver", "amazonec2", "--amazonec2-region", "eu-west-1", "--amazonec2-tags", "a,b", "node1")
    shutil.rmtree(cli.home / "machines" / "node1")
    words = ("gc", "--driver", "aws", "--region")
    assert "driver aws" not in cli(*words, "us-east-1", "-y"), "it is in another region"
    said = run_any(cli, *words, "eu-west-1", "--dry-run", code=4)
    assert "node1" in said
    assert "security group machinekit-node1-" in said
    cli(*words, "eu-west-1", "-y")
    assert account.ec2.leftovers() == []


@pytest.mark.parametrize("action", ["ImportKeyPair", "RunInstances", "DescribeInstances"])
def test_a_create_that_is_killed_is_finished(account: Instances, cli: Cli, action: str) -> None:
    """With SIGKILL, as soon as the endpoint has heard a request."""
    words = [sys.executable, "-m", "machinekit", "create", "--driver", "aws", "node1"]
    with subprocess.Popen(words, env=cli.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while action not in account.ec2.calls():
            assert process.poll() is None, "it ended without the request"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    cli("create", "--driver", "aws", "node1")
    assert [instance["state"] for instance in account.ec2.state("instances")] == ["running"]
    assert run("docker", "version", "--format", "{{.Server.Os}}", env=cli.client("node1")) == "linux\n"
    cli("rm", "-y", "node1")
    assert account.ec2.leftovers() == []


def run_any(cli: Cli, *words: str, code: int) -> str:
    """The output of a command that ends with this exit code."""
    result = subprocess.run(
        [sys.executable, "-m", "machinekit", *words], env=cli.environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, f"{result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout
