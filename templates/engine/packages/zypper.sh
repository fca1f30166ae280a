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
