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
# dnf, for Fedora, RHEL and its relatives, and Amazon Linux.
set -eu
dnf='dnf -q -y'
only=

packages_ready() {
  code=0
  timeout "$patience" dnf -q makecache || code=$?
  if [ "$code" = 124 ]; then echo "dnf is still locked or fetching after $patience s"; fi
  if [ "$code" != 0 ]; then exit 1; fi
}

packages_repository() { # url fingerprint: tried before it is put in place
  if ! command -v gpg >/dev/null; then $dnf install gnupg2; fi
  draft_folder
  fetch_key "$1/gpg" "$2" "$draft/docker.asc"
  # shellcheck source=/dev/null
  release=$(. /etc/os-release && echo "${VERSION_ID%%.*}")
  cat >"$draft/docker-ce.repo" <<END
[docker-ce-stable]
name=Docker CE Stable
baseurl=$1/$release/\$basearch/stable
enabled=1
gpgcheck=1
gpgkey=file://$draft/docker.asc
END
  only="--setopt=reposdir=$draft"
  # shellcheck disable=SC2086
  if ! dnf -q $only --setopt=timeout=10 --setopt=retries=1 makecache; then
    echo "the repository $1 cannot be used for release $release (dnf says why above)"
    exit 1
  fi
}

packages_adopt() { # put the repository that was tried in place
  keyring=/etc/pki/rpm-gpg/docker.asc
  install -m 0644 -D "$draft/docker.asc" "$keyring"
  sed "s|^gpgkey=.*|gpgkey=file://$keyring|" "$draft/docker-ce.repo" >/etc/yum.repos.d/docker-ce.repo
}

packages_candidate() { packages_versions "$1" | head -n 1; }
# shellcheck disable=SC2086
packages_versions() { dnf -q $only repoquery --qf '%{version}-%{release}\n' "$1" | sed '/^$/d' | sort -rVu; }

packages_install() {
  # from RHEL 10 on a kernel module that the engine's firewall rules need is in a package that nothing pulls in
  # https://github.com/docker/docker-ce-packaging/issues/1340
  kernel=$(uname -r)
  if [ -d "/lib/modules/$kernel" ] && ! modprobe --dry-run --quiet xt_addrtype; then
    $dnf install "kernel-modules-extra-$kernel"
  fi
  $dnf install "$@"
}

packages_hold() {
  $dnf install 'dnf-command(versionlock)'
  dnf -q versionlock add "$@"
}
packages_release() { dnf -q versionlock delete "$@" >/dev/null 2>&1 || true; }
packages_release docker-ce docker-ce-cli
packages_hold docker-ce docker-ce-cli )
