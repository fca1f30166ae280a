"""Build system images from the distribution's signed packages with mmdebstrap.

Root is not needed where user namespaces are allowed. No boot loader is installed: docs/decisions/0004.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from machinekit import programs
from machinekit.errors import MachinekitError, PreCheckError
from machinekit.provider import PRIVATE_SLOT

log = logging.getLogger(__name__)

WITH_ENGINE = "+engine"
RELEASES = {"debian-11": "bullseye", "debian-12": "bookworm", "debian-13": "trixie"}

ROOTFS = "rootfs.tar"
DISK = "disk.raw"
KERNEL = "vmlinuz"
INITRD = "initrd.img"

_BASE = "systemd systemd-sysv dbus udev openssh-server sudo iproute2 iptables ca-certificates curl netbase"
_DISK = "apparmor cloud-init linux-image-cloud-amd64 systemd-resolved e2fsprogs"
_DISK_SIZE = "4G"  # an overlay grows it to what the machine asks for

# What every machine needs: no host keys of the image's own, a machine-id of its own at first boot.
_CLEAN = 'rm -f "$1"/etc/ssh/ssh_host_*; : >"$1/etc/machine-id"; rm -f "$1/var/lib/dbus/machine-id"'
# A container has no console to log in to and no clock or disk to look after. The programs that look for such things
# each time the units are loaded take a tenth of all the work of a create.
_FOR_ROOTFS = """
chroot "$1" systemctl --quiet mask console-getty.service getty.target systemd-udevd.service systemd-logind.service \\
  systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service systemd-firstboot.service
mkdir -p "$1/etc/systemd/system-generators"
for what in cryptsetup debug fstab getty gpt-auto hibernate-resume integritysetup run system-update veritysetup; do
  ln -s /dev/null "$1/etc/systemd/system-generators/systemd-$what-generator"
done
"""
# Nobody answers DHCP in a private network: its card has its address from the seed.
_FOR_DISK = f"""
cat >"$1/etc/systemd/network/80-dhcp.network" <<END
[Match]
Name=en* eth*
Path=!*:{PRIVATE_SLOT}
[Network]
DHCP=yes
END
mkdir -p "$1/etc/cloud/cloud.cfg.d"
cat >"$1/etc/cloud/cloud.cfg.d/90-machinekit.cfg" <<END
datasource_list: [NoCloud, ConfigDrive, None]
network: {{config: disabled}}
locale: false
grub_dpkg: {{enabled: false}}
ssh: {{emit_keys_to_console: false}}
END
echo '/dev/vda / ext4 defaults,discard 0 1' >"$1/etc/fstab"
chroot "$1" systemctl --quiet enable systemd-networkd.service systemd-resolved.service
chroot "$1" systemctl --quiet disable systemd-networkd-wait-online.service
chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service
ln -sf /run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
"""
# The first start of the engine is the one with our settings and certificates.
_FOR_ENGINE = 'chroot "$1" systemctl --quiet disable docker.service docker.socket'


def offers(name: str) -> bool:
    """Whether images of that name can be built, with the programs for it."""
    return name.removesuffix(WITH_ENGINE) in RELEASES


def check() -> None:
    """Raise PreCheckError when a program is missing here."""
    needed = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
    if os.geteuid() != 0:
        needed["newuidmap"] = "uidmap"  # for a user namespace
    missing = [program for program in needed if not shutil.which(program, path=_path())]
    if missing:
        packages = " ".join(needed[program] for program in missing)
        raise PreCheckError(f"building an image needs {' and '.join(missing)}", f"apt-get install {packages}")


def ready() -> bool:
    """Whether the programs are here."""
    try:
        check()
    except PreCheckError:
        return False
    return True


def build(kind: str, name: str, draft: Path) -> None:
    """Put the files of an image into the directory `draft`."""
    if kind == "disk":
        _build_disk(draft, name)
    else:
        _bootstrap(name, draft / ROOTFS, _BASE, _FOR_ROOTFS)


def remove(path: Path) -> None:
    """Delete a folder, but never what a build that was killed may have mounted in it."""
    if (path / "root").exists():  # perhaps with another user's files in it
        _run([*_as_root(), "rm", "-rf", "--one-file-system", str(path / "root")])
    _run(["rm", "-rf", "--one-file-system", str(path)])


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


def _path() -> str:
    # an ordinary user's PATH often lacks the places of mke2fs and chroot
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
