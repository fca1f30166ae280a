"""A virtual machine on this computer, run by QEMU with user-mode networking; no root needed.

Everything lives in the machine's directory: an overlay disk on a shared image, a NoCloud seed, the
serial console's log, and the monitor's socket. The process is known by our uid in its command line.
"""

from __future__ import annotations

import itertools
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from machinekit import programs
from machinekit.errors import DeadlineError, DriverError, PreCheckError
from machinekit.machine import Birth, Instance, Machine, State
from machinekit.provider import ENGINE_PORT, Capabilities, Check, Driver, Level, Options, absolute, option

from . import disk, memory, network, processes, publish, seed
from .disk import DISK, INITRD, KERNEL
from .qmp import Monitor

PROGRAM = "qemu-system-x86_64"
PACKAGES = {PROGRAM: "qemu-system-x86", "qemu-img": "qemu-utils"}  # what is needed, and where Debian has it
KVM = "join the group kvm, or switch virtualization on in the firmware or in the hypervisor above"
SEED = "seed.iso"
SERIAL = "serial.log"
SOCKET = "qmp.sock"
NAME_MARK = "machinekit-"
STORE_MARK = "name=opt/machinekit.store,string="  # for us to find in the command line; the guest has no use for it
CONSOLE = 65536  # bytes of it that are worth reading
POWER_OFF = 180.0  # seconds for the system to shut down; an emulated one on a busy computer takes its time
SIZE = r"^[1-9][0-9]*[MG]$"


def _found_again(image: str) -> str:
    return absolute(image) if "/" in image and "://" not in image else image


@dataclass
class QemuOptions(Options):
    """The shape of the virtual machine."""

    cpus: int = option("virtual CPUs", default=2, ge=1, le=255)
    memory: str = option("memory, such as 1G or 512M", default="1G", pattern=SIZE, check=memory.check)
    disk: str = option("size the disk may grow to, such as 20G", default="20G", pattern=SIZE)
    image: str = option(
        "image to boot: a name (see machinekit image ls), a disk's path, or a URL", default="", check=_found_again
    )
    image_checksum: str = option("the image's checksum, sha256:... or sha512:...; a URL needs it", default="")
    publish: tuple[str, ...] = option(
        "[ADDRESS:]PORT:MACHINE-PORT[/udp] to forward from this computer", default=(), check=publish.check
    )
    network: str = option(
        "private network to join, by a name of your choice: its machines reach each other",
        default="",
        check=network.check,
    )
    accel: Literal["auto", "kvm", "tcg"] = option("accelerator: auto, kvm or tcg", default="auto")


