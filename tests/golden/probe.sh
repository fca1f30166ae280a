companions='containerd.io docker-buildx-plugin containerd runc docker-cli'
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
# What is there: the system, the engine, and the digests of the files we manage. Changes nothing.
set -eu
say() { printf 'machinekit:%s=%s\n' "$1" "$2"; }
ID='' ID_LIKE='' VERSION_ID=''
# shellcheck source=/dev/null
if [ -r /etc/os-release ]; then . /etc/os-release; fi
say os_id "$ID"
say os_like "$ID_LIKE"
say os_version "$VERSION_ID"
for folder in /usr /var; do
  say "free ${folder#/}" "$(df -Pk "$folder" 2>/dev/null | tail -n 1 | { read -r _ _ _ free _ && echo "$free"; } || true)"
done
say clock "$(date +%s)"
say init "$init"

if [ -e /var/lib/machinekit/installing ]; then
  say dockerd '' # its installation was cut off
else
  say dockerd "$(PATH="$PATH:/usr/sbin:/sbin" command -v dockerd || true)"
fi
if command -v dpkg-query >/dev/null; then
  engines='docker-ce docker.io'
  versions() { dpkg-query -W -f '${db:Status-Abbrev}|${Package} ${Version}\n' "$@" 2>/dev/null | sed -n 's/^.i *|//p'; }
elif command -v apk >/dev/null; then
  engines=docker-engine
  # it says more of a package than its version
  versions() { for name; do apk info -v "$name" 2>/dev/null | sed -n "s/^$name-\([0-9][^ ]*\).*/$name \1/p" | head -n 1; done; }
elif command -v rpm >/dev/null; then
  engines='docker-ce moby-engine docker'
  versions() { rpm -q --qf '%{NAME} %{VERSION}-%{RELEASE}\n' "$@" | grep -v ' is not installed' || true; }
else
  engines=
  versions() { :; }
fi
# shellcheck disable=SC2086 # names
say package "$(versions $engines)" # the engine's, and its version
# shellcheck disable=SC2086,SC2154
versions $companions | while read -r name version; do say "companion $name" "$version"; done
if engine_active; then say active yes; else say active no; fi
containers=0
for task in /run/containerd/io.containerd.runtime.v2.task/moby/* \
  /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/*; do
  if [ -d "$task" ]; then containers=$((containers + 1)); fi
done
say containers "$containers"
say exec_start "$(engine_command)"
before=/etc/docker/.machinekit-before
if [ -d "$before" ]; then say pending yes; else say pending no; fi
if [ -r "$before/etc/docker/daemon.json" ]; then
  say daemon_json_before "$(base64 "$before/etc/docker/daemon.json" | tr -d '\n')"
elif [ -e "$before/etc/docker/daemon.json.absent" ]; then
  say daemon_json_before "$(echo '{}' | base64)"
fi
if [ -r /etc/docker/daemon.json ]; then say daemon_json "$(base64 /etc/docker/daemon.json | tr -d '\n')"; fi
if [ -r /etc/conf.d/docker ]; then say conf_d "$(base64 /etc/conf.d/docker | tr -d '\n')"; fi
mirrors=/var/lib/machinekit/mirrors
if [ ! -e "$before$mirrors.absent" ]; then # as a change that was cut off has found it
  for file in "$before$mirrors" "$mirrors"; do
    if [ -r "$file" ]; then
      say mirrors "$(tr '\n' ' ' <"$file")"
      break
    fi
  done
fi
# the oldest first, by when they were put there: their names are ours
# shellcheck disable=SC2012,SC2045
for file in $(ls -tcr /etc/docker/daemon.json.before-* 2>/dev/null); do
  if [ -r "$file" ]; then say "original ${file#/etc/docker/daemon.json.before-}" "$(base64 "$file" | tr -d '\n')"; fi
done
for file in /etc/docker/ca.pem /etc/docker/server.pem /etc/docker/server-key.pem \
  /etc/systemd/system/docker.service.d/10-machinekit.conf /etc/conf.d/docker "$mirrors"; do
  if [ -r "$file" ]; then say "sha256 $file" "$(sha256sum <"$file" | cut -c 1-64)"; fi
done
