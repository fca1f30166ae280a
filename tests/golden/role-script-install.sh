# shellcheck disable=SC2034 # not every script needs each
secrets_TOKEN=secret
run=IyEvYmluL3NoCmVjaG8gIml0J3Mgc2V0IHVwIgo=
check=IyEvYmluL3NoCmVjaG8gIml0J3Mgc2V0IHVwIgo=
# Run the user's own script, and keep those that check and remove what it sets up.
set -eu
umask 077
place() { # name base64
  own=/var/lib/machinekit/roles/script/own-$1
  printf %s "$2" | base64 -d >"$own.draft"
  chmod 0700 "$own.draft"
  mv -f "$own.draft" "$own"
}
place run "$run"
place check "$check"
rm -f /var/lib/machinekit/roles/script/own-remove
export GREETING='it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end'
export TOKEN="$secrets_TOKEN"
umask 022
cd /
/var/lib/machinekit/roles/script/own-run
