set -e
mkdir -p /var/lib/machinekit
: >/var/lib/machinekit/installing
( # An install script of the user's choice: downloaded whole first, then run, so a dead URL cannot look like success.
set -eu
url=https://x.test/i.sh
script=$(mktemp)
trap 'rm -f "$script"' EXIT
if ! command -v curl >/dev/null; then echo "curl is needed to fetch $url and is not installed"; exit 1; fi
if ! curl -fsSL --connect-timeout 10 --max-time 60 -o "$script" "$url"; then
  echo "cannot download the install script $url"
  exit 1
fi
sh "$script"
)
rm -r /var/lib/machinekit
# What is there: the system, the engine, and the digests of the files we manage. Changes nothing.
set -eu
say() { printf 'machinekit:%s=%s\n' "$1" "$2"; }
ID='' ID_LIKE='' VERSION_ID=''
# shellcheck source=/dev/null
if [ -r /etc/os-release ]; then . /etc/os-release; fi
say os_id "$ID"
say os_like "$ID_LIKE"
say os_version "$VERSION_ID"
say clock "$(date +%s)"
if [ -d /run/systemd/system ]; then say init systemd; else say init other; fi

if [ -e /var/lib/machinekit/installing ]; then
  say dockerd '' # its installation was cut off
else
  say dockerd "$(PATH="$PATH:/usr/sbin:/sbin" command -v dockerd || true)"
fi
if systemctl is-active --quiet docker.service 2>/dev/null; then say active yes; else say active no; fi
unit=
for folder in /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
  if [ -z "$unit" ] && [ -r "$folder/docker.service" ]; then unit=$folder/docker.service; fi
done
if [ -n "$unit" ]; then say exec_start "$(sed -n 's/^ExecStart=//p' "$unit" | tail -n 1)"; fi
before=/etc/docker/.machinekit-before
if [ -d "$before" ]; then say pending yes; else say pending no; fi
if [ -r "$before/etc/docker/daemon.json" ]; then
  say daemon_json_before "$(base64 "$before/etc/docker/daemon.json" | tr -d '\n')"
elif [ -e "$before/etc/docker/daemon.json.absent" ]; then
  say daemon_json_before "$(echo '{}' | base64)"
fi
if [ -r /etc/docker/daemon.json ]; then say daemon_json "$(base64 /etc/docker/daemon.json | tr -d '\n')"; fi
for file in /etc/docker/daemon.json.before-*; do
  if [ -r "$file" ]; then say "original ${file#/etc/docker/daemon.json.before-}" "$(base64 "$file" | tr -d '\n')"; fi
done
for file in /etc/docker/ca.pem /etc/docker/server.pem /etc/docker/server-key.pem \
  /etc/systemd/system/docker.service.d/10-machinekit.conf; do
  if [ -r "$file" ]; then say "sha256 $file" "$(sha256sum <"$file" | cut -c 1-64)"; fi
done
