"""DigitalOcean's API on loopback, as far as a driver needs it: droplets that take their time, refusals, faults, counts.

https://docs.digitalocean.com/reference/api/digitalocean/
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.clouds.faults import Call, Fault, Faults

TOKEN = "dop_v1_of_a_test"  # noqa: S105 (of a server on loopback)
REGIONS = {"nyc3": "New York 3", "ams3": "Amsterdam 3", "fra1": "Frankfurt 1"}
SIZES = {"s-1vcpu-1gb": tuple(REGIONS), "s-2vcpu-2gb": tuple(REGIONS), "g-2vcpu-8gb": ("nyc3",)}
IMAGES = {7001: ("debian-13-x64", "Debian", "13 x64"), 7002: ("ubuntu-24-04-x64", "Ubuntu", "24.04 (LTS) x64")}
SNAPSHOTS = {8001: "golden", 8002: "twice", 8003: "twice"}  # images of the account's own have no slug
STATES = {"power_on": "active", "power_off": "off", "shutdown": "off"}  # what an action leads to
MOST_DATA = 64 * 1024
UNPROCESSABLE = 422
FOUND, MADE, ACCEPTED, GONE = 200, 201, 202, 204


class RefusedError(Exception):
    """What the API says no with."""

    def __init__(self, status: int, id_: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"id": id_, "message": message}


@dataclass
class Droplet:
    """One droplet, what it was asked for with, and the event that it is busy with."""

    id: int
    asked: dict[str, Any]
    made: float
    status: str = "new"
    busy_until: float = 0.0
    becomes: str = "active"

    def settle(self, now: float) -> None:
        """What is due has happened."""
        if now >= self.busy_until:
            self.status = self.becomes


@dataclass
class DigitalOcean:
    """The endpoint, from `with` on until its end; the seconds that things take are a test's to set."""

    boot: float = 0.0
    acting: float = 0.0
    unlisted_for: float = 0.0
    droplet_limit: int = 10
    rate_limit: int = 0  # requests within a window; 0 is no limit
    window: float = 1.0
    droplets: dict[int, Droplet] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)  # as they are written, by what they are
    calls: list[Call] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    _admitted: list[float] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def actions(self) -> list[str]:
        """What was asked for, in order."""
        return [call.action for call in self.calls]

    def arm(self, action: str, **fault: Any) -> None:
        """Let something go wrong: see Fault."""
        self.faults.arm(Fault(action, **fault))

    def clear(self) -> None:
        """Nothing there, nothing armed, nothing counted."""
        for things in (self.droplets, self.tags, self.calls, self.faults.armed):
            things.clear()

    def serve(self, method: str, path: str, query: dict[str, str], body: dict[str, Any], token: str) -> Any:
        """The status and the answer to a request; raises RefusedError."""
        with self._lock:
            self._admit(token)
            for droplet in self.droplets.values():
                droplet.settle(time.monotonic())
            if method == "GET":
                return self._shown(path, query)
            if path == "/v2/droplets":
                return ACCEPTED, {"droplet": self._create(body)}
            droplet = self._idle(path.split("/")[3])
            if path.endswith("/actions"):
                return MADE, {"action": self._act(droplet, body["type"])}
            del self.droplets[droplet.id]
            return GONE, None

    def _admit(self, token: str) -> None:
        if token != f"Bearer {TOKEN}":
            raise RefusedError(401, "Unauthorized", "Unable to authenticate you")
        now = time.monotonic()
        self._admitted = [at for at in self._admitted if now - at < self.window]
        if self.rate_limit and len(self._admitted) >= self.rate_limit:
            after = math.ceil(self._admitted[0] + self.window - now)
            raise RefusedError(429, "too_many_requests", "API Rate limit exceeded.", **{"retry-after": str(after)})
        self._admitted.append(now)

    def _shown(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        kind, _, wanted = path.removeprefix("/v2/").partition("/")
        if kind == "images" and wanted:
            return FOUND, {"image": _image(_image_id(wanted))}
        lists = {
            "regions": [_region(slug) for slug in REGIONS],
            "sizes": [_size(slug) for slug in SIZES],
            "images": [_image(number) for number in (*IMAGES, *SNAPSHOTS)],
            "droplets": self._listed(query.get("tag_name", "")),
        }
        if kind not in lists or wanted:
            raise _nothing()
        return _page(kind, lists[kind], query, path)

    def _listed(self, tag: str) -> list[dict[str, Any]]:
        now = time.monotonic()
        shown = [each for each in self.droplets.values() if now - each.made >= self.unlisted_for]
        return [_told(each) for each in shown if not tag or tag in each.asked["tags"]]

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        if not re.fullmatch(r"[a-zA-Z0-9.-]{1,255}", asked["name"]):
            raise _wrong("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
        if asked["region"] not in SIZES.get(asked["size"], ()):
            raise _wrong("Size is not available in this region.")
        if len(asked.get("user_data") or "") > MOST_DATA:
            raise _wrong("User data is too long (maximum is 65536 characters)")
        if bad := [tag for tag in asked.get("tags", []) if not re.fullmatch("[a-zA-Z0-9:_-]{1,255}", tag)]:
            raise _wrong(f"Tag name {bad[0]} contains invalid characters")
        if len(self.droplets) >= self.droplet_limit:
            raise _wrong("creating this/these droplet(s) will exceed your droplet limit")
        image = _image_id(str(asked["image"]))
        tags = [self.tags.setdefault(tag.lower(), tag) for tag in asked.get("tags", [])]
        now, number = time.monotonic(), 1000 + len(self.actions)
        droplet = Droplet(number, asked | {"image": image, "tags": tags}, now, busy_until=now + self.boot)
        self.droplets[number] = droplet
        return _told(droplet)

    def _idle(self, number: str) -> Droplet:
        droplet = self.droplets.get(int(number))
        if droplet is None:
            raise _nothing()
        if time.monotonic() < droplet.busy_until:
            raise _wrong("Droplet already has a pending event.")
        return droplet

    def _act(self, droplet: Droplet, kind: str) -> dict[str, Any]:
        if kind not in STATES:
            raise _wrong(f"{kind} is not a valid action type.")
        if droplet.status == STATES[kind]:
            raise _wrong(f"Droplet is already powered {'on' if kind == 'power_on' else 'off'}.")
        droplet.becomes, droplet.busy_until = STATES[kind], time.monotonic() + self.acting
        return {"id": 1, "status": "in-progress", "type": kind, "resource_id": droplet.id}


class _Handler(BaseHTTPRequestHandler):
    api: DigitalOcean
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        action = f"{self.command} {re.sub('/[0-9]+', '/ID', url.path)}"
        self.api.calls.append(Call(action, time.monotonic()))
        fault = self.api.faults.take(action)
        if fault is None or fault.applied:
            try:
                status, answer = self.api.serve(
                    self.command, url.path, query, body, self.headers.get("Authorization", "")
                )
                headers = {}
            except RefusedError as error:
                status, answer, headers = error.status, error.body, error.headers
        if fault:
            time.sleep(fault.seconds)
            if not fault.status:
                self.close_connection = True
                return
            status, headers = fault.status, {}
            answer = {"id": fault.code, "message": fault.message} if fault.code else None
        data = b"<html>" if fault and not fault.code else json.dumps(answer).encode() if answer else b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def _wrong(message: str) -> RefusedError:
    return RefusedError(UNPROCESSABLE, "unprocessable_entity", message)


def _nothing() -> RefusedError:
    return RefusedError(404, "not_found", "The resource you were accessing could not be found.")


def _page(kind: str, things: list[Any], query: dict[str, str], path: str) -> tuple[int, dict[str, Any]]:
    page, size = int(query.get("page", "1")), min(int(query.get("per_page", "20")), 200)
    last = -(-len(things) // size) or 1
    pages = {"last": f"https://api.digitalocean.com{path}?page={last}&per_page={size}"} if page < last else {}
    shown = things[(page - 1) * size : page * size]
    return FOUND, {kind: shown, "links": {"pages": pages} if pages else {}, "meta": {"total": len(things)}}


def _region(slug: str) -> dict[str, Any]:
    return {"slug": slug, "name": REGIONS[slug], "available": True, "features": ["metadata"], "sizes": list(SIZES)}


def _size(slug: str) -> dict[str, Any]:
    numbers = {"memory": 1024, "vcpus": 1, "disk": 25, "transfer": 1.0, "price_monthly": 6.0, "price_hourly": 0.009}
    return {"slug": slug, "regions": list(SIZES[slug]), "available": True, **numbers}


def _image_id(wanted: str) -> int:
    slugs = {slug: number for number, (slug, _, _) in IMAGES.items()}
    number = slugs.get(wanted) or (int(wanted) if wanted.isdigit() else 0)
    if number not in IMAGES and number not in SNAPSHOTS:
        raise _nothing()
    return number


def _image(number: int) -> dict[str, Any]:
    slug, distribution, name = IMAGES.get(number, (None, "Debian", SNAPSHOTS.get(number)))
    more = {"regions": list(REGIONS), "min_disk_size": 15, "created_at": "2026-01-01T00:00:00Z"}
    return {"id": number, "slug": slug, "distribution": distribution, "name": name, "public": bool(slug), **more}


def _told(droplet: Droplet) -> dict[str, Any]:
    low = droplet.id % 250
    addresses = [
        {"ip_address": f"10.132.0.{low}", "type": "private"},
        {"ip_address": f"192.0.2.{low}", "type": "public"},
    ]
    return {
        "id": droplet.id,
        "name": droplet.asked["name"],
        "status": droplet.status,
        "locked": time.monotonic() < droplet.busy_until,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "networks": {"v4": [] if droplet.status == "new" else addresses, "v6": []},
        "region": _region(droplet.asked["region"]),
        "image": _image(droplet.asked["image"]),
        "size": _size(droplet.asked["size"]),
        "size_slug": droplet.asked["size"],
        "tags": droplet.asked["tags"],
        "features": [],
    }