class Qemu(Driver[QemuOptions]):
    """A virtual machine of this computer."""

    Options = QemuOptions
    capabilities = Capabilities(image="disk")
    floating = ("image", "image_checksum")

    @property
    def image(self) -> str:
        """As given."""
        return self.options.image

    @property
    def image_checksum(self) -> str:
        """As given."""
        return self.options.image_checksum

    def check(self) -> None:
        """QEMU is installed and can run what was asked for."""
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            raise PreCheckError("the qemu driver runs on x86-64 Linux only, so far", "use another driver")
        missing = [program for program in PACKAGES if not shutil.which(program)]
        if missing:
            packages = " ".join(PACKAGES[program] for program in missing)
            raise PreCheckError(f"{' and '.join(missing)} not found", f"apt-get install {packages}")
        if self.options.accel == "kvm" and (why := _no_kvm()):
            raise PreCheckError(f"KVM cannot be used: {why}", "use --qemu-accel tcg, or auto")
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        if memory.mebibytes(self.options.memory) > there:
            raise PreCheckError(f"--qemu-memory asks for {self.options.memory}, and this computer has {there}M")
        publish.check_free(self.options.publish, ours=True)

    def remarks(self) -> list[str]:
        """Without KVM, or with more CPUs than there are, everything takes longer."""
        why = _no_kvm() if self.options.accel == "auto" else ""
        said = [f"KVM cannot be used here ({why}): the machine is emulated, which is slow"] if why else []
        there = os.cpu_count() or self.options.cpus
        return said + [f"its {self.options.cpus} CPUs share the {there} of this computer"] * (self.options.cpus > there)

    @classmethod
    def option_for_peers(cls, options: Any) -> str:
        """Each is behind user-mode networking of its own."""
        return "" if options.network else "network"

    def create(self, birth: Birth) -> None:
        """Make the disk and the seed where they are missing, then boot."""
        assert birth.image is not None  # noqa: S101 (capabilities ask for one)
        if not (self.directory / DISK).exists():
            disk.make(self.directory, birth.image, self.options.disk)
        if not (self.directory / SEED).exists():
            draft = self.directory / f".{SEED}.draft"
            draft.touch(mode=0o600)  # before the host key is in it
            vendor_data = network.vendor_data(self.machine) if self.options.network else ""
            draft.write_bytes(seed.image(birth.user_data, self.machine, vendor_data))
            disk.keep(draft, self.directory / SEED)
        self.start()

    def find(self) -> Instance | None:
        """As the monitor says; stopped when no process has our uid, absent when there is no disk either."""
        if not (self.directory / DISK).exists():
            return None
        if not processes.find("-uuid", self.machine.uid):
            return Instance(State.STOPPED)
        try:
            with Monitor(self.directory / SOCKET) as monitor:
                status = monitor.command("query-status")["status"]
                ports = _forwarded(monitor.command("human-monitor-command", **{"command-line": "info usernet"}))
        except (FileNotFoundError, ConnectionError):
            return Instance(State.STARTING)
        except OSError:
            return Instance(State.ERROR)  # the process is there and does not answer
        state = {"running": State.RUNNING, "paused": State.PAUSED, "shutdown": State.STOPPING}
        peer = network.address(self.machine) if self.options.network else ""
        return Instance(state.get(status, State.ERROR), "127.0.0.1", ports.get(22, 0), ports.get(ENGINE_PORT, 0), peer)

    def start(self) -> None:
        """Boot, with the ports of last time where they are still free."""
        found = self.find()
        if found and found.state is State.PAUSED:
            with Monitor(self.directory / SOCKET) as monitor:
                monitor.command("cont")
        if found and found.state is not State.STOPPED:
            return
        last = re.search(r":(\d+)$", self.machine.url)
        ports = {22: self.machine.ssh_port, ENGINE_PORT: int(last[1]) if last else 0}
        failed = self._launch(ports)
        if failed and any(ports.values()) and "forwarding rule" in failed:
            failed = self._launch(dict.fromkeys(ports, 0))  # somebody took a port meanwhile
        if failed:
            raise DriverError(f"QEMU does not start: {failed}", _launch_hint(failed))

    def stop(self) -> None:
        """Press the power button and wait."""
        deadline = time.monotonic() + POWER_OFF
        while time.monotonic() < deadline:
            try:
                with Monitor(self.directory / SOCKET) as monitor:
                    monitor.command("system_powerdown")
            except OSError:
                pass  # it is just starting or ending
            # the button counts only once the system listens to it: press again
            if processes.gone("-uuid", self.machine.uid, patience=5):
                return
        raise DeadlineError(
            f"the system did not power off within {POWER_OFF:.0f} s", f"machinekit kill {self.machine.name}"
        )

    def kill(self) -> None:
        """Cut the power, even of a process that hangs."""
        processes.kill("-uuid", self.machine.uid)

    def console(self) -> str:
        """The end of what the serial port has said."""
        try:
            return (self.directory / SERIAL).read_bytes()[-CONSOLE:].decode(errors="replace")
        except OSError:
            return ""

    def destroy(self) -> None:
        """End the process and delete its files."""
        self.kill()
        for file in (*disk.FILES, SEED, SERIAL, SOCKET):
            (self.directory / file).unlink(missing_ok=True)

    @classmethod
    def orphans(cls, options: Any, known: Callable[[Machine], bool]) -> list[Machine]:
        """QEMU processes with our marks whose machine is not known; files die with the machine's directory."""
        found = [machine for words in processes.command_lines() if (machine := _marked(words))]
        return [orphan for orphan in found if not known(orphan)]

    @classmethod
    def requirements(cls, options: Any, subject: str) -> list[Check]:
        """Both of QEMU's programs, and KVM."""
        found = []
        for program, package in PACKAGES.items():
            if not shutil.which(program):
                found.append(Check(Level.PROBLEM, subject, f"{program} is not installed", f"apt-get install {package}"))
            else:
                found.append(Check(Level.OK, subject, _version(program)))
        if why := _no_kvm():
            found.append(
                Check(Level.WARNING, subject, f"KVM cannot be used ({why}): machines are emulated, which is slow", KVM)
            )
        else:
            found.append(Check(Level.OK, subject, "KVM can be used"))
        return found

    def _launch(self, ports: dict[int, int]) -> str:
        """Start QEMU, which binds the ports itself (0: any free one) before it goes on; returns its complaint."""
        (self.directory / SERIAL).touch(mode=0o600)  # QEMU's umask is its own
        result = programs.run(self._command(ports), cwd=self.directory, patience=60, stays=True)
        with suppress(FileNotFoundError):
            (self.directory / SOCKET).chmod(0o600)
        said = result.stderr.decode(errors="replace").strip()
        return said or f"exit code {result.returncode}" if result.returncode else ""

    def _command(self, ports: dict[int, int]) -> list[str]:
        kvm = self.options.accel != "tcg" and not _no_kvm()
        forwards = [f"hostfwd=tcp:127.0.0.1:{host}-:{guest}" for guest, host in ports.items()]
        forwards += [_forward(text) for text in self.options.publish]
        command = [
            *[PROGRAM, "-name", f"{NAME_MARK}{self.machine.name}", "-uuid", self.machine.uid],
            *["-fw_cfg", f"{STORE_MARK}{self.machine.store}"],
            *["-accel", "kvm" if kvm else "tcg", "-cpu", "host" if kvm else "max"],
            *["-smp", str(self.options.cpus), "-m", self.options.memory, "-display", "none"],
            *["-drive", f"file={DISK},if=virtio,discard=unmap"],
            *["-drive", f"file={SEED},if=virtio,format=raw,readonly=on"],
            *["-netdev", ",".join(["user", "id=net", *forwards]), "-device", "virtio-net-pci,netdev=net"],
            *["-device", "virtio-rng-pci"],
            *["-chardev", f"file,id=serial,path={SERIAL},append=on", "-serial", "chardev:serial"],
            *["-qmp", f"unix:{SOCKET},server=on,wait=off", "-daemonize"],
        ]
        if self.options.network:  # last, so that the first card keeps its place and name
            command += network.card(self.options.network, self.machine)
        if (self.directory / KERNEL).exists():
            command += ["-kernel", KERNEL, "-initrd", INITRD]
            command += ["-append", "root=/dev/vda rw console=ttyS0 quiet"]
        return command


