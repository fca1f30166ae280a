# Start the engine as it is configured, or wait for a start that is under way.
set -eu
if ! timeout 120 systemctl start docker.service; then
  journalctl --unit docker.service --lines 12 --no-pager --output cat || true
  echo 'the engine does not start (its journal is above)'
  exit 1
fi
