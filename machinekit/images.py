"""System images on this computer: built from the distribution's signed packages, kept by kind and name.

A `disk` is booted by a hypervisor, a `rootfs` by an engine. The name "debian-12+engine" is "debian-12"
with the engine baked in. An image is built under a dot-name and renamed, so it is there whole or not.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from machinekit import locks, programs
from machinekit.errors import LockedError, MachinekitError, PreCheckError, StoreError, UsageError
from machinekit.machine import Image

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
DEFAULT = "debian-12"
WITH_ENGINE = "+engine"
RELEASES = {"debian-11": "bullseye", "debian-12": "bookworm", "debian-13": "trixie"}
KINDS = ("disk", "rootfs")

ROOTFS = "rootfs.tar"
DISK = "disk.raw"
KERNEL = "vmlinuz"
INITRD = "initrd.img"
ABOUT = "image.json"
DRAFT = ".draft-"  # and the image's name, and some characters
LOCK = ".lock-"  # and the image's name

ENDING = 30.0  # seconds for the programs of a build that was killed to end

_BASE = "systemd systemd-sysv dbus udev openssh-server sudo iproute2 iptables ca-certificates curl netbase"
_DISK = "apparmor cloud-init linux-image-cloud-amd64 systemd-resolved e2fsprogs"
_DISK_SIZE = "4G"  # an overlay grows it to what the machine asks for

# What every machine needs: no host keys of the image's own, a machine-id of its own at first boot.
_CLEAN = 'rm -f "$1"/etc/ssh/ssh_host_*; : >"$1/etc/machine-id"; rm -f "$1/var/lib/dbus/machine-id"'
# A container has no console to log in to and no clock or disk to look after.
_FOR_ROOTFS = (
    'chroot "$1" systemctl --quiet mask console-getty.service getty.target systemd-udevd.service '
    "systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service systemd-firstboot.service"
)
_FOR_DISK = """
printf '[Match]\\nName=en* eth*\\n[Network]\\nDHCP=yes\\n' >"$1/etc/systemd/network/80-dhcp.network"
mkdir -p "$1/etc/cloud/cloud.cfg.d"
cat >"$1/etc/cloud/cloud.cfg.d/90-machinekit.cfg" <<END
datasource_list: [NoCloud, ConfigDrive, None]
network: {config: disabled}
locale: false
grub_dpkg: {enabled: false}
ssh: {emit_keys_to_console: false}
END
echo '/dev/vda / ext4 defaults,discard 0 1' >"$1/etc/fstab"
chroot "$1" systemctl --quiet enable systemd-networkd.service systemd-resolved.service
chroot "$1" systemctl --quiet disable systemd-networkd-wait-online.service
chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service
ln -sf /run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
"""
# The first start of the engine is the one with our settings and certificates.
_FOR_ENGINE = 'chroot "$1" systemctl --quiet disable docker.service docker.socket'


class Images:
    """The images under one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Image]:
        """Every image, by kind and name."""
        found = [self.find(path.parent.parent.name, path.parent.name) for path in self.directory.glob(f"*/*/{ABOUT}")]
        return sorted((image for image in found if image), key=lambda image: (image.kind, image.name))

    def find(self, kind: str, name: str) -> Image | None:
        """The image, or None."""
        path = self.directory / kind / name
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not a name for an image", f"such as {DEFAULT}{WITH_ENGINE}")
        try:
            about = json.loads((path / ABOUT).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            raise MachinekitError(f"{path / ABOUT} cannot be read", f"machinekit image build {name}") from None
        return Image(name, kind, path, about["build"], about["created"])

    def ensure(self, kind: str, name: str, say: Callable[[str], None]) -> Image:
        """The image, built first when it is missing; a second process waits for the first one's."""
        return self.find(kind, name) or self.build(kind, name, say, again=False)

    def build(self, kind: str, name: str, say: Callable[[str], None], *, again: bool = True) -> Image:
        """Build the image from packages. Needs mmdebstrap; root is not needed where user namespaces are allowed."""
        self.check(name)
        target = self.directory / kind / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(target, say):
            if not again and (image := self.find(kind, name)):
                return image
            for left in target.parent.glob(f"{DRAFT}{name}-*"):  # of builds that were killed
                _remove(left)
            draft = Path(tempfile.mkdtemp(prefix=f"{DRAFT}{name}-", dir=target.parent))
            started = time.monotonic()
            say(f"building the {kind} image {name} from Debian's packages, which takes a minute or two")
            try:
                _build_disk(draft, name) if kind == "disk" else _bootstrap(name, draft / ROOTFS, _BASE, _FOR_ROOTFS)
                about = {"build": uuid.uuid4().hex[:12], "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
                (draft / ABOUT).write_text(json.dumps(about))
                for file in draft.iterdir():
                    _sync(file)
                _remove(target)
                draft.rename(target)
                _sync(target.parent)
            finally:
                _remove(draft)
            say(f"built {name} in {time.monotonic() - started:.0f} s")
        image = self.find(kind, name)
        assert image is not None  # noqa: S101 (just renamed into place)
        return image

    def leftovers(self) -> list[Path]:
        """The drafts of builds that were killed: nobody holds the lock of their image."""
        return [path for path in sorted(self.directory.glob(f"*/{DRAFT}*")) if not _is_being_built(path)]

    def sweep(self, left: Path) -> None:
        """Delete a draft, unless somebody builds that image again meanwhile."""
        target = _built_from(left)
        with suppress(LockedError), _lock(target, patience=ENDING if _is_abandoned(target) else 0):
            _remove(left)

    def remove(self, image: Image) -> None:
        """Delete an image's files."""
        _remove(image.path)

    def check(self, name: str) -> None:
        """Raise UsageError or PreCheckError when an image of that name cannot be built."""
        release = name.removesuffix(WITH_ENGINE)
        if release not in RELEASES:
            raise UsageError(
                f'no image "{name}" is here or can be built', f"can be built: {', '.join(RELEASES)} (and +engine)"
            )
        needed = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
        if os.geteuid() != 0:
            needed["newuidmap"] = "uidmap"  # for a user namespace
        missing = [program for program in needed if not shutil.which(program, path=_path())]
        if missing:
            packages = " ".join(needed[program] for program in missing)
            raise PreCheckError(f"building an image needs {' and '.join(missing)}", f"apt-get install {packages}")


def size(image: Image) -> int:
    """The bytes an image takes on the disk."""
    return sum(file.stat().st_blocks * 512 for file in image.path.iterdir())


def _is_being_built(draft: Path) -> bool:
    try:
        with _lock(_built_from(draft), patience=0):
            return False
    except LockedError:
        return not _is_abandoned(_built_from(draft))
    except StoreError:
        return False  # a disk that cannot be written: nobody builds on it


def _built_from(draft: Path) -> Path:
    """What a draft would become."""
    return draft.with_name(draft.name.removeprefix(DRAFT).rpartition("-")[0])


def _is_abandoned(target: Path) -> bool:
    return locks.is_abandoned(target.with_name(f"{LOCK}{target.name}"))


def _lock(
    target: Path, say: Callable[[str], None] = lambda text: None, patience: float = math.inf
) -> AbstractContextManager[None]:
    return locks.held(
        target.with_name(f"{LOCK}{target.name}"),
        f"image {target.name}",
        "build",
        patience=patience,
        waiting=lambda holder: say(f"waiting: {holder}"),
    )


def _build_disk(draft: Path, name: str) -> None:
    root = draft / "root"
    try:
        _bootstrap(name, root, f"{_BASE} {_DISK}", _FOR_DISK)
        for link, file in (("vmlinuz", KERNEL), ("initrd.img", INITRD)):
            found = max((root / "boot").glob(f"{link}-*"))
            _run([*_as_root(), "sh", "-c", 'cat "$0" >"$1"', str(found), str(draft / file)])
        mke2fs = ["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(draft / DISK), _DISK_SIZE]
        _run([*_as_root(), *mke2fs])
    finally:
        _run([*_as_root(), "rm", "-rf", "--one-file-system", str(root)])


def _bootstrap(name: str, target: Path, packages: str, customize: str) -> None:
    include = packages.split()
    hooks = [_CLEAN, customize]
    if name.endswith(WITH_ENGINE):
        include += ["docker.io", *(["docker-cli"] if name.startswith("debian-13") else [])]
        hooks.append(_FOR_ENGINE)
    if name.startswith("debian-11"):
        include = [package for package in include if package != "systemd-resolved"]  # part of systemd there
    # what it leaves when it is killed is in our draft; an ordinary user's namespace could not reach it there
    temporary = target.parent / "tmp"
    temporary.mkdir()
    _run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(include)}",
            *(f"--customize-hook={hook}" for hook in hooks),
            RELEASES[name.removesuffix(WITH_ENGINE)],
            str(target),
        ],
        under=_with_own_mounts(),
        **({"TMPDIR": str(temporary)} if os.geteuid() == 0 else {}),
    )
    temporary.rmdir()


