# Whether the project's service is on and each of its containers runs, or has ended well.
set -eu
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

wrong=
if ! service_runs machinekit-compose; then
  echo 'its service does not run'
  wrong=yes
fi
mine=label=com.docker.compose.project=compose
while read -r service; do
  if [ -z "$(docker ps -aq --filter "$mine" --filter "label=com.docker.compose.service=$service")" ]; then
    echo "$service has no container"
    wrong=yes
  fi
done </var/lib/machinekit/roles/compose/services
bad=$(docker ps -a --filter "$mine" --format '{{.Names}}: {{.Status}}' |
  grep -E ': (Exited \([1-9]|Restarting|Dead|Created)' || true)
if [ -n "$bad" ]; then
  echo "$bad"
  wrong=yes
fi
echo 'machinekit:version=docker-compose=2.29.7'
[ -z "$wrong" ]
