"""The library of images: what is here, pulled, built or taken in, whole or not at all, and not changed since."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from machinekit import bootstrap, imagestore, web
from machinekit.catalogue import Entry
from machinekit.errors import DownloadError, MachinekitError, PreCheckError, UntrustedError, UsageError
from machinekit.images import DEFAULT, MIRROR, Images
from machinekit.imagestore import ABOUT, size
from machinekit.machine import Image
from tests.publisher import FILE, NAME, Publisher, Signer, disk, packed

CONTENT = disk()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.delenv(MIRROR, raising=False)
    return Images(tmp_path / "images")


@pytest.fixture
def publisher(direct: pytest.MonkeyPatch) -> Iterator[Publisher]:
    with Publisher() as publisher:
        yield publisher


@pytest.fixture
def shop(library: Images, publisher: Publisher) -> Images:
    """A library whose catalogue is the publisher on loopback."""
    publisher.publish(CONTENT)
    return Images(library.directory, {NAME: publisher.entry(), DEFAULT: publisher.entry()})


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    signer = Signer(tmp_path)
    try:
        yield signer
    finally:
        signer.close()


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


def left(library: Images) -> list[str]:
    """What is in the library beside locks."""
    return sorted(path.name for path in library.directory.glob("*/*") if not path.name.startswith(".lock"))


# --- what is here


def test_what_is_there(library: Images) -> None:
    assert library.all() == []
    two, one, three = place(library, "rootfs", "b"), place(library, "disk", "c"), place(library, "rootfs", "c")
    (library.directory / "disk" / ".draft-x").mkdir()
    assert library.all() == [one, two, three]
    assert library.find("rootfs", "b") == two
    assert library.find("disk", "b") is None
    assert size(two) >= 10_000
    library.remove("rootfs", "b")
    assert library.all() == [one, three]


def test_an_image_that_is_there_is_used(library: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    image = place(library, "rootfs", "my-own")
    said: list[str] = []
    assert library.ensure("rootfs", "my-own", said.append) == image
    assert said == ["the image is my-own, built here on 2026-01-01"]


@pytest.mark.parametrize("kind", ["rootfs", "disk"])
@pytest.mark.parametrize("name", ["debian-99", "debian-12+engines", "fedora+engine"])
def test_what_cannot_be_had(library: Images, kind: str, name: str) -> None:
    with pytest.raises(UsageError, match=r"no image .* is here, or can be had; did you mean [\w+.-]+") as caught:
        library.ensure(kind, name, print)
    assert "debian-12+engine" in caught.value.hint
    assert ("fedora" in caught.value.hint) is (kind == "disk")
    assert not library.directory.exists()


@pytest.mark.parametrize("name", ["", "..", "+engine", "-x"])
def test_what_is_no_name_of_an_image(library: Images, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name for an image"):
        library.find("disk", name)
    with pytest.raises(UsageError, match="is not a name for an image"):
        library.ensure("disk", name, print)
    assert not library.directory.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "https://a.example/b"])
def test_container_machines_boot_no_files(library: Images, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name for an image"):
        library.ensure("rootfs", name, print)


# --- built


def test_a_program_that_is_missing_is_named(library: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_path", lambda: "/nowhere")
    with pytest.raises(PreCheckError, match="needs mmdebstrap and mke2fs"):
        library.check("rootfs", "debian-12")


def test_a_build_is_kept_when_it_is_whole(library: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder(tmp_path / "bin", 'echo "$@" >"$target"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    said: list[str] = []
    image = library.ensure("rootfs", "debian-12+engine", said.append)
    called = (image.path / "rootfs.tar").read_text()
    assert "docker.io" in called
    assert " bookworm " in called
    assert said[-1].startswith("built debian-12+engine in ")
    assert {path.stat().st_mode & 0o777 for path in image.path.iterdir()} == {0o444}
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
    assert left(library) == ["debian-12"]


# --- pulled


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_pull(shop: Images, publisher: Publisher, algorithm: str) -> None:
    digest = publisher.publish(CONTENT, algorithm)
    said: list[str] = []
    image = shop.pull(NAME, said.append)
    assert (image.name, image.digest, image.source) == (NAME, digest, f"{publisher.url}images/{FILE}")
    assert (image.path / "disk.raw").read_bytes() == CONTENT
    assert {path.name for path in image.path.iterdir()} == {"disk.raw", ABOUT}
    assert {path.stat().st_mode & 0o777 for path in image.path.iterdir()} == {0o444}
    assert said[0] == f"pulling {NAME} from {publisher.url.split('/')[2]}"
    assert "its checksum is right" in said[1]
    assert left(shop) == [NAME]


def test_pull_again_gets_what_is_new_alone(shop: Images, publisher: Publisher) -> None:
    said: list[str] = []
    old = shop.pull(NAME, said.append)
    assert shop.pull(NAME, said.append) == old
    assert said[-1] == f"{NAME} is here already and the publisher has nothing newer"
    assert len(publisher.requests()) == 1
    publisher.publish(disk(100_000))
    new = shop.pull(NAME, said.append)
    assert new.build != old.build
    assert left(shop) == [NAME]


def test_what_it_would_be_is_known_before_it_is_pulled(shop: Images, publisher: Publisher, tmp_path: Path) -> None:
    digest = publisher.publish(CONTENT)
    assert shop.would_be("disk", NAME) == (digest, "")
    assert left(shop) == []
    assert not publisher.requests()
    old = shop.pull(NAME, print)
    newer = publisher.publish(disk(100_000))
    assert shop.would_be("disk", NAME) == (old.digest, ""), "the one that is here is the one that is taken"
    (tmp_path / "disk.raw").write_bytes(CONTENT)
    assert shop.would_be("disk", str(tmp_path / "disk.raw")) == (digest, "")
    assert shop.would_be("disk", "https://a.test/disk", newer) == (newer, "")
    place(shop, "rootfs", "mine")
    assert shop.would_be("rootfs", "mine") == ("", "build-of-mine")
    assert shop.would_be("rootfs", "debian-12") == ("", ""), "it is not built yet"
    with pytest.raises(UsageError, match="needs its checksum"):
        shop.would_be("disk", "https://a.test/disk")


def test_pull_of_what_nobody_publishes(shop: Images) -> None:
    with pytest.raises(UsageError, match=f'no image "test-2" is here, or can be had; did you mean {NAME}'):
        shop.pull("test-2", print)
    assert left(shop) == []


def test_a_forged_image_is_refused(shop: Images, publisher: Publisher) -> None:
    publisher.files[f"images/{FILE}"] = CONTENT[:-1] + b"x"
    with pytest.raises(UntrustedError, match="is not the file that its publisher's checksum is for"):
        shop.ensure("disk", NAME, print)
    assert left(shop) == []


def test_a_missing_line_in_the_checksums(shop: Images, publisher: Publisher) -> None:
    publisher.files["images/SHA256SUMS"] = b"\n"
    with pytest.raises(DownloadError, match="names no checksum"):
        shop.pull(NAME, print)
    assert publisher.requests() == []


@pytest.mark.parametrize("inline", [False, True])
def test_a_signed_image(library: Images, publisher: Publisher, signer: Signer, inline: bool) -> None:
    publisher.publish(CONTENT)
    sums = publisher.files["images/SHA256SUMS"]
    entry = publisher.entry(
        signature="SHA256SUMS" if inline else "SHA256SUMS.gpg",
        key=publisher.url + "key",
        fingerprint=signer.fingerprint,
    )
    signed = Images(library.directory, {NAME: entry})
    publisher.files["key"] = signer.key()
    with pytest.raises((UntrustedError, DownloadError)):
        signed.pull(NAME, print)
    assert publisher.requests() == [], "nothing is downloaded before the signature is right"
    publisher.files |= {"images/SHA256SUMS": signer.inline(sums)} if inline else {}
    publisher.files["images/SHA256SUMS.gpg"] = signer.detached(sums)
    assert signed.pull(NAME, print).digest

    signed.remove("disk", NAME)
    publisher.files["images/SHA256SUMS"] = publisher.files["images/SHA256SUMS"].replace(b"test-1", b"test-2")
    with pytest.raises(UntrustedError, match="signature is not right"):
        signed.ensure("disk", NAME, print)


def test_a_signed_image_needs_gpgv(library: Images, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = publisher.entry(signature="SHA256SUMS.gpg", key=publisher.url + "key", fingerprint="F" * 40)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PreCheckError, match="gpgv is needed"):
        Images(library.directory, {NAME: entry}).check("disk", NAME)


def test_a_mirror(library: Images, publisher: Publisher, signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all of a publisher who signs, and of another one the image alone."""
    digest = publisher.publish(CONTENT)
    sums = publisher.files["images/SHA256SUMS"]
    publisher.files = {
        f"pub/far.invalid/images/{FILE}": CONTENT,
        "pub/far.invalid/images/SHA256SUMS": sums,
        "pub/far.invalid/images/SHA256SUMS.gpg": signer.detached(sums),
        f"pub/keys/{signer.fingerprint}.asc": signer.key(),
    }
    monkeypatch.setenv(MIRROR, publisher.url + "pub")
    far = Entry("https://far.invalid/images/", FILE, "SHA256SUMS")
    sign = replace(far, signature="SHA256SUMS.gpg", key="https://far.invalid/k", fingerprint=signer.fingerprint)
    assert Images(library.directory, {NAME: sign}).pull(NAME, print).digest == digest
    with pytest.raises(DownloadError, match=r"far\.invalid (cannot be reached|does not answer)") as caught:
        Images(library.directory, {"other": far}).pull("other", print)
    assert "a mirror cannot vouch" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"build": 1, "created": ""}', '{"build": "", "created": "", "digest": "d"}']
)
def test_an_image_that_is_not_known_any_more(library: Images, text: str) -> None:
    path = library.directory / "disk" / "debian-12"
    path.mkdir(parents=True)
    (path / ABOUT).write_text(text)
    with pytest.raises(MachinekitError, match=r"image\.json cannot be read") as caught:
        library.find("disk", "debian-12")
    assert caught.value.hint == f"rm -r {path}"
    assert library.all() == []
    assert [error.hint for error in library.broken()] == [f"rm -r {path}"]


