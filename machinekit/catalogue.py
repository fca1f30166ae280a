"""The official cloud images that can be pulled: where each publisher keeps them, and what vouches for them.

Sources, read in November 2026:
- Debian: https://cloud.debian.org/images/cloud/ (SHA512SUMS; cloud images are not signed, unlike the CDs)
- Ubuntu: https://ubuntu.com/docs/public-images/public-images-how-to/verify-image-checksum/
- Rocky: https://dl.rockylinux.org/pub/rocky/9/images/x86_64/ (a signature is documented for the ISOs alone)
- AlmaLinux: https://wiki.almalinux.org/cloud/Generic-cloud.html
- Fedora: https://fedoraproject.org/security/ (each release has a key of its own, so each is an entry of its own)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

from machinekit.errors import DownloadError

DIGEST = r"((sha256:)?[0-9a-fA-F]{64}|(sha512:)?[0-9a-fA-F]{128})"


@dataclass(frozen=True)
class Entry:
    """One image. Without a signature its checksums are worth what the publisher's HTTPS is worth.

    `signature` is the file with the detached signature, or `checksums` again when those are clear-signed;
    `key` is where the publisher's key is, `fingerprint` that of its primary key.
    """

    directory: str
    file: str
    checksums: str
    signature: str = ""
    key: str = ""
    fingerprint: str = ""


def _debian(codename: str, number: int) -> Entry:
    directory = f"https://cloud.debian.org/images/cloud/{codename}/latest/"
    return Entry(directory, f"debian-{number}-genericcloud-amd64.qcow2", "SHA512SUMS")


def _ubuntu(codename: str, number: str) -> Entry:
    fingerprint = "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"
    return Entry(
        f"https://cloud-images.ubuntu.com/releases/{codename}/release/",
        f"ubuntu-{number}-server-cloudimg-amd64.img",
        "SHA256SUMS",
        "SHA256SUMS.gpg",
        f"https://keyserver.ubuntu.com/pks/lookup?op=get&search=0x{fingerprint}",
        fingerprint,
    )


def _fedora(release: int, compose: str, fingerprint: str) -> Entry:
    checksums = f"Fedora-Cloud-{release}-{compose}-x86_64-CHECKSUM"
    return Entry(
        f"https://download.fedoraproject.org/pub/fedora/linux/releases/{release}/Cloud/x86_64/images/",
        f"Fedora-Cloud-Base-Generic-{release}-{compose}.x86_64.qcow2",
        checksums,
        checksums,
        "https://fedoraproject.org/fedora.gpg",
        fingerprint,
    )


CATALOGUE: Mapping[str, Entry] = {
    "debian-12": _debian("bookworm", 12),
    "debian-13": _debian("trixie", 13),
    "ubuntu-24.04": _ubuntu("noble", "24.04"),
    "ubuntu-22.04": _ubuntu("jammy", "22.04"),
    "rocky-9": Entry(
        "https://dl.rockylinux.org/pub/rocky/9/images/x86_64/",
        "Rocky-9-GenericCloud-Base.latest.x86_64.qcow2",
        "CHECKSUM",
    ),
    "alma-9": Entry(
        "https://repo.almalinux.org/almalinux/9/cloud/x86_64/images/",
        "AlmaLinux-9-GenericCloud-latest.x86_64.qcow2",
        "CHECKSUM",
        "CHECKSUM.asc",
        "https://repo.almalinux.org/almalinux/RPM-GPG-KEY-AlmaLinux-9",
        "BF18AC2876178908D6E71267D36CB86CB86B3716",
    ),
    "fedora": _fedora(44, "1.7", "36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6"),
}


@dataclass(frozen=True)
class Places:
    """Where to get the files of an entry; an empty `signature` means that there is none."""

    image: str
    checksums: str
    signature: str
    key: str


def places(entry: Entry, mirror: str) -> Places:
    """The URLs of an entry. A mirror keeps each publisher's tree below the name of its host, and keys by fingerprint.

    The checksums of a publisher who does not sign come from the publisher, whatever the mirror is.
    """
    base = f"{mirror.rstrip('/')}/" if mirror else ""
    there = base + entry.directory.partition("://")[2] if base else entry.directory
    key = f"{base}keys/{entry.fingerprint}.asc" if base else entry.key
    return Places(
        image=urljoin(there, entry.file),
        checksums=urljoin(there if entry.signature else entry.directory, entry.checksums),
        signature=urljoin(there, entry.signature) if entry.signature else "",
        key=key if entry.signature else "",
    )


def digest(checksums: str, file: str) -> str:
    """The digest of a file, such as sha256:abc, from the lines of coreutils or BSD.

    Of a SHA-256 and a SHA-512 the longer one counts. Raises DownloadError when there is none, or more than one.
    """
    name = re.escape(file)
    hexadecimal = "([0-9a-fA-F]{64}|[0-9a-fA-F]{128})"
    lines = rf"^(?:{hexadecimal} [ *](?:\./)?{name}|SHA(?:256|512) \({name}\) = {hexadecimal})\s*$"
    found = {canonical(before or after) for before, after in re.findall(lines, checksums, re.MULTILINE)}
    longest = {each for each in found if len(each) == max(map(len, found))}
    if len(longest) != 1:
        how = "names no checksum" if not found else "names more than one checksum"
        raise DownloadError(f"the publisher's list {how} for {file}", "it may just be changing: try again later")
    return longest.pop()


def canonical(digest: str) -> str:
    """A digest with its algorithm in front, sha256 or sha512 by its length, in lower case."""
    text = digest.rpartition(":")[2].lower()
    return f"sha{len(text) * 4}:{text}"
