"""Signatures by real keys, made for these tests: what counts, and everything that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from machinekit.errors import PreCheckError, UntrustedError
from machinekit.signature import verified
from tests.publisher import Signer

TEXT = b"abc *disk.img\n"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    yield from made(Signer(tmp_path_factory.mktemp("gpg")))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    yield from made(Signer(tmp_path_factory.mktemp("gpg"), "other"))


def made(signer: Signer) -> Iterator[Signer]:
    try:
        yield signer
    finally:
        signer.close()


@pytest.mark.parametrize("armored", [True, False])
def test_a_detached_signature(signer: Signer, armored: bool) -> None:
    signature = signer.detached(TEXT, armored=armored)
    assert verified(TEXT, signature, signer.key(armored=armored), signer.fingerprint) == TEXT


def test_a_signature_around_the_text(signer: Signer) -> None:
    assert verified(signer.inline(TEXT), None, signer.key(), signer.fingerprint.lower()) == TEXT


def test_a_subkey_signs_for_its_primary_key(tmp_path: Path) -> None:
    for signer in made(Signer(tmp_path, "sub", subkey=True)):
        assert verified(TEXT, signer.detached(TEXT), signer.key(), signer.fingerprint) == TEXT


def test_the_right_key_among_others(signer: Signer, other: Signer) -> None:
    for keys in (other.key() + signer.key(), other.key(armored=False) + signer.key(armored=False)):
        assert verified(TEXT, signer.detached(TEXT), keys, signer.fingerprint) == TEXT


def test_a_list_that_is_signed_twice(signer: Signer, other: Signer) -> None:
    both = other.detached(TEXT) + signer.detached(TEXT)
    assert verified(TEXT, both, signer.key(), signer.fingerprint) == TEXT


def test_another_text(signer: Signer) -> None:
    with pytest.raises(UntrustedError, match="BAD signature"):
        verified(TEXT + b"x", signer.detached(TEXT), signer.key(), signer.fingerprint)
    inline = signer.inline(TEXT)
    with pytest.raises(UntrustedError, match="BAD signature"):
        verified(inline.replace(b"abc", b"abd"), None, signer.key(), signer.fingerprint)


def test_another_key_that_the_server_gave_is_refused(signer: Signer, other: Signer) -> None:
    """The server may send any key; the fingerprint is what we know."""
    for keys in (other.key(), other.key() + signer.key()):
        with pytest.raises(UntrustedError, match="signature is not right") as caught:
            verified(TEXT, other.detached(TEXT), keys, signer.fingerprint)
        assert signer.fingerprint in caught.value.hint
        with pytest.raises(UntrustedError):
            verified(other.inline(TEXT), None, keys, signer.fingerprint)


def test_what_stands_around_the_signed_text_does_not_count(signer: Signer) -> None:
    forged = b"abd *disk.img\n"
    inline = signer.inline(TEXT)
    for whole in (forged + inline, inline + forged):
        assert verified(whole, None, signer.key(), signer.fingerprint) == TEXT


def test_a_second_signed_text_is_refused(signer: Signer, other: Signer) -> None:
    forged = other.inline(b"abd *disk.img\n")
    for whole in (forged + signer.inline(TEXT), signer.inline(TEXT) + forged):
        with pytest.raises(UntrustedError):
            verified(whole, None, signer.key(), signer.fingerprint)


@pytest.mark.parametrize("signature", [b"", b"<html>", b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END"])
def test_what_is_no_signature(signer: Signer, signature: bytes) -> None:
    with pytest.raises(UntrustedError, match="signature is not right"):
        verified(TEXT, signature, signer.key(), signer.fingerprint)
    with pytest.raises(UntrustedError, match="signature is not right"):
        verified(TEXT, None, signer.key(), signer.fingerprint)


ARMOR = b"-----%s PGP PUBLIC KEY BLOCK-----"


@pytest.mark.parametrize("key", [b"", b"<html>", ARMOR % b"BEGIN" + b"\n\nA\n" + ARMOR % b"END"])
def test_what_is_no_key(signer: Signer, key: bytes) -> None:
    with pytest.raises(UntrustedError):
        verified(TEXT, signer.detached(TEXT), key, signer.fingerprint)


def test_without_gpgv_nothing_is_believed(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    signature, key = signer.detached(TEXT), signer.key()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PreCheckError, match="gpgv is needed") as caught:
        verified(TEXT, signature, key, signer.fingerprint)
    assert caught.value.hint == "apt-get install gpgv"
