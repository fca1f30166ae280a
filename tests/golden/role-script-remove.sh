# shellcheck disable=SC2034 # not every script needs each
secrets_TOKEN=secret
# Have the user's own script take away what the other one has set up.
set -eu
export GREETING='it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end'
export TOKEN="${secrets_TOKEN:-}"
cd /
if [ -e /var/lib/machinekit/roles/script/own-remove ]; then /var/lib/machinekit/roles/script/own-remove; fi
