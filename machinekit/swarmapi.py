"""One engine's part in a swarm, over its API: what it says of itself and of the nodes, and what it is told to do.

https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Swarm, the same up to engine 29.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machinekit import dockerapi
from machinekit.errors import EngineError, MachinekitError

PORT = 2377
JOIN = 60.0  # seconds: an engine itself gives up after 20
TRIES = 10  # of a change that another one was ahead of
NOT_FOUND = 404
# docker's words for a member's state
INACTIVE, PENDING, ACTIVE, ERROR, LOCKED = "inactive", "pending", "active", "error", "locked"


@dataclass(frozen=True)
class Member:
    """What a machine's engine says of itself.

    `marks` are the machine's own, `was` is what its record says. `manages` is whether it is a manager; those alone know
    `cluster`, the id of their swarm, and not even they when most of them are gone. `managers` are the ids of those that
    a worker knows. `error` is what is wrong in its own words, or why it does not answer (`silent`).
    """

    marks: Mapping[str, str] = field(default_factory=dict)
    state: str = INACTIVE
    node: str = ""
    manages: bool = False
    cluster: str = ""
    managers: tuple[str, ...] = ()
    silent: bool = False
    error: str = ""
    was: str = ""


@dataclass(frozen=True)
class Node:
    """A node as the managers see it.

    `manager` is whether it is one, or is to be one. Those that decide are the ones that vote: after a
    --force-new-cluster the lost managers are still called so, and none of them votes. `reachable` is of one that does.
    """

    id: str
    hostname: str
    manager: bool = False
    ready: bool = True
    votes: bool = False
    reachable: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """A machine's engine. `address` is where the other machines reach it."""

    name: str
    url: str
    tls: Path | None
    address: str

    def member(self, marks: Mapping[str, str], was: str = "") -> Member:
        """Which swarm it is in, if any; `was` is what its record says."""
        # an engine that looks for a leader in vain takes 20 s to tell of itself, and tells at once that it has none
        if was not in ("", "worker") and self._has_no_leader():
            return Member(marks, ACTIVE, manages=True, was=was)
        said = self._call("GET", "/info")["Swarm"]
        return Member(
            marks,
            said["LocalNodeState"],
            said["NodeID"],
            said["ControlAvailable"],
            # what a manager knew before it was demoted may stay for a moment
            ((said.get("Cluster") or {}).get("ID") or "") if said["ControlAvailable"] else "",
            tuple(manager["NodeID"] for manager in said.get("RemoteManagers") or ()),
            error=said["Error"],
            was=was,
        )

    def _has_no_leader(self) -> bool:
        try:
            self.nodes()
        except EngineError as error:
            if not error.status:
                raise
            return "leader" in error.message
        return False

    def nodes(self) -> tuple[Node, ...]:
        """Every node of its swarm."""
        return tuple(map(_node, self._call("GET", "/nodes")))

    def start(self) -> None:
        """Begin a swarm."""
        with _unless_begun():
            self._call("POST", "/swarm/init", self._addresses(), JOIN)

    def token(self, role: str) -> str:
        """What lets another engine join, as "Manager" or "Worker"."""
        return str(self._call("GET", "/swarm")["JoinTokens"][role])

    def join(self, managers: list[str], token: str) -> None:
        """Enter the swarm of these addresses, as what the token is for."""
        where = {"RemoteAddrs": [_endpoint(ip) for ip in managers], "JoinToken": token}
        with _unless_begun():
            self._call("POST", "/swarm/join", self._addresses() | where, JOIN)

    def leave(self, *, force: bool) -> None:
        """Be in no swarm; `force` is for a manager, and for one that does not get into its swarm."""
        self._call("POST", f"/swarm/leave?force={str(force).lower()}", None, JOIN)

    def change(self, node: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """Change a node's specification; another change that came between is kept."""
        for left in reversed(range(TRIES)):
            found = self._call("GET", f"/nodes/{node}")
            spec = found["Spec"]
            spec["Labels"] = spec.get("Labels") or {}
            edit(spec)
            try:
                self._call("POST", f"/nodes/{node}/update?version={found['Version']['Index']}", spec)
            except EngineError as error:
                if not left or "out of sequence" not in error.message:
                    raise
            else:
                return

    def remove(self, node: str) -> None:
        """Forget a node; success when it is none."""
        try:
            self._call("DELETE", f"/nodes/{node}?force=true")
        except EngineError as error:
            if error.status != NOT_FOUND:
                raise

    def tied(self, node: str) -> int:
        """How many tasks still run on a node, or do not run elsewhere yet, of the services that had one there."""
        tasks = self._call("GET", "/tasks")
        services = {task["ServiceID"] for task in tasks if task.get("NodeID") == node}
        return sum(_is_tied(task, node) for task in tasks if task["ServiceID"] in services)

    @property
    def ip(self) -> str:
        """Its address as a number; raises MachinekitError where other machines cannot reach it."""
        try:
            found = str(socket.getaddrinfo(self.address, None, type=socket.SOCK_STREAM)[0][4][0])
        except OSError:
            found = ""
        if not found or ipaddress.ip_address(found).is_loopback:
            raise MachinekitError(
                f'"{self.name}" has no address at which other machines reach it ({self.address or "none"})',
                'docs/swarm.md, "Machines that reach each other"',
            )
        return found

    def _addresses(self) -> dict[str, Any]:
        return {"ListenAddr": _endpoint(self.ip), "AdvertiseAddr": self.ip, "DataPathAddr": self.ip}

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, patience: float = dockerapi.PATIENCE
    ) -> Any:
        return dockerapi.call(self.url, method, path, self.tls, body=body, patience=patience)


def _endpoint(ip: str) -> str:
    return f"[{ip}]:{PORT}" if ":" in ip else f"{ip}:{PORT}"


def _node(said: dict[str, Any]) -> Node:
    manager = said.get("ManagerStatus")
    return Node(
        said["ID"],
        said["Description"].get("Hostname", ""),
        said["Spec"]["Role"] == "manager" or manager is not None,
        said["Status"]["State"] == "ready",
        manager is not None,
        (manager or {}).get("Reachability") == "reachable",
        said["Spec"].get("Labels") or {},
    )


def _is_tied(task: dict[str, Any], node: str) -> bool:
    """A task that takes the place of another is wanted "ready" until that one has stopped."""
    running = task["Status"]["State"] == "running"
    return running if task.get("NodeID") == node else task["DesiredState"] in ("ready", "running") and not running


@contextlib.contextmanager
def _unless_begun() -> Iterator[None]:
    """A request whose sender was killed is carried out all the same: whoever looks next sees what it became."""
    try:
        yield
    except EngineError as error:
        if "already part of a swarm" not in error.message:
            raise
