"""An EC2 endpoint on loopback: moto in a process of its own, with EC2's rules, faults on demand, and counts."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from libcloud.compute.providers import get_driver

from tests.clouds.sigv4 import KEY, SECRET

HOST = "127.0.0.1"
REGION = "us-east-1"
# the status of a code that EC2 does not answer with 400
STATUS = {
    "AuthFailure": 401,
    "OptInRequired": 401,
    "UnauthorizedOperation": 403,
    "InternalError": 500,
    "InternalFailure": 500,
    "InsufficientInstanceCapacity": 500,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
}


class Ec2:
    """The endpoint, from `with` on until its end. `reset` makes it new between tests.

    Its default networks are in `vpc` (/16), its public addresses in `public`. Nothing that is sent to them leaves this
    computer: nobody listens there, or whoever a test puts there.
    """

    def __init__(self, vpc: str = "127.31.0.0/16", public: str = "127.198.0.0/16") -> None:
        self._words = [sys.executable, "-m", "tests.clouds.ec2_server", vpc, public]
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        with self._process.stdout as said:
            self.port = int(said.readline())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    def driver(self, region: str = REGION, *, key: str = KEY, secret: str = SECRET, **more: Any) -> Any:
        """Libcloud's driver for it."""
        more = {"secure": False, "signature_version": "4", "timeout": 10} | more
        return get_driver("ec2")(key, secret, region=region, host=HOST, port=self.port, **more)

    # --- what goes wrong, each for so many calls after `skip` good ones; "*" is any action

    def refuse(self, action: str, code: str, message: str = "injected", *, count: int = 1, skip: int = 0) -> None:
        """Answer with the error, without effect."""
        self._arm(action, count, skip, code=code, message=message, status=STATUS.get(code, 400))

    def hang(self, action: str, seconds: float, *, count: int = 1, skip: int = 0) -> None:
        """Say nothing for so long, then hang up, without effect."""
        self._arm(action, count, skip, seconds=seconds)

    def lose(self, action: str, *, seconds: float = 0, gateway: bool = False, count: int = 1, skip: int = 0) -> None:
        """Do it, then hang up (after so many seconds) without an answer; or a gateway answers 504 instead."""
        self._arm(action, count, skip, applied=True, seconds=seconds, status=504 if gateway else 0)

    def _arm(self, action: str, count: int, skip: int, **fault: Any) -> None:
        self._ask("/_fault", action=action, count=count, skip=skip, **fault)

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self._ask("/_calm")

    # --- how it is from now on, until `reset`

    def unlisted_for(self, seconds: float) -> None:
        """Describe* shows a new instance, key pair or group only so long after it was made."""
        self._ask("/_set", unlisted_for=seconds)

    def take_time(self, *, pending: float = 0, stopping: float = 0, shutting_down: float = 0) -> None:
        """Let instances be in these states for so many seconds."""
        self._ask("/_set", lasting={"pending": pending, "stopping": stopping, "shutting-down": shutting_down})

    def fill(self, *lacks: tuple[str, str, str]) -> None:
        """Have no capacity for these: instance type, zone, and "spot" or "on-demand"; "" is any."""
        self._ask("/_set", full=lacks)

    def slow_down(self, latency: float) -> None:
        """Take so many seconds for each answer."""
        self._ask("/_set", latency=latency)

    def reset(self) -> None:
        """Nothing there, nothing armed, nothing counted."""
        self._ask("/_reset")

    # --- what there is

    def calls(self) -> list[str]:
        """The actions of the API that were asked for, in order, also those that were refused."""
        return [call["action"] for call in self._ask("/_calls")]

    def times(self) -> list[float]:
        """When each of them came, in seconds."""
        return [call["at"] for call in self._ask("/_calls")]

    def state(self, kind: str) -> list[dict[str, Any]]:
        """All "instances", "volumes", "key_pairs", "groups", "addresses" or "interfaces" of all regions.

        Each has its id, region and tags; of an instance `asked` are the parameters of its RunInstances as they came.
        """
        found: list[dict[str, Any]] = self._ask("/_state").get(kind, [])
        return found

    def leftovers(self) -> list[str]:
        """What is there and would cost or remain, such as "volumes vol-1"; terminated instances are none."""
        return [
            f"{kind} {thing['id']}"
            for kind, things in self._ask("/_state").items()
            for thing in things
            if thing.get("state") != "terminated"
        ]

    def _ask(self, path: str, **given: Any) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("POST", path, json.dumps(given))
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 200, f"{path}: {answer.status} {said.decode()}"
            return json.loads(said)
        finally:
            connection.close()
