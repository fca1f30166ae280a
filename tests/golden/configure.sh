# What a service of systemd said last.
set -eu
last_words() { # its name
  timeout 10 journalctl --sync 2>/dev/null || true # or the very last may not be there yet
  # of systemd's own words only errors: those about its tries to start it again would push all others out
  journalctl _SYSTEMD_UNIT="$1.service" + UNIT="$1.service" PRIORITY=3 --lines 12 --no-pager --output cat 2>/dev/null ||
    true
}
# The init system: how the engine's service is handled under each that we know.
set -eu
if [ -d /run/systemd/system ]; then
  init=systemd
elif [ -d /run/openrc ]; then
  init=openrc
else
  init=$(cat /proc/1/comm)
fi

case $init in
systemd)
  engine_active() { systemctl is-active --quiet docker.service 2>/dev/null; }
  engine_enable() { # to be followed by a restart, which reloads the units: each time takes a small machine seconds
    if ! systemctl is-enabled --quiet docker.service; then
      SYSTEMCTL_SKIP_SYSV=1 systemctl enable --quiet --no-reload docker.service
    fi
  }
  engine_forgive() { systemctl reset-failed docker.service docker.socket 2>/dev/null || true; } # StartLimitBurst=
  engine_start() { engine_forgive && timeout 120 systemctl start docker.service; }
  engine_restart() {
    systemctl daemon-reload
    engine_forgive
    timeout 120 systemctl restart docker.service
  }
  engine_stop() { timeout 120 systemctl stop docker.service; }
  engine_reload() { systemctl reload docker.service; }
  engine_log() { last_words docker; }
  engine_command() { # as the unit has it, before anybody's drop-in
    for folder in /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
      if [ -r "$folder/docker.service" ]; then
        sed -n 's/^ExecStart=//p' "$folder/docker.service" | tail -n 1
        break
      fi
    done
  }
  ;;
openrc)
  engine_active() { rc-service --quiet docker status >/dev/null 2>&1; }
  engine_enable() {
    if ! rc-update show default | grep -qw docker; then rc-update --quiet add docker default; fi
  }
  engine_start() { timeout 120 rc-service docker start && engine_wait; }
  engine_restart() { timeout 120 rc-service docker restart && engine_wait; }
  engine_stop() { timeout 120 rc-service docker stop; }
  engine_wait() { # OpenRC is content when the process runs
    for _ in $(seq 300); do
      if docker version >/dev/null 2>&1; then return 0; fi
      if ! engine_active; then return 1; fi
      sleep 0.2
    done
    return 1
  }
  engine_reload() { rc-service docker reload; }
  engine_log() { tail -n 12 /var/log/docker.log 2>/dev/null || true; }
  engine_command() { # as its owner has it, before our lines
    settings=$(sed '/^# machinekit begins/,/^# machinekit ends/d' /etc/conf.d/docker 2>/dev/null || true)
    (set +eu; eval "$settings" >/dev/null 2>&1; printf '%s\n' "dockerd ${DOCKER_OPTS:-}")
  }
  ;;
*)
  engine_active() { false; }
  engine_command() { :; }
  ;;
esac
# Files that are exchanged whole and can be put back: what was there before is kept aside until the change is through.
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

take() { # path
  back_up "$1"
  rm -f "$1"
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
# Containers outlive a restart of an engine that has live-restore on when it stops and when it starts again.
set -eu
# It is on for that time only: a swarm's engine refuses it. https://docs.docker.com/engine/daemon/live-restore/
running=0 # containers
kept=''   # whether they outlive the restart
stopped='' # why they do not

ask_engine() {
  timeout 30 docker --host unix:///var/run/docker.sock info \
    --format '{{.Swarm.LocalNodeState}} {{.LiveRestoreEnabled}} {{.ContainersRunning}}' 2>/dev/null || echo '? ? 0'
}

live_restore() { # true|false, and settings that say so: a reload leaves alone what they do not name
  write "$settings" 0644 "$2"
  engine_reload || return 1
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    case $(ask_engine) in *" $1 "*) return 0 ;; esac
    sleep 0.3
  done
  return 1
}

