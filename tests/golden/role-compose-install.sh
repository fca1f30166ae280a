# shellcheck disable=SC2034 # not every script needs each
secrets_TOKEN=secret
project=H4sIAAAAAAACA+3NQQrCMBBG4Vn3FHMCGSUo9DZJCVIwRDpW7e2NuhDcK4Lv2zyYfzFDLcfqebXEcpAPsWYbwqPNe81e2/O+ts0uiJp8weynOLX38p88T+dxyN53qpec7lEdS9znXtPsS6rXTgAAAAAAAAAAAAAAAAAAP+cGScNRnwAoAAA=
# Put a Compose project on the machine and have it run from now on.
set -eu
umask 077
state=/var/lib/machinekit/roles/compose
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
# A service that is a pair of commands, under systemd or OpenRC.
set -eu

write_service() { # file: from stdin
  cat >"$1.draft"
  chmod "$2" "$1.draft"
  mv -f "$1.draft" "$1"
}

put_service() { # name description start stop: the first may run again while it is started
  if [ -d /run/systemd/system ]; then
    # only wants: it would stop with an engine that restarts under running containers
    write_service "/etc/systemd/system/$1.service" 0644 <<END
[Unit]
Description=$2
Wants=docker.service network-online.target
After=docker.service network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$3
ExecReload=$3
ExecStop=$4

[Install]
WantedBy=multi-user.target
END
    systemctl daemon-reload
    systemctl enable --quiet "$1.service"
    systemctl reload-or-restart "$1.service" || {
      last_words "$1"
      exit 1
    }
  else
    write_service "/etc/init.d/$1" 0755 <<END
#!/sbin/openrc-run
description="$2"
depend() { need docker; }
start() { $3; }
stop() { $4; }
END
    rc-update --quiet add "$1" default
    if service_runs "$1"; then $3; else rc-service "$1" start; fi
  fi
}

drop_service() { # name
  if [ -d /run/systemd/system ]; then
    systemctl disable --quiet --now "$1.service" 2>/dev/null || true
    rm -f "/etc/systemd/system/$1.service"
    systemctl daemon-reload
  elif [ -e "/etc/init.d/$1" ]; then
    rc-service "$1" --ifstarted --quiet stop || true
    rc-update --quiet delete "$1" default || true
    rm -f "/etc/init.d/$1"
  fi
}

service_runs() { # name
  if [ -d /run/systemd/system ]; then
    systemctl is-active --quiet "$1.service" && systemctl is-enabled --quiet "$1.service"
  else
    rc-service --quiet "$1" status >/dev/null 2>&1
  fi
}

umask 077
program=$state/docker-compose-2.29.7
if [ ! -e "$program" ]; then
  url=$(printf %s 'http://it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end' | sed "s/@version@/2.29.7/g; s/@arch@/$(uname -m)/g")
  download "$url" 0000000000000000000000000000000000000000000000000000000000000000 "$program"
  chmod 0700 "$program"
fi

# What the containers have written into the folder stays; what an earlier project had and this one has not goes.
mkdir -p "$state/project"
printf %s "$project" | base64 -d >"$state/project.tar"
tar -tzf "$state/project.tar" | sort >"$state/files.new"
if [ -e "$state/files" ]; then
  sort "$state/files" | comm -23 - "$state/files.new" | grep -v '/$' | while IFS= read -r file; do
    rm -f "$state/project/$file"
  done
fi
tar -xzf "$state/project.tar" -C "$state/project" --no-same-owner
mv "$state/files.new" "$state/files"
rm "$state/project.tar"

cat >"$state/compose.draft" <<'END'
#!/bin/sh
set -eu
cd /var/lib/machinekit/roles/compose/project
. /var/lib/machinekit/roles/compose/variables
END
printf 'exec %s -p %s "$@"\n' "$program" compose >>"$state/compose.draft"
chmod 0700 "$state/compose.draft"
mv -f "$state/compose.draft" "$state/compose"

quote() { printf %s "$1" | sed "s/'/'\\\\''/g"; }
: >"$state/variables.draft"
printf "export GREETING='%s'\n" "$(quote 'it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end')" >>"$state/variables.draft"
printf "export TOKEN='%s'\n" "$(quote "$secrets_TOKEN")" >>"$state/variables.draft"
mv -f "$state/variables.draft" "$state/variables"

"$state/compose" config --services >"$state/services"
put_service machinekit-compose 'Compose project compose' \
  "$state/compose up -d --remove-orphans" "$state/compose stop"
