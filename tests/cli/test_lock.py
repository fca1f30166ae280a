"""`lock`, `plan --locked` and `apply --locked`, as a shell calls them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from machinekit.store import Store
from tests.conftest import Cli
from tests.providers.fake import FakeCloud

FLEET = "version: 1\nname: ci\nmachines: [{name: 'm{index}', count: 2, driver: fake}, {name: web, driver: fake}]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    """A project with a fleet file, where the command is run."""
    project = tmp_path / "project"
    project.mkdir()
    environment.chdir(project)
    (project / "machinekit.yaml").write_text(FLEET)
    return project


def test_locked_from_the_first_machine_on(cli: Cli, cloud: FakeCloud, store: Store, folder: Path) -> None:
    said = cli("apply", "--yes", "--locked")
    assert (said.code, store.names()) == (2, [])
    assert said.err == (
        "machinekit: cannot read machinekit.lock: No such file or directory\n  machinekit lock writes it\n"
    )
    assert cli("lock").out == "machinekit.lock: m{index}, web\n"
    assert cli("lock").out == "machinekit.lock: unchanged\n"
    cloud.images["newest"] = "image-2"
    assert cli("apply", "--yes", "--locked").code == 0
    assert {instance.image for instance in cloud.instances.values()} == {"image-1"}
    assert cli("plan").out == cli("plan", "--locked").out == "ci: 3 unchanged\n"
    assert cli("lock", "--update", "web").out == "machinekit.lock: web\n"
    assert "± replace  web (fake)" in cli("plan", "--locked").out
    assert cli("lock", "--update").out == "machinekit.lock: m{index}\n"
    (folder / "machinekit.yaml").write_text(FLEET.replace(", {name: web, driver: fake}", ""))
    assert cli("lock").out == "machinekit.lock: what has left the fleet file is gone\n"


def test_a_fleet_file_is_never_overwritten_by_its_lock(cli: Cli, cloud: FakeCloud, folder: Path) -> None:
    (folder / "fleet.lock").write_text(FLEET)
    said = cli("lock", "--update", "-f", "fleet.lock")
    assert (said.code, (folder / "fleet.lock").read_text()) == (2, FLEET)
    assert "fleet.lock is called as its lock would be" in said.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("\n", "\r\n"), ""),
        (lambda text: f"<<<<<<< ours\n{text}=======\n{text}>>>>>>> theirs\n", "not YAML"),
        (lambda text: text.replace("image: image-1", "image: [image-1]"), "is not a text"),
        (lambda text: text.replace("image: image-1", "size: '9'"), "options.size: nothing that can be locked"),
        (lambda text: text.replace("version: 1", "version: 2"), "version: 2 is not 1"),
        (lambda text: text.replace("fleet: ci", "fleet: other"), "is of the fleet 'other', and not of 'ci'"),
        (lambda text: text[: len(text) // 2], "machinekit.lock"),
        (lambda text: "", "is not a lock"),
    ],
)
def test_a_lock_that_somebody_had_in_hands(
    cli: Cli, cloud: FakeCloud, store: Store, folder: Path, change: Callable[[str], str], said: str
) -> None:
    cli("lock")
    file = folder / "machinekit.lock"
    file.write_bytes(change(file.read_text()).encode())
    result = cli("apply", "-y", "--locked")
    assert (result.code, len(store.names())) == ((2, 0) if said else (0, 3))
    assert said in result.err


def test_a_lock_that_does_not_fit(cli: Cli, cloud: FakeCloud, store: Store, folder: Path) -> None:
    cli("lock")
    (folder / "machinekit.yaml").write_text(FLEET.replace("name: web, driver: fake", "name: www, driver: fake"))
    said = cli("apply", "--yes", "--locked")
    assert (said.code, store.names()) == (2, [])
    assert "machinekit.lock does not fit the fleet file:\n  www: not in it\n  machinekit lock mends that" in said.err
    (folder / "machinekit.lock").write_bytes(b"\xff")
    assert "machinekit.lock is not a text in UTF-8" in cli("plan", "--locked").err
    said = cli("lock")
    assert (said.code, said.err) == (
        2,
        "machinekit: machinekit.lock is not a text in UTF-8\n  machinekit lock --update writes it anew\n",
    )
    assert cli("plan").code == 0
    assert cli("lock", "--update").out == "machinekit.lock: m{index}, www\n"
    assert cli("plan", "--locked").code == 0


def test_a_saved_plan_is_as_locked_as_it_was(cli: Cli, cloud: FakeCloud, folder: Path) -> None:
    cli("lock")
    assert cli("plan", "--locked", "--out", "ci.plan").code == 0
    cloud.images["newest"] = "image-2"
    (folder / "machinekit.lock").unlink()
    assert "give --locked to plan --out" in cli("apply", "--yes", "--locked", "ci.plan").err
    assert cli("apply", "--yes", "ci.plan").code == 0
    assert {instance.image for instance in cloud.instances.values()} == {"image-1"}


def test_a_provider_that_cannot_be_asked(cli: Cli, cloud: FakeCloud, folder: Path) -> None:
    cloud.failing.add("find image")
    said = cli("lock")
    assert (said.code, (folder / "machinekit.lock").exists()) == (1, False)
    assert "the provider refuses to find image" in said.err


def test_a_manifest_of_what_nobody_can_look_into(cli: Cli, cloud: FakeCloud) -> None:
    cli("apply", "--yes")
    said = cli("manifest", "web")
    assert (said.code, said.out) == (1, "")
    assert "nobody can look into" in said.err
