# What a service of systemd said last.
set -eu
last_words() { # its name
  timeout 10 journalctl --sync 2>/dev/null || true # or the very last may not be there yet
  # of systemd's own words only errors: those about its tries to start it again would push all others out
  journalctl _SYSTEMD_UNIT="$1.service" + UNIT="$1.service" PRIORITY=3 --lines 12 --no-pager --output cat 2>/dev/null ||
    true
}
