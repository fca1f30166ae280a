# The host key that came with the first boot can be read inside the machine later: another one takes its place.
set -eu
key=/etc/ssh/ssh_host_ed25519_key
(umask 077 && printf %s QUJD | base64 -d >"$key.machinekit")
mv -f "$key.machinekit" "$key"
printf '%s\n' 'AA it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end' >"$key.pub"
if [ -d /run/systemd/system ]; then
  for unit in ssh.service sshd.service; do systemctl try-reload-or-restart "$unit" 2>/dev/null || true; done
else
  rc-service sshd reload
fi
