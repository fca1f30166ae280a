"""Look into a disk image from elsewhere before QEMU does: what format it is, and whether it leads to other files."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from machinekit import programs
from machinekit.errors import PreCheckError, UntrustedError

QCOW2, RAW = "qcow2", "raw"
MAGIC = b"QFI\xfb"
EXTERNAL_DATA = 1 << 2  # a bit of the incompatible features
HEADER = struct.Struct(">4sIQIIQI")  # magic, version, backing file's offset and length, cluster bits, size, encryption
FEATURES_AT = 72
COMPRESSED = {b"\xfd7zX": "xz", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
KNOWN = "a disk is a qcow2 or raw image"


def form(path: Path) -> str:
    """The format, qcow2 or raw; raises UntrustedError for a qcow2 that is not whole in itself, or anything else.

    A guest's disk would otherwise be whatever file of this computer a backing file or an external data
    file names. https://www.qemu.org/docs/master/interop/qcow2.html
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(MAGIC):
        return _raw(path, head)
    if len(head) < FEATURES_AT + 8:
        raise UntrustedError(f"{path} is not a whole qcow2 image", KNOWN)
    _, version, backing, _, _, _, encryption = HEADER.unpack_from(head)
    features = struct.unpack_from(">Q", head, FEATURES_AT)[0] if version > 2 else 0  # noqa: PLR2004
    for wrong, what in (
        (backing, "needs another file below it (a backing file)"),
        (features & EXTERNAL_DATA, "keeps its data in another file"),
        (encryption, "is encrypted"),
    ):
        if wrong:
            raise UntrustedError(f"{path} {what}", "make it whole: qemu-img convert -O qcow2 OLD NEW")
    return QCOW2


def check(path: Path) -> None:
    """Have qemu-img look for damage; raises PreCheckError without qemu-img, UntrustedError for a damaged image."""
    if not shutil.which("qemu-img"):
        raise PreCheckError("qemu-img is needed to look at the image", "apt-get install qemu-utils")
    if form(path) == QCOW2:
        command = ["qemu-img", "check", "-q", "-f", QCOW2, str(path)]
        result = programs.run(command, long=True)
        if result.returncode not in (0, 3):  # 3: clusters that nothing uses, which harm nobody
            raise UntrustedError(
                f"{path} is damaged: {(result.stderr or result.stdout).decode(errors='replace').strip()}", "get it anew"
            )


def _raw(path: Path, head: bytes) -> str:
    """A raw disk has a boot sector or an ext file system; what has neither is something else by mistake."""
    if head[510:512] == b"\x55\xaa" or head[1080:1082] == b"\x53\xef":
        return RAW
    packed = next((program for magic, program in COMPRESSED.items() if head.startswith(magic)), "")
    if packed:
        raise UntrustedError(f"{path} is compressed", f"unpack it first, with {packed} -d")
    raise UntrustedError(f"{path} is no disk image that we know", KNOWN)
