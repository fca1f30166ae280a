"""Disk images from elsewhere: what they are, and those that lead to other files of this computer."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from machinekit import diskfile
from machinekit.errors import PreCheckError, UntrustedError
from tests.publisher import disk, packed


def qcow2(path: Path, *, backing: int = 0, features: int = 0, version: int = 3, encryption: int = 0) -> Path:
    """The header of an image, as far as we read it."""
    head = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 9 if backing else 0, 16, 1 << 20, encryption)
    path.write_bytes(head.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(1000))
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_a_qcow2(tmp_path: Path, version: int) -> None:
    assert diskfile.form(qcow2(tmp_path / "disk", version=version)) == "qcow2"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"backing": 512}, "a backing file"),
        ({"backing": 512, "version": 2}, "a backing file"),
        ({"features": 4}, "keeps its data in another file"),
        ({"features": 7}, "keeps its data in another file"),
        ({"encryption": 2}, "is encrypted"),
    ],
)
def test_a_qcow2_that_is_not_whole_in_itself(tmp_path: Path, changes: dict[str, int], why: str) -> None:
    with pytest.raises(UntrustedError, match=why) as caught:
        diskfile.form(qcow2(tmp_path / "disk", **changes))
    assert "qemu-img convert" in caught.value.hint


def test_raw_disks(tmp_path: Path) -> None:
    (tmp_path / "boot").write_bytes(disk())
    (tmp_path / "ext4").write_bytes(bytes(1080) + b"\x53\xef" + bytes(1000))
    assert {diskfile.form(path) for path in tmp_path.iterdir()} == {"raw"}


@pytest.mark.parametrize(
    ("content", "why", "hint"),
    [
        (b"", "is no disk image", "qcow2 or raw"),
        (b"<html>" * 500, "is no disk image", "qcow2 or raw"),
        (b"QFI\xfb", "is not a whole qcow2", "qcow2 or raw"),
        (packed(disk()), "is compressed", "gzip -d"),
        (b"\xfd7zXZ\0" + bytes(100), "is compressed", "xz -d"),
    ],
)
def test_what_is_no_disk(tmp_path: Path, content: bytes, why: str, hint: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UntrustedError, match=why) as caught:
        diskfile.form(tmp_path / "file")
    assert hint in caught.value.hint


@pytest.fixture
def qemu_img() -> str:
    """The program, for the tests that make images with it."""
    if not (found := shutil.which("qemu-img")):
        pytest.skip("qemu-img is not installed")
    return found


def test_images_that_qemu_img_makes(tmp_path: Path, qemu_img: str) -> None:
    def make(name: str, *words: str) -> Path:
        subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", *words], cwd=tmp_path, check=True)
        return tmp_path / name

    whole = make("whole", "whole", "1M")
    diskfile.check(whole)
    with pytest.raises(UntrustedError, match="a backing file"):
        diskfile.check(make("over", "-b", "whole", "-F", "qcow2", "over"))
    with pytest.raises(UntrustedError, match="keeps its data in another file"):
        diskfile.check(make("apart", "-o", f"data_file={tmp_path}/data", "apart", "1M"))
    whole.write_bytes(whole.read_bytes()[:70_000])
    with pytest.raises(UntrustedError, match="is damaged"):
        diskfile.check(whole)


def test_without_qemu_img(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PreCheckError, match="qemu-img is needed"):
        diskfile.check(qcow2(tmp_path / "disk"))
