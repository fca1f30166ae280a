"""This computer, the drivers and the store; and that nothing in a store makes the doctor fall ill."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machinekit.providers.container import ContainerOptions
from machinekit.providers.generic import GenericOptions
from machinekit.providers.none import NoneOptions
from machinekit.providers.qemu import QemuOptions

from machinekit import collect, doctor, gc
from machinekit.create import create
from machinekit.errors import MachinekitError, PreCheckError, UsageError
from machinekit.machine import Machine, Phase, State
from machinekit.provider import Check, Level
from machinekit.record import RECORD
from machinekit.spec import Spec, storable
from machinekit.store import Store
from tests.broken import SAID, broken
from tests.conftest import Told
from tests.providers.fake import FakeCloud, FakeOptions

Usage = namedtuple("Usage", "total used free")


def found(store: Store, **sources: Any) -> list[tuple[str, str, str]]:
    """What is not well."""
    checks = doctor.everything(store, sources, {})
    return [(check.level, check.subject, check.text) for check in checks if check.level is not Level.OK]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH with nothing on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(programs: Path, name: str, script: str) -> None:
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)


def test_a_computer_that_has_nothing(store: Store, programs: Path) -> None:
    assert found(store) == [
        ("warning", "this computer", "ssh is not installed"),
        ("warning", "this computer", "scp is not installed"),
        ("warning", "this computer", "docker is not installed"),
    ]
    assert not store.home.exists()


def test_a_computer_that_has_everything(store: Store, programs: Path) -> None:
    put(programs, "ssh", "echo OpenSSH_9 >&2")
    put(programs, "scp", "exit 1")
    put(programs, "docker", "echo Docker version 29; echo more")
    checks = doctor.everything(store, {}, {})
    assert [check.text for check in checks[1:3]] == ["OpenSSH_9", "Docker version 29"]
    put(programs, "docker", "exit 1")
    put(programs, "ssh", "")
    (programs / "ssh").write_text("no program")
    texts = [check.text for check in doctor.everything(store, {}, {})[1:3]]
    assert texts[0].startswith("ssh does not tell its version: ")
    assert texts[1] == "docker is installed"


def test_drivers_tell_what_they_need(store: Store, programs: Path, told: Told) -> None:
    sources = {"qemu": QemuOptions(), "container": ContainerOptions(engine="unix:///no/such.sock")}
    missing = [(level, text) for level, subject, text in found(store, **sources) if subject != "this computer"]
    assert missing[0] == ("warning", "qemu-system-x86_64 is not installed")
    assert missing[1] == ("warning", "qemu-img is not installed")
    assert ("warning", "the docker client is not installed") in missing
    assert any(text.startswith("building an image needs mmdebstrap") for _, text in missing)
    store.reserve(Machine("node1", "u", "qemu", "s", "", spec=Spec().model_dump(mode="json")))
    levels = {text: level for level, subject, text in found(store, **sources)}
    assert levels["qemu-img is not installed"] == "problem", "a machine needs it"
    assert levels["the docker client is not installed"] == "warning"


def test_a_driver_whose_options_are_wrong(store: Store) -> None:
    checks = doctor.everything(store, {}, {"qemu": UsageError("--qemu-cpus: no", "look")})
    assert Check(Level.WARNING, "driver qemu", "--qemu-cpus: no", "look") in checks
    checks = doctor.everything(store, {}, {"aws": PreCheckError("needs botocore", "pip install it")})
    assert Check(Level.OK, "driver aws", "not set up: needs botocore") in checks


@pytest.mark.parametrize(("free", "level"), [(10e9, None), (1e9, "warning"), (1e6, "problem")])
def test_space(store: Store, told: Told, monkeypatch: pytest.MonkeyPatch, free: float, level: str | None) -> None:
    store.identity()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free))
    assert [each[0] for each in found(store) if "GB free" in each[2]] == ([level] if level else [])


def test_a_store_that_others_can_reach(store: Store) -> None:
    store.reserve(Machine("node1", "u", "none", "s", ""))
    store.identity()
    store.home.chmod(0o755)
    store.machines.chmod(0o750)
    assert [text for _, subject, text in found(store) if subject == "store"] == [
        f"{store.home} can be reached by others (mode 755)",
        f"{store.machines} can be reached by others (mode 750)",
    ]


def test_strangers_among_the_machines(store: Store, cloud: FakeCloud, told: Told) -> None:
    create(store, "node1", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)
    (store.machines / "a file").touch()
    (store.machines / "no\nname").mkdir()
    (store.machines / "\udcff").mkdir()
    (store.machines / "nowhere").symlink_to("/no/such/place")
    names = [r"'a file'", r"'no\nname'", "'nowhere'", r"'\udcff'"]
    assert [text for _, _, text in found(store)] == [
        f"{name} in {store.machines} is no machine of ours" for name in names
    ]
    assert [row.name for row in collect.strangers(store)] == [name[1:-1] for name in names]
    assert [row.name for row in collect.rows(store, store.names(), 5)] == ["node1"]


@pytest.mark.parametrize("what", ["a file", "empty id"])
def test_a_store_that_is_none(store: Store, what: str) -> None:
    if what == "a file":
        store.home.write_text("")
    else:
        store.reserve(Machine("node1", "u", "none", "s", ""))
        (store.home / "store-id").touch(mode=0o600)
    assert ("problem", "store") in [(level, subject) for level, subject, _ in found(store)]


@pytest.mark.parametrize("kind", SAID)
def test_broken_records(store: Store, told: Told, cloud: FakeCloud, kind: str) -> None:
    create(store, "good", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)
    broken(store, kind)
    rows = {row.name: row for row in collect.rows(store, store.names(), 5)}
    assert (rows["bad"].state, rows["good"].state) == (State.ERROR, State.RUNNING)
    assert SAID[kind] in rows["bad"].error
    told_to = {check.text: check.do for check in doctor.machines(store, ["bad"]) if check.level is Level.PROBLEM}
    assert list(told_to)[-1] == rows["bad"].error
    assert told_to[rows["bad"].error], "doctor says what to do"
    assert [check.level for check in doctor.machines(store, ["good"])] == ["ok"] * 5
    assert gc.find(store, [("fake", FakeOptions("s3cret"))]).garbage == []


# texts with halves of characters too, as a JSON file may have them
texts = st.text(st.characters(), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | texts | st.floats(allow_nan=False)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
FIELDS = sorted({*Machine("bad", "", "", "", "").to_json()} - {"schema", "phase"})
OPTIONS: dict[str, dict[str, Any]] = {
    "qemu": storable(QemuOptions()),
    "container": storable(ContainerOptions(engine="unix:///no/such.sock")),
    "generic": storable(GenericOptions("127.0.0.1", ssh_port=1, engine_port=1)),
    "none": storable(NoneOptions("tcp://127.0.0.1:1")),
    "fake": storable(FakeOptions("s3cret")),
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_no_record_makes_the_doctor_fall_ill(store: Store, cloud: FakeCloud, data: st.DataObject) -> None:
    driver = data.draw(st.sampled_from(sorted(OPTIONS)))
    options = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(OPTIONS[driver], values)))
    changes = data.draw(st.dictionaries(st.sampled_from(FIELDS), values, max_size=2))
    machine = Machine(
        "bad", "u", driver, "s", "", OPTIONS[driver] | options, Spec().model_dump(mode="json"), phase=Phase.READY
    )
    directory = store.machines / "bad"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / RECORD).write_text(json.dumps(machine.to_json() | changes))
    with patch("socket.getaddrinfo", side_effect=OSError("no such host")):  # the network has nothing to do with it
        collect.rows(store, store.names(), 1)
        checks = doctor.machines(store, ["bad"])
    assert checks
    assert not [(check.text, check.do) for check in checks if check.do.startswith("machinekit -D")], "a surprise"
    gc.find(store, [])
    try:
        record = store.read("bad")
    except MachinekitError:
        return
    f"{record['url']} {record['address']}".encode()
