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
rm /var/lib/machinekit/installing