@pytest.mark.parametrize("mirror", ["mirror.test", "http://[::1", "file:///srv", "http://me:secret@mirror.test"])
def test_a_mirror_that_is_none(shop: Images, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv(MIRROR, mirror)
    with pytest.raises(UsageError, match=r"^\$MACHINEKIT_IMAGE_MIRROR is no URL to pull from$"):
        shop.pull(NAME, print)


def test_a_cut_download_is_gone_on_with(shop: Images, publisher: Publisher) -> None:
    publisher.cuts = [100_000, *[0] * web.TRIES]
    with pytest.raises(DownloadError, match="ended after"):
        shop.pull(NAME, print)
    (draft,) = left(shop)
    assert draft.startswith(f".pull-{NAME}-")
    shop.pull(NAME, print)
    assert publisher.requests()[-1] == "bytes=100000-"
    assert left(shop) == [NAME]


def test_the_beginning_of_an_older_image_goes(shop: Images, publisher: Publisher) -> None:
    publisher.cuts = [100_000, *[0] * web.TRIES]
    with pytest.raises(DownloadError):
        shop.pull(NAME, print)
    publisher.publish(disk(200_000))
    shop.pull(NAME, print)
    assert publisher.requests()[-1] == ""
    assert left(shop) == [NAME]


def test_rm_takes_an_unfinished_download_too(shop: Images, publisher: Publisher) -> None:
    publisher.cuts = [100_000, *[0] * web.TRIES]
    with pytest.raises(DownloadError):
        shop.pull(NAME, print)
    shop.remove("disk", NAME)
    assert left(shop) == []


def test_killed_just_before_the_end(shop: Images, publisher: Publisher) -> None:
    """The file is verified and has its name, the image not yet."""
    image = shop.pull(NAME, print)
    digest = image.digest.partition(":")[2]
    (image.path / ABOUT).unlink()
    image.path.rename(image.path.with_name(f".pull-{NAME}-{digest[:12]}"))
    assert shop.pull(NAME, print).digest == image.digest
    assert len(publisher.requests()) == 1
    assert left(shop) == [NAME]


@pytest.mark.parametrize("content", [b"<html>" * 500, packed(CONTENT), b"QFI\xfb" + bytes(4) + b"\1" * 100])
def test_what_is_no_disk_is_no_image(shop: Images, publisher: Publisher, content: bytes) -> None:
    publisher.publish(content)
    with pytest.raises(UntrustedError, match=f"{publisher.url}images/{FILE} "):
        shop.pull(NAME, print)
    assert left(shop) == []


# --- tampered with


def test_a_file_that_was_changed_is_refused(shop: Images) -> None:
    image = shop.pull(NAME, print)
    file = image.path / "disk.raw"
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.write(b"boo")
    with pytest.raises(UntrustedError, match=f"the file of image {NAME} is not what it was") as caught:
        shop.ensure("disk", NAME, print)
    assert f"machinekit image rm {NAME}" in caught.value.hint
    with pytest.raises(UntrustedError):
        shop.pull(NAME, print)
    file.unlink()
    with pytest.raises(UntrustedError):
        shop.ensure("disk", NAME, print)
    shop.remove("disk", NAME)
    assert shop.ensure("disk", NAME, print).digest == image.digest


def test_a_cache_that_was_copied_is_read_once(shop: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.pull(NAME, print)
    moved = Images(tmp_path / "copy", shop.published)
    shutil.copytree(shop.directory, moved.directory)
    read: list[Path] = []

    def counted(file: Path, like: str) -> str:
        read.append(file)
        return imagestore.digest_of.__wrapped__(file, like)  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(imagestore, "digest_of", functools.wraps(imagestore.digest_of)(counted))
    for _ in range(2):
        moved.ensure("disk", NAME, print)
    assert read == [moved.directory / "disk" / NAME / "disk.raw"]


# --- which one, and why


def test_the_publishers_image_comes_before_a_build(shop: Images) -> None:
    said: list[str] = []
    image = shop.ensure("disk", DEFAULT, said.append)
    assert image.digest
    assert said[0].startswith(f"pulling {DEFAULT} from 127.0.0.1")
    assert shop.ensure("disk", DEFAULT, said.append) == image
    assert said[-1].startswith(f"the image is {DEFAULT}, from 127.0.0.1:")


@pytest.fixture
def unreachable(library: Images, direct: pytest.MonkeyPatch) -> Images:
    """A library whose publisher's port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    entry = Entry(f"http://127.0.0.1:{port}/", FILE, "SHA256SUMS")
    return Images(library.directory, {NAME: entry, DEFAULT: entry})


def test_without_a_network_it_is_built(unreachable: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder(tmp_path / "bin", 'mkdir -p "$target/boot"; touch "$target/boot/vmlinuz-1" "$target/boot/initrd.img-1"')
    (tmp_path / "bin" / "mke2fs").write_text('#!/bin/sh\nfor size; do disk=$last; last=$size; done\n: >"$disk"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    said: list[str] = []
    image = unreachable.ensure("disk", DEFAULT, said.append)
    assert image.source == "built"
    assert "cannot be pulled: 127.0.0.1:" in said[1]
    assert "Connection refused" in said[1]
    assert said[2].startswith(f"building the disk image {DEFAULT}")


def test_without_a_network_and_mmdebstrap_both_are_named(unreachable: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_path", lambda: "/nowhere")
    with pytest.raises(DownloadError, match="Connection refused") as caught:
        unreachable.ensure("disk", DEFAULT, print)
    assert "apt-get install mmdebstrap e2fsprogs" in caught.value.hint


def test_without_a_network_others_cannot_be_built(unreachable: Images) -> None:
    with pytest.raises(DownloadError, match="Connection refused"):
        unreachable.ensure("disk", NAME, print)


@pytest.mark.parametrize(
    ("here", "builds", "engine", "chosen"),
    [
        ((), True, True, "debian-12+engine"),
        ((), False, True, "debian-12"),
        (("debian-12",), True, True, "debian-12"),
        (("debian-12", "debian-12+engine"), False, True, "debian-12+engine"),
        (("debian-12+engine",), True, False, "debian-12"),
    ],
)
def test_the_default(
    library: Images, monkeypatch: pytest.MonkeyPatch, here: tuple[str, ...], builds: bool, engine: bool, chosen: str
) -> None:
    monkeypatch.setattr(bootstrap, "ready", lambda: builds)
    for name in here:
        place(library, "disk", name)
    assert library.default("disk", engine=engine) == chosen


def test_the_default_of_container_machines(library: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ready", lambda: False)
    assert library.default("rootfs", engine=True) == "debian-12+engine"


# --- the user's own


def qcow2(path: Path) -> Path:
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img is not installed")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    return path


def test_an_image_by_path(library: Images, tmp_path: Path) -> None:
    mine, said = qcow2(tmp_path / "mine.qcow2"), list[str]()
    image = library.ensure("disk", str(mine), said.append)
    assert image.name.startswith("sha256-")
    assert image.source == str(mine)
    assert (image.path / "disk.qcow2").read_bytes() == mine.read_bytes()
    assert library.ensure("disk", str(mine), said.append) == image
    assert said[0] == f"copying {mine} as {image.name}"
    assert said[1:] == [f"the image is {image.name}, from {mine} on {image.created[:10]}"]
    assert library.ensure("disk", image.name, said.append) == image
    assert library.ensure("disk", str(mine), said.append, checksum=image.digest.upper().replace("SHA", "sha")) == image
    with pytest.raises(UntrustedError, match="has another checksum"):
        library.ensure("disk", str(mine), said.append, checksum="0" * 64)
    assert left(library) == [image.name]


def test_zeros_of_a_raw_image_take_no_room(library: Images, tmp_path: Path) -> None:
    qcow2(tmp_path / "x")
    mine = tmp_path / "mine.raw"
    mine.write_bytes(CONTENT)
    os.truncate(mine, 50_000_000)
    image = library.take(str(mine), "", print)
    assert (image.path / "disk.raw").stat().st_size == 50_000_000
    assert size(image) < 3_000_000


def test_an_image_by_url(library: Images, publisher: Publisher) -> None:
    digest, url = publisher.publish(CONTENT), f"{publisher.url}images/{FILE}"
    image = library.ensure("disk", url, print, checksum=digest)
    assert (image.digest, image.source) == (digest, url)
    assert library.ensure("disk", url, print, checksum=digest) == image
    assert len(publisher.requests()) == 1
    with pytest.raises(UntrustedError, match="is not the file"):
        library.ensure("disk", url, print, checksum="0" * 64)
    assert left(library) == [image.name]


@pytest.mark.parametrize(
    ("wanted", "checksum", "error", "why"),
    [
        ("https://a.example/disk", "", UsageError, "needs its checksum"),
        ("https://a.example/disk", "0" * 63, UsageError, "is no checksum"),
        ("https://a.example/disk", "sha512:" + "0" * 64, UsageError, "is no checksum"),
        ("ftp://a.example/disk", "0" * 64, UsageError, "is no URL to pull from"),
        ("http://[::1/disk", "0" * 64, UsageError, "is no URL to pull from"),
        ("http://a.example:99999/disk", "0" * 64, UsageError, "is no URL to pull from"),
        ("http://a.example/caf\xe9", "0" * 64, UsageError, "is no URL to pull from"),
        ("https://me:secret@a.example/disk", "0" * 64, UsageError, "^a.example/disk is no URL to pull from"),
        ("/nowhere/disk", "", PreCheckError, "cannot read /nowhere/disk: No such file"),
        ("/etc", "", PreCheckError, "cannot read /etc: Is a directory"),
        ("/etc/hostname", "", PreCheckError, "is no disk image"),
    ],
)
def test_what_cannot_be_taken_in(
    library: Images, wanted: str, checksum: str, error: type[MachinekitError], why: str
) -> None:
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img is not installed")
    with pytest.raises(error, match=why):
        library.check("disk", wanted, checksum)
    with pytest.raises(error, match=why):
        library.take(wanted, checksum, print)
    assert not library.directory.exists()


def test_a_disk_that_leads_to_other_files_is_not_taken_in(library: Images, tmp_path: Path) -> None:
    qcow2(tmp_path / "mine.qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "mine.qcow2", "-F", "qcow2", "over.qcow2"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(PreCheckError, match="a backing file"):
        library.check("disk", f"{tmp_path}/over.qcow2")
    assert not library.directory.exists()


# --- two at once


def test_a_second_process_waits_and_says_so(shop: Images, publisher: Publisher) -> None:
    publisher.stall_after = 100_000
    script = f"""
import sys
from pathlib import Path
from machinekit.catalogue import Entry
from machinekit.images import Images
library = Images(Path(sys.argv[1]), {{"{NAME}": {publisher.entry()!r}}})
library.pull("{NAME}", print, lambda text: print(text, flush=True))
"""
    command = [sys.executable, "-c", script, str(shop.directory)]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        while "MB" not in process.stdout.readline():
            pass

        def say(text: str) -> None:
            said.append(text)
            if text.startswith("waiting: "):
                publisher.stall_after = -1
                process.kill()

        image = shop.ensure("disk", NAME, say)
    assert said[0].startswith(f"waiting: image {NAME} is held by pull (pid {process.pid}) since ")
    assert image.digest
    assert publisher.requests() != ["", ""], "it went on where the killed one was"


def test_threads_share_one_download(shop: Images, publisher: Publisher) -> None:
    threads = [threading.Thread(target=shop.ensure, args=("disk", NAME, lambda _: None)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.requests() == [""]
