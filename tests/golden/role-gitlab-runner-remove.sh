# shellcheck disable=SC2034 # not every script needs each
token=secret
# Unregister the runner at GitLab; with the last one the package goes.
set -eu
# What GitLab's runner knows of its registrations.
set -eu
config=/etc/gitlab-runner/config.toml

runner_version() { dpkg-query -W -f '${db:Status-Abbrev}|${Version}\n' gitlab-runner 2>/dev/null | sed -n 's/^.i *|//p'; }
registered() { grep -qxF "  name = \"$1\"" "$config" 2>/dev/null; }
# a GitLab that does not answer has forgotten nobody
forgotten() { timeout 10 gitlab-runner verify --name "$1" 2>&1 | grep -q 'is removed'; }

runner=gitlab-runner-$(hostname)
if registered "$runner"; then
  if forgotten "$runner"; then
    gitlab-runner verify --delete --name "$runner"
  else
    gitlab-runner unregister --name "$runner"
  fi
fi
if registered "$runner"; then
  echo "$runner is still registered"
  exit 1
fi
rm -f /etc/gitlab-runner/certs/gitlab-runner.crt
if ! grep -q '^\[\[runners\]\]' "$config" 2>/dev/null; then
  systemctl disable --quiet --now gitlab-runner.service 2>/dev/null || true
  apt-mark -qq unhold gitlab-runner >/dev/null 2>&1 || true
  if [ -n "$(runner_version)" ]; then
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 purge gitlab-runner
  fi
  rm -f /etc/apt/sources.list.d/gitlab-runner.sources /etc/apt/keyrings/gitlab-runner.asc "$config"
fi
