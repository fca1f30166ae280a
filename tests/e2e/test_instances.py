"""An instance of the EC2 endpoint is a host: it boots with its user-data and answers at its addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from machinekit import cloudinit, keys, ssh
from machinekit.errors import UnreachableError
from tests.clouds.calls import ask, b64, launch
from tests.clouds.instances import Instances
from tests.e2e.lab import Lab

WHO = "hostname; id -un; dockerd --version; systemctl show --property=UserspaceTimestampMonotonic"


pytestmark = pytest.mark.clouds


class Owner:
    """Somebody who gives instances their user and their host key at birth."""

    def __init__(self, directory: Path) -> None:
        private, self.public = keys.ssh_key("me")
        host_private, self.host_public = keys.ssh_key("host")
        self.key, self.known = directory / "id", directory / "known_hosts"
        self.key.write_bytes(private)
        self.key.chmod(0o600)
        self.known.write_text(f"node1 {self.host_public}\n")
        self.user_data = cloudinit.user_data(
            "node1", "machinekit", self.public, host_private.decode(), self.host_public
        )

    def run(self, address: str, script: str, patience: float = 60) -> list[str]:
        """Log in, with the pinned host key, and run it as root."""
        connection = ssh.wait_connect(
            ssh.Host(address, 22, "machinekit", "node1", self.known, self.key), patience, newborn=True
        )
        try:
            return connection.run(script, patience=30)
        finally:
            connection.close()


def only(instances: Instances) -> Any:
    """The one instance that there is."""
    (instance,) = instances.ec2.state("instances")
    return instance


def test_an_instance_is_a_host_while_it_runs(lab: Lab, instances: Instances, tmp_path: Path) -> None:
    driver, owner = instances.ec2.driver(), Owner(tmp_path)
    made = launch(driver, UserData=b64(owner.user_data))
    first = only(instances)
    name, user, engine, booted = owner.run(first["public_address"], WHO)
    assert (name, user) == ("node1", "root")
    assert engine.startswith("Docker version")
    assert owner.run(first["private_address"], WHO)[3] == booted
    assert "status: done" in instances.sh(made, "cloud-init status --wait")

    ask(driver, "RebootInstances", {"InstanceId.1": made})
    instances.settle()
    again = owner.run(first["public_address"], WHO)[3]
    assert again != booted
    ask(driver, "StopInstances", {"InstanceId.1": made})
    ask(driver, "StartInstances", {"InstanceId.1": made})
    instances.settle()
    second = only(instances)
    assert second["public_address"] != first["public_address"]
    assert owner.run(second["public_address"], WHO)[3] not in (booted, again)
    with pytest.raises(UnreachableError):
        owner.run(first["public_address"], WHO, patience=1)

    ask(driver, "TerminateInstances", {"InstanceId.1": made})
    instances.reset()
    assert lab.docker("ps", "-aq") == ""
