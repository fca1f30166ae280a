"""The manifest of a machine, from what its host says; tests/e2e has it of real ones."""

from __future__ import annotations

import base64
import shutil
import subprocess

import pytest

from machinekit.create import create
from machinekit.errors import MachinekitError
from machinekit.manifest import manifest
from machinekit.render import static
from machinekit.setup import Setup
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told, adopting
from tests.servers import FakeHost

SAID = """\
machinekit:manifest system=Rocky Linux 9
machinekit:manifest kernel=Linux 6.1.0 x86_64
machinekit:manifest engine=Docker version 20.10.24, build 297e128
machinekit:manifest package=zlib.x86_64 0:1.2-3
machinekit:manifest package=kernel.x86_64 0:6.2-1
machinekit:manifest package=kernel.x86_64 0:6.1-1
something else
""".splitlines()


@pytest.fixture
def carrying(store: Store, told: Told, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host with a file, a secret and a role."""
    monkeypatch.setenv("KEY", "s3cret")
    create(store, "node1", driver="generic", options=adopting(host), spec=Spec(labels=("a=b",)), progress=told)
    machine = store.load("node1")
    files = [{"path": "/etc/motd", "content": "ours"}, {"path": "/etc/key", "secret": "env:KEY"}]
    machine.setup = Setup.model_validate({"files": files}).model_dump(mode="json")
    store.save(machine)
    paths = [base64.b64encode(path.encode()).decode() for path in ("/etc/motd", "/etc/key")]
    host.extra = [
        f"machinekit:carried file={digest} 644 root:root 0:0 {path}" for digest, path in zip("cd", paths, strict=True)
    ]
    host.extra += ["machinekit:carried role=web identity abc", "machinekit:carried logins=e30="]
    host.said = {"machinekit:manifest": SAID}
    host.facts["package"] = "docker-ce 5:28.0.1-1"
    host.scripts.clear()
    return host


def test_everything_that_two_machines_should_have_in_common(store: Store, carrying: FakeHost) -> None:
    found = manifest(store, "node1")
    assert len(carrying.scripts) == 1, "one look"
    settings = found.pop("daemon.json")
    assert "labels" in settings
    assert "hosts" not in settings, "it has the machine's own address"
    assert found == {
        "version": 1,
        "system": "Rocky Linux 9",
        "kernel": "Linux 6.1.0 x86_64",
        "engine": {"program": "Docker version 20.10.24, build 297e128", "package": "docker-ce 5:28.0.1-1"},
        "files": {"/etc/key": "secret 0644 root:root", "/etc/motd": "c 0644 root:root"},
        "registries": [],
        "roles": {"web": {"digest": "abc", "versions": {}}},
        "packages": {"kernel.x86_64": "0:6.1-1, 0:6.2-1", "zlib.x86_64": "0:1.2-3"},
    }
    assert list(found["packages"]) == sorted(found["packages"])


def test_a_machine_that_is_not_whole_has_none(store: Store, carrying: FakeHost) -> None:
    record = store.directory("node1") / "machine.json"
    record.write_text(record.read_text().replace('"ready"', '"creating"'))
    with pytest.raises(MachinekitError, match="was not created to the end"):
        manifest(store, "node1")


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="needs dpkg")
def test_the_script_on_this_computer() -> None:
    said = subprocess.run(["sh", "-c", static("manifest/probe.sh")], capture_output=True, text=True, check=True).stdout
    there = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "dpkg"], capture_output=True, text=True, check=True)
    assert f"machinekit:manifest package=dpkg {there.stdout}\n" in said
    assert "machinekit:manifest kernel=Linux " in said
