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
# Start the engine as it is configured, or wait for a start that is under way.
set -eu
if ! engine_start; then
  engine_log
  echo 'the engine does not start (its journal is above)'
  exit 1
fi
