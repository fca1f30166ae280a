"""`image`: what is here, and what may go."""

from __future__ import annotations

import json

import pytest

from machinekit.machine import Machine
from machinekit.store import Store
from tests.conftest import Cli


@pytest.fixture
def image(store: Store) -> None:
    """A disk that somebody built."""
    path = store.images / "disk" / "debian-12"
    path.mkdir(parents=True)
    (path / "disk.raw").write_bytes(b"x" * 2_000_000)
    (path / "image.json").write_text('{"build": "b", "created": "2026-01-01T00:00:00Z"}')


def test_ls(cli: Cli, image: None) -> None:
    head, line = cli("image", "ls").out.splitlines()
    assert head.split() == ["KIND", "NAME", "CREATED", "SIZE"]
    assert line.split() == ["disk", "debian-12", "2026-01-01T00:00:00Z", "2", "MB"]
    (about,) = json.loads(cli("image", "ls", "--json").out)
    assert (about["kind"], about["name"]) == ("disk", "debian-12")
    assert about["bytes"] >= 2_000_000


def test_rm(cli: Cli, store: Store, image: None) -> None:
    assert "there is no rootfs image" in cli("image", "rm", "-y", "-d", "container", "debian-12").err
    store.reserve(Machine("node1", "uid", "qemu", "s", "", image="disk/debian-12"))
    result = cli("image", "rm", "-y", "debian-12")
    assert (result.code, result.out) == (1, "")
    assert 'image "debian-12" is in use by node1' in result.err
    store.remove("node1")
    assert cli("image", "rm", "-y", "debian-12").out == "removed debian-12\n"
    assert cli("image", "ls", "--json").out == "[]\n"
