"""The library of images: what is there, what can be built, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machinekit.errors import MachinekitError, PreCheckError, UsageError
from machinekit.images import ABOUT, Images, size
from machinekit.machine import Image


@pytest.fixture
def library(tmp_path: Path) -> Images:
    return Images(tmp_path / "images")


def place(library: Images, kind: str, name: str) -> Image:
    path = library.directory / kind / name
    path.mkdir(parents=True)
    (path / "rootfs.tar").write_bytes(b"x" * 10_000)
    (path / ABOUT).write_text(json.dumps({"build": f"build-of-{name}", "created": "2026-01-01T00:00:00Z"}))
    return Image(name, kind, path, f"build-of-{name}", "2026-01-01T00:00:00Z")


def builder(directory: Path, script: str) -> None:
    """An mmdebstrap that does this; its last argument is what it should make."""
    directory.mkdir()
    for program in ("mmdebstrap", "mke2fs"):
        (directory / program).write_text(f"#!/bin/sh\nfor target; do :; done\n{script}\n")
        (directory / program).chmod(0o755)


def test_what_is_there(library: Images) -> None:
    assert library.all() == []
    two, one, three = place(library, "rootfs", "b"), place(library, "disk", "c"), place(library, "rootfs", "c")
    (library.directory / "disk" / ".draft-x").mkdir()
    assert library.all() == [one, two, three]
    assert library.find("rootfs", "b") == two
    assert library.find("disk", "b") is None
    assert size(two) >= 10_000
    library.remove(two)
    assert library.all() == [one, three]


def test_an_image_that_is_there_is_not_built(library: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    image = place(library, "rootfs", "my-own")
    said: list[str] = []
    assert library.ensure("rootfs", "my-own", said.append) == image
    assert said == []


@pytest.mark.parametrize("name", ["debian-99", "debian-12+engines"])
def test_what_cannot_be_built(library: Images, name: str) -> None:
    with pytest.raises(UsageError, match="no image") as caught:
        library.ensure("rootfs", name, print)
    assert "debian-12" in caught.value.hint
    assert not library.directory.exists()


def test_a_program_that_is_missing_is_named(library: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machinekit.images._path", lambda: "/nowhere")
    with pytest.raises(PreCheckError, match="needs mmdebstrap and mke2fs"):
        library.check("debian-12")


def test_a_build_is_kept_when_it_is_whole(library: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder(tmp_path / "bin", 'echo "$@" >"$target"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    said: list[str] = []
    image = library.ensure("rootfs", "debian-12+engine", said.append)
    called = (image.path / "rootfs.tar").read_text()
    assert "docker.io" in called
    assert " bookworm " in called
    assert said[-1].startswith("built debian-12+engine in ")
    again = library.build("rootfs", "debian-12+engine", said.append)
    assert again.build != image.build
    assert library.all() == [again]


def test_a_build_that_fails_leaves_what_was_there(
    library: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place(library, "rootfs", "debian-12")
    (library.directory / "rootfs" / ".draft-debian-12-left").mkdir()
    builder(tmp_path / "bin", "echo why; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    with pytest.raises(MachinekitError, match="mmdebstrap failed with exit code 3:\nwhy"):
        library.build("rootfs", "debian-12", lambda _: None)
    assert library.all() == [before]
    assert list((library.directory / "rootfs").glob(".draft-*")) == []


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "+engine", "-x"])
def test_what_is_no_name_of_an_image(library: Images, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name for an image"):
        library.find("disk", name)
    with pytest.raises(UsageError, match="is not a name for an image"):
        library.ensure("disk", name, print)
    assert not library.directory.exists()
