# What a machine is made of: its system, its kernel, its engine, every package. Changes nothing.
set -eu
told() { printf 'machinekit:manifest %s=%s\n' "$1" "$2"; }

if [ -r /etc/os-release ]; then
  # shellcheck source=/dev/null
  told system "$(. /etc/os-release && echo "${PRETTY_NAME:-$ID}")"
fi
told kernel "$(uname -srm)"
told engine "$(PATH="$PATH:/usr/sbin:/sbin" dockerd --version 2>/dev/null || true)"
if command -v dpkg-query >/dev/null; then
  dpkg-query -W -f '${db:Status-Abbrev}|${binary:Package} ${Version}\n' | sed -n 's/^.i *|/machinekit:manifest package=/p'
elif command -v rpm >/dev/null; then
  rpm -qa --qf 'machinekit:manifest package=%{NAME}.%{ARCH} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\n'
elif [ -r /lib/apk/db/installed ]; then
  awk -F: '$1 == "P" { name = $2 } $1 == "V" { print "machinekit:manifest package=" name " " $2 }' /lib/apk/db/installed
fi
