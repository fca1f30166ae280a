# shellcheck disable=SC2034 # not every script needs each
cache_password=secret
# shellcheck disable=SC2034 # not every script needs each
password=secret
# Take the registry away. The images that it holds stay in /var/lib/docker-registry.
set -eu
systemctl disable --quiet --now docker-registry-renewed.path docker-registry.service 2>/dev/null || true
apt-mark -qq unhold docker-registry >/dev/null 2>&1 || true
DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 remove docker-registry >/dev/null 2>&1 || true
rm -f /etc/systemd/system/docker-registry-renewed.service /etc/systemd/system/docker-registry-renewed.path
rm -rf /etc/systemd/system/docker-registry.service.d /etc/docker/registry
systemctl daemon-reload
