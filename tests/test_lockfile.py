"""The lock file: what it looks like, what fits it, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from machinekit import fleet, lockfile
from machinekit.errors import UsageError
from machinekit.lockfile import Asked, Group, Lock
from machinekit.pins import PinnedImage
from machinekit.wanted import Fleet

FLEET = """
version: 1
name: ci
defaults: {driver: qemu, qemu: {image: ./disk.qcow2}}
machines:
  - {name: web, roles: [{role: registry}]}
  - {name: 'm{index}', count: 2, engine: {source: docker, version: 29.1.2}}
"""
LOCK = """\
# Written by machinekit lock, for machinekit apply --locked. It belongs into git.
version: 1
fleet: ci
groups:
  m{index}:
    asked:
      driver: qemu
      options:
        image: ./disk.qcow2
      engine:
        source: docker
        version: 29.1.2
    image:
      name: sha256-0123
      digest: sha256:0123
    engine: 5:29.1.2-1~debian.12~bookworm
  web:
    asked:
      driver: qemu
      options:
        image: ./disk.qcow2
      engine:
        source: distro
      roles:
        registry:
          role: registry
    image:
      name: sha256-0123
      digest: sha256:0123
    engine: 20.10.24+dfsg1-1
    roles:
      registry:
        version: 2.8.2+ds1-1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "machinekit.yaml").write_text(FLEET)
    return tmp_path


def wanted(folder: Path, text: str = FLEET) -> Fleet:
    (folder / "machinekit.yaml").write_text(text)
    return fleet.load(folder / "machinekit.yaml", {})


def locked(folder: Path, text: str = FLEET, lock: str = LOCK) -> Fleet:
    return lockfile.locked(wanted(folder, text), lockfile.parse(lock, "machinekit.lock"), str(folder / "a.lock"))


def test_it_is_read_as_it_was_written() -> None:
    assert lockfile.written(lockfile.parse(LOCK, "machinekit.lock")) == LOCK


def test_texts_that_look_like_something_else() -> None:
    asked = Asked(driver="x", options={"image": "20.10", "one": "null", "two": "$HOME ${A}"})
    lock = Lock(version=1, fleet="1e3", groups={"no": Group(asked=asked, engine="20.10", options={"image": "0x1f"})})
    assert lockfile.parse(lockfile.written(lock), "x") == lock


def test_where_it_lies() -> None:
    assert lockfile.place(Path("here/machinekit.yaml")) == Path("here/machinekit.lock")
    assert lockfile.place(Path("ci.yml")) == Path("ci.lock")


def test_a_fleet_with_its_lock(folder: Path) -> None:
    web, m1, m2 = locked(folder).machines
    assert (web.name, m1.name, m2.name) == ("web", "m1", "m2")
    assert (web.spec.version, m1.spec.version) == ("20.10.24+dfsg1-1", "5:29.1.2-1~debian.12~bookworm")
    assert m2.pins.image == PinnedImage(name="sha256-0123", digest="sha256:0123")
    assert web.setup.roles[0].options["version"] == "2.8.2+ds1-1"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("29.1.2", "29.1.3", r"m\{index\}: engine\.version: 29\.1\.2 -> 29\.1\.3"),
        ("source: docker, ", "", r"m\{index\}: engine\.source: docker -> distro"),
        ("./disk", "./other", r"web: options\.image: \./disk\.qcow2 -> \./other\.qcow2"),
        ("{role: registry}", "{role: registry, version: '2'}", r"web: roles\.registry\.version: none -> 2"),
        ("[{role: registry}]", "[]", r"web: roles\.registry\.role: registry -> none"),
        ("name: web", "name: www", "www: not in it"),
        ("driver: qemu, qemu: {image: ./disk.qcow2}", "driver: container", "web: driver: qemu -> container"),
    ],
)
def test_a_file_that_has_changed_where_it_floats(folder: Path, before: str, after: str, said: str) -> None:
    assert before in FLEET
    with pytest.raises(UsageError, match=rf"a\.lock does not fit the fleet file:\n(.*\n)*  {said}") as caught:
        locked(folder, FLEET.replace(before, after))
    assert caught.value.hint == "machinekit lock mends that"


@pytest.mark.parametrize("after", ["count: 7", "count: 1", "count: 2, labels: {a: b}, engine: {opts: [debug=true]"])
def test_what_does_not_float_may_change(folder: Path, after: str) -> None:
    text = FLEET.replace("count: 2, engine: {", f"{after}, engine: {{" if "engine" not in after else f"{after}, ")
    assert locked(folder, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a lock"),
        ("[]", "is not a lock"),
        ("a: [", "not YAML"),
        (
            LOCK.replace("fleet: ci", "<<<<<<< HEAD\nfleet: ci\n=======\nfleet: cd\n>>>>>>> theirs"),
            "machinekit.lock:4:1: not YAML",
        ),
        ("fleet: ci", "version is missing"),
        (LOCK.replace("version: 1", "version: 2", 1), "machinekit.lock:2:10: version: 2 is not 1"),
        (LOCK.replace("fleet: ci", "fleet: [ci]"), "machinekit.lock:3:8: fleet: a list is not a text"),
        (LOCK.replace("engine: 20", "engin: 20"), "groups.web.engin is no key here; did you mean engine?"),
        (LOCK.replace("engine: 20.10.24+dfsg1-1", "engine: 20.1"), "groups.web.engine: 20.1 is not a text; put it in"),
        (LOCK.replace("20.10.24+dfsg1-1", "$$(id)"), "groups.web.engine: '$(id)' is not a value it takes"),
        (LOCK.replace("20.10.24+dfsg1-1", "${HOME}"), "${HOME} is not set"),
        (LOCK.replace("name: sha256-0123\n", ""), "groups.m{index}.image.name is missing"),
        (LOCK.replace("  web:", "  m{index}:"), "'m{index}' is there twice"),
    ],
)
def test_what_is_none(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        lockfile.parse(text, "machinekit.lock")
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("fleet: ci", "fleet: other", r"a\.lock is of the fleet 'other', and not of 'ci'"),
        ("version: 2.8.2+ds1-1", "port: '1'", r"web: roles\.registry\.port: nothing that can be locked"),
        ("registry:\n        v", "other:\n        v", r"web: roles\.other\.version: nothing that can be locked"),
        ("    roles:\n      registry:\n        v", "    options: {memory: '1'}\n    roles:\n      registry:\n        v",
         r"web: options\.memory: nothing that can be locked"),
        ("2.8.2+ds1-1", "'; id'", "role registry cannot be as it was locked"),
    ],
)  # fmt: skip
def test_edited_to_nonsense(folder: Path, before: str, after: str, said: str) -> None:
    assert before in LOCK
    with pytest.raises(UsageError, match=said):
        locked(folder, lock=LOCK.replace(before, after))
