"""Two virtual machines in a private network: they reach each other, and are a swarm across it."""

from __future__ import annotations

from machinekit import swarm
from machinekit.store import Store
from machinekit.swarmstate import Roster
from tests.conftest import Told
from tests.e2e.lab import Cli, Lab
from tests.e2e.test_swarm import docker, until


def greeted(cli: Cli, name: str, address: str, port: int = 22, patience: int = 60) -> str:
    """What a machine hears first at an address; empty when nobody answers within `patience` seconds."""
    script = f"timeout {patience} bash -c 'exec 3<>/dev/tcp/{address}/{port} && echo >&3 && head -c 20 <&3' || :"
    return cli("ssh", name, script)


def test_virtual_machines_of_one_network_reach_each_other(lab: Lab, cli: Cli) -> None:
    lab.disk("debian-12+engine")
    store, told, names = Store(cli.home), Told(), ("a", "b")
    for name in names:  # where they are emulated, two that boot at once keep each other waiting
        cli("create", "-d", "qemu", "--qemu-network", "lan", "--qemu-cpus", "1", "--qemu-memory", "768M", name)
    peers = {name: store.load(name).peer_address for name in names}
    assert len(set(peers.values())) == 2
    for name, other in (("a", "b"), ("b", "a")):
        assert greeted(cli, name, peers[other]).startswith("SSH-2.0")
        assert "default via 10.0.2.2" in cli("ssh", name, "ip route")  # the first card is as without a network
        journal = cli("ssh", name, "sudo journalctl --boot --unit systemd-networkd")
        assert "ens3: Configuring with" in journal
        assert "ens30: Configuring" not in journal  # or two would set its address: see providers/network.py
        assert "Stopping" not in journal

    roster = Roster(("a",), ("b",))
    swarm.converge(store, roster, told)
    assert docker(cli, "a", "node", "ls", "--format", "{{.Hostname}} {{.Status}}").split() == [
        "a",
        "Ready",
        "b",
        "Ready",
    ]

    cli("restart", "b")
    assert store.load("b").peer_address == peers["b"]
    assert greeted(cli, "a", peers["b"]).startswith("SSH-2.0")
    until(lambda: docker(cli, "a", "node", "inspect", "--format", "{{.Status.State}}", "b") == "ready\n", 300)
    assert swarm.converge(store, roster, told) == []

    machine = store.load("b")
    machine.options["network"] = "other"
    store.save(machine)
    cli("restart", "b")
    assert greeted(cli, "a", peers["b"], patience=5) == greeted(cli, "b", peers["a"], patience=5) == ""
