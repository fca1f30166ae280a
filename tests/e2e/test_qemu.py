"""A virtual machine: one boot, then everything that a VM goes through."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from machinekit.providers.processes import find

from tests.e2e.lab import Cli, Lab, free_port, run


@pytest.fixture(scope="module")
def cli(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """One store for the module: a boot takes half a minute without KVM."""
    lab.disk("debian-12+engine")
    with lab.user(tmp_path_factory.mktemp("qemu")) as cli:
        yield cli


@pytest.fixture(scope="module")
def port() -> int:
    """A port of this computer to publish."""
    return free_port()


@pytest.fixture(scope="module")
def machine(cli: Cli, port: int) -> str:
    """The machine."""
    said = cli("create", "--qemu-publish", f"{port}:8080", "--qemu-memory", "1G", "vm")
    kvm = any(flag in Path("/proc/cpuinfo").read_text().split() for flag in ("vmx", "svm"))
    assert ("KVM cannot be used here" in said) is not (kvm and os.access("/dev/kvm", os.W_OK))
    return "vm"


def processes(cli: Cli) -> list[int]:
    """The pids of our virtual machines."""
    return list(find("-uuid", json.loads(cli("inspect", "vm"))["uid"]))


def test_containers_run_and_ports_are_published(cli: Cli, machine: str, port: int, busybox: Path) -> None:
    client = cli.client(machine)
    assert client["DOCKER_HOST"].startswith("tcp://127.0.0.1:")
    run("docker", "build", "-q", "-t", "busybox", str(busybox), env=client | {"DOCKER_BUILDKIT": "0"})
    assert run("docker", "run", "--rm", "busybox", "echo", "it runs", env=client) == "it runs\n"
    serve = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
    run("docker", "run", "-d", "--restart=always", "-p", "8080:8080", "busybox", *serve, env=client)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        assert answer.read() == b"served from a container\n"


def test_the_guest_is_as_asked(cli: Cli, machine: str) -> None:
    assert cli("ssh", machine, "id -un; nproc; hostname; cloud-init status --wait").split() == [
        *["machinekit", "2", "vm", "status:", "done"],
    ]
    assert cli("ssh", machine, "docker ps -q | wc -l") == "1\n"  # without sudo
    assert int(cli("ssh", machine, "df --output=size -B1G / | tail -1")) >= 18
    # only this computer can reach it
    listening = run("ss", "-Hltnp")
    mine = [line for line in listening.splitlines() if "qemu" in line and f"pid={processes(cli)[0]}," in line]
    assert len(mine) == 3
    assert all(" 127.0.0.1:" in line for line in mine)
    assert "login:" in (cli.home / "machines" / "vm" / "serial.log").read_text()


def test_the_host_key_was_ours_from_the_first_boot(cli: Cli, machine: str) -> None:
    pinned = (cli.home / "machines" / machine / "known_hosts").read_text().split()[1:3]
    shown = cli("ssh", machine, "sudo cat /etc/ssh/ssh_host_ed25519_key.pub; ls /etc/ssh/ssh_host_*_key").split()
    assert shown[:2] == pinned
    assert shown[3:] == ["/etc/ssh/ssh_host_ed25519_key"]


def test_create_again_changes_nothing(cli: Cli, machine: str, port: int) -> None:
    assert "(unchanged)" in cli("create", "--qemu-publish", f"{port}:8080", "--qemu-memory", "1G", machine)
    refused = cli.fail("create", "--qemu-publish", f"{port}:8080", "--qemu-memory", "2G", machine)
    assert "--qemu-memory: '1G' -> '2G'" in refused


def test_the_image_may_be_built_again_or_removed(lab: Lab, cli: Cli, machine: str) -> None:
    """The machine has links of its own to what it boots."""
    directory = cli.home / "machines" / machine
    about = json.loads(run("qemu-img", "info", "--force-share", "--output=json", str(directory / "disk.qcow2")))
    assert about["backing-filename"] == "base"
    image = lab.images / "disk" / "debian-12+engine"
    for ours, theirs in (("base", "disk.raw"), ("vmlinuz", "vmlinuz"), ("initrd.img", "initrd.img")):
        assert (directory / ours).samefile(image / theirs)


def test_it_survives_a_power_cut_with_its_address(cli: Cli, machine: str) -> None:
    """As after a reboot of this computer: the process is gone, a stale socket is left."""
    before = cli("url", machine)
    (pid,) = processes(cli)
    os.kill(pid, signal.SIGKILL)
    while processes(cli):
        time.sleep(0.1)
    assert cli("status", machine) == "Stopped\n"
    cli("start", machine)
    assert cli("url", machine) == before
    client = cli.client(machine)
    for _ in range(100):  # --restart=always
        if run("docker", "ps", "-q", env=client):
            break
        time.sleep(0.2)
    assert run("docker", "ps", "-q", env=client)


def test_kill_reaches_a_process_that_hangs(cli: Cli, machine: str) -> None:
    (pid,) = processes(cli)
    os.kill(pid, signal.SIGSTOP)
    for _ in range(3):  # more than its monitor lets wait
        assert cli("status", machine) == "Error\n"
    cli("kill", machine)
    assert processes(cli) == []
    assert cli("status", machine) == "Stopped\n"
    assert "vm: unchanged" in cli("kill", machine)


def test_the_store_can_move_and_a_taken_port_is_replaced(cli: Cli, machine: str) -> None:
    taken = int(cli("url", machine).strip().rpartition(":")[2])
    moved = cli.home.rename(cli.home.with_name("moved"))
    cli.home = moved
    with socket.create_server(("127.0.0.1", taken)):
        cli("start", machine)
        assert cli("url", machine) != f"tcp://127.0.0.1:{taken}\n"
        cli("env", machine)
        cli("stop", machine)  # the power button
    assert cli("status", machine) == "Stopped\n"


def test_rm_leaves_nothing(cli: Cli, machine: str) -> None:
    pids = processes(cli)
    cli("rm", "-y", machine)
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)
    assert cli("ls", "-q") == ""
    assert list((cli.home / "machines").iterdir()) == []
    assert list((cli.home / "locks").iterdir()) == []


def test_a_published_port_that_is_taken_is_named(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = cli.fail("create", "--qemu-publish", f"{port}:80", "blocked", code=3)
    assert f"port {port}/tcp of this computer is taken" in said
    assert "blocked" not in cli("ls", "-q").split()
