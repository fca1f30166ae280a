"""The virtual machine's command line, its seed, and its monitor, without a virtual machine."""

from __future__ import annotations

import io
import json
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pycdlib
import pytest
from machinekit.providers import disk, qemu, seed
from machinekit.providers.qemu import Qemu, QemuOptions
from machinekit.providers.qmp import Monitor

from machinekit.errors import DriverError
from machinekit.machine import Image, Instance, Machine, State
from machinekit.spec import parse_options
from tests.providers.test_processes import marked_process
from tests.servers import Server

UID = str(uuid.uuid4())
USERNET = """Hub -1 (net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]  13       127.0.0.1 41235       10.0.2.15  2376     0     0
  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22     0     0
  UDP[HOST_FORWARD]  14       127.0.0.1  5353       10.0.2.15    53     0     0
  TCP[ESTABLISHED]   21       10.0.2.15 22          127.0.0.1 40000     0     0
"""


def driver(directory: Path, **options: Any) -> Any:
    machine = Machine("node1", UID, "qemu", "s", "", image="disk/debian-12")
    return Qemu(machine, QemuOptions(**options), directory, lambda: None)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "machines" / "node1"
    directory.mkdir(parents=True)
    return directory


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["-smp 2 -m 1G", f"-uuid {UID}", "-name machinekit-node1"]),
        ({"cpus": 4, "memory": "512M"}, ["-smp 4 -m 512M"]),
        ({"accel": "tcg"}, ["-accel tcg -cpu max"]),
        ({"network": "lan"}, ["user,id=net,", ",localaddr=127.0.0.1 -device virtio-net-pci,netdev=private,mac=52:55:"]),
        ({}, ["user,id=net,hostfwd=tcp:127.0.0.1:40022-:22,hostfwd=tcp:127.0.0.1:0-:2376 "]),
        ({"publish": ("8080:80",)}, [",hostfwd=tcp:127.0.0.1:8080-:80 "]),
        ({"publish": ("0.0.0.0:53:53/udp", "1:2/tcp")}, ["hostfwd=udp:0.0.0.0:53-:53,hostfwd=tcp:127.0.0.1:1-:2 "]),
    ],
)
def test_the_command(directory: Path, options: dict[str, Any], words: list[str]) -> None:
    command = " ".join(driver(directory, **options)._command({22: 40022, 2376: 0}))
    assert command.startswith("qemu-system-x86_64 ")
    assert [word for word in words if word not in command] == []
    assert "-kernel" not in command


def test_an_image_with_a_kernel_boots_it_directly(directory: Path) -> None:
    (directory / qemu.KERNEL).touch()
    command = driver(directory)._command({22: 0})
    assert command[command.index("-kernel") + 1].endswith("vmlinuz")


def test_forwarded_ports() -> None:
    assert qemu._forwarded(USERNET) == {2376: 41235, 22: 40123}
    assert qemu._forwarded("") == {}


def test_the_seed_is_read_back() -> None:
    made = seed.image("#cloud-config\n{}\n", Machine("node1", UID, "qemu", "s", ""), "#cloud-config\n[]\n")
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(made))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    for path, text in (
        ("/user-data", "#cloud-config\n{}\n"),
        ("/meta-data", f"instance-id: {UID}\nlocal-hostname: node1\n"),
        ("/vendor-data", "#cloud-config\n[]\n"),
    ):
        content = io.BytesIO()
        iso.get_file_from_iso_fp(content, joliet_path=path)
        assert content.getvalue().decode() == text
    iso.close()


