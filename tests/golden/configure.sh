# Put the engine's settings and certificates in place and restart it; put everything back when it does not come up.
set -eu
umask 077
before=/etc/docker/.machinekit-before # its presence says that a change is under way
settings=/etc/docker/daemon.json

write() { # path mode base64
  printf %s "$3" | base64 -d >"$1.machinekit"
  chmod "$2" "$1.machinekit"
  mv -f "$1.machinekit" "$1"
}

put() { # path mode base64
  # shellcheck disable=SC2174 # only the last folder can be missing
  mkdir -p -m 0755 "${1%/*}"
  back_up "$1"
  write "$@"
}

back_up() { # path
  mkdir -p "$before${1%/*}"
  if [ ! -e "$before$1" ] && [ ! -e "$before$1.absent" ]; then
    if [ -e "$1" ]; then
      cp -p "$1" "$before.draft"
      mv "$before.draft" "$before$1"
    else
      : >"$before$1.absent"
    fi
  fi
}

put_back() { # path
  if [ -e "$before$1" ]; then mv -f "$before$1" "$1"; fi
  if [ -e "$before$1.absent" ]; then rm -f "$1"; fi
}

restart() {
  restarted=yes
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
  put_back /etc/systemd/system/docker.service.d/10-machinekit.conf
  if [ -n "$kept" ] && [ -n "$restarted" ]; then
    write "$settings" 0644 "$kept_before"
    restart || true
  fi
  if [ -n "$kept" ]; then live_restore false "$released_before" || true; fi
  put_back "$settings"
  if [ -z "$kept" ] && [ -n "$had_engine" ] && [ -n "$restarted" ]; then
    restart || true
  fi
  rm -rf "$before"
  printf '%s\n' "$1 (its journal is above; the settings from before are back)"
  exit 1
}

# Containers outlive a restart of an engine that has live-restore on when it stops and when it starts again. It is
# switched on for that time only: a swarm's engine refuses it. https://docs.docker.com/engine/daemon/live-restore/
kept_before=eyJsaXZlLXJlc3RvcmUiOiB0cnVlfQ== released_before=eyJsaXZlLXJlc3RvcmUiOiBmYWxzZX0=
kept_after=eyJkZWJ1ZyI6IHRydWUsICJsaXZlLXJlc3RvcmUiOiB0cnVlfQ== released_after=eyJkZWJ1ZyI6IHRydWUsICJsaXZlLXJlc3RvcmUiOiBmYWxzZX0=
fixed=''
ask_engine() {
  timeout 30 docker --host unix:///var/run/docker.sock info \
    --format '{{.Swarm.LocalNodeState}} {{.LiveRestoreEnabled}} {{.ContainersRunning}}' 2>/dev/null || echo '? ? 0'
}

live_restore() { # true|false settings (a reload leaves it as it is where the settings do not name it)
  write "$settings" 0644 "$2"
  systemctl reload docker.service || return 1
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    case $(ask_engine) in *" $1 "*) return 0 ;; esac
    sleep 0.3
  done
  return 1
}

keep_containers() {
  kept=
  state=$(ask_engine)
  running=${state##* }
  case $state in
  *' 0') return ;;
  'inactive '*) ;;
  *)
    stopped='the engine of a swarm cannot keep them'
    return
    ;;
  esac
  if [ -n "$fixed" ]; then
    stopped="$fixed cannot change under them"
    return
  fi
  back_up "$settings"
  if live_restore true "$kept_before"; then kept=yes; else stopped='the engine did not take live-restore'; fi
}

# shellcheck disable=SC2174 # only the last folder can be missing
mkdir -p -m 0755 /etc/docker
restarted='' running=0 stopped='' kept=''
if systemctl is-active --quiet docker.service; then had_engine=yes; else had_engine=; fi
original=/etc/docker/daemon.json.before-uid
if [ ! -e "$original" ]; then
  if [ -e "$settings" ]; then cp -p "$settings" "$original.draft"; else echo '{}' >"$original.draft"; fi
  mv "$original.draft" "$original"
fi
if [ -n "$had_engine" ]; then keep_containers; fi
put /etc/docker/server-key.pem 0600 YSBrZXkK
put /etc/docker/daemon.json 0644 eyJkZWJ1ZyI6IHRydWV9Cg==
put '/etc/a place/it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end' 0644 AP8=

if [ -n "$kept" ]; then write "$settings" 0644 "$kept_after"; fi
# A running engine is not stopped for settings that it would refuse. Engines before 23.0 have no --validate.
if [ -n "$had_engine" ] && ! said=$(/usr/sbin/dockerd --validate --config-file "$settings" 2>&1); then
  case $said in
  *'unknown flag'*) ;;
  *) give_up "the engine refuses the settings: $said" ;;
  esac
fi
if ! systemctl is-enabled --quiet docker.service; then systemctl enable --quiet docker.service; fi
restart || give_up 'the engine does not start with the new settings'
if [ -n "$kept" ]; then
  live_restore false "$released_after"
  write "$settings" 0644 eyJkZWJ1ZyI6IHRydWV9Cg==
fi
rm -rf "$before"
if [ "$running" -gt 0 ]; then echo "machinekit:containers=$running${stopped:+ $stopped}"; fi
