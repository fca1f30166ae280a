# Whether the registry runs, from the package that was asked for and with the engine's certificate.
set -eu
wrong=
for unit in docker-registry.service docker-registry-renewed.path; do
  if ! systemctl is-active --quiet "$unit"; then
    echo "$unit does not run"
    wrong=yes
  fi
done
if ! ss -Hltn 'sport = :443' | grep -q .; then
  echo 'nothing listens at port 443'
  wrong=yes
fi
if ! cmp -s /etc/docker/server.pem /run/docker-registry/server.pem; then
  echo 'its certificate is not the machine'"'"'s'
  wrong=yes
fi
found=$(dpkg-query -W -f '${db:Status-Abbrev}|${Version}\n' docker-registry 2>/dev/null | sed -n 's/^.i *|//p')
echo "machinekit:version=docker-registry=$found"
if [ "$found" != 2.8.2+ds1-1 ]; then
  echo "its version is $found"
  wrong=yes
fi
[ -z "$wrong" ]
