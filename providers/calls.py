"""Calls to a cloud: at a pace, with a timeout, repeated where that helps, and every refusal told apart.

Whatever a cloud or libcloud says becomes one CloudError with a kind. Drivers and the common part judge by the kind.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Set
from enum import StrEnum
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import tenacity

from machinekit.errors import DriverError

TIMEOUT = 30.0  # seconds for one call
DEADLINE = 120.0  # seconds for one call and its repetitions
ARRIVAL = 10.0  # ... while none arrives
PER_SECOND = 10.0  # calls that an account gets from this process in the long run
BURST = 30  # ... and at once
JITTER = tenacity.wait_random_exponential(multiplier=0.5, max=20)  # before a call is repeated
ENDPOINT = r"^(https?://[^\s/]+/?)?$"  # an option's pattern

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What a failed call means for whoever made it."""

    AUTH = "auth"  # the credentials are wrong, or may not do this
    QUOTA = "quota"  # the account has no more of it
    THROTTLED = "throttled"  # too many calls: this one was not carried out
    NOT_FOUND = "not found"
    CONFLICT = "conflict"  # it exists already, or is still in use
    CAPACITY = "capacity"  # the cloud has no more of it, here and now
    REFUSED = "refused"  # it will not do this, however often it is asked
    UNREACHABLE = "unreachable"  # the call never arrived
    TRANSIENT = "transient"  # it may have been carried out, and no answer tells


class CloudError(DriverError):
    """A cloud refused, or did not answer; `after` is how many seconds it wants to be left alone."""

    def __init__(self, kind: Kind, message: str, hint: str = "", after: float = 0.0) -> None:
        super().__init__(message, hint)
        self.kind = kind
        self.after = after


# What clouds write, whatever the HTTP status beside it. EC2's codes:
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
TEXTS = (
    (Kind.THROTTLED, r"RequestLimitExceeded|Throttl|TooManyRequests|SlowDown|OverLimit|rate limit"),
    (
        Kind.CAPACITY,
        r"Insufficient(Instance|Host|ReservedInstance)?Capacity|SpotMaxPriceTooLow|MaxSpotInstanceCountExceeded"
        r"|not supported in your requested Availability Zone|No valid host|not enough hosts"
        r"|(?i:insufficient capacity|sold out|out of stock|resource.*unavailable)",
    ),
    (Kind.QUOTA, r"LimitExceeded|(?i:quota|exceed\w* (the|your) .*limit|limit (exceeded|reached))"),
    (
        Kind.AUTH,
        r"AuthFailure|InvalidClientTokenId|SignatureDoesNotMatch|UnauthorizedOperation|ExpiredToken|RequestExpired"
        r"|OptInRequired|Blocked|AccessDenied|(?i:unauthorized|forbidden|not authorized|invalid credentials)",
    ),
    (Kind.NOT_FOUND, r"\.NotFound|NotFound\b|(?i:could not be found|does not exist)"),
    (
        Kind.CONFLICT,
        r"Duplicate|DependencyViolation|InUse|IncorrectInstanceState|(?i:already exists|in use|conflict|pending event)",
    ),
    (Kind.TRANSIENT, r"InternalError|InternalFailure|ServiceUnavailable|^Unavailable"),
)
STATUSES = {
    401: Kind.AUTH,
    403: Kind.AUTH,
    404: Kind.NOT_FOUND,
    409: Kind.CONFLICT,
    413: Kind.THROTTLED,
    429: Kind.THROTTLED,
}
HINTS = {
    Kind.QUOTA: "remove what is not needed (machinekit gc finds what was forgotten), or ask the provider for more",
    Kind.CAPACITY: "try again later, in another zone, or with another size",
    Kind.THROTTLED: "the account makes too many calls; try again in a minute",
    Kind.UNREACHABLE: "check the network, the proxy and the endpoint",
    Kind.TRANSIENT: "run the same command again: it goes on from here",
}
PASSING = frozenset({Kind.THROTTLED, Kind.UNREACHABLE, Kind.TRANSIENT})


def reachable(endpoint: str) -> str:
    """An option's check: the endpoint, when its host and port can be told; raises ValueError."""
    if "@" in endpoint:  # it would get into the record
        raise ValueError("it takes no user and no password")
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        raise ValueError(f"{endpoint!r}: {error}") from None
    return endpoint


ENDPOINT_RULES: dict[str, Any] = {"pattern": ENDPOINT, "check": reachable}


def opened(provider: str, endpoint: str, *credentials: str, **arguments: Any) -> Any:
    """libcloud's driver of an account; its calls have a timeout, and go to the endpoint where one is given."""
    from libcloud.common.base import Connection
    from libcloud.compute.providers import get_driver

    driver = get_driver(provider)(*credentials, **arguments)
    if isinstance(driver.connection, Connection):
        driver.connection.timeout = TIMEOUT
        if endpoint:
            url = urlsplit(endpoint)
            driver.connection.host, driver.connection.secure = url.hostname or "", url.scheme == "https"
            driver.connection.port = url.port or (443 if url.scheme == "https" else 80)
        driver.connection.connect()  # sends nothing yet; the constructor has done so with what it knew
    return driver


