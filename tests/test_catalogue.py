"""The publishers' places and their lists of checksums."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from machinekit.catalogue import CATALOGUE, Entry, digest, places
from machinekit.errors import DownloadError

A, B = "a" * 64, "B" * 64
LONG = "c" * 128
UNSIGNED = Entry("https://a.example/x/latest/", "disk.qcow2", "SHA512SUMS")
SIGNED = Entry("https://b.example/y/", "disk.img", "SUMS", "SUMS.gpg", "https://keys.example/?k=1", "F" * 40)


def test_the_names() -> None:
    wanted = "debian-12 debian-13 ubuntu-24.04 ubuntu-22.04 rocky-9 alma-9 fedora"
    assert set(CATALOGUE) == set(wanted.split())


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_is_whole(name: str) -> None:
    entry = CATALOGUE[name]
    assert entry.directory.startswith("https://")
    assert entry.directory.endswith("/")
    assert re.fullmatch(r"[\w.-]+(amd64|x86_64)\.(qcow2|img)", entry.file)
    assert bool(entry.signature) == bool(entry.key) == bool(entry.fingerprint)
    if entry.signature:
        assert re.fullmatch("[0-9A-F]{40}", entry.fingerprint)
        assert entry.key.startswith("https://")


def test_who_signs() -> None:
    assert [name for name, entry in CATALOGUE.items() if not entry.signature] == ["debian-12", "debian-13", "rocky-9"]


def test_the_publishers_own_places() -> None:
    where = places(SIGNED, "")
    assert (where.image, where.checksums) == ("https://b.example/y/disk.img", "https://b.example/y/SUMS")
    assert (where.signature, where.key) == ("https://b.example/y/SUMS.gpg", SIGNED.key)


@pytest.mark.parametrize("mirror", ["http://mirror.example/pub", "http://mirror.example/pub/"])
def test_a_mirror_has_everything_of_a_publisher_who_signs(mirror: str) -> None:
    where = places(SIGNED, mirror)
    assert where.image == "http://mirror.example/pub/b.example/y/disk.img"
    assert where.checksums == "http://mirror.example/pub/b.example/y/SUMS"
    assert where.signature == "http://mirror.example/pub/b.example/y/SUMS.gpg"
    assert where.key == f"http://mirror.example/pub/keys/{'F' * 40}.asc"


def test_a_mirror_cannot_forge_what_nobody_signed() -> None:
    where = places(UNSIGNED, "http://mirror.example")
    assert where.image == "http://mirror.example/a.example/x/latest/disk.qcow2"
    assert where.checksums == "https://a.example/x/latest/SHA512SUMS"
    assert (where.signature, where.key) == ("", "")


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if not entry.signature])
def test_the_checksums_of_the_unsigned_are_the_publishers(name: str) -> None:
    where = places(CATALOGUE[name], "http://mirror.example")
    assert urlsplit(where.checksums)[:2] == urlsplit(CATALOGUE[name].directory)[:2]


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (f"{A}  disk.img\n", f"sha256:{A}"),
        (f"{A} *disk.img\n{B} *other.img\n", f"sha256:{A}"),
        (f"{B}  ./disk.img\r\n", f"sha256:{B.lower()}"),
        (f"# disk.img: 5 bytes\nSHA256 (disk.img) = {A}\n", f"sha256:{A}"),
        (f"SHA512 (disk.img) = {LONG}\n", f"sha512:{LONG}"),
        (f"{LONG}  disk.img", f"sha512:{LONG}"),
        (f"{A}  disk.img\n{LONG}  disk.img\n", f"sha512:{LONG}"),
        (f"{A}  disk.img\n{A}  disk.img\n", f"sha256:{A}"),
    ],
)
def test_a_list_of_checksums(listed: str, found: str) -> None:
    assert digest(listed, "disk.img") == found


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("", "names no checksum"),
        (f"{A}  disk.img.xz\n{A}  old-disk.img\n{A}  diskXimg\n", "names no checksum"),
        (f"{A[1:]}  disk.img\n", "names no checksum"),
        (f"MD5 (disk.img) = {'a' * 32}\n", "names no checksum"),
        (f"{A}  disk.img\n{B}  disk.img\n", "names more than one checksum"),
        ("<html>sign in to the network of the hotel</html>", "names no checksum"),
    ],
)
def test_a_list_without_the_one_checksum(listed: str, why: str) -> None:
    with pytest.raises(DownloadError, match=f"the publisher's list {why} for disk.img"):
        digest(listed, "disk.img")
