# shellcheck disable=SC2034 # not every script needs each
cache_password=secret
# shellcheck disable=SC2034 # not every script needs each
password=secret
cache_ca=IyEvYmluL3NoCmVjaG8gIml0J3Mgc2V0IHVwIgo=
# Have Debian's docker-registry serve over TLS, with the certificate that the engine has.
set -eu
umask 077
# What every package manager's part builds on: nobody else at work, and a key that is the right one.
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
# What a service of systemd said last.
set -eu
last_words() { # its name
  timeout 10 journalctl --sync 2>/dev/null || true # or the very last may not be there yet
  # of systemd's own words only errors: those about its tries to start it again would push all others out
  journalctl _SYSTEMD_UNIT="$1.service" + UNIT="$1.service" PRIORITY=3 --lines 12 --no-pager --output cat 2>/dev/null ||
    true
}

if ! command -v apt-get >/dev/null || [ ! -d /run/systemd/system ]; then
  echo 'the role registry needs a Debian or an Ubuntu under systemd'
  exit 1
fi
found=$(dpkg-query -W -f '${db:Status-Abbrev}|${Version}\n' docker-registry 2>/dev/null | sed -n 's/^.i *|//p')
if [ "$found" != 2.8.2+ds1-1 ]; then
  wait_for_cloud_init
  packages_ready
  $apt install --no-install-recommends --allow-downgrades --allow-change-held-packages docker-registry=2.8.2+ds1-1
fi
apt-mark -qq hold docker-registry
need_packages apache2-utils
umask 077
folder=/etc/docker/registry

write() { # file mode group: from stdin
  cat >"$1.draft"
  chgrp "$3" "$1.draft"
  chmod "$2" "$1.draft"
  mv -f "$1.draft" "$1"
}

printf '%s\n' "$password" | htpasswd -niB 'it'"'"'s' | write "$folder/htpasswd" 0640 docker-registry
install -d -m 0755 "$folder/cache-ca"
printf %s "$cache_ca" | base64 -d | write "$folder/cache-ca/ca.crt" 0644 root
{
  cat <<'END'
version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/docker-registry
  delete:
    enabled: true
http:
  addr: :443
  tls:
    certificate: /run/docker-registry/server.pem
    key: /run/docker-registry/server-key.pem
  headers:
    X-Content-Type-Options: [nosniff]
auth:
  htpasswd:
    realm: registry
    path: /etc/docker/registry/htpasswd
proxy:
  remoteurl: "https://registry.test"
  username: "it's"
END
  printf "  password: '%s'\n" "$(printf %s "$cache_password" | sed "s/'/''/g")"
} | write "$folder/config.yml" 0640 docker-registry

# the engine's certificate is exchanged before it ends: then the registry takes the new one
install -d -m 0755 /etc/systemd/system/docker-registry.service.d
write /etc/systemd/system/docker-registry.service.d/10-machinekit.conf 0644 root <<'END'
[Service]
RuntimeDirectory=docker-registry
RuntimeDirectoryMode=0700
ExecStartPre=+/usr/bin/install -o docker-registry -m 0400 /etc/docker/server.pem /etc/docker/server-key.pem /run/docker-registry
Environment=SSL_CERT_DIR=/etc/ssl/certs:/etc/docker/registry/cache-ca
Restart=on-failure
AmbientCapabilities=CAP_NET_BIND_SERVICE
END
write /etc/systemd/system/docker-registry-renewed.service 0644 root <<'END'
[Unit]
Description=Has the registry take the renewed certificate

[Service]
Type=oneshot
ExecStart=/usr/bin/systemctl try-restart docker-registry.service
END
write /etc/systemd/system/docker-registry-renewed.path 0644 root <<'END'
[Unit]
Description=Sees that the certificate was renewed

[Path]
PathChanged=/etc/docker/server.pem
PathChanged=/etc/docker/server-key.pem

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --quiet --now docker-registry-renewed.path
systemctl enable --quiet docker-registry.service
systemctl reset-failed docker-registry.service 2>/dev/null || true
systemctl restart docker-registry.service
tries=50
until ss -Hltn "sport = :443" | grep -q .; do
  tries=$((tries - 1))
  if [ "$tries" = 0 ] || [ "$(systemctl is-failed docker-registry.service)" = failed ]; then
    last_words docker-registry
    exit 1
  fi
  sleep 0.2
done
