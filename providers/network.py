"""A private network of virtual machines on this computer, without root: frames as multicast datagrams on loopback.

Each network of each store has a multicast group of its own. The guest's second network card is set up by the
vendor-data of its seed, at every boot and past the system's own network configuration, whose first card stays as it is.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re

from machinekit.machine import Machine
from machinekit.provider import PRIVATE_SLOT

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
# shared address space (RFC 6598): docker's pools and private networks are elsewhere, and by chance fifty machines
# have two with one address once in 3,400 times
ADDRESSES = ipaddress.ip_network("100.64.0.0/10")
GROUPS = ipaddress.ip_network("239.192.0.0/14")  # for whoever is on the spot (RFC 2365)
PORTS = range(20000, 30000)
CARD = "private"
# systemd-networkd and NetworkManager would ask for DHCP on a card that they find, and drop its address; there is no
# D-Bus yet to tell them otherwise. Where networkd has taken the card it alone sets the address: when another does so
# meanwhile, networkd 252 may set it again and again, and hear of nothing else for a quarter of an hour.
SET_UP = """
configure() {{
  file=$1 service=$2
  shift 2
  if [ -d "${{file%/*}}" ] && [ ! -e "$file" ]; then
    printf '%s\\n' "$@" >"$file"
    systemctl try-restart "$service"
  fi
}}
for card in /sys/class/net/*; do
  [ "$(cat "$card/address")" = {mac} ] || continue
  if grep -qs ^NETWORK_FILE= "/run/systemd/netif/links/$(cat "$card/ifindex")"; then
    configure /etc/systemd/network/10-machinekit.network systemd-networkd.service \\
      '[Match]' MACAddress={mac} '[Network]' Address={address}
  else
    configure /etc/NetworkManager/conf.d/10-machinekit.conf NetworkManager.service \\
      '[keyfile]' unmanaged-devices+=mac:{mac}
    ip link set "${{card##*/}}" up
    ip address replace {address} dev "${{card##*/}}"
  fi
done
"""


def check(name: str) -> str:
    """An option's check: a name, or none; raises ValueError."""
    if name and not re.fullmatch(NAME, name):
        raise ValueError(f"{name!r} is not a name for a network")
    return name


def address(machine: Machine) -> str:
    """The machine's address in whichever network: the same for ever, and no other machine's."""
    hosts = ADDRESSES.num_addresses - 2
    return str(ADDRESSES[1 + int.from_bytes(_digest(machine.uid)) % hosts])


def card(name: str, machine: Machine) -> list[str]:
    """QEMU's arguments for a network card in the network."""
    number = int.from_bytes(_digest(machine.store, name))
    group, port = GROUPS[number % GROUPS.num_addresses], PORTS[(number >> 32) % len(PORTS)]
    return [
        *["-netdev", f"socket,id={CARD},mcast={group}:{port},localaddr=127.0.0.1"],
        *["-device", f"virtio-net-pci,netdev={CARD},mac={_mac(machine)},addr={PRIVATE_SLOT}"],
    ]


def vendor_data(machine: Machine) -> str:
    """What cloud-init does with the card: https://docs.cloud-init.io/en/latest/explanation/vendordata.html."""
    script = SET_UP.format(mac=_mac(machine), address=f"{address(machine)}/{ADDRESSES.prefixlen}")
    return f"#cloud-config\n{json.dumps({'bootcmd': [['sh', '-euc', script]]})}\n"


def _mac(machine: Machine) -> str:
    return ":".join(f"{byte:02x}" for byte in b"\x52\x55" + _digest(machine.uid)[:4])


def _digest(*texts: str) -> bytes:
    return hashlib.sha256("\0".join(texts).encode()).digest()
