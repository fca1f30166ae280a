"""Have a system image: the one that is here, the publisher's, one built from packages, or the user's own.

A `disk` is booted by a hypervisor, a `rootfs` by an engine. The name "debian-12+engine" is "debian-12"
with the engine baked in.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from machinekit import bootstrap, catalogue, diskfile, download, signature, web
from machinekit.bootstrap import RELEASES, WITH_ENGINE
from machinekit.catalogue import CATALOGUE, Entry
from machinekit.errors import DownloadError, PreCheckError, UntrustedError, UsageError
from machinekit.imagestore import BUILT, DISK, DOWNLOAD, DRAFT, ImageStore, digest_of, size, stamp_of
from machinekit.machine import Image
from machinekit.settings import web_address

DEFAULT = "debian-12"
MIRROR = "MACHINEKIT_IMAGE_MIRROR"

Say = Callable[[str], None]


def _quiet(text: str) -> None:
    """Tell nobody how far it is."""


class Images(ImageStore):
    """The images under one directory, and those that can be had for it."""

    def __init__(self, directory: Path, published: Mapping[str, Entry] = CATALOGUE) -> None:
        super().__init__(directory)
        self.published = published

    # --- what is here

    def names(self, kind: str) -> list[str]:
        """Every name that means an image of the kind: here, published, or to be built."""
        here = {image.name for image in self.all() if image.kind == kind}
        built = {name + suffix for name in RELEASES for suffix in ("", WITH_ENGINE)}
        return sorted(here | built | (set(self.published) if kind == DISK else set()))

    # --- what can be had

    def default(self, kind: str, *, engine: bool) -> str:
        """The name of the image to boot when none is asked for: with the engine in it where that can be had here."""
        baked = DEFAULT + WITH_ENGINE if engine else DEFAULT
        if kind != DISK or self.find(kind, baked):
            return baked
        return baked if bootstrap.ready() and not self.find(kind, DEFAULT) else DEFAULT

    def check(self, kind: str, wanted: str, checksum: str = "") -> None:
        """Raise UsageError or PreCheckError when `ensure` cannot give the image."""
        if kind == DISK and _is_url(wanted):
            _check_url(wanted, checksum)
        elif kind == DISK and is_own(wanted):
            _check_path(wanted)
        elif self.find(kind, wanted):
            return
        elif kind == DISK and wanted in self.published:
            if self.published[wanted].signature:
                signature.check()
        elif bootstrap.offers(wanted):
            bootstrap.check()
        else:
            raise self._unknown(kind, wanted)

    def ensure(self, kind: str, wanted: str, say: Say, part: Say = _quiet, *, checksum: str = "") -> Image:
        """The image of a name, a path or a URL: the one that is here, else the publisher's, else one built here.

        `say` is told which, and why; `part` how far a download is. A second process waits for the first one's.
        """
        if kind == DISK and is_own(wanted):
            return self.take(wanted, checksum, say, part)
        if image := self.find(kind, wanted):
            return self._used(image, say)
        self.check(kind, wanted)
        if kind == DISK and wanted in self.published:
            try:
                return self.pull(wanted, say, part, again=False)
            except DownloadError as error:
                if not bootstrap.offers(wanted):
                    raise
                say(f"{wanted} cannot be pulled: {error.message}")
                _check_build_instead(error)
        return self.build(kind, wanted, say, again=False)

    def build(self, kind: str, name: str, say: Say, *, again: bool = True) -> Image:
        """Build the image from packages. Needs mmdebstrap; root is not needed where user namespaces are allowed."""
        if not bootstrap.offers(name):
            can = f"can be built: {', '.join(RELEASES)} (and {WITH_ENGINE})"
            raise UsageError(f'no image "{name}" can be built', can)
        bootstrap.check()
        with self.alone(kind, name, "build", say) as target:
            if not again and (image := self.find(kind, name)):
                return self._used(image, say)
            for left in target.parent.glob(f"{DRAFT}{name}-*"):  # of builds that were killed
                bootstrap.remove(left)
            draft = Path(tempfile.mkdtemp(prefix=f"{DRAFT}{name}-", dir=target.parent))
            started = time.monotonic()
            say(f"building the {kind} image {name} from Debian's packages, which takes a minute or two")
            try:
                bootstrap.build(kind, name, draft)
                image = self.settle(draft, kind, name, {"source": BUILT})
            finally:
                bootstrap.remove(draft)
            say(f"built {name} in {time.monotonic() - started:.0f} s")
            return image

    def pull(self, name: str, say: Say, part: Say = _quiet, *, again: bool = True) -> Image:
        """The publisher's image as it is now, verified; nothing is downloaded when that is here already."""
        if name not in self.published:
            raise self._unknown(DISK, name)
        with self.alone(DISK, name, "pull", say):
            here = self.find(DISK, name)
            if here and not again:
                return self._used(here, say)
            where = catalogue.places(self.published[name], _mirror())
            say(f"pulling {name} from {web.host(where.image)}")
            digest = self._offered(name)
            if here and here.digest == digest:
                self.verify(here)
                say(f"{name} is here already and the publisher has nothing newer")
                return here
            return self._download(name, where.image, digest, say, part)

    def would_be(self, kind: str, wanted: str, checksum: str = "") -> tuple[str, str]:
        """Digest and build of what `ensure` gives, without having it; both empty for what is not made yet.

        A publisher is asked for its list of checksums at most.
        """
        if kind == DISK and is_own(wanted):
            self.check(kind, wanted, checksum)
            return catalogue.canonical(checksum) if checksum else digest_of(Path(wanted), "sha256:"), ""
        if image := self.find(kind, wanted):
            return image.digest, "" if image.digest else image.build
        return self._offered(wanted) if kind == DISK and wanted in self.published else "", ""

    def _offered(self, name: str) -> str:
        """The digest of the image that its publisher has now."""
        entry = self.published[name]
        return catalogue.digest(_checksums(entry, catalogue.places(entry, _mirror())), entry.file)

    def take(self, wanted: str, checksum: str, say: Say, part: Say = _quiet) -> Image:
        """An image of the user's own, from a path or a URL, kept under its digest."""
        self.check(DISK, wanted, checksum)
        digest = catalogue.canonical(checksum) if checksum else ""
        if not _is_url(wanted):
            actual = digest_of(Path(wanted), digest or "sha256:")
            if digest and actual != digest:
                raise UntrustedError(f"{wanted} has another checksum: {actual}", f"{digest} was given")
            digest = actual
        name = _digest_name(digest)
        with self.alone(DISK, name, "copy", say):
            if (image := self.find(DISK, name)) and image.digest == digest:
                return self._used(image, say)
            if _is_url(wanted):
                say(f"pulling {wanted.rpartition('/')[2]} from {web.host(wanted)} as {name}")
                return self._download(name, wanted, digest, say, part)
            say(f"copying {wanted} as {name}")
            draft = self.draft(name, digest)
            _copy(Path(wanted), draft / DOWNLOAD)
            if digest_of(draft / DOWNLOAD, digest) != digest:
                raise UntrustedError(f"{wanted} was changed while it was copied", "stop what writes to it")
            return self._verified(draft, name, wanted, digest)

    # --- how it is put there

    def _used(self, image: Image, say: Say) -> Image:
        self.verify(image)
        origin = "built here" if image.source == BUILT else f"from {web.host(image.source) or image.source}"
        say(f"the image is {image.name}, {origin} on {image.created[:10]}")
        return image

    def _unknown(self, kind: str, name: str) -> UsageError:
        known = self.names(kind)
        near = difflib.get_close_matches(name, known, 3)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        hint = f"known: {', '.join(known)}"
        if kind == DISK:
            hint += "; a file is given as ./FILE or by URL"
        return UsageError(f'no image "{name}" is here, or can be had{meant}', hint)

    def _download(self, name: str, url: str, digest: str, say: Say, part: Say) -> Image:
        draft, started = self.draft(name, digest), time.monotonic()
        try:
            download.large(url, draft / DOWNLOAD, digest, part)
        except (UntrustedError, DownloadError):
            with contextlib.suppress(OSError):
                draft.rmdir()  # unless something has come
            raise
        image = self._verified(draft, name, url, digest)
        taken = time.monotonic() - started
        say(f"pulled {name}, {size(image) / 1e6:.0f} MB, in {taken:.0f} s; its checksum is right")
        return image

    def _verified(self, draft: Path, name: str, source: str, digest: str) -> Image:
        """The image, when the file in the draft, whose digest is right, is one that QEMU may be given."""
        try:
            form = diskfile.form(draft / DOWNLOAD)
        except UntrustedError as error:
            shutil.rmtree(draft)
            raise UntrustedError(error.message.replace(str(draft / DOWNLOAD), source), error.hint) from None
        file = (draft / DOWNLOAD).rename(draft / f"disk.{form}")
        about = {"source": source, "digest": digest, "file": file.name, "stamp": stamp_of(file)}
        return self.settle(draft, DISK, name, about)


