"""The cloud's API as one user sees it, by plain HTTP: the tests' own view, independent of the product's libraries."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError

PORTS = {"identity": 5000, "image": 9292, "placement": 8778, "compute": 8774, "network": 9696}
VERSIONS = {"identity": "/v3", "image": "/v2", "placement": "", "compute": "/v2.1", "network": "/v2.0"}
COMPUTE = "2.93"  # the newest microversion of this release
T = TypeVar("T")
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy this computer has


@dataclass
class Api:
    """A user in a project; `through` exchanges the URL of a service for the one of a proxy in front of it."""

    address: str
    user: str
    project: str
    password: str
    id: str = ""  # the user's, once logged in
    token: str = ""
    through: Callable[[str], str] = str

    def get(self, service: str, path: str) -> Any:
        """What is there."""
        return self.ask("GET", service, path)

    def post(self, service: str, path: str, body: Any) -> Any:
        """What was made."""
        return self.ask("POST", service, path, body)

    def put(self, service: str, path: str, body: Any = None) -> Any:
        """What has become of it."""
        return self.ask("PUT", service, path, body)

    def delete(self, service: str, path: str) -> None:
        """Remove it."""
        self.ask("DELETE", service, path)

    def ask(self, method: str, service: str, path: str, body: Any = None) -> Any:
        """One call; a body of bytes is sent as it is. Raises HTTPError with the API's own words."""
        headers = {"X-Auth-Token": self.token or self.login(), "OpenStack-API-Version": f"compute {COMPUTE}"}
        return _call(method, self._url(service) + path, headers, body)[0]

    def login(self) -> str:
        """A new token."""
        domain = {"id": "default"}
        user = {"name": self.user, "domain": domain, "password": self.password}
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": self.project, "domain": domain}}
        answer, headers = _call(
            "POST", f"{self._url('identity')}/auth/tokens", {}, {"auth": {"identity": identity, "scope": scope}}
        )
        self.token = headers["X-Subject-Token"]
        self.id = answer["token"]["user"]["id"]
        return self.token

    def _url(self, service: str) -> str:
        return self.through(endpoint(self.address, service)) + VERSIONS[service]


def endpoint(address: str, service: str) -> str:
    """Where a service answers."""
    return f"http://{address}:{PORTS[service]}"


def answers(url: str) -> bool:
    """Whether anything does there."""
    try:
        _direct.open(url, timeout=5).close()
    except HTTPError as error:
        return error.code < 500
    except (URLError, OSError):
        return False
    return True


def until(question: Callable[[], T], what: str, patience: float = 300, pause: float = 0.3) -> T:
    """Ask until the answer is yes."""
    deadline = time.monotonic() + patience
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {patience:.0f} s still not: {what}")
        time.sleep(pause)
    return answer


def _call(method: str, url: str, headers: dict[str, str], body: Any) -> tuple[Any, Any]:
    binary = isinstance(body, bytes)
    data = body if binary else json.dumps(body).encode() if body is not None else None
    kind = "application/octet-stream" if binary else "application/json"
    request = urllib.request.Request(url, data, headers | {"Content-Type": kind}, method=method)  # noqa: S310
    try:
        with _direct.open(request, timeout=120) as answer:
            content = answer.read()
            return json.loads(content) if content else None, answer.headers
    except HTTPError as error:
        error.msg = f"{method} {url}: {error.code} {error.read().decode(errors='replace')[:1000]}"
        raise
