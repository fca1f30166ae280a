"""Check a publisher's OpenPGP signature with gpgv, against one key whose fingerprint we know."""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import tempfile
from pathlib import Path

from machinekit import programs
from machinekit.errors import PreCheckError, UntrustedError

PROGRAM = "gpgv"
PATIENCE = 60.0  # seconds


def check() -> None:
    """Raise PreCheckError when signatures cannot be checked here."""
    if not shutil.which(PROGRAM):
        raise PreCheckError(f"{PROGRAM} is needed to check the publisher's signature", f"apt-get install {PROGRAM}")


def verified(text: bytes, signature: bytes | None, key: bytes, fingerprint: str) -> bytes:
    """The text that the key with this fingerprint has signed; raises UntrustedError for anything else.

    Without a detached signature the text is clear-signed, and only what is inside counts. The keyring
    lives for this one use and may hold other keys: what they sign is refused.
    """
    check()
    with tempfile.TemporaryDirectory(prefix="machinekit-gpg-") as name:
        directory = Path(name)
        ring, content, detached, inside = (directory / each for each in ("key.gpg", "text", "signature", "inside"))
        ring.write_bytes(_unarmored(key))
        content.write_bytes(text)
        command = [PROGRAM, "--homedir", name, "--keyring", str(ring), "--status-fd", "1"]
        if signature is None:
            command += ["--output", str(inside), str(content)]
        else:
            detached.write_bytes(signature)
            command += [str(detached), str(content)]
        result = programs.run(command, patience=PATIENCE)
        status, complaint = (text.decode(errors="replace") for text in (result.stdout, result.stderr))
        # a list may be signed twice, once by a key that is not ours to know; a clear-signed one may not
        good = fingerprint.upper() in _signers(status) and (signature is not None or result.returncode == 0)
        if not good:
            said = complaint.strip().splitlines()
            raise UntrustedError(
                f"the publisher's signature is not right: {said[-1] if said else 'no signature'}",
                f"it must be by the key {fingerprint}; try again later, or without a mirror",
            )
        return inside.read_bytes() if signature is None else text


def _signers(status: str) -> set[str]:
    """The fingerprints of the primary keys of good signatures.

    https://git.gnupg.org/cgi-bin/gitweb.cgi?p=gnupg.git;a=blob;f=doc/DETAILS
    """
    found, good = set(), False
    for line in status.splitlines():
        match line.split()[1:]:
            case ["GOODSIG", *_]:
                good = True
            case ["VALIDSIG", *_, primary] if good:
                found.add(primary.upper())
            case ["BADSIG" | "ERRSIG" | "EXPSIG" | "EXPKEYSIG" | "REVKEYSIG" | "NEWSIG", *_]:
                good = False
    return found


def _unarmored(key: bytes) -> bytes:
    """Keys as gpgv wants them, which reads no armor: https://www.rfc-editor.org/rfc/rfc9580#section-6"""
    blocks = re.findall(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", key, re.DOTALL)
    if not blocks:
        return key
    try:
        return b"".join(base64.b64decode(_body(block)) for block in blocks)
    except binascii.Error:
        raise UntrustedError("the publisher's key cannot be read", "try again later") from None


def _body(block: bytes) -> bytes:
    """The base64 lines of an armored block: after its headers and the empty line, without the checksum."""
    lines = [line.strip() for line in block.strip(b" \r").splitlines()[1:]]
    start = lines.index(b"") + 1 if b"" in lines[:-1] else 0
    return b"".join(line for line in lines[start:] if not line.startswith(b"="))