def _marked(words: list[str]) -> Machine | None:
    """The machine that a command line is of, as `_command` made it; None for any other."""
    if not words[0].rpartition("/")[2].startswith("qemu-"):
        return None
    given = dict(itertools.pairwise(words))
    name, uid, store = (given.get(flag, "") for flag in ("-name", "-uuid", "-fw_cfg"))
    if not (uid and name.startswith(NAME_MARK) and store.startswith(STORE_MARK)):
        return None
    return Machine(name.removeprefix(NAME_MARK), uid, "qemu", store.removeprefix(STORE_MARK), created="")


def _version(program: str) -> str:
    said = programs.run([program, "--version"], patience=60).stdout.decode(errors="replace")
    return said.partition("\n")[0].partition("(")[0].strip() or f"{program} is installed"


def _no_kvm() -> str:
    """Why KVM cannot be used here; empty when it can. /dev/kvm alone may be there and still hang the guest."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm cannot be opened"
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
        return "the processor shows neither vmx nor svm"
    return ""


def _forward(text: str) -> str:
    port = publish.parse(text)
    return f"hostfwd={port.protocol}:{port.address}:{port.port}-:{port.inner}"


def _forwarded(usernet: str) -> dict[int, int]:
    """Guest port to host port, from the monitor's `info usernet`."""
    found = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", usernet)
    return {int(guest): int(host) for host, guest in found}


def _launch_hint(complaint: str) -> str:
    if "forwarding rule" in complaint:
        return "another program has taken one of the published ports; free it"
    return "look at the message above; `machinekit inspect` shows the machine's options"
