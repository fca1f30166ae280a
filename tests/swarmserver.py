"""Engines with a swarm mode, each at a port of its own: what they answer and refuse is what real ones do."""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from machinekit.machine import Machine, Phase
from machinekit.store import Store
from tests.servers import Server, _request

NOT_MANAGER = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state."
PART = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
MANAGING = "You are attempting to leave the swarm on a node that is participating as a manager."


class RefusalError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class FakeNode:
    """A node as its swarm keeps it."""

    id: str
    engine: FakeEngine
    role: str
    version: int = 1
    availability: str = "active"
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def up(self) -> bool:
        """Whether its engine is it, and runs."""
        return self.engine.running and self.engine.node is self and not self.engine.state

    def described(self) -> dict[str, Any]:
        """As the API lists it."""
        status = {"Reachability": "reachable" if self.up else "unreachable", "Addr": f"{self.engine.ip}:2377"}
        return {
            "ID": self.id,
            "Version": {"Index": self.version},
            "Spec": {"Role": self.role, "Availability": self.availability, "Labels": self.labels or None},
            "Description": {"Hostname": self.engine.name},
            "Status": {"State": "ready" if self.up else "down"},
        } | ({"ManagerStatus": status} if self.role == "manager" else {})


@dataclass
class FakeCluster:
    """A swarm."""

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    nodes: list[FakeNode] = field(default_factory=list)
    tokens: dict[str, str] = field(
        default_factory=lambda: {role: f"SWMTKN-1-{secrets.token_hex(16)}" for role in ("Manager", "Worker")}
    )

    def node(self, key: str) -> FakeNode:
        """One of them; raises RefusalError."""
        for node in self.nodes:
            if node.id == key:
                return node
        raise RefusalError(404, f"node {key} not found")

    def check_quorum(self) -> None:
        """Most of the managers are up; raises RefusalError."""
        managers = [node for node in self.nodes if node.role == "manager"]
        if sum(node.up for node in managers) <= len(managers) // 2:
            raise RefusalError(500, "rpc error: code = Unknown desc = The swarm does not have a leader.")


class FakeEngine:
    """One engine of the world, under the lock of all."""

    def __init__(self, world: World, name: str, ip: str) -> None:
        self.world, self.name, self.ip = world, name, ip
        self.running = True
        self.node: FakeNode | None = None
        self.cluster: FakeCluster | None = None
        self.state = ""  # one in which it does not get into its swarm

    def serve(self, connection: socket.socket) -> None:
        """Answer one request."""
        head, _, body = _request(connection).partition(b"\r\n\r\n")
        length = int((re.search(rb"Content-Length: (\d+)", head) or [0, 0])[1])
        while len(body) < length:
            body += connection.recv(65536)
        method, path, _ = head.decode().split("\r\n")[0].split(" ")
        if f"{self.name} {method} {path}" == self.world.hanging:
            connection.recv(1)  # until whoever asks has ended
            return
        with self.world.lock:
            if not self.running or (path == "/info" and self._seeks_a_leader()):
                return
            try:
                status, said = 200, self._answer(method, path, json.loads(body or b"null"))
            except RefusalError as refusal:
                status, said = refusal.status, {"message": str(refusal)}
            self.world.requests.append(f"{self.name} {method} {path.partition('?')[0]}")
        text = b"" if said is None else json.dumps(said).encode()
        connection.sendall(f"HTTP/1.0 {status} -\r\nContent-Type: application/json\r\n\r\n".encode() + text)

    def _seeks_a_leader(self) -> bool:
        """It would take 20 s to tell of itself."""
        if self.cluster is None or self.node not in self.cluster.nodes or self.node.role != "manager" or self.state:
            return False
        try:
            self.cluster.check_quorum()
        except RefusalError:
            return True
        return False

    def _answer(self, method: str, path: str, body: Any) -> Any:
        path, _, query = path.partition("?")
        match method, path.split("/")[1:]:
            case "GET", ["info"]:
                return {"Swarm": self._info()}
            case "POST", ["swarm", "init"]:
                self._enter(FakeCluster(), "manager", body)
            case "POST", ["swarm", "join"]:
                self._enter(*self.world.entry(body), body)
            case "POST", ["swarm", "leave"]:
                self._leave("force=true" in query)
            case "GET", ["swarm"]:
                return {"ID": self._managed().id, "JoinTokens": self._managed().tokens}
            case "GET", ["nodes"]:
                return [node.described() for node in self._managed().nodes]
            case "GET", ["nodes", key]:
                return self._managed().node(key).described()
            case "POST", ["nodes", key, "update"]:
                self._update(self._managed().node(key), query, body)
            case "DELETE", ["nodes", key]:
                self._remove(self._managed(), key, "force=true" in query)
            case "GET", ["tasks"]:
                self._managed()
                return self.world.tasks.pop(0) if len(self.world.tasks) > 1 else self.world.tasks[0]
            case _:
                raise RefusalError(404, "page not found")
        return None

    def _info(self) -> dict[str, Any]:
        if self.node is None or self.cluster is None or self.state:
            state = self.state or "inactive"
            return {"LocalNodeState": state, "NodeID": "", "ControlAvailable": False, "Error": self.state}
        managers = [node for node in self.cluster.nodes if node.role == "manager"]
        manages = self.node in managers
        return {
            "LocalNodeState": "active",
            "NodeID": self.node.id,
            "ControlAvailable": manages,
            "Error": "",
            "RemoteManagers": [{"NodeID": node.id, "Addr": f"{node.engine.ip}:2377"} for node in managers] or None,
        } | ({"Cluster": {"ID": self.cluster.id}} if manages else {})

    def _managed(self) -> FakeCluster:
        if self.cluster is None or self.node not in self.cluster.nodes or self.node.role != "manager" or self.state:
            raise RefusalError(503, NOT_MANAGER)
        self.cluster.check_quorum()
        return self.cluster

    def _enter(self, cluster: FakeCluster, role: str, body: dict[str, str]) -> None:
        if self.node:
            raise RefusalError(503, PART)
        if (body["ListenAddr"], body["AdvertiseAddr"], body["DataPathAddr"]) != (f"{self.ip}:2377", self.ip, self.ip):
            raise RefusalError(400, f"not my address: {body}")
        self.node, self.cluster = FakeNode(secrets.token_hex(8), self, role), cluster
        cluster.nodes.append(self.node)

    def _leave(self, force: bool) -> None:
        if self.node is None:
            raise RefusalError(503, "This node is not part of a swarm")
        if self.node.role == "manager" and not force and not self.state:
            raise RefusalError(503, MANAGING)
        self.node, self.cluster, self.state = None, None, ""

    def _update(self, node: FakeNode, query: str, body: dict[str, Any]) -> None:
        if query != f"version={node.version}":
            raise RefusalError(500, "rpc error: code = Unknown desc = update out of sequence")
        managers = [other for other in self._managed().nodes if other.role == "manager"]
        if managers == [node] and body["Role"] == "worker":
            raise RefusalError(400, "attempting to demote the last manager of the swarm")
        node.role, node.availability, node.labels = body["Role"], body["Availability"], body["Labels"]
        node.version += 1

    def _remove(self, cluster: FakeCluster, key: str, force: bool) -> None:
        node = cluster.node(key)
        if node.role == "manager":
            raise RefusalError(500, f"node {key} is a cluster manager. It must be demoted to worker before removal")
        if node.up and not force:
            raise RefusalError(400, f"node {key} is not down and can't be removed")
        cluster.nodes.remove(node)


