"""Files and folders as a script carries them: the same text for the same content, whenever and whoever made it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from machinekit import pack


def made(folder: Path, *, reverse: bool = False) -> Path:
    (folder / "deep").mkdir(parents=True)
    for name in sorted(("b", "a", "deep/c"), reverse=reverse):
        (folder / name).write_text(name)
    (folder / "a").chmod(0o750)
    (folder / "link").symlink_to("a")
    return folder


def test_the_same_folder_twice(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two", reverse=True)
    os.utime(two / "b", (0, 0))
    (two / "b").chmod(0o600)
    (two / ".git").mkdir()
    (two / ".git" / "HEAD").write_text("not ours to carry")
    assert pack.folder(one) == pack.folder(two)
    (two / "b").write_text("other")
    assert pack.folder(one) != pack.folder(two)


def test_what_is_in_it(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack.folder(made(tmp_path / "one")))) as archive:
        found = {member.name: (member.type, member.mode, member.mtime, member.uid) for member in archive}
        held = archive.extractfile("deep/c")
        assert held is not None
        assert held.read() == b"deep/c"
    assert found == {
        "a": (tarfile.REGTYPE, 0o755, 0, 0),
        "b": (tarfile.REGTYPE, 0o644, 0, 0),
        "deep": (tarfile.DIRTYPE, 0o755, 0, 0),
        "deep/c": (tarfile.REGTYPE, 0o644, 0, 0),
        "link": (tarfile.SYMTYPE, 0o777, 0, 0),
    }


def test_what_cannot_be_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*nowhere: No such file"):
        pack.content(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is not a folder"):
        pack.folder(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is neither a file nor a folder"):
        pack.folder(tmp_path)
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="is not a file"):
            pack.content(endless)
    (tmp_path / "pipe").unlink()
    (tmp_path / "big").write_bytes(b"x" * 100)
    monkeypatch.setattr(pack, "LIMIT", 50)
    with pytest.raises(ValueError, match="has more than"):
        pack.content(tmp_path / "big")
    with pytest.raises(ValueError, match="has more than"):
        pack.folder(tmp_path)


def test_paths_count_from_a_folder(tmp_path: Path) -> None:
    assert pack.absolute("../b", tmp_path / "a") == str(tmp_path / "b")
    assert pack.absolute("/b/./c", None) == "/b/c"
    with pytest.raises(ValueError, match="must be an absolute path"):
        pack.absolute("b", None)
    with pytest.raises(ValueError, match="there is no such user"):
        pack.absolute("~nobody-at-all/b", None)
