"""A computer within this one: files that are copied on write, and its own network, processes and mounts.

It lives as long as its first process does, and that one lives as long as the pipe to it is open: whatever ends this
process, everything in there ends too, and so do its network interfaces and mounts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

NAME = "lab"
ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "dumb",
}

# A fresh sysfs: agents look for their network interfaces there, and this computer's shows its own. `volatile`: nothing
# of a run is worth an fsync.
MOUNT = f"""
lower=$1 upper=$2
root=$upper/../root work=$upper/../work
mkdir -p "$upper" "$work" "$root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work,volatile" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --bind /dev "$root/dev"
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
for each in dev/shm run tmp; do mount -t tmpfs tmpfs "$root/$each"; done
chmod 1777 "$root/dev/shm" "$root/tmp"
mkdir -p "$root/run/lock"
hostname {NAME}
ip link set lo up
exec chroot "$root" /usr/bin/python3 -I -S -c "$3"
"""
# Orphans become the first process's children. Ignoring SIGCHLD lets the kernel reap them: libvirt waits 40 s for each
# of its probes that stays a zombie.
FIRST = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("up", flush=True)
sys.stdin.read()
"""


class Namespace:
    """From `with` on until its end. `layers` are directories, the topmost first; `upper` takes what is written."""

    def __init__(self, layers: Sequence[Path], upper: Path) -> None:
        self._layers, self.upper = layers, upper
        self._first: subprocess.Popen[bytes] | None = None
        self.pid = 0  # of its first process

    def __enter__(self) -> Self:
        words = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--propagation", "private"]
        words += ["sh", "-euc", MOUNT, "sh", ":".join(map(str, self._layers)), str(self.upper), FIRST]
        self._first = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self._first.stdout
        if self._first.stdout.readline() != b"up\n":
            self.__exit__(None, None, None)
            raise RuntimeError("no namespace: see what unshare and mount have said")
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        self.pid = int(children.read_text())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        assert self._first
        self._first.communicate()  # closes the pipe
        self._first.wait()

    @property
    def root(self) -> Path:
        """Its files, as this computer sees them."""
        return Path(f"/proc/{self.pid}/root")

    def words(self, *command: str, **variables: str) -> list[str]:
        """The command that runs the command inside."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--uts", "--ipc", "--root", "--wd"]
        return [*enter, "env", "-i", *_assigned(ENVIRONMENT | variables), *command]

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a program inside; an error shows everything it said."""
        result = subprocess.run(self.words(*command), input=stdin, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def spawn(self, *command: str, log: IO[bytes], **variables: str) -> subprocess.Popen[bytes]:
        """Start a program inside that stays."""
        words = self.words(*command, **variables)
        null = subprocess.DEVNULL
        return subprocess.Popen(words, stdin=null, stdout=log, stderr=log, start_new_session=True)


def _assigned(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]
