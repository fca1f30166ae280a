"""The private network of virtual machines: who is in it, at which address, and what crosses it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from machinekit.providers import network

from machinekit.machine import Machine


def machine(uid: str = "a", store: str = "here") -> Machine:
    return Machine("node1", uid, "qemu", store, "")


def mac(guest: Machine) -> str:
    found = re.search(r"mac=([0-9a-f:]+)", network.card("lan", guest)[-1])
    assert found
    return found[1]


def test_every_machine_has_an_address_of_its_own() -> None:
    guests = [machine(str(uuid.UUID(int=number))) for number in range(100)]
    assert len({network.address(guest) for guest in guests}) == len({mac(guest) for guest in guests}) == 100
    assert network.address(guests[7]) == network.address(machine(guests[7].uid, "elsewhere"))
    for guest in guests:
        assert network.address(guest).startswith("100.")
        assert re.fullmatch(r"52:55(:[0-9a-f]{2}){4}", mac(guest))


def test_a_network_is_one_of_its_name_and_store() -> None:
    networks = {network.card(name, machine(store=store))[1] for name in ("lan", "other") for store in ("here", "there")}
    assert len(networks) == 4
    assert network.card("lan", machine("a"))[1] == network.card("lan", machine("b"))[1]
    assert all(re.search(r",mcast=239\.19[2-5]\.\S+:2\d{4},localaddr=127\.0\.0\.1$", each) for each in networks)


@pytest.mark.parametrize("name", ["a b", "-lan", "lan,localaddr=192.0.2.1", "lan\n"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a name for a network"):
        network.check(name)


def joined(stack: ExitStack, name: str) -> tuple[socket.socket, tuple[str, int]]:
    """A socket that is in the network as QEMU is, and its group."""
    found = re.search(r"mcast=([0-9.]+):([0-9]+)", network.card(name, machine())[1])
    assert found
    group = (found[1], int(found[2]))
    member = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    member.bind(group)
    member.setsockopt(
        socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group[0]) + socket.inet_aton("127.0.0.1")
    )
    member.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    member.settimeout(5)
    return member, group


def test_frames_reach_the_network_alone() -> None:
    with ExitStack() as stack:
        (one, group), (two, _), (other, other_group) = (joined(stack, name) for name in ("lan", "lan", "other"))
        one.sendto(b"a frame", group)
        assert two.recv(100) == b"a frame"
        other.sendto(b"another's", other_group)
        assert other.recv(100) == b"another's"


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Path]:
    """A guest's folders, and programs that tell what they were called with."""
    for number, (card, address) in enumerate([("ens3", "52:54:00:12:34:56"), ("ens5", mac(machine()))], 2):
        (tmp_path / "net" / card).mkdir(parents=True)
        (tmp_path / "net" / card / "ifindex").write_text(f"{number}\n")
        (tmp_path / "net" / card / "address").write_text(f"{address}\n")
    for folder in ("network", "conf.d", "links"):
        (tmp_path / folder).mkdir()
    for program in ("ip", "systemctl"):
        (tmp_path / program).write_text(f'#!/bin/sh\necho "{program} $*" >>{tmp_path}/log\n')
        (tmp_path / program).chmod(0o755)
    yield tmp_path


def boot(guest: Path) -> list[str]:
    """What is called in a boot."""
    config = network.vendor_data(machine())
    assert config.startswith("#cloud-config\n")
    (command,) = json.loads(config.partition("\n")[2])["bootcmd"]
    script = command[-1]
    for there in ("/sys/class/net", "/etc/systemd/network", "/etc/NetworkManager/conf.d", "/run/systemd/netif/links"):
        script = script.replace(there, str(guest / Path(there).name))
    log = guest / "log"
    log.write_text("")
    subprocess.run([*command[:-1], script], check=True, env={"PATH": f"{guest}:/usr/bin:/bin"})
    return log.read_text().splitlines()


def test_the_guest_sets_up_the_second_card(guest: Path) -> None:
    (guest / "links" / "2").write_text("NETWORK_FILE=/etc/systemd/network/80-dhcp.network\n")
    (guest / "links" / "3").write_text("ADMIN_STATE=unmanaged\n")
    set_up = ["ip link set ens5 up", f"ip address replace {network.address(machine())}/10 dev ens5"]
    assert boot(guest) == ["systemctl try-restart NetworkManager.service", *set_up]
    assert boot(guest) == set_up
    unmanaged = (guest / "conf.d" / "10-machinekit.conf").read_text()
    assert unmanaged == f"[keyfile]\nunmanaged-devices+=mac:{mac(machine())}\n"
    assert list((guest / "network").iterdir()) == []


def test_a_card_that_networkd_has_taken_is_set_up_by_it_alone(guest: Path) -> None:
    (guest / "links" / "3").write_text("NETWORK_FILE=/etc/systemd/network/80-dhcp.network\n")
    assert boot(guest) == ["systemctl try-restart systemd-networkd.service"]
    assert boot(guest) == []
    assert (guest / "network" / "10-machinekit.network").read_text().splitlines() == [
        *("[Match]", f"MACAddress={mac(machine())}", "[Network]", f"Address={network.address(machine())}/10"),
    ]
