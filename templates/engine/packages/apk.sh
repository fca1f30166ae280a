# apk, for Alpine.
set -eu
apk="apk --quiet --wait $patience"

packages_ready() { $apk update; }

packages_candidate() { packages_versions "$1" | head -n 1; }
packages_versions() { apk policy "$1" | sed -n 's/^  \([0-9][^ ]*\):$/\1/p' | sort -rVu; }

packages_install() { $apk add --upgrade "$@"; }

packages_hold() { :; } # "name=version" stays in /etc/apk/world
packages_release() { :; }