def _checksums(entry: Entry, where: catalogue.Places) -> str:
    """The publisher's list of checksums, its signature verified where there is one."""
    try:
        listed = web.small(where.checksums)
    except DownloadError as error:
        if not entry.signature and web.host(where.image) != web.host(where.checksums):
            error.hint = "a mirror cannot vouch for what its publisher does not sign; give the image's URL and checksum"
        raise
    if entry.signature:
        detached = web.small(where.signature) if entry.signature != entry.checksums else None
        listed = signature.verified(listed, detached, web.small(where.key), entry.fingerprint)
    return listed.decode(errors="replace")


def _check_build_instead(reason: DownloadError) -> None:
    try:
        bootstrap.check()
    except PreCheckError as missing:
        hint = f"{reason.hint}; or {missing.hint}, to build it here from Debian's packages"
        raise DownloadError(reason.message, hint) from None


def is_own(wanted: str) -> bool:
    """Whether an image of the user's own is meant, by a path or a URL, and not one with a name."""
    return "/" in wanted


def _is_url(wanted: str) -> bool:
    return "://" in wanted


def _check_url(url: str, checksum: str) -> None:
    if not _is_web_address(url):
        raise UsageError(f"{url.rpartition('@')[2]} is no URL to pull from", "http or https, without a password in it")
    if not checksum:
        raise UsageError("an image from a URL needs its checksum", "sha256:..., as its publisher tells it")
    _check_digest(checksum)


