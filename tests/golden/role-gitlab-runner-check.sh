# Whether the runner runs in the version that was asked for, and GitLab knows it.
set -eu
# What GitLab's runner knows of its registrations.
set -eu
config=/etc/gitlab-runner/config.toml

runner_version() { dpkg-query -W -f '${db:Status-Abbrev}|${Version}\n' gitlab-runner 2>/dev/null | sed -n 's/^.i *|//p'; }
registered() { grep -qxF "  name = \"$1\"" "$config" 2>/dev/null; }
# a GitLab that does not answer has forgotten nobody
forgotten() { timeout 10 gitlab-runner verify --name "$1" 2>&1 | grep -q 'is removed'; }

runner=gitlab-runner-$(hostname) wrong=
found=$(runner_version)
echo "machinekit:version=gitlab-runner=$found"
case $found in
17.5.0 | 17.5.0-*) ;;
*)
  echo "gitlab-runner is ${found:-not installed} instead of "17.5.0
  wrong=yes
  ;;
esac
if ! systemctl is-active --quiet gitlab-runner.service; then
  echo 'gitlab-runner does not run'
  wrong=yes
fi
if ! registered "$runner"; then
  echo "$runner is not registered"
  wrong=yes
elif forgotten "$runner"; then
  echo "GitLab does not know $runner any more"
  wrong=yes
fi
if ! grep -qx 'concurrent = 4' "$config"; then
  echo 'another number of jobs runs at a time'
  wrong=yes
fi
[ -z "$wrong" ]