class Calls:
    """The calls of one account; `advice` is what to do when its credentials are refused."""

    def __init__(self, account: str, advice: str = "") -> None:
        self._account = account
        self._advice = advice

    def __call__(self, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it, and again after what passes; raises CloudError, which begins with `what` could not be done."""
        return self._repeated(PASSING, what, lambda: function(*args, **kwargs))

    def once(self, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for what would be done twice: repeated only when it certainly was not done."""
        return self._repeated(PASSING - {Kind.TRANSIENT}, what, lambda: function(*args, **kwargs))

    def freed(self, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for what may be in use for some time still."""
        return self._repeated(PASSING | {Kind.CONFLICT}, what, lambda: function(*args, **kwargs))

    def _repeated(self, passing: Set[Kind], what: str, function: Callable[[], T]) -> T:
        def wait(state: tenacity.RetryCallState) -> float:
            return max(JITTER(state), _failure(state).after)

        def over(state: tenacity.RetryCallState) -> bool:
            patience = ARRIVAL if _failure(state).kind is Kind.UNREACHABLE else DEADLINE
            return tenacity.stop_before_delay(patience)(state)

        def passes(error: BaseException) -> bool:
            return isinstance(error, CloudError) and error.kind in passing

        repeating = tenacity.Retrying(retry=tenacity.retry_if_exception(passes), wait=wait, stop=over, reraise=True)
        answer: T = repeating(self._one, what, function)
        return answer

    def _one(self, what: str, function: Callable[[], T]) -> T:
        _pace(self._account)
        started = time.monotonic()
        try:
            return function()
        except Exception as error:
            told = classified(error)
            if told is None:
                raise
            hint = told.hint or (self._advice if told.kind is Kind.AUTH else HINTS.get(told.kind, ""))
            raise CloudError(told.kind, f"cannot {what}: {told.message}", hint, told.after) from None
        finally:
            log.debug("%s: %s: %.2f s", self._account, what, time.monotonic() - started)


def _failure(state: tenacity.RetryCallState) -> CloudError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, CloudError)  # noqa: S101 (nothing else is repeated)
    return error


def classified(error: Exception) -> CloudError | None:
    """What a call's exception means; None for what is none of a cloud's."""
    import requests
    from libcloud.common.exceptions import BaseHTTPError
    from libcloud.common.types import InvalidCredsError, LibcloudError, MalformedResponseError

    if isinstance(error, CloudError):
        return error
    if isinstance(error, NotImplementedError):
        return CloudError(Kind.REFUSED, f"libcloud cannot do it there: {error}")
    if isinstance(error, requests.RequestException | UnicodeEncodeError):
        return _without_answer(error)
    if isinstance(error, MalformedResponseError):  # a proxy's or a balancer's page
        return CloudError(Kind.TRANSIENT, f"the answer cannot be read: {str(error.body)[:80]!r}")
    if not isinstance(error, BaseHTTPError | LibcloudError) and type(error) is not Exception:
        return None
    status = int(getattr(error, "code", 0) or 0) if isinstance(error, BaseHTTPError) else 0
    text = str(getattr(error, "value", "") or error).strip()
    kind = Kind.AUTH if isinstance(error, InvalidCredsError) else kind_of(status, text)
    return CloudError(kind, text or f"HTTP status {status}", after=float(getattr(error, "retry_after", 0) or 0))


def kind_of(status: int, text: str) -> Kind:
    """What an answer means: its text tells more than its status."""
    named = next((kind for kind, pattern in TEXTS if re.search(pattern, text)), None)
    if status == 429:  # noqa: PLR2004 (RFC 6585)
        return Kind.THROTTLED
    if named:
        return named
    return STATUSES.get(status) or (Kind.TRANSIENT if status >= 500 else Kind.REFUSED)  # noqa: PLR2004 (RFC 9110)


def _without_answer(error: Exception) -> CloudError:
    import requests

    if isinstance(error, requests.exceptions.InvalidHeader | UnicodeEncodeError):  # whose texts have the secret in them
        return CloudError(Kind.AUTH, "the credentials have a character that cannot be sent, such as a line break")
    if isinstance(error, requests.exceptions.SSLError):
        hint = "check the endpoint, and that its CA is known: $REQUESTS_CA_BUNDLE names a file with it"
        return CloudError(Kind.REFUSED, f"the endpoint's certificate does not verify: {_reason(error)}", hint)
    if isinstance(error, requests.exceptions.ProxyError | requests.exceptions.ConnectTimeout) or (
        isinstance(error, requests.ConnectionError) and re.search("NewConnectionError|NameResolution", str(error))
    ):
        return CloudError(Kind.UNREACHABLE, f"the endpoint cannot be reached: {_reason(error)}")
    return CloudError(Kind.TRANSIENT, f"no answer: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """The innermost reason of what requests and urllib3 wrap several times."""
    inner = [each for each in (getattr(error, "reason", None), *error.args) if isinstance(each, BaseException)]
    return _reason(inner[0]) if inner else re.sub(r"^<[^>]*>: ", "", str(error)) or type(error).__name__


_next: dict[str, float] = {}
_pacing = threading.Lock()


def _pace(account: str) -> None:
    """Wait until the account may be asked again: a leaky bucket that all threads share."""
    with _pacing:
        now = time.monotonic()
        at = max(_next.get(account, 0.0), now - BURST / PER_SECOND)
        _next[account] = at + 1 / PER_SECOND
    if at > now:
        time.sleep(at - now)
