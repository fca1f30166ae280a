#!/bin/sh
# Databases, keys and the catalog of a cloud with nothing in it. $1 is the admin's password, $2 the public address.
set -eu
mkdir -p /run/mysqld /var/lib/glance/images /var/lib/nova/instances /var/lib/nova/tmp /var/lib/neutron/lock
chown mysql: /run/mysqld
mariadbd >/dev/null 2>&1 & # no longer than we do: its output is not ours to wait for
mariadb=$!
memcached -d -u memcache -l 127.0.0.1 # Keystone wants it
until mysqladmin ping >/dev/null 2>&1; do sleep 0.1; done
for name in keystone glance placement nova_api nova_cell0 nova neutron; do
  mysql -e "create database $name character set utf8"
done

keystone() {
  keystone-manage fernet_setup --keystone-user root --keystone-group root
  keystone-manage db_sync
  keystone-manage bootstrap --bootstrap-password "$1" --bootstrap-region-id RegionOne \
    --bootstrap-public-url "http://$2:5000/v3" --bootstrap-internal-url "http://$2:5000/v3"
}
nova() {
  nova-manage api_db sync
  nova-manage cell_v2 map_cell0
  nova-manage cell_v2 create_cell --name=cell1
  nova-manage db sync
}
neutron() {
  neutron-db-manage --config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini upgrade head
}
# the longest first: there may be two processors only
nova &
nova=$!
neutron &
neutron=$!
{
  keystone "$1" "$2"
  glance-manage db_sync
  placement-manage db sync
} &
others=$!
wait $nova
wait $neutron
wait $others

service() { # NAME TYPE URL
  id=$(tr -d - </proc/sys/kernel/random/uuid)
  mysql keystone -e "insert into service (id, type, enabled, extra) values ('$id', '$2', 1, '{\"name\": \"$1\"}');
    insert into endpoint (id, interface, service_id, url, extra, enabled, region_id)
      values (md5('$id'), 'public', '$id', '$3', '{}', 1, 'RegionOne')"
}
service glance image "http://$2:9292"
service placement placement "http://$2:8778"
service nova compute "http://$2:8774/v2.1"
service neutron network "http://$2:9696"
mysqladmin shutdown
wait $mariadb
