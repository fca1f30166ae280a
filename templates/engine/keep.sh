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
