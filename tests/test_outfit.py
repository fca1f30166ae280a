"""What a machine carries, put on a host in memory: how often it is asked, what is told, and what is never said."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from machinekit import checkup, converge, create, lifecycle, outfit
from machinekit.errors import RemoteError, UsageError
from machinekit.record import RECORD
from machinekit.setup import NOTHING, Setup, parse_setup
from machinekit.spec import Spec
from machinekit.store import Store
from machinekit.work import Work, run, working_on
from tests.conftest import Told, adopting
from tests.providers.fake import FakeCloud, FakeOptions
from tests.samples import HERE
from tests.servers import FakeHost

MOTD = {"path": "/etc/motd", "content": "hello"}
KEY = {"path": "/etc/key", "secret": "env:KEY"}
SCRIPT = {"role": "script", "run": str(HERE / "run"), "secrets": {"TOKEN": "env:TOKEN"}}


def setup(**data: Any) -> Setup:
    return Setup.model_validate(data)


def made(store: Store, host: FakeHost, told: Told, carried: Setup) -> list[str]:
    return create.create(
        store, "web", driver="generic", options=adopting(host), spec=Spec(), progress=told, setup=carried
    )


def applied(store: Store, told: Told, carried: Setup) -> list[str]:
    """As `apply` does it."""
    with working_on(store, "web", "apply", told) as work:
        outfit.change(work, carried)
        run(work, converge.steps(work))
        return work.changed


def carried_lines(*lines: str) -> list[str]:
    return [f"machinekit:carried {line}" for line in lines]


def test_what_a_machine_is_to_carry_is_put_on_it_in_one_execution(
    store: Store, told: Told, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    made(store, host, told, NOTHING)
    before = len(host.scripts)
    applied(store, told, setup(files=[MOTD], roles=[SCRIPT]))
    probe, script = host.scripts[before:]
    assert "carried file" in probe
    assert f"/etc/motd 0644 root:root {base64.b64encode(b'hello').decode()}" in script
    assert "install_role script" in script
    assert "s3cret" not in (store.directory("web") / RECORD).read_text()


def test_a_host_that_carries_it_is_asked_and_left_alone(store: Store, told: Told, host: FakeHost) -> None:
    carried = setup(files=[MOTD])
    made(store, host, told, carried)
    host.extra = carried_lines(
        "file=2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 644 root:root 0:0 L2V0Yy9tb3Rk"
    )
    before = len(host.scripts)
    assert lifecycle.provision(store, "web", told) == []
    assert len(host.scripts) == before + 1
    host.extra = carried_lines("file=- - - - L2V0Yy9tb3Rk", "role=old 0 1")
    said = [check.text for check in checkup.machine(store, "web") if "not as configured" in check.text]
    assert said == ["not as configured: file /etc/motd: missing, role old: not wanted any more"]


@pytest.mark.parametrize(
    ("carried", "where"),
    [
        ({"files": [KEY]}, "/etc/key"),
        ({"registries": [{"host": "r", "username": "ci", "password": "env:KEY"}]}, "registry r"),
        ({"roles": [SCRIPT | {"secrets": {"A": "env:KEY"}}]}, "role script"),
    ],
)
def test_a_secret_that_cannot_be_resolved_is_known_before_anything_is_made(
    store: Store, told: Told, host: FakeHost, carried: dict[str, Any], where: str
) -> None:
    with pytest.raises(UsageError, match=f"{where}: env:KEY cannot be resolved: the variable is not set"):
        made(store, host, told, setup(**carried))
    assert not store.exists("web")
    assert host.connections == 0


def test_a_machine_without_a_login_carries_nothing(store: Store, told: Told, cloud: FakeCloud) -> None:
    with pytest.raises(UsageError, match="a machine of driver fake can carry neither files"):
        create.create(
            store,
            "a",
            driver="fake",
            options=FakeOptions("s3cret"),
            spec=Spec(),
            progress=told,
            setup=setup(files=[MOTD]),
        )
    assert not cloud.instances


def test_an_error_does_not_show_what_a_script_said_of_a_secret(
    store: Store, told: Told, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "s3cret")
    host.fails = "put_file"
    host.last_words = "the key is s3cret"
    with pytest.raises(RemoteError, match=r"the key is \*\*\*") as caught:
        made(store, host, told, setup(files=[KEY]))
    assert "s3cret" not in str(caught.value)


def test_what_a_script_waits_for_is_told_without_secrets(
    store: Store, told: Told, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "s3cret")
    host.said = {"put_file": ["machinekit:waiting=for s3cret"]}
    made(store, host, told, setup(files=[KEY]))
    assert "web: waiting for ***" in told.notes


def test_the_record_follows_a_file_that_has_changed_here(
    store: Store, told: Told, host: FakeHost, tmp_path: Path
) -> None:
    source = tmp_path / "motd"
    source.write_text("one")
    carried = {"files": [{"path": "/etc/motd", "source": str(source)}]}
    made(store, host, told, setup(**carried))
    source.write_text("two")
    assert store.load("web").setup != setup(**carried).model_dump(mode="json"), "a plan sees it"
    lifecycle.provision(store, "web", told)
    assert store.load("web").setup == setup(**carried).model_dump(mode="json")
    assert base64.b64encode(b"two").decode() in host.scripts[-1]
    source.unlink()
    with pytest.raises(UsageError, match="cannot read"):
        lifecycle.provision(store, "web", told)
    assert [check.text for check in checkup.machine(store, "web") if "cannot read" in check.text]


def test_a_server_is_restored_whatever_became_of_its_roles(
    store: Store, told: Told, host: FakeHost, runner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    made(store, host, told, setup(roles=[runner]))
    host.extra = carried_lines("role=runner 0 1")
    shutil.rmtree(runner["role"])
    lifecycle.remove(store, "web", told, restore=True)
    assert [script for script in host.scripts if "\nremove_role runner " in script]


def test_a_role_that_left_the_list_is_removed_with_its_secrets(
    store: Store, told: Told, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    made(store, host, told, setup(roles=[SCRIPT]))
    host.extra = carried_lines("role=script 0 1")
    host.fails = "remove_role"
    with pytest.raises(RemoteError):
        applied(store, told, NOTHING)
    assert [use["name"] for use in store.load("web").setup["roles"]] == ["script"], "it may be there still"
    host.fails = ""
    applied(store, told, NOTHING)
    secrets = base64.b64encode(b"secrets_TOKEN=s3cret\n").decode()
    assert f"remove_role script {secrets}" in host.scripts[-1]
    assert parse_setup(store.load("web").setup) == NOTHING


@pytest.fixture
def runner(tmp_path: Path) -> dict[str, Any]:
    """A role that registers something elsewhere."""
    folder = tmp_path / "runner"
    folder.mkdir()
    (folder / "role.yaml").write_text("description: x\noutside: true\noptions: {token: {help: t, secret: true}}")
    for script in ("install", "check", "remove"):
        (folder / f"{script}.sh.j2").write_text("true\n")
    return {"role": str(folder), "token": "env:TOKEN"}


def test_what_is_registered_elsewhere_is_taken_back_before_the_machine_goes(
    store: Store, told: Told, host: FakeHost, runner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    made(store, host, told, setup(files=[MOTD], roles=[runner, SCRIPT]))
    host.extra = carried_lines("role=runner 0 1", "role=script 0 1")
    lifecycle.remove(store, "web", told)
    assert [line for line in host.scripts[-1].splitlines() if line.startswith(("remove_role ", "take_file "))] == [
        f"remove_role runner {base64.b64encode(b'token=s3cret' + bytes([10])).decode()}"
    ]
    assert not store.exists("web")


def test_a_role_whose_installation_was_cut_off_is_known_to_the_record(
    store: Store, told: Told, host: FakeHost, runner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    made(store, host, told, NOTHING)
    host.fails = "install_role"
    with pytest.raises(RemoteError):
        applied(store, told, setup(roles=[runner]))
    assert parse_setup(store.load("web").setup).roles == (), "a plan still has something to do"
    host.fails, host.extra = "", carried_lines("role=runner 0 ")
    lifecycle.remove(store, "web", told)
    assert "\nremove_role runner " in host.scripts[-1], "it may have registered something"


def test_a_registration_that_cannot_be_taken_back_is_told(
    store: Store, told: Told, host: FakeHost, runner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    made(store, host, told, setup(roles=[runner]))
    host.extra = carried_lines("role=runner 0 1")
    host.fails = "remove_role"
    lifecycle.remove(store, "web", told)
    assert not store.exists("web")
    assert "web: runner: perhaps still registered, take it away there: a script on " in "".join(told.notes)


def test_a_server_gets_back_what_was_there(store: Store, told: Told, host: FakeHost) -> None:
    made(store, host, told, setup(files=[MOTD]))
    host.extra = carried_lines("file=0 644 root:root 0:0 L2V0Yy9tb3Rk")
    lifecycle.remove(store, "web", told, restore=True)
    (script,) = [script for script in host.scripts if "\ntake_file " in script]
    assert "/etc/motd" in script


def test_mirrors_come_and_go_with_their_registry(store: Store, told: Told, host: FakeHost) -> None:
    made(store, host, told, setup(registries=[{"host": "r.test:5000", "mirror": True}]))
    assert json.loads(host.files["/etc/docker/daemon.json"])["registry-mirrors"] == ["https://r.test:5000"]
    host.facts["mirrors"] = "https://r.test:5000 "
    assert applied(store, told, NOTHING) == ["engine configured"]
    assert "registry-mirrors" not in json.loads(host.files["/etc/docker/daemon.json"])


def test_a_record_from_before_setups_can_be_worked_on(store: Store, told: Told, host: FakeHost) -> None:
    made(store, host, told, NOTHING)
    machine = store.load("web")
    machine.setup = {}
    store.save(machine)
    assert Work(store, store.load("web"), told).setup == NOTHING
