"""Calls to a cloud: what each refusal means, and what is tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import requests
import tenacity
from libcloud.common.exceptions import BaseHTTPError, RateLimitReachedError
from libcloud.common.types import InvalidCredsError, LibcloudError, MalformedResponseError
from machinekit.providers import calls
from machinekit.providers.calls import Calls, CloudError, Kind, classified, kind_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "JITTER", tenacity.wait_none())
    monkeypatch.setattr(calls, "ARRIVAL", 0.2)
    monkeypatch.setattr(calls, "DEADLINE", 0.4)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (503, "RequestLimitExceeded: Request limit exceeded.", Kind.THROTTLED),
        (503, "Unavailable: The server is overloaded.", Kind.TRANSIENT),
        (500, "InsufficientInstanceCapacity: We currently do not have sufficient capacity", Kind.CAPACITY),
        (500, "InternalError: An internal error has occurred", Kind.TRANSIENT),
        (400, "VcpuLimitExceeded: You have requested more vCPU capacity than your limit", Kind.QUOTA),
        (400, "AddressLimitExceeded: The maximum number of addresses has been reached.", Kind.QUOTA),
        (401, "AuthFailure: AWS was not able to validate the provided access credentials", Kind.AUTH),
        (403, "UnauthorizedOperation: You are not authorized to perform this operation.", Kind.AUTH),
        (400, "InvalidInstanceID.NotFound: The instance ID 'i-1' does not exist", Kind.NOT_FOUND),
        (400, "InvalidGroup.Duplicate: The security group 'g' already exists", Kind.CONFLICT),
        (400, "DependencyViolation: resource sg-1 has a dependent object", Kind.CONFLICT),
        (400, "InvalidParameterValue: Invalid value 'x' for InstanceType.", Kind.REFUSED),
        (403, "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances", Kind.QUOTA),
        (413, "Quota exceeded for resources: ['security_group'].", Kind.QUOTA),
        (500, "No valid host was found. There are not enough hosts available.", Kind.CAPACITY),
        (409, "Multiple security_group matches found for name 'mk', use an ID", Kind.CONFLICT),
        (404, "Instance 1 could not be found.", Kind.NOT_FOUND),
        (404, "", Kind.NOT_FOUND),
        (429, "quota or not", Kind.THROTTLED),
        (502, "", Kind.TRANSIENT),
        (422, "Name is already in use", Kind.CONFLICT),
    ],
)
def test_what_an_answer_means(status: int, text: str, kind: Kind) -> None:
    assert kind_of(status, text) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidCredsError("no"), Kind.AUTH),
        (BaseHTTPError(404, "gone"), Kind.NOT_FOUND),
        (RateLimitReachedError(headers={"retry-after": "7"}), Kind.THROTTLED),
        (MalformedResponseError("Failed to parse XML", body="<html>"), Kind.TRANSIENT),
        (LibcloudError("boom"), Kind.REFUSED),
        (requests.exceptions.ReadTimeout("read timed out"), Kind.TRANSIENT),
        (requests.exceptions.ConnectTimeout("timed out"), Kind.UNREACHABLE),
        (requests.exceptions.SSLError("certificate verify failed: self-signed certificate"), Kind.REFUSED),
        (requests.exceptions.ConnectionError("('Connection aborted.', RemoteDisconnected())"), Kind.TRANSIENT),
    ],
)
def test_what_an_exception_means(error: Exception, kind: Kind) -> None:
    told = classified(error)
    assert told is not None
    assert told.kind is kind
    assert told.message


def test_how_long_to_wait_is_heard() -> None:
    told = classified(RateLimitReachedError(headers={"retry-after": "7"}))
    assert told is not None
    assert told.after == 7


def test_a_mistake_of_ours_is_no_answer() -> None:
    assert classified(KeyError("x")) is None
    with pytest.raises(KeyError):
        Calls("a")("do it", {}.__getitem__, "x")


def failing(kind: Kind, times: int) -> tuple[list[int], Callable[[], str]]:
    tried: list[int] = []

    def function() -> str:
        tried.append(1)
        if len(tried) <= times:
            raise CloudError(kind, "no")
        return "done"

    return tried, function


@pytest.mark.parametrize("kind", [Kind.THROTTLED, Kind.TRANSIENT, Kind.UNREACHABLE])
def test_what_passes_is_tried_again(kind: Kind) -> None:
    tried, function = failing(kind, 3)
    assert Calls("a")("do it", function) == "done"
    assert len(tried) == 4


@pytest.mark.parametrize("kind", sorted(set(Kind) - calls.PASSING))
def test_what_stays_is_told_at_once(kind: Kind) -> None:
    tried, function = failing(kind, 1)
    with pytest.raises(CloudError, match=r"^cannot do it: no$") as caught:
        Calls("a", "look there")("do it", function)
    assert (caught.value.kind, len(tried)) == (kind, 1)
    assert (caught.value.hint == "look there") is (kind is Kind.AUTH)


def test_what_may_have_been_done_is_not_done_twice() -> None:
    tried, function = failing(Kind.TRANSIENT, 1)
    with pytest.raises(CloudError):
        Calls("a").once("do it", function)
    assert len(tried) == 1
    tried, function = failing(Kind.THROTTLED, 2)
    assert Calls("a").once("do it", function) == "done"


def test_what_is_in_use_is_waited_for() -> None:
    assert Calls("a").freed("do it", failing(Kind.CONFLICT, 2)[1]) == "done"


@pytest.mark.parametrize("kind", [Kind.THROTTLED, Kind.UNREACHABLE])
def test_every_wait_ends(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "JITTER", tenacity.wait_fixed(0.05))
    started = time.monotonic()
    with pytest.raises(CloudError):
        Calls("a")("do it", failing(kind, 1000)[1])
    assert time.monotonic() - started < 2


def test_an_account_is_asked_at_a_pace_by_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PER_SECOND", 100.0)
    monkeypatch.setattr(calls, "BURST", 5)
    account = f"account of {time.monotonic()}"
    at: list[float] = []
    started = time.monotonic()

    def ask() -> None:
        Calls(account)("do it", lambda: at.append(time.monotonic() - started))

    threads = [threading.Thread(target=ask) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, when in enumerate(sorted(at)):
        assert when >= (number - 6) / 100, "more than the burst at once"
    assert max(at) >= 0.15
