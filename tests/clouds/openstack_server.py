"""A small OpenStack for what needs hundreds of runs: it keeps state, gives a name twice, and fails when told to.

It says what the real one in tests/clouds/openstack says, as far as the driver asks: Keystone, Nova, Neutron and Glance
behind one port of loopback.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD, PROJECT = "ci", "only-for-this-test", "0123456789abcdef0123456789abcdef"
CREDENTIAL, SECRET = "c0ffee", "only-for-this-test-too"
Thing = dict[str, Any]


@dataclass
class Fault:
    """What happens to the next call that matches: an answer of that status, or none; `applied` ones have their effect.

    A call is written as its method and path, such as "POST /servers". A `silence` in seconds comes before the end.
    """

    call: str
    status: int = 0
    message: str = "injected"
    applied: bool = False
    silence: float = 0


def _named(*names: str, **more: Any) -> list[Thing]:
    return [
        {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{n}{name}")), "name": name, **more} for n, name in enumerate(names)
    ]


@dataclass
class Account:
    """Everything in it. `unlisted` and `building` are in seconds; with `full` no host takes a server."""

    images: list[Thing] = field(
        default_factory=lambda: [
            *_named("debian-12", "ubuntu", "twin", "twin", min_ram=0, min_disk=0, status="active"),
            *_named("huge", min_ram=65536, min_disk=80, status="active"),
        ]
    )
    flavors: list[Thing] = field(default_factory=lambda: _named("m1.small", "m1.large", ram=1024, vcpus=2, disk=8))
    networks: list[Thing] = field(
        default_factory=lambda: [
            *_named("private", project_id=PROJECT, shared=False),
            *_named("theirs", "public", project_id="another", shared=True),
        ]
    )
    subnets: list[Thing] = field(default_factory=list)
    zones: list[Thing] = field(default_factory=lambda: [{"zoneName": "nova"}, {"zoneName": "north"}])
    server_groups: list[Thing] = field(default_factory=lambda: _named("apart", "twin", "twin"))
    quota: Thing = field(default_factory=lambda: {"maxTotalInstances": 10, "maxTotalCores": 20, "maxTotalRAMSize": -1})
    servers: dict[str, Thing] = field(default_factory=dict)
    security_groups: dict[str, Thing] = field(default_factory=dict)
    security_group_rules: dict[str, Thing] = field(default_factory=dict)
    floatingips: dict[str, Thing] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    unlisted: float = 0
    building: float = 0
    full: bool = False

    def __post_init__(self) -> None:
        for network in self.networks:
            network["router:external"] = network["name"] == "public"

    def leftovers(self) -> list[Thing]:
        """What is neither gone nor there from the beginning."""
        tables = (self.servers, self.security_groups, self.floatingips)
        return [thing for table in tables for thing in table.values()]


class RefusedError(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class OpenStackServer:
    """The server, from `with` on until its end; over TLS with a context."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.account = Account()
        self._lock = threading.RLock()
        outer = self

        class Bound(_Handler):
            cloud = outer

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._http.daemon_threads = True
        if context:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def reset(self) -> None:
        """Nothing in it; tokens go on."""
        self.account = Account(tokens=self.account.tokens)

    def leftovers(self) -> list[Thing]:
        """What a test has made and not removed."""
        self.list_servers()
        return self.account.leftovers()

    def environment(self) -> dict[str, str]:
        """The OS_* variables of the user."""
        return {
            "OS_AUTH_URL": f"{self.url}/v3",
            "OS_USERNAME": USER,
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": USER,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": "north",
        }

    # --- one call

    def take(self, call: str) -> Fault | None:
        """Count it; the fault that is for it."""
        with self._lock:
            self.account.calls.append(call)
            for fault in self.account.faults:
                if re.fullmatch(fault.call, call):
                    self.account.faults.remove(fault)
                    return fault
        return None

    def answer(self, call: str, query: dict[str, list[str]], body: Thing, token: str) -> tuple[int, Thing, str]:
        """Status, content, and a new token."""
        with self._lock:
            try:
                if call == "POST /v3/auth/tokens":
                    return 201, *self._login(body["auth"])
                if call == "GET /v3":
                    links = [{"rel": "self", "href": f"{self.url}/v3"}]
                    return 200, {"version": {"id": "v3.14", "status": "stable", "links": links}}, ""
                if token not in self.account.tokens:
                    raise RefusedError(401, "The request you have made requires authentication.")
                for pattern, act in _ROUTES:
                    if match := re.fullmatch(pattern, call):
                        return 200, act(self, *match.groups(), query=query, body=body) or {}, ""
                raise RefusedError(404, f"there is no {call} here")
            except RefusedError as refused:
                return refused.status, {"error": {"code": refused.status, "message": refused.message}}, ""

    def _login(self, auth: Thing) -> tuple[Thing, str]:
        identity = auth["identity"]
        known = {"user": {"name": USER, "password": PASSWORD, "domain": {"name": "Default"}}}
        credential = {"id": CREDENTIAL, "secret": SECRET}
        if identity.get("password", known) != known or identity.get("application_credential", credential) != credential:
            raise RefusedError(401, "The request you have made requires authentication.")
        token = uuid.uuid4().hex
        self.account.tokens.add(token)
        catalog = [
            {
                "type": kind,
                "name": kind,
                "endpoints": [
                    {"interface": "public", "region": region, "region_id": region, "url": self.url + path}
                    for region in ("north", "south")
                ],
            }
            for kind, path in (("compute", "/v2.1"), ("network", ""), ("image", ""))
        ]
        held = {
            "project": {"id": PROJECT, "name": USER, "domain": {"name": "Default"}},
            "user": {"id": "u", "name": USER},
        }
        return {"token": {"expires_at": "2999-01-01T00:00:00Z", "catalog": catalog, "methods": [], **held}}, token

    # --- Nova

    def list_servers(self, **_: Any) -> Thing:
        gone = [each for each in self.account.servers.values() if each["goes"] < time.monotonic()]
        for server in gone:
            self._forget(server)
        return {"servers": [self._server(each) for each in self._listed(self.account.servers)]}

    def show_server(self, key: str, **_: Any) -> Thing:
        return {"server": self._server(self._one(self.account.servers, key))}

    def make_server(self, body: Thing, **_: Any) -> Thing:
        wanted = {**body["server"], "hints": body.get("os:scheduler_hints")}
        if len(self.account.servers) >= self.account.quota["maxTotalInstances"]:
            raise RefusedError(403, "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances")
        for group in wanted["security_groups"]:
            self._one(self.account.security_groups, group["name"])
        made = {
            **wanted,
            "id": str(uuid.uuid4()),
            "born": time.monotonic(),
            "goes": float("inf"),
            "state": "ERROR" if self.account.full else "ACTIVE",
        }
        self.account.servers[made["id"]] = made
        return {"server": {"id": made["id"]}}

    def delete_server(self, key: str, **_: Any) -> None:
        self._one(self.account.servers, key)["goes"] = time.monotonic() + self.account.building

    def act_on_server(self, key: str, body: Thing, **_: Any) -> None:
        server = self._one(self.account.servers, key)
        (action,) = body
        before, after = {"os-start": ("SHUTOFF", "ACTIVE"), "os-stop": ("ACTIVE", "SHUTOFF")}[action]
        if server["state"] != before:
            raise RefusedError(409, f"Cannot '{action[3:]}' instance {key} while it is in vm_state {server['state']}")
        server["state"] = after

    def _server(self, server: Thing) -> Thing:
        built = server["born"] + self.account.building < time.monotonic()
        floating = [each for each in self.account.floatingips.values() if each["port_id"] == server["id"]]
        addresses = [{"addr": "203.0.113.7", "version": 4, "OS-EXT-IPS:type": "fixed"}]
        addresses += [
            {"addr": each["floating_ip_address"], "version": 4, "OS-EXT-IPS:type": "floating"} for each in floating
        ]
        shown = {key: server[key] for key in ("id", "name", "metadata")}
        fault = {"fault": {"code": 500, "message": "No valid host was found."}} if server["state"] == "ERROR" else {}
        return (
            shown
            | fault
            | {
                "status": server["state"] if built else "BUILD",
                "addresses": {"private": addresses} if built else {},
                "created": "2026-01-01T00:00:00Z",
                "updated": "2026-01-01T00:00:00Z",
                "tenant_id": PROJECT,
                "hostId": "",
                "links": [{"rel": "self", "href": f"{self.url}/v2.1/servers/{server['id']}"}],
            }
        )

    def _forget(self, server: Thing) -> None:
        del self.account.servers[server["id"]]
        for address in self.account.floatingips.values():
            if address["port_id"] == server["id"]:
                address["port_id"] = None

    def show_limits(self, **_: Any) -> Thing:
        used = {
            "totalInstancesUsed": len(self.account.servers),
            "totalCoresUsed": 2 * len(self.account.servers),
            "totalRAMUsed": 1024 * len(self.account.servers),
        }
        return {"limits": {"absolute": self.account.quota | used}}

    # --- Neutron and Glance

    def list_ports(self, query: dict[str, list[str]], **_: Any) -> Thing:
        (server,) = query["device_id"]
        return {"ports": [{"id": server}] if server in self.account.servers else []}

    def list_some(self, table: str, query: dict[str, list[str]], **_: Any) -> Thing:
        if table == "os-availability-zone":
            return {"availabilityZoneInfo": self.account.zones}
        name = table.removeprefix("os-").replace("-", "_").removesuffix("/detail")
        kept = getattr(self.account, name)
        things = kept if isinstance(kept, list) else self._listed(kept)
        wanted = {key: values for key, values in query.items() if key in ("name", "id", "description")}
        wanted = {key: [value.removeprefix("in:") for value in values] for key, values in wanted.items()}
        return {name: [each for each in things if all(each[key] in values for key, values in wanted.items())]}

    def make_something(self, table: str, body: Thing, **_: Any) -> Thing:
        ((single, wanted),) = body.items()
        kept = getattr(self.account, table.replace("-", "_"))
        things = wanted if isinstance(wanted, list) else [wanted]
        have = [_rule(each) for each in self.account.security_group_rules.values()]
        if table == "security-group-rules" and any(_rule(each) in have for each in things):
            raise RefusedError(409, "Security group rule already exists.")
        made = [{"port_id": None, **each, "id": str(uuid.uuid4()), "born": time.monotonic()} for each in things]
        for number, each in enumerate(made):
            each["floating_ip_address"] = f"198.51.100.{len(kept) + number + 1}"
            kept[each["id"]] = each
        return {single: made if isinstance(wanted, list) else made[0]}

    def change_address(self, key: str, body: Thing, **_: Any) -> None:
        self._one(self.account.floatingips, key).update(body["floatingip"])

    def delete_something(self, table: str, key: str, **_: Any) -> None:
        kept = getattr(self.account, table.replace("-", "_"))
        self._one(kept, key)
        self.list_servers()
        if any({"name": key} in each["security_groups"] for each in self.account.servers.values()):
            raise RefusedError(409, f"Security Group {key} in use.")
        del kept[key]
        rules = self.account.security_group_rules
        self.account.security_group_rules = {k: rule for k, rule in rules.items() if rule["security_group_id"] != key}

    def _listed(self, table: dict[str, Thing]) -> list[Thing]:
        return [each for each in table.values() if each["born"] + self.account.unlisted < time.monotonic()]

    def _one(self, table: dict[str, Thing], key: str) -> Thing:
        if key not in table:
            raise RefusedError(404, f"{key} could not be found.")
        return table[key]


