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
# zypper, for openSUSE and SLES.
set -eu
export ZYPP_LOCK_TIMEOUT="$patience"
zypper='zypper --non-interactive --quiet'

packages_ready() { $zypper refresh; }

packages_candidate() { packages_versions "$1" | head -n 1; }
packages_versions() {
  $zypper search --details --match-exact --type package "$1" |
    awk -F ' *[|] *' -v name="$1" '$2 == name { print $4 }' | sort -rVu
}

packages_install() { $zypper install --no-recommends --oldpackage "$@"; }

packages_hold() { $zypper addlock "$@"; }
packages_release() { $zypper removelock "$@" >/dev/null 2>&1 || true; }
# Install the engine's packages.
set -eu
wait_for_cloud_init
packages_ready
packages_release docker
packages_install docker=28.3.3_ce-150000.230.1
packages_hold docker
)
rm /var/lib/machinekit/installing
