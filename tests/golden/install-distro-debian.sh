set -e
mkdir -p /var/lib/machinekit
: >/var/lib/machinekit/installing
( # What every package manager's part builds on: nobody else at work, and a key that is the right one.
set -eu
umask 022 # of the packages' own scripts too
patience=300 # seconds: how long others may be at work

waiting() { printf 'machinekit:waiting=%s\n' "$1"; }

wait_for_cloud_init() {
  if [ ! -e /run/cloud-init/enabled ] || [ -e /run/cloud-init/result.json ]; then return; fi
  waiting 'for cloud-init to end'
  code=0
  timeout "$patience" cloud-init status --wait >/dev/null 2>&1 || code=$?
  if [ "$code" = 124 ]; then
    echo "cloud-init is still at work after $patience s; see cloud-init status --long"
    exit 1
  fi
}

fetch_key() { # url fingerprint file; needs draft_folder
  if ! curl -fsSL --connect-timeout 5 --max-time 30 --retry 1 -o "$3" "$1"; then
    echo "cannot fetch the repository's key $1"
    exit 1
  fi
  # the package manager would trust every key in the file, so there must be no other
  found=$(gpg --batch --homedir "$draft" --with-colons --show-keys "$3" 2>/dev/null | awk -F: '
    $1 == "pub" { primary = 1 }
    $1 == "fpr" && primary { printf "%s%s", separator, $10; separator = " and "; primary = 0 }')
  if [ "$found" != "$2" ]; then
    echo "the key at $1 has the fingerprint ${found:-of no key at all}, expected $2"
    exit 1
  fi
}

draft_folder() { # sets $draft, a folder that is gone when the script ends
  draft=$(mktemp -d)
  trap 'rm -rf "$draft"' EXIT
  chmod 0755 "$draft" # apt reads it as a user of its own
}
# apt, for Debian, Ubuntu and their relatives.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt="apt-get -q -y -o DPkg::Lock::Timeout=$patience -o Acquire::Retries=3"
only=

packages_update() { # more options for apt
  said=$(mktemp)
  waited=0
  while ! $apt "$@" update >"$said" 2>&1; do # its lock is the one that apt does not wait for by itself
    holder=$(sed -n 's/.*Could not get lock //p' "$said" | head -n 1)
    if [ -z "$holder" ] || [ "$waited" -ge "$patience" ]; then
      cat "$said"
      rm -f "$said"
      if [ -n "$holder" ]; then echo "apt is still locked after $patience s: $holder"; fi
      return 1
    fi
    if [ "$waited" = 0 ]; then waiting "for the lock $holder"; fi
    waited=$((waited + 1))
    sleep 1
  done
  rm -f "$said"
}

packages_ready() { # lists of today, and nothing left half done
  packages_update || exit 1
  if [ -n "$(dpkg --audit)" ]; then # of an installation that was cut off
    dpkg --configure -a || $apt --fix-broken install --no-install-recommends
  fi
}

packages_repository() { # url fingerprint: tried before it is put in place
  if ! command -v curl >/dev/null || ! command -v gpg >/dev/null || [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then
    packages_ready
    $apt install --no-install-recommends ca-certificates curl gpg
  fi
  draft_folder
  fetch_key "$1/gpg" "$2" "$draft/docker.asc"
  # shellcheck source=/dev/null
  suite=$(. /etc/os-release && echo "${UBUNTU_CODENAME:-${VERSION_CODENAME:-}}")
  cat >"$draft/docker.sources" <<END
Types: deb
URIs: $1
Suites: $suite
Components: stable
Signed-By: $draft/docker.asc
END
  only="-o Dir::Etc::sourcelist=$draft/docker.sources -o Dir::Etc::sourceparts=-"
  # shellcheck disable=SC2086
  if ! packages_update $only -o APT::Get::List-Cleanup=0 -o Acquire::http::Timeout=10; then
    echo "the repository $1 cannot be used for $suite (apt says why above)"
    exit 1
  fi
}

packages_adopt() { # put the repository that was tried in place
  keyring=/etc/apt/keyrings/docker.asc
  # shellcheck disable=SC2174 # only the last folder can be missing
  mkdir -p -m 0755 /etc/apt/keyrings
  install -m 0644 "$draft/docker.asc" "$keyring"
  sed "s|^Signed-By: .*|Signed-By: $keyring|" "$draft/docker.sources" >/etc/apt/sources.list.d/docker.sources
}

# shellcheck disable=SC2086
packages_candidate() { apt-cache $only policy "$1" | sed -n 's/^ *Candidate: //p' | grep -v none || true; }
# shellcheck disable=SC2086
packages_versions() { apt-cache $only madison "$1" | awk -F ' *[|] *' '!seen[$2]++ { print $2 }'; }

packages_install() {
  packages='iptables ca-certificates'
  # from Debian 13 on the distribution's client is a package of its own
  case "$*" in *docker-cli=*) ;; docker.io*) if apt-cache show docker-cli >/dev/null 2>&1; then packages="$packages docker-cli"; fi ;; esac
  # where the kernel has AppArmor, the engine cannot start a container without its parser
  if grep -q Y /sys/module/apparmor/parameters/enabled 2>/dev/null; then packages="$packages apparmor"; fi
  # shellcheck disable=SC2086
  $apt install --no-install-recommends --allow-downgrades --allow-change-held-packages "$@" $packages
}

packages_hold() { apt-mark -qq hold "$@"; }
packages_release() { apt-mark -qq unhold "$@" >/dev/null 2>&1 || true; }
# Install the engine's packages.
set -eu
wait_for_cloud_init
packages_ready
packages_release docker.io
packages_install docker.io
)
rm /var/lib/machinekit/installing
