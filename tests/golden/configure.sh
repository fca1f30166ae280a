# Put the engine's settings and certificates in place and restart it; put everything back when it does not come up.
set -eu
umask 077
before=/etc/docker/.machinekit-before # its presence says that a change is under way

put() { # path mode base64
  # shellcheck disable=SC2174 # only the last folder can be missing
  mkdir -p -m 0755 "${1%/*}"
  mkdir -p "$before${1%/*}"
  if [ ! -e "$before$1" ] && [ ! -e "$before$1.absent" ]; then
    if [ -e "$1" ]; then
      cp -p "$1" "$before.draft"
      mv "$before.draft" "$before$1"
    else
      : >"$before$1.absent"
    fi
  fi
  printf %s "$3" | base64 -d >"$1.machinekit"
  chmod "$2" "$1.machinekit"
  mv -f "$1.machinekit" "$1"
}

put_back() { # path
  if [ -e "$before$1" ]; then mv -f "$before$1" "$1"; fi
  if [ -e "$before$1.absent" ]; then rm -f "$1"; fi
}

restart() {
  systemctl daemon-reload
  systemctl reset-failed docker.service docker.socket 2>/dev/null || true
  timeout 120 systemctl restart docker.service
}

give_up() { # why
  printf '%s\n' "$1"
  journalctl --unit docker.service --lines 12 --no-pager --output cat 2>/dev/null || true
  put_back /etc/docker/ca.pem
  put_back /etc/docker/server.pem
  put_back /etc/docker/server-key.pem
  put_back /etc/docker/daemon.json
  put_back /etc/systemd/system/docker.service.d/10-machinekit.conf
  rm -rf "$before"
  if [ -n "$had_engine" ]; then restart || true; fi
  printf '%s\n' "$1 (its journal is above; the settings from before are back)"
  exit 1
}

# shellcheck disable=SC2174 # only the last folder can be missing
mkdir -p -m 0755 /etc/docker
if systemctl is-active --quiet docker.service; then had_engine=yes; else had_engine=; fi
original=/etc/docker/daemon.json.before-uid
if [ ! -e "$original" ]; then
  if [ -e /etc/docker/daemon.json ]; then cp -p /etc/docker/daemon.json "$original.draft"; else echo '{}' >"$original.draft"; fi
  mv "$original.draft" "$original"
fi
put /etc/docker/server-key.pem 0600 YSBrZXkK
put /etc/docker/daemon.json 0644 eyJkZWJ1ZyI6IHRydWV9Cg==
put '/etc/a place/it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end' 0644 AP8=

# A running engine is not stopped for settings that it would refuse. Engines before 23.0 have no --validate.
if [ -n "$had_engine" ] && ! said=$(/usr/sbin/dockerd --validate --config-file /etc/docker/daemon.json 2>&1); then
  case $said in
  *'unknown flag'*) ;;
  *) give_up "the engine refuses the settings: $said" ;;
  esac
fi
if ! systemctl is-enabled --quiet docker.service; then systemctl enable --quiet docker.service; fi
restart || give_up 'the engine does not start with the new settings'
rm -rf "$before"
