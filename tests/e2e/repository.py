"""A package repository like Docker's: Debian's own engine under Docker's names, signed with keys made for the test."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.e2e.lab import Lab, run

GOOD, BETTER = "28.0.1", "28.0.2"
BROKEN, REFUSING = "28.0.0", "27.5.1"  # one does not start, one does not even take its settings
FULL = "5:{}-1~debian.12~bookworm"
CONTAINERD, NEWER = "1.7.25-1", "1.7.27-1"

BUILD = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install --no-install-recommends apt-utils gnupg >/dev/null
mkdir -p /srv/made/right/debian/pool /srv/build
cd /srv/build
apt-get -qq download docker.io containerd runc
arch=$(dpkg --print-architecture)
pool=/srv/made/right/debian/pool

package() { # folder name version depends conflicts
  cat >"$1/DEBIAN/control" <<END
Package: $2
Version: $3
Architecture: $arch
Maintainer: Nobody <nobody@example.org>
Depends: $4
Conflicts: $5
Replaces: $5
Description: for a test
END
  dpkg-deb --root-owner-group -Znone -b "$1" "$pool/$2_$(echo "$3" | tr : _)_$arch.deb" >/dev/null
}

mkdir -p buildx/DEBIAN
package buildx docker-buildx-plugin 0.20.0-1 'libc6' 'nothing-of-that-name'
dpkg-deb -R containerd_*.deb containerd
dpkg-deb -x runc_*.deb containerd
rm -f containerd/DEBIAN/md5sums
package containerd containerd.io @CONTAINERD@ 'libc6, libseccomp2' 'containerd, runc'
needs=$(dpkg-deb -f docker.io_*.deb Depends | sed 's/containerd[^,]*, *//; s/runc[^,]*, *//')
dpkg-deb -R docker.io_*.deb engine
mkdir -p cli/DEBIAN cli/usr/bin
mv engine/usr/bin/docker cli/usr/bin/
rm -f engine/DEBIAN/md5sums
for version in @VERSIONS@; do
  full=5:$version-1~debian.12~bookworm
  package cli docker-ce-cli "$full" libc6 docker.io
  case $version in @BROKEN@ | @REFUSING@)
    mkdir -p engine/usr/share/engine
    mv engine/usr/sbin/dockerd engine/usr/share/engine/
    printf '#!/bin/sh\necho "this engine is broken" >&2\nexit 1\n' >engine/usr/sbin/dockerd
    if [ "$version" = @BROKEN@ ]; then sed -i '1a [ "$1" != --validate ] || exit 0' engine/usr/sbin/dockerd; fi
    chmod 755 engine/usr/sbin/dockerd
    ;;
  esac
  package engine docker-ce "$full" "$needs, docker-ce-cli, containerd.io" docker.io
  if [ -e engine/usr/share/engine/dockerd ]; then mv engine/usr/share/engine/dockerd engine/usr/sbin/; fi
done

for key in ours theirs; do
  gpg --quiet --batch --passphrase '' --quick-generate-key "$key <$key@example.org>" ed25519 sign never
  gpg --armor --export "$key@example.org" >/srv/build/$key.asc
done
gpg --with-colons --list-keys ours@example.org | awk -F: '$1 == "fpr" { print $10; exit }' >/srv/made/fingerprint

sums=
for sum in MD5 SHA1 SHA512; do sums="$sums -o APT::FTPArchive::$sum=false"; done
published() { # folder: its pool, listed and signed
  cd "$1"
  mkdir -p dists/bookworm/stable/binary-$arch
  apt-ftparchive $sums packages pool >dists/bookworm/stable/binary-$arch/Packages
  apt-ftparchive -o APT::FTPArchive::Release::Suite=bookworm -o APT::FTPArchive::Release::Codename=bookworm \
    -o APT::FTPArchive::Release::Components=stable -o APT::FTPArchive::Release::Architectures=$arch \
    release dists/bookworm >/srv/build/Release
  gpg --quiet --local-user ours@example.org --clearsign -o dists/bookworm/InRelease /srv/build/Release
  cp /srv/build/ours.asc gpg
}
mkdir -p /srv/made/later/debian
cp -al $pool /srv/made/later/debian/pool
pool=/srv/made/later/debian/pool
cd /srv/build
package containerd containerd.io @NEWER@ 'libc6, libseccomp2' 'containerd, runc'
published /srv/made/right/debian
touch -d yesterday dists/bookworm/InRelease # or apt would take the later one for the one that it has
published /srv/made/later/debian
cd /srv/made
for other in foreign two forged; do mkdir -p $other/debian; ln -s ../../right/debian/pool $other/debian/pool; done
ln -s ../../right/debian/dists foreign/debian/dists
ln -s ../../right/debian/dists two/debian/dists
cp -r right/debian/dists forged/debian/dists
rm forged/debian/dists/bookworm/InRelease
gpg --quiet --local-user theirs@example.org --clearsign -o forged/debian/dists/bookworm/InRelease /srv/build/Release
cp /srv/build/theirs.asc foreign/debian/gpg
cat /srv/build/ours.asc /srv/build/theirs.asc >two/debian/gpg
cp /srv/build/ours.asc forged/debian/gpg
"""


@dataclass
class Repository:
    """Where it is served; below it `right`, and what must be refused: `foreign`, `two` and `forged`."""

    url: str
    fingerprint: str
    folder: Path

    @contextmanager
    def later(self) -> Iterator[None]:
        """The same `right` on another day, when containerd has a newer version."""
        right, later, aside = (self.folder / name for name in ("right", "later", "aside"))
        right.rename(aside)
        later.rename(right)
        try:
            yield
        finally:
            right.rename(later)
            aside.rename(right)

    def options(self, kind: str = "right") -> list[str]:
        """The engine's options to install from it."""
        return [
            *["--engine", "docker", "--engine-repository", f"{self.url}/{kind}"],
            *["--engine-key-fingerprint", self.fingerprint],
        ]


@contextmanager
def serve(lab: Lab, folder: Path) -> Iterator[Repository]:
    """Build the repository in a host of the laboratory and serve it to the others."""
    with lab.host() as host:
        versions = " ".join((GOOD, BETTER, BROKEN, REFUSING))
        script = BUILD.replace("@VERSIONS@", versions).replace("@BROKEN@", BROKEN).replace("@REFUSING@", REFUSING)
        script = script.replace("@CONTAINERD@", CONTAINERD).replace("@NEWER@", NEWER)
        host.sh(script)
        run("docker", "-H", lab.socket, "cp", f"{host.driver._name}:/srv/made", str(folder / "made"))
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer((lab.gateway, 0), partial(handler, directory=str(folder / "made")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://{lab.gateway}:{server.server_port}"
        yield Repository(url, (folder / "made/fingerprint").read_text().strip(), folder / "made")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