@pytest.mark.parametrize(
    ("without", "listed"),
    [("", True), ("qemu-system-x86_64", False), ("-name", False), ("-uuid", False), ("-fw_cfg", False)],
)
def test_an_orphan_carries_all_of_our_marks(directory: Path, without: str, listed: bool) -> None:
    words = driver(directory)._command({22: 0})
    # a shell takes whatever follows its script as arguments
    marked = [words[0], "-c", "echo; read x", *words[1:]]
    marked[marked.index(without) if without else 0] = words[0] if not without else "other"
    with subprocess.Popen(marked, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        orphans = [machine for machine in Qemu.orphans(None, lambda _: False) if machine.uid == UID]
        assert orphans == ([Machine("node1", UID, "qemu", "s", "")] if listed else [])
        assert [
            machine for machine in Qemu.orphans(None, lambda machine: machine.uid == UID) if machine.uid == UID
        ] == []
        process.communicate(b"\n")


class FakeMonitor:
    """Speaks enough QMP: https://qemu.readthedocs.io/en/latest/interop/qmp-spec.html"""

    def __init__(self) -> None:
        self.status = "running"
        self.said: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def serve(self, connection: socket.socket) -> None:
        """Greet, then answer each command, an event in between."""
        with connection.makefile("rw") as file:
            file.write('{"QMP": {"version": {}, "capabilities": []}}\n')
            file.flush()
            for line in file:
                command = json.loads(line)["execute"]
                self.said.append(command)
                answers: dict[str, Any] = {"query-status": {"status": self.status}, "human-monitor-command": USERNET}
                answer: dict[str, Any] = {"return": answers.get(command, {})}
                if command == "explode":
                    answer = {"error": {"class": "GenericError", "desc": "no"}}
                file.write('{"event": "RTC_CHANGE"}\n' + json.dumps(answer) + "\n")
                file.flush()
                if command == "system_powerdown" and self.process:
                    self.process.kill()


@pytest.fixture
def monitor(directory: Path) -> Iterator[FakeMonitor]:
    """A process with the machine's uid, and somebody at its monitor's socket."""
    (directory / qemu.DISK).touch()
    monitor = FakeMonitor()
    with marked_process(UID) as process, Server(monitor.serve, bound(directory)):
        monitor.process = process
        yield monitor


def bound(directory: Path) -> socket.socket:
    """A socket where QEMU would listen; its path may be longer than an address, so it is bound from inside."""
    listener = socket.socket(socket.AF_UNIX)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        listener.bind(qemu.SOCKET)
    listener.listen()
    return listener


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", State.RUNNING),
        ("paused", State.PAUSED),
        ("shutdown", State.STOPPING),
        ("internal-error", State.ERROR),
    ],
)
def test_find_asks_the_monitor(directory: Path, monitor: FakeMonitor, status: str, state: State) -> None:
    monitor.status = status
    assert driver(directory).find() == Instance(state, "127.0.0.1", 40123, 41235)
    peer = driver(directory, network="lan").find().peer_address
    assert peer.startswith("100.")


def test_no_process_is_a_machine_that_is_off(directory: Path) -> None:
    assert driver(directory).find() is None
    (directory / qemu.DISK).touch()
    assert driver(directory).find() == Instance(State.STOPPED)
    bound(directory).close()
    assert driver(directory).find() == Instance(State.STOPPED), "a socket that a killed process left"
    driver(directory).stop()
    driver(directory).kill()


def test_a_process_without_a_monitor_is_starting(directory: Path) -> None:
    (directory / qemu.DISK).touch()
    with marked_process(UID):
        assert driver(directory).find() == Instance(State.STARTING)


def test_a_process_that_hangs_is_an_error_and_can_be_killed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machinekit.providers.qmp.PATIENCE", 0.2)
    (directory / qemu.DISK).touch()
    with bound(directory), marked_process(UID) as process:
        assert driver(directory).find() == Instance(State.ERROR)
        driver(directory).kill()
        assert process.wait(5) == -signal.SIGKILL
    assert driver(directory).find() == Instance(State.STOPPED)


def test_a_process_that_is_killed_while_its_monitor_speaks(directory: Path) -> None:
    (directory / qemu.DISK).touch()
    with marked_process(UID), Server(lambda connection: connection.sendall(b'{"QMP": {"ver'), bound(directory)):
        assert driver(directory).find() == Instance(State.STARTING), "or ending; the next look tells"


def test_stop_presses_the_button_and_waits_for_the_end(directory: Path, monitor: FakeMonitor) -> None:
    driver(directory).stop()
    assert monitor.said == ["qmp_capabilities", "system_powerdown"]


def test_a_refused_command_is_an_error(directory: Path, monitor: FakeMonitor) -> None:
    with Monitor(directory / qemu.SOCKET) as connection, pytest.raises(ConnectionError, match="explode: no"):
        connection.command("explode")


def test_a_monitor_behind_a_long_path(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with pytest.raises(FileNotFoundError):
        Monitor(deep / "qmp.sock")


def test_a_path_of_an_image_is_whole_and_a_name_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The record outlives the directory that create was called in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for given, kept in (
        ("./disk.qcow2", f"{tmp_path}/disk.qcow2"),
        ("~/disk.qcow2", "/home/me/disk.qcow2"),
        ("debian-12+engine", "debian-12+engine"),
        ("https://a.example/disk.qcow2", "https://a.example/disk.qcow2"),
    ):
        options = parse_options("qemu", Qemu, {"image": given})
        assert isinstance(options, QemuOptions)
        assert options.image == kept


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
def test_a_disk_is_made_of_a_qcow2_and_never_smaller(directory: Path, tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disk.qcow2", "3G"], check=True)
    image = Image("mine", "disk", tmp_path, "b", "")
    with pytest.raises(DriverError, match=r"needs a disk of 3\.0G, not 2900M") as caught:
        disk.make(directory, image, "2900M")
    assert caught.value.hint == "--qemu-disk 3G or more"
    assert not (directory / qemu.DISK).exists()
    disk.make(directory, image, "5G")
    command = ["qemu-img", "info", "--output=json", directory / qemu.DISK]
    about = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (about["virtual-size"], about["backing-filename"], about["backing-filename-format"]) == (
        *(5 << 30, "base", "qcow2"),
    )
    assert (directory / "base").samefile(tmp_path / "disk.qcow2")
    assert not (directory / qemu.KERNEL).exists(), "it boots by its own boot loader"
