"""Small files over HTTP: what goes wrong on the way, in plain words and within seconds."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinekit import web
from machinekit.errors import DownloadError
from tests.publisher import Publisher
from tests.servers import Certificates, Server, server_context, silent


@pytest.fixture
def publisher(direct: pytest.MonkeyPatch) -> Iterator[Publisher]:
    with Publisher({"list": b"the list"}, faulty="list") as publisher:
        yield publisher


def test_a_small_file(publisher: Publisher) -> None:
    assert web.small(publisher.url + "list") == b"the list"
    publisher.redirect = "/other"
    publisher.files["other"] = b"the other list"
    assert web.small(publisher.url + "list") == b"the other list"


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_the_server_refuses_is_asked_once(publisher: Publisher, status: int) -> None:
    publisher.status = status
    with pytest.raises(DownloadError, match=rf"127.0.0.1:\d+ answers {status} .* for http") as caught:
        web.small(publisher.url + "list")
    assert caught.value.hint
    assert len(publisher.asked) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(publisher: Publisher, status: int) -> None:
    publisher.status = status
    with pytest.raises(DownloadError, match=f"answers {status}"):
        web.small(publisher.url + "list")
    assert len(publisher.asked) == web.TRIES


def test_a_cut_is_tried_again(publisher: Publisher) -> None:
    publisher.cuts = [3, 0]
    assert web.small(publisher.url + "list") == b"the list"
    assert len(publisher.asked) == 3


def test_what_is_too_large(publisher: Publisher) -> None:
    publisher.files["list"] = b"x" * (web.SMALL + 1)
    with pytest.raises(DownloadError, match="far too large"):
        web.small(publisher.url + "list")


def test_nobody_listens(direct: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DownloadError, match=f"127.0.0.1:{port} cannot be reached: Connection refused") as caught:
        web.small(f"http://127.0.0.1:{port}/list")
    assert "http_proxy" in caught.value.hint


def test_a_name_that_nobody_has(direct: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match=r"nowhere\.invalid (cannot be reached|does not answer)"):
        web.small("http://nowhere.invalid/list")


def test_a_server_that_never_answers_has_a_deadline(direct: pytest.MonkeyPatch) -> None:
    direct.setattr(web, "CONNECT", 0.3)
    with Server(silent) as server, pytest.raises(DownloadError, match="does not answer within"):
        web.small(f"http://127.0.0.1:{server.port}/list")


def test_a_resolver_that_hangs_has_the_same_deadline(direct: pytest.MonkeyPatch) -> None:
    """Nothing else of the resolver can be had on loopback, so its call is replaced."""
    end = threading.Event()
    direct.setattr(web, "CONNECT", 0.2)
    direct.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait(60))
    try:
        with pytest.raises(DownloadError, match=r"slow\.example does not answer"):
            web.small("http://slow.example/list")
    finally:
        end.set()


def test_a_stall_ends(publisher: Publisher, direct: pytest.MonkeyPatch) -> None:
    direct.setattr(web, "STALL", 0.2)
    publisher.stall_after = 2
    with pytest.raises(DownloadError, match="nothing came for"):
        web.small(publisher.url + "list")


def test_the_proxy_of_the_environment_is_asked(publisher: Publisher, direct: pytest.MonkeyPatch) -> None:
    direct.setenv("http_proxy", publisher.url)
    publisher.files["http://far.example/list"] = b"by proxy"
    assert web.small("http://far.example/list") == b"by proxy"
    direct.setenv("no_proxy", "127.0.0.1")
    assert web.small(publisher.url + "list") == b"the list"


@pytest.fixture
def https(direct: pytest.MonkeyPatch, certificates: Certificates) -> Iterator[Publisher]:
    context = server_context(certificates.directory)
    context.verify_mode = ssl.CERT_NONE  # of the client, who has no certificate
    with Publisher({"list": b"the list"}, faulty="list", context=context) as publisher:
        yield publisher


def test_https_needs_a_certificate_that_is_trusted(
    https: Publisher, certificates: Certificates, direct: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadError, match=r"the certificate of .* is not trusted") as caught:
        web.small(https.url + "list")
    assert "SSL_CERT_FILE" in caught.value.hint
    direct.setenv("SSL_CERT_FILE", str(certificates.client_files[0]))
    assert web.small(https.url + "list") == b"the list"


def test_what_is_trusted_for_https_is_not_fetched_over_http(
    https: Publisher, publisher: Publisher, certificates: Certificates, direct: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    direct.setenv("SSL_CERT_FILE", str(certificates.client_files[0]))
    https.redirect = publisher.url + "list"
    with pytest.raises(DownloadError, match="leads from https to http:"):
        web.small(https.url + "list")
    assert publisher.asked == []
    with web.opened(https.url + "list") as answer:
        assert answer.read() == b"the list", "a digest vouches for it"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/list"])
def test_a_redirect_leads_to_the_web_alone(publisher: Publisher, target: str) -> None:
    publisher.redirect = target
    with pytest.raises(DownloadError, match=r"leads from http to|not allowed"):
        web.small(publisher.url + "list")


@pytest.mark.parametrize(
    ("url", "name"),
    [("https://a.example/x/y", "a.example"), ("http://u:p@b.example:8/x", "b.example:8"), ("/a/path", "")],
)
def test_a_servers_name(url: str, name: str) -> None:
    assert web.host(url) == name