def _with_own_mounts() -> list[str]:
    """As root mmdebstrap mounts /proc and /sys where all would see them, and stay when it is killed."""
    words = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0 or not shutil.which(words[0]) or programs.run([*words, "true"]).returncode != 0:
        return []  # an ordinary user's have a namespace anyway
    return words


def _as_root() -> list[str]:
    # what mmdebstrap unpacked as an ordinary user belongs to the ids of its user namespace
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def _run(command: list[str], under: Sequence[str] = (), **variables: str) -> None:
    log.debug("run %s", command)
    environment = {**os.environ, "PATH": _path(), **variables}
    result = programs.run([*under, *command], environment=environment, long=True)
    if result.returncode != 0:
        tail = "\n".join((result.stdout + result.stderr).decode(errors="replace").splitlines()[-15:])
        raise MachinekitError(f"{command[0]} failed with exit code {result.returncode}:\n{tail}", "see the lines above")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _path() -> str:
    # an ordinary user's PATH often lacks the places of mke2fs and chroot
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _remove(path: Path) -> None:
    """Delete a folder, but never what a build that was killed may have mounted in it."""
    if (path / "root").exists():  # perhaps with another user's files in it
        _run([*_as_root(), "rm", "-rf", "--one-file-system", str(path / "root")])
    _run(["rm", "-rf", "--one-file-system", str(path)])
