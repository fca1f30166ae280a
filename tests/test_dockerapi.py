"""Real engines-to-be on loopback: who is answered, who is refused, and what a person is told."""

from __future__ import annotations

import json
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machinekit import dockerapi
from machinekit.errors import EngineError
from tests.servers import ENGINE_VERSION, Certificates, Serve, Server, encrypted, engine, saying, silent

Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server that ends with the test."""
    running: list[Server] = []

    def start(serve: Serve, listener: socket.socket | None = None) -> Server:
        running.append(Server(serve, listener).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__(None, None, None)


def url(server: Server, host: str = "127.0.0.1") -> str:
    return f"tcp://{host}:{server.port}"


def test_an_engine_answers_over_tls(start: Start, certificates: Certificates) -> None:
    server = start(encrypted(engine, certificates.context()))
    for host in ("127.0.0.1", "localhost"):
        dockerapi.ping(url(server, host), certificates.directory)
        assert dockerapi.version(url(server, host), certificates.directory) == ENGINE_VERSION


def test_an_engine_answers_without_tls(start: Start, tmp_path: Path) -> None:
    plain = start(engine)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "docker.sock"))
    listener.listen()
    start(engine, listener)
    for address in (url(plain), f"unix://{tmp_path}/docker.sock"):
        dockerapi.ping(address, None)
        assert dockerapi.version(address, None) == ENGINE_VERSION


def test_ipv6(start: Start, tmp_path: Path) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    certificates = Certificates(tmp_path, ("::1",))
    server = start(encrypted(engine, certificates.context()), listener)
    dockerapi.ping(url(server, "[::1]"), tmp_path)


def refused(address: str, tls: Path | None, patience: float = 5.0) -> EngineError:
    started = time.monotonic()
    with pytest.raises(EngineError) as caught:
        dockerapi.version(address, tls, patience)
    assert time.monotonic() - started < patience + 1
    assert caught.value.hint
    return caught.value


def test_an_engine_of_another_ca_is_refused(start: Start, certificates: Certificates, tmp_path: Path) -> None:
    server = start(encrypted(engine, Certificates(tmp_path).context()))
    error = refused(url(server), certificates.directory)
    assert "certificate" in error.message
    assert "regenerate-certs" in error.hint


def test_an_engine_of_another_name_is_refused(start: Start, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path, ("192.0.2.7", "node1"))
    error = refused(url(start(encrypted(engine, certificates.context()))), tmp_path)
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in error.message


def test_a_client_of_another_ca_is_refused(start: Start, certificates: Certificates, tmp_path: Path) -> None:
    stranger = Certificates(tmp_path)
    (tmp_path / "ca.pem").write_bytes((certificates.directory / "ca.pem").read_bytes())
    error = refused(url(start(encrypted(engine, certificates.context()))), stranger.directory)
    assert "does not answer" in error.message
    assert "provision" in error.hint


def test_an_engine_wants_a_client_certificate(start: Start, certificates: Certificates) -> None:
    server = start(encrypted(engine, certificates.context()))
    trusting = ssl.create_default_context(cafile=str(certificates.directory / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", server.port), 5) as plain,
        trusting.wrap_socket(plain, server_hostname="127.0.0.1") as bare,
        pytest.raises(OSError, match=r"certificate required|reset|EOF"),
    ):
        bare.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        bare.recv(100)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(start: Start, certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = certificates.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    error = refused(url(start(encrypted(engine, context))), certificates.directory)
    assert "PROTOCOL" in error.message.upper()


def test_plain_text_where_tls_is_wanted_is_refused(start: Start, certificates: Certificates) -> None:
    error = refused(url(start(saying(b"HTTP/1.0 200 OK\r\n\r\nOK"))), certificates.directory, 0.5)
    assert "does not answer" in error.message


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "answers nothing to /version"),
        (b"garbage", "answers garbage to /version"),
        (b"\xff\xfe\x00", "answers \ufffd\ufffd\x00 to /version"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers HTTP/1.1 404 Not Found to /version"),
        (b"HTTP/1.0 500 No\r\nX: y\r\n\r\n{}", "answers HTTP/1.0 500 No to /version"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "answers, but not as a Docker engine"),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", "answers, but not as a Docker engine"),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", "answers, but not as a Docker engine"),
        (b"HTTP/1.0 200 OK\r\n\r\n", "answers, but not as a Docker engine"),
    ],
)
def test_other_servers(start: Start, answer: bytes, said: str) -> None:
    assert said in refused(url(start(saying(answer))), None).message


@pytest.mark.parametrize("tls", [True, False])
def test_silence_ends(start: Start, certificates: Certificates, tls: bool) -> None:
    error = refused(url(start(silent)), certificates.directory if tls else None, 0.3)
    assert "timed out" in error.message


def test_a_slow_drip_ends(start: Start) -> None:
    def drip(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    assert "timed out" in refused(url(start(drip)), None, 0.4).message


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1:1", "does not answer: Connection refused"),
        ("tcp://no-such-host.invalid:2376", "does not answer: "),
        ("tcp://a..b:2376", "does not answer: "),
        ("unix:///no/such/socket", "does not answer: No such file or directory"),
        (f"unix:///{'x' * 200}", "does not answer: "),
    ],
)
def test_nobody_there(address: str, said: str) -> None:
    assert said in refused(address, None).message


def test_certificates_that_are_missing(start: Start, tmp_path: Path) -> None:
    assert "No such file" in refused(url(start(silent)), tmp_path).message


def heard(start: Start, answer: bytes) -> tuple[Server, list[bytes]]:
    """A server that gives this answer, and what it was asked."""
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request or (b"POST" in request and not request.endswith(b"}")):
            request += connection.recv(4096)
        asked.append(request)
        connection.sendall(answer)

    return start(serve), asked


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n" + b'[{"ID": "x"}]\n', [{"ID": "x"}]),
        (b"HTTP/1.0 201 Created\r\n\r\n" + b'"the-node"', "the-node"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", None),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", None),
    ],
)
def test_what_an_engine_answers_to_a_call(start: Start, answer: bytes, said: object) -> None:
    server, asked = heard(start, answer)
    assert dockerapi.call(url(server), "POST", "/swarm/init", None, body={"a": "\u00e9"}) == said
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        *(b"POST /swarm/init HTTP/1.0", b"Host: engine", b"Content-Type: application/json"),
        f"Content-Length: {len(body)}".encode(),
    ]
    assert json.loads(body) == {"a": "\u00e9"}


def test_a_call_without_a_body(start: Start) -> None:
    server, asked = heard(start, b"HTTP/1.0 200 OK\r\n\r\nnull")
    assert dockerapi.call(url(server), "DELETE", "/nodes/x?force=true", None) is None
    assert asked == [b"DELETE /nodes/x?force=true HTTP/1.0\r\nHost: engine\r\n\r\n"]


@pytest.mark.parametrize(
    ("answer", "said", "status"),
    [
        (b'HTTP/1.0 503 No\r\n\r\n{"message": "This node is not a swarm manager"}', "refuses: This node is not", 503),
        (b'HTTP/1.0 404 No\r\n\r\n{"message": "node x not found"}', "refuses: node x not found", 404),
        (b"HTTP/1.0 500 No\r\n\r\n[1]", "answers HTTP/1.0 500 No to POST /swarm/join", 0),
        (b"HTTP/1.0 200 OK\r\n\r\n[{", "answers HTTP/1.0 200 OK to POST /swarm/join", 0),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "answers HTTP/1.0 200 OK to POST /swarm/join", 0),
        (b"HTTP/1.0 nonsense\r\n\r\n{}", "answers HTTP/1.0 nonsense to POST /swarm/join", 0),
        (b"", "answers nothing to POST /swarm/join", 0),
    ],
)
def test_calls_that_fail(start: Start, answer: bytes, said: str, status: int) -> None:
    server, _ = heard(start, answer)
    with pytest.raises(EngineError) as caught:
        dockerapi.call(url(server), "POST", "/swarm/join?x=1", None, body={"JoinToken": "s3cret"})
    assert said in caught.value.message
    assert caught.value.status == status
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}"


def test_a_call_ends(start: Start, certificates: Certificates) -> None:
    server = start(encrypted(silent, certificates.context()))
    with pytest.raises(EngineError, match="timed out"):
        dockerapi.call(url(server), "POST", "/swarm/join", certificates.directory, body={}, patience=0.3)
