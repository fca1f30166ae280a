# Start the engine as it is configured, or wait for a start that is under way.
set -eu
if ! engine_start; then
  engine_log
  echo 'the engine does not start (its journal is above)'
  exit 1
fi
