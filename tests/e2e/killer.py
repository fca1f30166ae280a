"""The command line that kills itself at a step: python -m tests.e2e.killer FILE [WHEN NUMBER STEP] -- WORD ...

Its steps are each change on disk, each start and end of a program, each script on a host. They are appended to FILE.
With WHEN (before, after) it dies before or after the effect of the NUMBERth step called STEP.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import paramiko
import pytest

from machinekit import cli, programs
from tests.crashing import Life, everywhere, step, watch

MORTAL = programs._mortal()  # what stands before a long one


class Program(subprocess.Popen[bytes]):
    """A program whose start and end are steps: killed after its start, it lives on alone."""

    def __init__(self, command: list[Any], **more: Any) -> None:
        self.told = named([str(word) for word in command])
        with step(f"start {self.told}"):
            super().__init__(command, **more)

    def communicate(self, *args: Any, **more: Any) -> tuple[bytes, bytes]:
        """Until its end."""
        with step(f"end {self.told}"):
            return super().communicate(*args, **more)


def named(words: list[str]) -> str:
    """The program, and what it does."""
    words = words[len(MORTAL) :] if words[: len(MORTAL)] == MORTAL else words
    name = os.path.basename(words[0])  # noqa: PTH119
    rest = words[3:] if name == "docker" else words[1:]
    return " ".join([name, *rest[:1]])


def shutdown_write(channel: paramiko.Channel) -> None:
    """Then the script is on the host, and starts."""
    with step("script"):
        channel.shutdown(1)


def main() -> None:
    """Run the words."""
    file, *at = sys.argv[1 : sys.argv.index("--")]
    words = sys.argv[sys.argv.index("--") + 1 :]
    log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    seen: Counter[str] = Counter()
    life = Life(die=lambda: os.kill(os.getpid(), signal.SIGKILL))

    def told() -> None:
        what = life.steps[-1]
        seen[what] += 1
        os.write(log, f"{what}\n".encode())
        if at and (what, seen[what]) == (at[2], int(at[1])):
            life.kill = 2 * (len(life.steps) - 1) + (at[0] == "after")

    life.told = told
    patch = pytest.MonkeyPatch()
    watch(patch)
    patch.setattr(subprocess, "Popen", Program)
    patch.setattr(paramiko.Channel, "shutdown_write", shutdown_write)
    everywhere(life)
    sys.exit(cli.main(words))


if __name__ == "__main__":
    main()
