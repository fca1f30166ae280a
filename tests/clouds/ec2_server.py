"""The EC2 endpoint's process: python -m tests.clouds.ec2_server VPC PUBLIC. It ends with its stdin.

The API is at /. What the tests arm, set and ask is JSON at paths that begin with an underscore (see tests.clouds.ec2).
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

from tests.clouds import ec2_moto, sigv4
from tests.clouds.ec2_moto import Answer, Parameters, error
from tests.clouds.ec2_region import Conditions, Region
from tests.clouds.ec2_state import State, state
from tests.clouds.faults import Call, Fault, Faults

INVALID = "AWS was not able to validate the provided access credentials"

GATEWAY = "<html><head><title>504 Gateway Time-out</title></head><body><hr>504 Gateway Time-out</body></html>"


class Endpoint:
    """The regions of an account, the faults that are armed, and the calls so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """As it was at the start."""
        with self._lock:
            ec2_moto.reset()
            self.faults = Faults()
            self.calls: list[Call] = []
            self.conditions = Conditions()
            self.latency = 0.0
            self._regions: dict[str, Region] = {}

    def call(self, region: str, parameters: Parameters) -> Answer | None:
        """One call of the API; None when the caller hears nothing."""
        action = parameters.get("Action", "")
        self.calls.append(Call(action, time.monotonic()))
        fault = self.faults.take(action)
        time.sleep(self.latency)
        if not region:
            return error("AuthFailure", INVALID, 401)
        answer = None
        if fault is None or fault.applied:
            with self._lock:
                answer = self._region(region).answer(parameters)
        if fault is None:
            return answer
        time.sleep(fault.seconds)
        if fault.status and not fault.code:
            return Answer(fault.status, GATEWAY)
        return error(fault.code, fault.message, fault.status) if fault.status else None

    def set(self, settings: dict[str, Any]) -> None:
        """Change the conditions, or the latency."""
        self.latency = settings.pop("latency", self.latency)
        for name, value in settings.items():
            setattr(self.conditions, name, value)

    def state(self) -> State:
        """What there is, in all regions that were used."""
        with self._lock:
            found: State = {}
            for region in self._regions.values():
                for kind, things in state(region).items():
                    found.setdefault(kind, []).extend(things)
            return found

    def _region(self, name: str) -> Region:
        if name not in self._regions:
            self._regions[name] = Region(name, self.conditions)
        return self._regions[name]


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP, for callers of the API and for the tests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # or each header would be a packet
    endpoint: Endpoint

    def do_GET(self) -> None:
        """Answer, also when there is a mistake of ours; it is told on stderr."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.path.startswith("/_"):
                self._control(self.path, json.loads(body or "{}"))
                return
            answer = self._api(body)
        except Exception:
            traceback.print_exc()
            answer = error("InternalError", traceback.format_exc(limit=-1), 500)
        if answer is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._send(answer.status, "text/xml;charset=UTF-8", answer.body)

    def do_POST(self) -> None:
        """The same."""
        self.do_GET()

    def _api(self, body: bytes) -> Answer | None:
        region = sigv4.region_of(self.command, self.path, dict(self.headers), body)
        query = self.path.partition("?")[2]
        given = dict(parse_qsl(query, keep_blank_values=True) + parse_qsl(body.decode(), keep_blank_values=True))
        given.pop("x-amz-security-token", None)  # libcloud has it there too
        return self.endpoint.call(region, given)

    def _control(self, path: str, given: dict[str, Any]) -> None:
        endpoint, said = self.endpoint, ""
        match path:
            case "/_caller":
                return self._send(200, "text/plain", f"{self.client_address[0]}\n")
            case "/_fault":
                endpoint.faults.arm(Fault(**given))
            case "/_calm":
                endpoint.faults = Faults()
            case "/_set":
                endpoint.set(given)
            case "/_reset":
                endpoint.reset()
            case "/_state":
                said = json.dumps(endpoint.state())
            case "/_calls":
                said = json.dumps([asdict(call) for call in endpoint.calls])
            case _:
                return self._send(404, "text/plain", "")
        return self._send(200, "application/json", said or "null")

    def _send(self, status: int, kind: str, text: str) -> None:
        content = text.encode()
        with contextlib.suppress(ConnectionError):  # the caller has given up
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


class Server(http.server.ThreadingHTTPServer):
    """As many callers at once as there are."""

    request_queue_size = 128


def main() -> None:
    """Say the port when it can be used, and serve until whoever started this is gone."""
    vpc, public = sys.argv[1:]
    ec2_moto.prepare(vpc, public)
    endpoint = Endpoint()
    endpoint.call("us-east-1", {"Action": "DescribeRegions"})  # the first one takes half a second
    endpoint.reset()
    handler = type("Handler", (Handler,), {"endpoint": endpoint})
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # whoever hangs in a fault has hung long enough


if __name__ == "__main__":
    main()
