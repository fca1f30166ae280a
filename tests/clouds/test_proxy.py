"""The proxy that injects faults, in front of a small API that keeps what it is given."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clouds.proxy import Fault, Faults, hanging, lost, throttled


class Api(ThreadingHTTPServer):
    """Makes things, lists them, and says in a catalog where it is."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.things: dict[str, list[dict[str, Any]]] = {"servers": [], "keypairs": [], "ports": []}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(f"GET {self.path}")
        if path == "/catalog":
            self._answer(200, {"url": f"{self.server.url}/v2", "near": f"{self.server.url}0"})
        else:
            self._answer(200, {path[1:]: self.server.things[path[1:]]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(f"POST {self.path}")
        kind = self.path[1:]
        self.server.things[kind].append({"keypair": body} if kind == "keypairs" else body)
        self._answer(202, {kind[:-1]: body})

    def _answer(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Location", f"{self.server.url}/there")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield api
        api.shutdown()
        thread.join()


@pytest.fixture
def proxy(api: Api) -> Iterator[Faults]:
    with Faults([api.url]) as proxy:
        yield proxy


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: Message
    json: Any


class Client:
    """Asks the API through the proxy."""

    def __init__(self, api: Api, proxy: Faults) -> None:
        self.address = urlsplit(proxy.url(api.url)).netloc

    def __call__(self, method: str, path: str, body: Any = None, patience: float = 10) -> Answer:
        with closing(http.client.HTTPConnection(self.address, timeout=patience)) as connection:
            connection.request(method, path, json.dumps(body) if body else None)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, json.load(answer))


@pytest.fixture
def client(api: Api, proxy: Faults) -> Client:
    return Client(api, proxy)


def test_without_faults_it_only_carries_and_counts(api: Api, proxy: Faults, client: Client) -> None:
    assert client("POST", "/servers", {"id": "1"}).json == {"server": {"id": "1"}}
    assert client("GET", "/servers?name=a").json == {"servers": [{"id": "1"}]}
    assert api.asked == ["POST /servers", "GET /servers?name=a"]
    assert proxy.count() == 2
    assert proxy.count("GET", "/servers") == 1
    assert proxy.count("GET", "/server") == 0


def test_clients_are_led_through_it(api: Api, proxy: Faults, client: Client) -> None:
    answer = client("GET", "/catalog")
    ours = proxy.url(api.url)
    assert ours != api.url
    assert answer.headers["Location"] == f"{ours}/there"
    assert answer.json == {"url": f"{ours}/v2", "near": f"{api.url}0"}  # another port is another server


def test_a_status_instead_of_an_answer(api: Api, proxy: Faults, client: Client) -> None:
    proxy.inject(throttled("GET", "/servers", after=3), Fault("GET", "/.*", 503, count=2))
    answer = client("GET", "/servers")
    assert (answer.status, answer.headers["Retry-After"], answer.json["error"]["code"]) == (429, "3", 429)
    assert [client("GET", "/ports").status for _ in range(2)] == [503, 503]
    assert api.asked == []
    assert client("GET", "/ports").json == {"ports": []}
    assert proxy.count() == 4


def test_an_answer_that_is_lost(api: Api, proxy: Faults, client: Client) -> None:
    proxy.inject(lost("POST", "/servers"), lost("POST", "/servers", status=504))
    with pytest.raises(http.client.RemoteDisconnected):
        client("POST", "/servers", {"id": "1"})
    assert client("POST", "/servers", {"id": "2"}).status == 504
    assert client("GET", "/servers").json == {"servers": [{"id": "1"}, {"id": "2"}]}


@pytest.mark.parametrize(("applied", "there"), [(False, []), (True, [{"id": "1"}])])
def test_an_answer_that_never_comes(proxy: Faults, client: Client, applied: bool, there: list[dict[str, str]]) -> None:
    proxy.inject(hanging("POST", "/servers", applied=applied))
    with pytest.raises(TimeoutError):
        client("POST", "/servers", {"id": "1"}, patience=0.3)
    assert client("GET", "/servers").json == {"servers": there}


def test_what_is_new_is_not_listed_yet(api: Api, proxy: Faults, client: Client) -> None:
    client("POST", "/servers", {"id": "old"})
    time.sleep(0.5)
    proxy.unlisted = 0.4
    client("POST", "/servers", {"id": "new"})
    client("POST", "/keypairs", {"name": "key"})
    api.things["ports"] = [{"id": "p1", "device_id": "old"}, {"id": "p2", "device_id": "new"}]
    assert client("GET", "/servers").json == {"servers": [{"id": "old"}]}
    assert client("GET", "/keypairs").json == {"keypairs": []}
    assert client("GET", "/ports").json == {"ports": [{"id": "p1", "device_id": "old"}]}
    time.sleep(0.5)
    assert client("GET", "/servers").json == {"servers": [{"id": "old"}, {"id": "new"}]}
    assert client("GET", "/keypairs").json == {"keypairs": [{"keypair": {"name": "key"}}]}


def test_it_can_start_afresh(api: Api, proxy: Faults, client: Client) -> None:
    proxy.inject(Fault(".*", ".*", 500))
    proxy.unlisted = 60
    client("POST", "/servers", {"id": "1"})
    proxy.clear()
    assert proxy.count() == 0
    client("POST", "/servers", {"id": "2"})
    assert client("GET", "/servers").json == {"servers": [{"id": "2"}]}
    assert api.asked == ["POST /servers", "GET /servers"]
