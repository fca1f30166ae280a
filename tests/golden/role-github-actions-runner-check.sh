# Whether the runner is registered and its service runs, in the version that was asked for.
set -eu
home=/opt/actions-runner-github-actions-runner wrong=
echo 'machinekit:version=actions-runner=2.319.1'
if [ "$(cat "$home/.unpacked" 2>/dev/null)" != 0000000000000000000000000000000000000000000000000000000000000000 ]; then
  echo 'another version is unpacked'
  wrong=yes
fi
if [ ! -e "$home/.runner" ]; then
  echo 'it is not registered'
  wrong=yes
fi
if [ ! -e "$home/.service" ] || ! systemctl is-active --quiet "$(cat "$home/.service")"; then
  echo 'its service does not run'
  wrong=yes
fi
[ -z "$wrong" ]