class World:
    """The engines by machine, whose records are in a store."""

    def __init__(self, store: Store, stack: ExitStack) -> None:
        self.lock = threading.RLock()
        self.requests: list[str] = []
        self.tasks: list[list[dict[str, Any]]] = [[]]  # one answer after the other, the last one again and again
        self.engines: dict[str, FakeEngine] = {}
        self.hanging = ""  # a request that is never answered
        self._store = store
        self._stack = stack

    def add(self, *names: str) -> None:
        """Make machines."""
        for name in names:
            engine = FakeEngine(self, name, f"192.0.2.{len(self.engines) + 1}")
            server = self._stack.enter_context(Server(engine.serve))
            self.engines[name] = engine
            url = f"tcp://127.0.0.1:{server.port}"
            machine = Machine(
                name, f"uid-of-{name}", "none", self._store.identity(), "", {"url": url}, phase=Phase.READY
            )
            machine.address, machine.peer_address, machine.tls, machine.url = "127.0.0.1", engine.ip, False, url
            self._store.reserve(machine)

    def reset(self) -> None:
        """Nobody is in a swarm."""
        for engine in self.engines.values():
            engine.node = engine.cluster = None

    def entry(self, body: dict[str, Any]) -> tuple[FakeCluster, str]:
        """The swarm and the role that a join asks for; raises RefusalError."""
        for engine in self.engines.values():
            if f"{engine.ip}:2377" in body["RemoteAddrs"] and engine.running and engine.cluster:
                engine.cluster.check_quorum()
                for role, token in engine.cluster.tokens.items():
                    if token == body["JoinToken"]:
                        return engine.cluster, role.lower()
                raise RefusalError(400, "invalid join token")
        raise RefusalError(500, "rpc error: code = Unavailable desc = connection refused")

    def shown(self) -> dict[str, str]:
        """Each node of the one swarm that there is: what it is and where, for a test to compare."""
        clusters = {id(engine.cluster): engine.cluster for engine in self.engines.values() if engine.cluster}
        assert len(clusters) <= 1, "more than one swarm"
        nodes = [node for cluster in clusters.values() for node in cluster.nodes]
        assert all(node.up for node in nodes), "a node is nobody's"
        own = {node.engine.name: _labels(node) for node in nodes}
        assert len(own) == len(nodes), "a machine is two nodes"
        return own


def _labels(node: FakeNode) -> str:
    given = [f"{key}={value}" for key, value in sorted(node.labels.items()) if not key.startswith("machinekit.")]
    return " ".join([node.role, *([node.availability] if node.availability != "active" else []), *given])


@contextmanager
def world(store: Store) -> Iterator[World]:
    """Engines until the end of `with`."""
    with ExitStack() as stack:
        yield World(store, stack)