def _mirror() -> str:
    mirror = os.environ.get(MIRROR, "")
    if mirror and not _is_web_address(mirror):
        raise UsageError(f"${MIRROR} is no URL to pull from", "http or https, without a password in it")
    return mirror


def _is_web_address(url: str) -> bool:
    try:
        web_address(url)
    except ValueError:
        return False
    return url.isascii()


def _check_digest(checksum: str) -> None:
    if not re.fullmatch(catalogue.DIGEST, checksum):
        raise UsageError(f"{checksum!r} is no checksum", "64 (SHA-256) or 128 (SHA-512) hexadecimal digits")


def _check_path(path: str) -> None:
    try:
        diskfile.check(Path(path))
    except OSError as error:
        raise PreCheckError(f"cannot read {path}: {error.strerror}", "give the path of a disk image") from None
    except UntrustedError as error:
        raise PreCheckError(error.message, error.hint) from None


def _digest_name(digest: str) -> str:
    algorithm, _, text = digest.partition(":")
    return f"{algorithm}-{text[:12]}"


def _copy(source: Path, target: Path) -> None:
    """Copy a file; what is zero takes no room."""
    with source.open("rb") as content, target.open("wb") as copy:
        while piece := content.read(1 << 20):
            copy.write(piece) if any(piece) else copy.seek(len(piece), os.SEEK_CUR)
        copy.truncate()
