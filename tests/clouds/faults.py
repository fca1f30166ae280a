"""The calls that an endpoint of ours got, and the faults that a test arms for those to come."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What happens to `count` calls of an action ("*": of any), after `skip` of them that went well.

    The caller hears nothing for some `seconds`; then the error, or a gateway's page where there is a status but no
    code, or the connection is closed without an answer. What was `applied` has had its effect by then.
    """

    action: str = "*"
    count: int = 1
    skip: int = 0
    applied: bool = False
    seconds: float = 0
    status: int = 0
    code: str = ""
    message: str = ""


@dataclass
class Call:
    """A call, and when it came (in seconds of the server's monotonic clock)."""

    action: str
    at: float


@dataclass
class Faults:
    """What is armed still; the first that fits a call is what happens to it."""

    armed: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, fault: Fault) -> None:
        """From the next call on."""
        with self._lock:
            self.armed.append(fault)

    def take(self, action: str) -> Fault | None:
        """What happens to this call."""
        with self._lock:
            for fault in self.armed:
                if fault.action not in (action, "*") or not fault.count:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.count -= 1
                return fault
        return None
