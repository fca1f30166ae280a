"""`image`: what is here, and what may go."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from machinekit.catalogue import CATALOGUE
from machinekit.images import Images
from machinekit.machine import Machine
from machinekit.store import Store
from tests.conftest import Cli
from tests.publisher import FILE, NAME, Publisher, disk


@pytest.fixture
def image(store: Store) -> None:
    """A disk that somebody built."""
    path = store.images / "disk" / "debian-12"
    path.mkdir(parents=True)
    (path / "disk.raw").write_bytes(b"x" * 2_000_000)
    (path / "image.json").write_text('{"build": "b", "created": "2026-01-01T00:00:00Z"}')


def test_ls(cli: Cli, image: None) -> None:
    head, line, *others = cli("image", "ls").out.splitlines()
    assert head.split() == ["KIND", "NAME", "CREATED", "SIZE", "SOURCE"]
    assert line.split() == ["disk", "debian-12", "2026-01-01T00:00:00Z", "2", "MB", "built"]
    assert others[0].split() == ["disk", "debian-13", "-", "-", "to", "pull", "from", "cloud.debian.org"]
    assert len(others) == len(CATALOGUE) - 1
    about, *rest = json.loads(cli("image", "ls", "--json").out)
    assert (about["kind"], about["name"], about["here"]) == ("disk", "debian-12", True)
    assert about["bytes"] >= 2_000_000
    assert [each["name"] for each in rest if not each["here"]] == [name for name in CATALOGUE if name != "debian-12"]


@pytest.fixture
def publisher(direct: pytest.MonkeyPatch, environment: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """The publisher of the catalogue's one image."""
    with Publisher() as publisher:
        publisher.publish(disk())
        environment.setattr(Images.__init__, "__defaults__", ({NAME: publisher.entry()},))
        yield publisher


def test_pull(cli: Cli, publisher: Publisher) -> None:
    result = cli("image", "pull", NAME)
    assert result.code == 0
    assert result.out.splitlines()[0] == f"{NAME}: Pulling the image"
    assert f"{NAME}: pulling {NAME} from 127.0.0.1:" in result.out
    assert result.out.endswith("its checksum is right\n")
    assert "nothing newer" in cli("image", "pull", NAME).out
    (about,) = json.loads(cli("image", "ls", "--json").out)
    assert (about["name"], about["here"]) == (NAME, True)
    assert about["digest"].startswith("sha256:")
    assert cli("image", "rm", "-y", NAME).out == f"removed {NAME}\n"
    assert [each["here"] for each in json.loads(cli("image", "ls", "--json").out)] == [False]


def test_pull_of_an_own_image(cli: Cli, publisher: Publisher) -> None:
    url, digest = f"{publisher.url}images/{FILE}", publisher.publish(disk())
    refused = cli("image", "pull", url)
    assert (refused.code, refused.out.count("\n")) == (2, 1)
    assert "needs its checksum" in refused.err
    result = cli("image", "pull", url, "--checksum", digest)
    assert f"pulled sha256-{digest[7:19]}" in result.out
    again = cli("image", "pull", url, "--checksum", digest)
    assert f"the image is sha256-{digest[7:19]}, from 127.0.0.1:" in again.out


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("debain-12",), 2, "did you mean debian-12"),
        (("debian-12", "-d", "container"), 2, "which no publisher offers"),
        (("debian-12", "-d", "none"), 2, "boots no images of ours"),
        (("/nowhere/disk.qcow2",), 3, "cannot read /nowhere/disk.qcow2"),
    ],
)
def test_what_cannot_be_pulled(cli: Cli, words: tuple[str, ...], code: int, why: str) -> None:
    result = cli("image", "pull", *words)
    assert (result.code, why in result.err) == (code, True), result.err


def test_rm_of_an_unfinished_pull(cli: Cli, store: Store) -> None:
    draft = store.images / "disk" / ".pull-fedora-0123456789ab"
    draft.mkdir(parents=True)
    assert cli("image", "rm", "-y", "fedora").out == "removed fedora\n"
    assert not draft.exists()


def test_rm(cli: Cli, store: Store, image: None) -> None:
    assert "there is no rootfs image" in cli("image", "rm", "-y", "-d", "container", "debian-12").err
    store.reserve(Machine("node1", "uid", "qemu", "s", "", image="disk/debian-12"))
    result = cli("image", "rm", "-y", "debian-12")
    assert (result.code, result.out) == (1, "")
    assert 'image "debian-12" is in use by node1' in result.err
    store.remove("node1")
    assert cli("image", "rm", "-y", "debian-12").out == "removed debian-12\n"
    assert not any(about["here"] for about in json.loads(cli("image", "ls", "--json").out))


def test_a_broken_image_does_not_hide_the_others(cli: Cli, store: Store, image: None) -> None:
    broken = store.images / "disk" / "broken"
    broken.mkdir()
    (broken / "image.json").write_text("{")
    result = cli("image", "ls", "--json")
    assert result.code == 1
    assert f"{broken}/image.json cannot be read" in result.err
    assert f"rm -r {broken}" in result.err
    assert [about["name"] for about in json.loads(result.out) if about["here"]] == ["debian-12"]