keep_containers() { # settings with live-restore on, and what keeps us from it if anything does
  state=$(ask_engine)
  running=${state##* }
  if [ "$running" = 0 ]; then
    return 0
  elif [ "${state%% *}" != inactive ]; then
    stopped='the engine of a swarm cannot keep them'
  elif [ -n "$2" ]; then
    stopped=$2
  else
    back_up "$settings"
    if ! live_restore true "$1"; then
      put_back "$settings"
      return 1
    fi
    kept=yes
  fi
}

tell_containers() {
  if [ "$running" -gt 0 ]; then echo "machinekit:containers=$running${stopped:+ $stopped}"; fi
}
# Put the engine's settings and certificates in place and restart it; put everything back when it does not come up.
set -eu
restart() {
  restarted=yes
  engine_restart
}

clear_away() { # what we keep and write beside the files
  rm -f /etc/docker/ca.pem.machinekit /etc/docker/server.pem.machinekit /etc/docker/server-key.pem.machinekit /etc/docker/daemon.json.machinekit /etc/systemd/system/docker.service.d/10-machinekit.conf.machinekit /etc/conf.d/docker.machinekit /var/lib/machinekit/mirrors.machinekit
  rm -rf "$before"
}

undo() {
  set +e
  # or the init system tries again by itself in the middle of this, with half of the settings
  if [ -n "$restarted" ]; then engine_stop; fi
  put_back /etc/docker/ca.pem
  put_back /etc/docker/server.pem
  put_back /etc/docker/server-key.pem
  put_back /etc/systemd/system/docker.service.d/10-machinekit.conf
  put_back /etc/conf.d/docker
  put_back /var/lib/machinekit/mirrors
  if [ -n "$kept" ]; then
    if [ -n "$restarted" ]; then
      write "$settings" 0644 eyJsaXZlLXJlc3RvcmUiOiB0cnVlfQ==
      restart || true
    fi
    live_restore false eyJsaXZlLXJlc3RvcmUiOiBmYWxzZX0= || true
  fi
  put_back "$settings"
  clear_away
  underway=''
  # the init system would try again by itself, so what was stopped must be stopped
  if [ -z "$had_engine" ]; then
    engine_stop || true
  elif [ -z "$kept" ] && [ -n "$restarted" ]; then
    engine_restart || true
  fi
}

give_up() { # why
  undo
  printf '%s; the settings from before are back\n' "$1"
  exit 1
}

leave() { # a command failed, such as on a full disk
  code=$?
  if [ -n "$underway" ]; then give_up 'the settings cannot be put in place'; fi
  exit "$code"
}

# shellcheck disable=SC2174 # only the last folder can be missing
mkdir -p -m 0755 /etc/docker
restarted='' underway=''
trap leave EXIT
if engine_active; then had_engine=yes; else had_engine=; fi
original=/etc/docker/daemon.json.before-uid
if [ ! -e "$original" ]; then
  if [ -e "$settings" ]; then cp -p "$settings" "$before.draft"; else echo '{}' >"$before.draft"; fi
  mv "$before.draft" "$original"
fi
underway=yes
if [ -n "$had_engine" ] && ! keep_containers eyJsaXZlLXJlc3RvcmUiOiB0cnVlfQ== ''; then
  engine_log
  give_up "the engine does not take $settings as it is on the host, and its containers would not outlive a restart"
fi
put /etc/docker/server-key.pem 0600 YSBrZXkK
put /etc/docker/daemon.json 0644 eyJkZWJ1ZyI6IHRydWV9Cg==
put '/etc/a place/it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end' 0644 AP8=

if [ -n "$kept" ]; then write "$settings" 0644 eyJkZWJ1ZyI6IHRydWUsICJsaXZlLXJlc3RvcmUiOiB0cnVlfQ==; fi
# A running engine is not stopped for settings that it would refuse. Engines before 23.0 have no --validate.
if [ -n "$had_engine" ] && ! said=$(/usr/sbin/dockerd --validate --config-file "$settings" 2>&1); then
  case $said in
  *'unknown flag'*) ;;
  *) give_up "the engine refuses the settings: $said" ;;
  esac
fi
engine_enable
if ! restart; then
  engine_log
  give_up 'the engine does not start with the new settings (its journal is above)'
fi
underway=''
if [ -n "$kept" ]; then
  live_restore false eyJkZWJ1ZyI6IHRydWUsICJsaXZlLXJlc3RvcmUiOiBmYWxzZX0= || true
  write "$settings" 0644 eyJkZWJ1ZyI6IHRydWV9Cg==
fi
clear_away
tell_containers
