"""A server of the cloud as a test makes and enters one, past the product."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from machinekit import cloudinit, keys, ssh
from tests.clouds.openstack import seed
from tests.clouds.openstack.api import Api, until


@dataclass
class Guest:
    """One that was asked for, with the user-data of machinekit's own."""

    api: Api
    id: str
    directory: Path
    host_key: str

    @property
    def status(self) -> str:
        """As Nova says; ABSENT when it does not know it."""
        found = [each for each in self.api.get("compute", "/servers/detail")["servers"] if each["id"] == self.id]
        return found[0]["status"] if found else "ABSENT"

    def wait_for(self, status: str, patience: float = 120) -> None:
        """Until Nova says so."""
        until(lambda: self.status in (status, "ERROR"), f"{self.id} is {status}", patience)
        assert self.status == status, self.api.get("compute", f"/servers/{self.id}")

    @property
    def address(self) -> str:
        """Its newest one: a floating one comes last."""
        networks = self.api.get("compute", f"/servers/{self.id}")["server"]["addresses"]
        found: str = [each["addr"] for addresses in networks.values() for each in addresses][-1]
        return found

    @property
    def console(self) -> str:
        """What it says on its serial line."""
        said = self.api.post("compute", f"/servers/{self.id}/action", {"os-getConsoleOutput": {"length": 200}})
        return str(said["output"])

    def login(self, patience: float = 180) -> ssh.Connection:
        """A connection, as soon as there can be one; the host key is the one that was given to it."""
        known = self.directory / "known_hosts"
        known.write_text(f"guest {self.host_key}\n")
        host = ssh.Host(self.address, 22, "machinekit", "guest", known, self.directory / "key")
        return ssh.wait_connect(host, patience, newborn=True)

    def act(self, **action: object) -> None:
        """One of Nova's server actions."""
        self.api.post("compute", f"/servers/{self.id}/action", action)

    def destroy(self) -> None:
        """Until nothing of it is there."""
        self.api.delete("compute", f"/servers/{self.id}")
        self.wait_for("ABSENT")


def boot(api: Api, directory: Path, image: str, flavor: str, network: str = seed.PUBLIC, **more: object) -> Guest:
    """Ask for a server; image, flavor and network are names, and the directory is its own."""
    directory.mkdir(exist_ok=True)
    private, public = keys.ssh_key("user")
    host_private, host_public = keys.ssh_key("host")
    (directory / "key").write_bytes(private)
    (directory / "key").chmod(0o600)
    data = cloudinit.user_data("guest", "machinekit", public, host_private.decode(), host_public)
    server = {
        "name": "guest",
        "imageRef": named(api, "image", "images", image),
        "flavorRef": named(api, "compute", "flavors", flavor),
        "networks": [{"uuid": named(api, "network", "networks", network)}],
        "config_drive": True,
        "user_data": base64.b64encode(data.encode()).decode(),
        **more,
    }
    made = api.post("compute", "/servers", {"server": server})["server"]["id"]
    return Guest(api, made, directory, host_public)


def named(api: Api, service: str, kind: str, name: str) -> str:
    """The id of the first one of that name."""
    found: str = next(each["id"] for each in api.get(service, f"/{kind}")[kind] if each["name"] == name)
    return found
