"""What the cloud's computer is made of: Debian's packages, and on them a configured cloud with nothing in it.

Each is a directory, made once and kept under a name with the digest of all that it is made from.
"""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import jinja2

from tests.clouds.openstack.namespace import Namespace

HERE = Path(__file__).parent
GUEST, ETC, CONFIGURE = HERE / "guest", HERE / "etc", HERE / "configure.sh"
RELEASE = "bookworm"
PACKAGES = """
keystone glance-api placement-api nova-api nova-conductor nova-scheduler nova-compute-kvm
neutron-server neutron-linuxbridge-agent neutron-dhcp-agent neutron-l3-agent
mariadb-server rabbitmq-server memcached python3-pymysql python3-libvirt
libvirt-daemon-system libvirt-clients dnsmasq-base iptables conntrack genisoimage qemu-utils iproute2 procps
linux-image-cloud-amd64 busybox-static dropbear-bin
""".split()
# Documents are no use here, and what a power cut leaves half made is made again.
DPKG = ("force-unsafe-io", *(f"path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "locale")))
# ebtables of these days refuses the agent's rules against spoofed addresses
HOOKS = ('ln -sf /bin/true "$1/usr/sbin/ebtables"', f'{GUEST}/build.sh "$1"')
PASSWORD = "root/password"  # noqa: S105 (a file's name)


def installed(cache: Path) -> Path:
    """A Debian with the packages, and the small guest in /guest."""
    digest = _digest(repr((PACKAGES, DPKG, HOOKS[0])), GUEST)
    return _kept(cache, "installed", digest, _install)


def configured(cache: Path, base: Path, address: str) -> Path:
    """What configuring the cloud has changed: settings, databases, keys. The admin's password is in PASSWORD."""
    digest = _digest(f"{base.name} {address}", ETC, CONFIGURE)
    return _kept(cache, "configured", digest, lambda draft: _configure(draft, base, address))


def remove(directory: Path) -> None:
    """Delete a directory with everything in it, but nothing that is mounted there."""
    subprocess.run(["rm", "-rf", "--one-file-system", directory], check=True)


def _install(draft: Path) -> Path:
    root = draft / "root"
    words = ["unshare", "--mount", "--propagation", "private", "mmdebstrap", "--quiet", "--variant=apt"]
    words += [f"--include={','.join(PACKAGES)}", *(f"--customize-hook={hook}" for hook in HOOKS)]
    words += [f"--dpkgopt={each}" for each in DPKG]
    # the kernel boots with the guest's own initrd
    subprocess.run(["env", "INITRD=No", *words, "--format=directory", RELEASE, root], check=True)
    return root


def _configure(draft: Path, base: Path, address: str) -> Path:
    password = secrets.token_hex(16)
    with Namespace([base], draft / "upper") as namespace:
        (namespace.root / PASSWORD).write_text(password)
        for path, text in _settings(address, password).items():
            (namespace.root / "etc" / path).write_text(text)
        namespace.run("sh", "-s", password, address, stdin=CONFIGURE.read_text())
    return draft / "upper"


def _settings(address: str, password: str) -> dict[str, str]:
    """Every file under etc, rendered."""
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(ETC), autoescape=False)  # noqa: S701 (no HTML)
    names = [str(path.relative_to(ETC)) for path in ETC.rglob("*") if path.is_file() and path.suffix != ".j2"]
    database, socket = "mysql+pymysql://root@localhost", "?unix_socket=/run/mysqld/mysqld.sock"
    values = {"address": address, "password": password, "database": database, "socket": socket}
    return {name: templates.get_template(name).render(values) for name in names}


def _kept(cache: Path, name: str, digest: str, make: Callable[[Path], Path]) -> Path:
    """The directory that `make` makes in a draft, or has made before."""
    target = cache / f"{name}-{digest}"
    if target.exists():
        return target
    for outdated in cache.glob(f"{name}-*"):
        remove(outdated)
    draft = Path(tempfile.mkdtemp(prefix=f"draft-{name}-", dir=cache))
    draft.chmod(0o755)  # apt fetches as a user of its own
    try:
        make(draft).rename(target)
    finally:
        remove(draft)
    return target


def _digest(text: str, *paths: Path) -> str:
    """Of a text and all files at the paths."""
    total = hashlib.sha256(text.encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                total.update(file.read_bytes())
    return total.hexdigest()[:12]
