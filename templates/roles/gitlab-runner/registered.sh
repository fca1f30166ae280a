# What GitLab's runner knows of its registrations.
set -eu
config=/etc/gitlab-runner/config.toml

runner_version() { dpkg-query -W -f '${db:Status-Abbrev}|${Version}\n' gitlab-runner 2>/dev/null | sed -n 's/^.i *|//p'; }
registered() { grep -qxF "  name = \"$1\"" "$config" 2>/dev/null; }
# a GitLab that does not answer has forgotten nobody
forgotten() { timeout 10 gitlab-runner verify --name "$1" 2>&1 | grep -q 'is removed'; }
