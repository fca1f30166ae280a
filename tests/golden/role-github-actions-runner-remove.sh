# shellcheck disable=SC2034 # not every script needs each
token=secret
# Unregister the runner at GitHub and take everything of it away.
set -eu
user=runner-github-actions-runner home=/opt/actions-runner-github-actions-runner
if [ -e "$home/.service" ]; then (cd "$home" && ./svc.sh uninstall >/dev/null); fi
if [ -e "$home/.runner" ]; then
  if [ -z "${token:-}" ]; then
    echo 'its token is not known: GitHub cannot be told that it goes'
    exit 1
  fi
  (cd "$home" && ACTIONS_RUNNER_INPUT_PAT=$token runuser -u "$user" -- ./config.sh remove)
fi
rm -rf "$home"
if id "$user" >/dev/null 2>&1; then userdel "$user"; fi