def _rule(rule: Thing) -> tuple[Any, ...]:
    return rule["security_group_id"], rule["protocol"], rule["port_range_min"], rule["remote_ip_prefix"]


_ROUTES: tuple[tuple[str, Callable[..., Thing | None]], ...] = (
    ("GET /v2.1/servers/detail", OpenStackServer.list_servers),
    ("GET /v2.1/servers/([^/]+)", OpenStackServer.show_server),
    ("POST /v2.1/servers", OpenStackServer.make_server),
    ("DELETE /v2.1/servers/([^/]+)", OpenStackServer.delete_server),
    ("POST /v2.1/servers/([^/]+)/action", OpenStackServer.act_on_server),
    ("GET /v2.1/limits", OpenStackServer.show_limits),
    ("GET /v2.0/ports", OpenStackServer.list_ports),
    ("PUT /v2.0/floatingips/([^/]+)", OpenStackServer.change_address),
    (r"GET /v2[.\d]*/(.+)", OpenStackServer.list_some),
    ("POST /v2.0/([^/]+)", OpenStackServer.make_something),
    ("DELETE /v2.0/([^/]+)/([^/]+)", OpenStackServer.delete_something),
)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    cloud: OpenStackServer

    def do_GET(self) -> None:
        """Any method."""
        with suppress(ConnectionError):
            self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        where = urlsplit(self.path)
        call = f"{self.command} {where.path}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.cloud.take(call)
        status, content, token = 200, Thing(), ""
        if not fault or fault.applied:
            token = self.headers.get("X-Auth-Token") or ""
            status, content, token = self.cloud.answer(call, parse_qs(where.query), json.loads(body or "{}"), token)
        if fault:
            time.sleep(fault.silence)
            if not fault.status:
                self.close_connection = True
                return
            status, content = fault.status, {"error": {"code": fault.status, "message": fault.message}}
        said = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        if token:
            self.send_header("X-Subject-Token", token)
        self.end_headers()
        self.wfile.write(said)
