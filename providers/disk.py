"""The disk of a virtual machine: an overlay on a system image, of which the machine keeps links of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

from machinekit import programs
from machinekit.errors import DriverError
from machinekit.machine import Image

DISK = "disk.qcow2"
BASE = "base"  # what the disk is an overlay of
KERNEL = "vmlinuz"  # an image that has these two boots them directly, any other by its boot loader
INITRD = "initrd.img"
FILES = (DISK, BASE, KERNEL, INITRD)
PRIVATE = 0o077  # the umask of what writes into the machine's directory


def make(directory: Path, image: Image, size: str) -> None:
    """Make the disk, which may grow to `size`; raises DriverError. It is there whole or not at all."""
    base = next((path for path in sorted(image.path.iterdir()) if path.name.startswith("disk.")), None)
    if base is None:
        raise DriverError(f"the image {image.name} has no disk", f"machinekit image build {image.name}")
    kind = "raw" if base.suffix == ".raw" else "qcow2"
    _refuse_smaller(size, base, kind)
    # links of our own: the image may be built again or removed, and the machine's directory may move
    for source, target in ((base, BASE), (image.path / INITRD, INITRD), (image.path / KERNEL, KERNEL)):
        if source.exists():
            _link(source, directory / target)
    draft = directory / f".{DISK}.draft"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", BASE, draft.name, size]
    result = programs.run(command, cwd=directory, umask=PRIVATE, long=True)
    if result.returncode != 0:
        said = result.stderr.decode(errors="replace").strip()
        raise DriverError(f"qemu-img cannot make the disk: {said}", "check the disk's space")
    keep(draft, directory / DISK)


def keep(draft: Path, target: Path) -> None:
    """Rename a finished file into place; it is on the disk when this returns."""
    _sync(draft)
    draft.replace(target)
    _sync(target.parent)


def _refuse_smaller(size: str, base: Path, kind: str) -> None:
    """A disk smaller than its image would lack the end of the file system."""
    command = ["qemu-img", "info", "--output=json", "-f", kind, "--force-share", str(base)]
    result = programs.run(command, long=True)
    if result.returncode != 0:
        said = result.stderr.decode(errors="replace").strip()
        raise DriverError(f"qemu-img cannot read the image: {said}", "pull or build it again")
    least, unit = json.loads(result.stdout)["virtual-size"], {"M": 20, "G": 30}
    if int(size[:-1]) << unit[size[-1]] < least:
        wanted = f"--qemu-disk {-(-least >> 30)}G or more"
        raise DriverError(f"the image needs a disk of {least / (1 << 30):.1f}G, not {size}", wanted)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another file system
        copied = programs.run(["cp", "--sparse=always", source, target], umask=PRIVATE, long=True)
        if copied.returncode != 0:
            said = copied.stderr.decode(errors="replace").strip()
            raise DriverError(f"cannot copy the image: {said}", "check the disk's space") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
