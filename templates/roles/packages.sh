# What roles need of the system: its packages, and files of publishers that are what they should be.
set -eu

need_packages() { # names: what is missing is installed
  if command -v apt-get >/dev/null; then
    if dpkg -s "$@" >/dev/null 2>&1; then return; fi
    wait_for_cloud_init
    packages_ready
    $apt install --no-install-recommends "$@"
  elif command -v dnf >/dev/null; then
    dnf -q -y install "$@"
  elif command -v apk >/dev/null; then
    apk --quiet --wait "$patience" add "$@"
  elif command -v zypper >/dev/null; then
    zypper --non-interactive --quiet install "$@"
  else
    echo "there is no package manager that we know to install $* with"
    exit 1
  fi
}

download() { # url sha256 file: kept only when it is what it should be
  if ! command -v curl >/dev/null; then need_packages curl ca-certificates; fi
  if ! curl -fsSL --connect-timeout 10 --max-time 900 --retry 2 -o "$3.download" "$1"; then
    rm -f "$3.download"
    echo "cannot download $1"
    exit 1
  fi
  found=$(sha256sum <"$3.download" | cut -c 1-64)
  if [ "$found" != "$2" ]; then
    rm -f "$3.download"
    echo "$1 has the SHA-256 $found, expected $2"
    exit 1
  fi
  mv -f "$3.download" "$3"
}
