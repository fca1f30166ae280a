"""One machine, from its record to its engine: every kind of trouble is named, with what mends it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from machinekit.providers.none import NoneOptions

from machinekit import checkup, converge, engine, keys, lifecycle, service
from machinekit.create import create
from machinekit.errors import MachinekitError
from machinekit.machine import Machine, Phase, State
from machinekit.provider import Level
from machinekit.record import LOST, RECORD
from machinekit.spec import Spec
from machinekit.store import (
    CA,
    CA_KEY,
    CLIENT_CERT,
    CLIENT_KEY,
    KNOWN_HOSTS,
    SERVER_CERT,
    SERVER_KEY,
    Store,
)
from tests.conftest import Told, adopting
from tests.providers.fake import FakeCloud, FakeOptions
from tests.servers import Certificates, FakeHost, Server, encrypted
from tests.servers import engine as engine_serve

PROVISION = "machinekit provision node1"


@pytest.fixture
def server(store: Store, told: Told, host: FakeHost) -> FakeHost:
    """The host of the adopted machine `node1`."""
    create(store, "node1", driver="generic", options=adopting(host), spec=Spec(labels=("a=b",)), progress=told)
    host.scripts.clear()
    return host


@pytest.fixture
def born(store: Store, told: Told, cloud: FakeCloud) -> Machine:
    """The machine `node1`, whose instance is in memory."""
    create(store, "node1", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)
    return store.load("node1")


def trouble(store: Store) -> list[tuple[str, str, str]]:
    """What is not well with `node1`; looking changes nothing."""
    before = contents(store)
    found = checkup.machine(store, "node1")
    assert contents(store) == before
    assert {check.subject for check in found} == {"node1"}
    return [(check.level, check.text, check.do) for check in found if check.level is not Level.OK]


def contents(store: Store) -> dict[str, tuple[int, bytes]]:
    files = [path for path in store.home.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_all_is_well(store: Store, server: FakeHost) -> None:
    server.scripts.clear()
    assert [(check.level, check.text) for check in checkup.machine(store, "node1")] == [
        ("ok", "the record can be read"),
        ("ok", "ca.pem: 3649 days left"),
        ("ok", "cert.pem: 364 days left"),
        ("ok", "server.pem: 364 days left"),
        ("ok", "Running"),
        ("ok", f"SSH: logged in as root@127.0.0.1:{server.port}, whose host key is the pinned one"),
        ("ok", "the host is as configured"),
        ("ok", "the engine answers over TLS, version 29.1.2"),
    ]
    assert len(server.scripts) == 1, "one execution"
    assert engine.probe_script() in server.scripts[0], "which only asks"


def swapped(directory: Path) -> None:
    (directory / SERVER_KEY).write_bytes((directory / CLIENT_KEY).read_bytes())


def foreign(directory: Path) -> None:
    pair = keys.server(keys.authority("other"), ["127.0.0.1", "node1", "localhost"])
    (directory / SERVER_CERT).write_bytes(pair.cert)
    (directory / SERVER_KEY).write_bytes(pair.key)


def nameless(directory: Path) -> None:
    pair = keys.server(keys.Pair((directory / CA).read_bytes(), (directory / CA_KEY).read_bytes()), ["localhost"])
    (directory / SERVER_CERT).write_bytes(pair.cert)
    (directory / SERVER_KEY).write_bytes(pair.key)


def illegible(directory: Path) -> None:
    """Its key is there to be read, and the names in it are not."""
    content = ssl.PEM_cert_to_DER_cert((directory / CA).read_text())
    text = ssl.DER_cert_to_PEM_cert(content.replace(b"CA node1", b"\xff" * 8))
    (directory / CA).write_text(text)


@pytest.mark.parametrize(
    ("harm", "text", "do"),
    [
        (lambda d: (d / SERVER_CERT).unlink(), "missing: server.pem", PROVISION),
        (lambda d: (d / CLIENT_KEY).unlink(), "missing: key.pem", PROVISION),
        (lambda d: (d / CA_KEY).unlink(), "missing: ca-key.pem", PROVISION),
        (lambda d: (d / SERVER_CERT).write_text("junk"), "server.pem: cannot be read, or server-key.pem", PROVISION),
        (lambda d: (d / CLIENT_KEY).write_text("junk"), "cert.pem: cannot be read, or key.pem, or ca.pem: ", PROVISION),
        (lambda d: (d / CA).write_text("junk"), "ca.pem: cannot be read, or ca-key.pem", PROVISION),
        (illegible, "ca.pem: not issued by ca.pem", PROVISION),
        (swapped, "server.pem: server-key.pem is another certificate's", PROVISION),
        (foreign, "server.pem: not issued by ca.pem", PROVISION),
        (nameless, "server.pem: not for 127.0.0.1, node1", PROVISION),
    ],
)
def test_files_that_are_not_as_they_should_be(
    store: Store, told: Told, server: FakeHost, harm: Callable[[Path], object], text: str, do: str
) -> None:
    harm(store.directory("node1"))
    assert next((level, said[: len(text)], hint) for level, said, hint in trouble(store)) == ("problem", text, do)
    if do == PROVISION:
        done = lifecycle.provision(store, "node1", told)
        assert [change for change in done if not change.endswith("renewed")] == []
        assert trouble(store) == [], "what doctor says to do helps"


@pytest.mark.parametrize(
    ("left", "level", "text"),
    [(120, "warning", "119 days left"), (-1, "problem", "ended 2 days ago")],
)
def test_certificates_that_end(
    store: Store,
    told: Told,
    server: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
    level: str,
    text: str,
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=365 - left)

    monkeypatch.setattr(keys, "datetime", Later)
    ended = [each for each in trouble(store) if "pem" in each[1]]
    assert ended == [(level, f"{file}: {text}", PROVISION) for file in (CLIENT_CERT, SERVER_CERT)]


@pytest.mark.parametrize(("path", "mode", "do"), [("", 0o755, "700"), (CA_KEY, 0o640, "600"), (RECORD, 0o604, "600")])
def test_what_others_can_reach(store: Store, server: FakeHost, path: str, mode: int, do: str) -> None:
    place = store.directory("node1") / path if path else store.directory("node1")
    place.chmod(mode)
    found = trouble(store)
    assert found == [("problem", f"{place} can be reached by others (mode {mode:o})", f"chmod {do} {place}")]
    assert os.system(found[0][2]) == 0  # noqa: S605 (it is for people to run)
    assert trouble(store) == []


def test_what_belongs_to_another_user(store: Store, server: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    found = trouble(store)
    assert len(found) == 9
    place = store.directory("node1")
    assert found[0] == ("problem", f"{place} belongs to another user (uid {own})", f"chown -R {own + 1} {place}")


@pytest.mark.parametrize(
    ("facts", "files", "said"),
    [
        ({"active": "no"}, {}, [("problem", "the engine does not run"), ("problem", "the engine at ")]),
        ({"dockerd": ""}, {}, [("problem", "there is no engine on the host")]),
        ({"pending": "yes"}, {}, [("problem", "a change of the engine's settings was cut off")]),
        ({"original other": "e30="}, {}, [("warning", "another machine of machinekit was made of this server")]),
        ({}, {engine.DAEMON_JSON: b"{}"}, [("warning", "not as configured: /etc/docker/daemon.json")]),
        ({}, {service.DROP_IN: b"x"}, [("warning", f"not as configured: {service.DROP_IN}")]),
        ({}, {engine.DAEMON_JSON: b"["}, [("problem", "/etc/docker/daemon.json on the host is not valid JSON")]),
    ],
)
def test_drift(
    store: Store,
    told: Told,
    server: FakeHost,
    facts: dict[str, str],
    files: dict[str, bytes],
    said: list[tuple[str, str]],
) -> None:
    server.facts |= facts
    server.files |= files
    found = trouble(store)
    assert [(level, text[: len(start)]) for (level, text, _), (_, start) in zip(found, said, strict=True)] == said
    assert found[0][2] in (PROVISION, "mend it by hand")


def test_another_host_key(store: Store, server: FakeHost) -> None:
    known = store.directory("node1") / KNOWN_HOSTS
    known.write_text(f"{store.load('node1').uid} {keys.ssh_key('x')[1]}\n")
    known.chmod(0o600)
    level, text, _ = trouble(store)[0]
    assert (level, "shows another host key than the pinned one" in text) == ("problem", True)


def test_a_login_that_is_refused_does_not_hide_the_engine(store: Store, server: FakeHost) -> None:
    (server.directory / "key").write_bytes(keys.ssh_key("x")[0])
    found = checkup.machine(store, "node1")
    assert ["refuses the login" in check.text for check in found if check.level is Level.PROBLEM] == [True]
    assert found[-1].text.startswith("the engine answers over TLS")


def test_a_host_that_is_silent_ends_the_wait(store: Store, server: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "LOOK", 0.5)

    def never(channel: object, command: str) -> None:
        server.engine._threads[0].join(5)

    server.shell = never
    assert trouble(store)[0][1].endswith("within 0.5 s")


def test_a_stopped_machine_is_well(store: Store, cloud: FakeCloud, born: Machine) -> None:
    cloud.instances[born.uid].state = State.STOPPED
    assert trouble(store) == []
    assert checkup.machine(store, "node1")[-1].text == "Stopped"


@pytest.mark.parametrize(
    ("state", "text", "do"),
    [
        (State.ERROR, "Error", "machinekit restart node1"),
        (None, "its instance does not exist any more", "machinekit rm node1, then create it again"),
    ],
)
def test_what_the_driver_finds(
    store: Store, cloud: FakeCloud, born: Machine, state: State | None, text: str, do: str
) -> None:
    if state:
        cloud.instances[born.uid].state = state
    else:
        cloud.instances.clear()
    assert trouble(store) == [("problem", text, do)]


def test_a_provider_that_does_not_answer(store: Store, cloud: FakeCloud, born: Machine) -> None:
    cloud.failing.add("find")
    assert trouble(store) == [("problem", "the provider refuses to find", "")]


def test_a_moved_instance(store: Store, cloud: FakeCloud, born: Machine, told: Told) -> None:
    cloud.instances[born.uid].address = "127.0.0.2"
    assert trouble(store) == [("problem", "it is at 127.0.0.2 port 0 now, not at 127.0.0.1 port 0", PROVISION)]
    lifecycle.provision(store, "node1", told)
    assert trouble(store) == []


def test_an_engine_that_is_another(store: Store, told: Told, certificates: Certificates) -> None:
    with Server(encrypted(engine_serve, certificates.context())) as one:
        options = NoneOptions(f"tcp://127.0.0.1:{one.port}", *map(str, certificates.client_files))
        create(store, "node1", driver="none", options=options, spec=Spec(), progress=told)
        assert trouble(store) == []
        (store.directory("node1") / CLIENT_KEY).unlink()
        assert trouble(store)[0] == ("problem", "missing: key.pem", LOST)
    assert "does not answer" in trouble(store)[-1][1]


@pytest.mark.parametrize(
    ("phase", "do"),
    [
        (Phase.CREATING, "run the same machinekit create again, or machinekit rm"),
        (Phase.REMOVING, "machinekit rm node1"),
    ],
)
def test_what_did_not_end(store: Store, born: Machine, phase: Phase, do: str) -> None:
    born.phase = phase
    store.save(born)
    [(level, text, hint)] = trouble(store)
    assert (level, hint) == ("warning", do)
    assert "to the end" in text
    with store.lock("node1", "create", print):
        assert checkup.machine(store, "node1")[-1].text == "another process works on it now"


def test_a_driver_that_is_not_installed(store: Store, born: Machine) -> None:
    born.driver = "fakee"
    store.save(born)
    assert trouble(store)[0][1] == 'driver "fakee" not found; did you mean fake?'


FILES = (CA, CA_KEY, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, SERVER_KEY, KNOWN_HOSTS)


@pytest.fixture
def whole(store: Store, server: FakeHost) -> dict[str, bytes]:
    """The files of `node1` as they should be."""
    return {file: (store.directory("node1") / file).read_bytes() for file in FILES}


def restore(store: Store, whole: dict[str, bytes]) -> None:
    for file, content in whole.items():
        path = store.directory("node1") / file
        if path.is_dir():
            path.rmdir()
        store.write("node1", file, content)


def harm(path: Path, how: str, where: float, junk: bytes, whole: dict[str, bytes]) -> None:
    content = whole[path.name]
    start = int(where * len(content))
    match how:
        case "cut":
            path.write_bytes(content[:start])
        case "junk":
            path.write_bytes(content[:start] + junk + content[start + len(junk) :])
        case "folder":
            path.unlink()
            path.mkdir()
        case "gone":
            path.unlink()
        case other:
            path.write_bytes(whole[other])


HARMS = st.tuples(
    st.sampled_from(["cut", "junk", "folder", "gone", CA, CLIENT_KEY]),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=9),
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of the files, when an example fails
@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # that harm made a negative one
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@example(harms={CA: ("folder", 0, b""), CA_KEY: ("gone", 0, b"")})
@given(harms=st.dictionaries(st.sampled_from(sorted(set(FILES) - {CA, CLIENT_KEY})) | st.just(CA), HARMS, max_size=2))
def test_no_file_makes_the_doctor_fall_ill(
    store: Store, told: Told, server: FakeHost, whole: dict[str, bytes], harms: dict[str, tuple[str, float, bytes]]
) -> None:
    """What it finds is mended by `provision`, or refused with a reason."""
    restore(store, whole)
    for file, (how, where, junk) in harms.items():
        harm(store.directory("node1") / file, how, where, junk, whole)
    found = checkup.machine(store, "node1")
    assert not [check.text for check in found if check.do.startswith("machinekit -D")], "a surprise"
    try:
        lifecycle.provision(store, "node1", told)
    except MachinekitError as error:
        assert error.hint
        assert [check for check in found if check.level is Level.PROBLEM], f"not seen: {error.message}"
    else:
        assert trouble(store) == [], "provision left something"
