"""Speak HTTP with a publisher: one deadline for the way there, plain words for what goes wrong, small files whole.

The standard library is used because it trusts the system's certificates, which a company's proxy needs;
it takes http_proxy, https_proxy and no_proxy from the environment.
"""

from __future__ import annotations

import http.client
import queue
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import tenacity

from machinekit import __version__
from machinekit.errors import DownloadError

CONNECT = 15.0  # seconds in all for name lookup, every address, TLS, redirects, and the answer's head
STALL = 20.0  # seconds without a byte
TRIES = 4  # in a row that brought nothing
PAUSE = 0.5  # seconds before the second try, more before later ones
SMALL = 1 << 20  # bytes of a list of checksums, a signature or a key

T = TypeVar("T")


class CutError(Exception):
    """The transfer ended early; trying again may help."""


class UnreachableError(DownloadError):
    """The server cannot be reached at all."""


def small(url: str) -> bytes:
    """A small file that is trusted for where it comes from: over HTTPS no redirect leads to plain HTTP."""

    def attempt() -> bytes:
        with opened(url, strict=True) as answer:
            content = reading(answer.read, SMALL + 1)
            if len(content) > SMALL:
                raise DownloadError(f"{url} is far too large for what it should be", "look at it in a browser")
            if answer.length:  # what is still to come of it
                raise CutError("the connection ended early")
        return content

    return retried(attempt, tenacity.stop_after_attempt(TRIES), url)


def host(url: str) -> str:
    """The name a person knows a server by."""
    return urlsplit(url).netloc.rpartition("@")[2]


def retried(attempt: Callable[[], T], stop: Callable[[tenacity.RetryCallState], bool], url: str) -> T:
    """What `attempt` returns, tried again after each CutError until `stop` says no; then raises DownloadError."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(CutError),
        stop=stop,
        wait=tenacity.wait_exponential(multiplier=PAUSE, max=10),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except CutError as error:
        raise DownloadError(f"{host(url)}: {error}", "what has come is kept: the same command goes on") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, `strict` ones never from HTTPS to HTTP."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def redirect_request(self, req: Any, *rest: Any) -> Any:
        """As for urllib, or raise DownloadError."""
        answer, target = rest[0], rest[-1]
        if not target.startswith("https:" if self.strict and req.type == "https" else ("http:", "https:")):
            answer.close()
            raise DownloadError(f"{host(req.full_url)} leads from {req.type} to {target}", "use another mirror")
        return super().redirect_request(req, *rest)


def _opener(strict: bool) -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(strict),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", f"machinekit/{__version__}")]
    return opener


def opened(url: str, headers: Mapping[str, str] = {}, *, strict: bool = False) -> http.client.HTTPResponse:
    """The answer's head, within CONNECT seconds.

    Raises UnreachableError, CutError, DownloadError for what the server refuses, or HTTPError for a refused range.
    """
    name = host(url)
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 (the opener knows no other schemes)
    try:
        answer: http.client.HTTPResponse = _within(CONNECT, lambda: _opener(strict).open(request, timeout=STALL))
        return answer
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        answered = f"{name} answers {error.code} {error.reason}"
        if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR or error.code in _PATIENCE:
            raise CutError(answered) from None
        raise DownloadError(f"{answered} for {url}", _hint(error.code)) from None
    except (ConnectionResetError, http.client.HTTPException) as error:
        raise CutError(f"the connection was cut ({error})") from None
    except TimeoutError:
        raise UnreachableError(f"{name} does not answer within {CONNECT:.0f} s", _NETWORK) from None
    except OSError as error:  # URLError is one
        raise _refused(name, error) from None


_PATIENCE = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
_NETWORK = "look at the network, and at http_proxy and https_proxy"


def _refused(name: str, error: OSError) -> DownloadError | CutError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = "a proxy that opens TLS needs its certificate among this computer's (SSL_CERT_FILE)"
        return DownloadError(f"the certificate of {name} is not trusted: {reason.verify_message}", hint)
    if isinstance(reason, ConnectionResetError):
        return CutError("the connection was cut")
    if isinstance(reason, TimeoutError):
        return UnreachableError(f"{name} does not answer", _NETWORK)
    return UnreachableError(f"{name} cannot be reached: {getattr(reason, 'strerror', None) or reason}", _NETWORK)


def _hint(code: int) -> str:
    match code:
        case http.HTTPStatus.NOT_FOUND | http.HTTPStatus.GONE:
            return "the publisher may have moved it; a newer machinekit may know where to"
        case http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return "put the user and password into https_proxy"
    return "look at the address in a browser"


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns or raises; TimeoutError after so long, whatever the resolver and each address take."""
    results: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
    late = threading.Event()

    def work() -> None:
        try:
            result = call()
        except Exception as error:  # raised again in the caller
            results.put((None, error))
        else:
            result.close() if late.is_set() else results.put((result, None))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        late.set()
        raise TimeoutError from None
    if error:
        raise error
    return result


def reading(read: Callable[[int], bytes], amount: int) -> bytes:
    """What `read` returns; raises CutError."""
    try:
        return read(amount)
    except TimeoutError:
        raise CutError(f"nothing came for {STALL:.0f} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise CutError(f"the connection was cut ({error})") from None
