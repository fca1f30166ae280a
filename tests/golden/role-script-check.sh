# Ask the user's own script.
set -eu
export GREETING='it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end'
cd /
if [ -e /var/lib/machinekit/roles/script/own-check ]; then /var/lib/machinekit/roles/script/own-check; fi
