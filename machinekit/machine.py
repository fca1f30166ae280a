"""The record of one machine, as it is kept in the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

SCHEMA = 2  # 1 had neither setup nor fleet nor pins


class State(StrEnum):
    """What a driver says of an instance, in Docker Machine's words."""

    NONE = ""
    RUNNING = "Running"
    PAUSED = "Paused"
    SAVED = "Saved"
    STOPPED = "Stopped"
    STOPPING = "Stopping"
    STARTING = "Starting"
    ERROR = "Error"
    TIMEOUT = "Timeout"
    NOT_FOUND = "Not Found"


class Phase(StrEnum):
    """How far a record is in its life."""

    CREATING = "creating"
    READY = "ready"
    REMOVING = "removing"


@dataclass(frozen=True)
class Resource:
    """Something made beside the instance (volume, key pair, address), journalled before it is made.

    `planned` is when it was last about to be made, in seconds since 1970: a provider may not list it at once.
    """

    kind: str
    name: str
    planned: int = field(default=0, compare=False)


@dataclass
class Machine:
    """One machine: who it is, what was asked for, how far it got, where it answers.

    `options` are the driver's, `spec` is the engine's, `setup` is what the machine carries beside it, all as plain
    JSON. `pins` is what a lock has made exact of them. `fleet` names the file that the machine is from; empty for one
    that was made by hand. `swarm` is what it was last made in the fleet's Swarm: "manager", "worker", or nothing.
    `url` is the engine's address as DOCKER_HOST wants it; empty until the driver told the address. `peer_address` is
    where the machines of the same network reach it, when that is another one. From `renewal_due` on the certificates
    want to be renewed; empty while there are none of ours.
    """

    name: str
    uid: str
    driver: str
    store: str
    created: str
    options: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)
    pins: dict[str, Any] = field(default_factory=dict)
    fleet: str = ""
    swarm: str = ""
    phase: Phase = Phase.CREATING
    done: list[str] = field(default_factory=list)
    resources: list[Resource] = field(default_factory=list)
    address: str = ""
    peer_address: str = ""
    ssh_user: str = ""
    ssh_port: int = 0
    ssh_key: str = ""
    url: str = ""
    tls: bool = True
    image: str = ""
    renewal_due: str = ""
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store; what it holds of the record's lists and dicts is theirs, not a copy."""
        return {**vars(self), "resources": [asdict(resource) for resource in self.resources]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Machine:
        """The record from the store's data; raises TypeError, KeyError or ValueError when it is not one."""
        data = dict(data)
        for each in fields(cls):
            if each.name in data and not isinstance(data[each.name], _KINDS[each.type.partition("[")[0]]):
                raise TypeError(f"{each.name} is {data[each.name]!r}")
        data["schema"] = SCHEMA  # every older one can be read as it is
        data["phase"] = Phase(data["phase"])
        data["resources"] = [Resource(**resource) for resource in data["resources"]]
        return cls(**data)


# what the record's JSON has for each kind of field; the annotations are texts here
_KINDS = {"str": str, "int": int, "bool": bool, "dict": dict, "list": list, "Phase": str}


@dataclass(frozen=True)
class Instance:
    """What a driver finds of a machine: its state and where it answers.

    `address` is empty while there is none. The ports are the ones to connect to, which port
    forwarding may make others than the machine's own. `peer_address` is where the machines of the same network reach
    it, when that is another address.
    """

    state: State
    address: str = ""
    ssh_port: int = 22
    engine_port: int = 2376
    peer_address: str = ""


@dataclass(frozen=True)
class Image:
    """A system image on this computer. `path` is its directory, `build` tells two builds of one name apart.

    `source` is the URL or path it is from, or "built"; `digest` what its publisher says its file has.
    """

    name: str
    kind: str
    path: Path
    build: str
    created: str
    source: str = "built"
    digest: str = ""


@dataclass(frozen=True)
class Birth:
    """What a new instance must have from its first boot: names, keys, user-data, and the image to boot.

    `host_key` is the private SSH host key (OpenSSH PEM): pinned before the first connection.
    """

    user: str
    authorized_key: str
    host_key: str
    host_key_public: str
    user_data: str
    image: Image | None
