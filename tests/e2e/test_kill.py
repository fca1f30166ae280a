"""kill -9 on real drivers, at any step: the next command copes with what is there and with what still runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from machinekit.providers.processes import find

from machinekit.store import Store
from tests.e2e.lab import Cli, Lab, run

FUZZ = int(os.environ.get("MACHINEKIT_FUZZ", "1"))
At = tuple[str, int, str]  # before or after, the number, the step

# A program that was started lives on when its command is killed; a script on the host does too.
GIVEN_UP: list[At] = [
    ("after", 1, "rename .draft-{0} {0}"),
    ("after", 1, "start docker create"),
    ("after", 1, "end docker create"),
    ("after", 1, "start docker cp"),
    ("after", 1, "start docker start"),
    ("after", 2, "script"),
]
GONE_ON: list[tuple[At, str, At, At]] = [  # killed in create, in a later command, in rm
    (
        ("after", 1, "start docker create"),
        *("provision", ("after", 1, "script")),
        ("after", 1, "start docker rm"),
    ),
    (
        ("after", 1, "start docker cp"),
        *("regenerate-certs -y", ("after", 1, "unlink server.pem")),
        ("after", 1, "end docker rm"),
    ),
    (
        ("after", 1, "end docker cp"),
        *("regenerate-certs -y --client-certs", ("after", 1, "replace .key.pem.draft key.pem")),
        ("after", 1, "start docker volume"),
    ),
    (
        ("after", 1, "script"),
        *("stop", ("after", 1, "start docker stop")),
        ("after", 1, "end docker volume"),
    ),
    (
        ("after", 2, "script"),
        *("restart", ("after", 1, "start docker start")),
        ("after", 1, "rename {0} {0}"),
    ),
]


def steps(cli: Cli, *words: str) -> list[str]:
    """Run it to its end; its steps."""
    file = cli.home.with_name(f"steps-{'-'.join(words)}")
    run(sys.executable, "-m", "tests.e2e.killer", str(file), "--", *words, env=cli.environment)
    return file.read_text().splitlines()


def slow_docker(cli: Cli) -> Path:
    """A folder with a docker client that takes its time over the request SLOW, as on a busy engine."""
    folder = cli.home.with_name("slow")
    if not folder.exists():
        draft = Path(tempfile.mkdtemp(dir=folder.parent))
        client = shutil.which("docker")
        (draft / "docker").write_text(f'#!/bin/sh\nif [ "$3" = "$SLOW" ]; then sleep 3; fi\nexec {client} "$@"\n')
        (draft / "docker").chmod(0o755)
        with suppress(OSError):  # another thread was first
            draft.rename(folder)
    return folder


def killed(cli: Cli, at: At, *words: str) -> None:
    """Run it until it kills itself."""
    when, number, step = at
    file = cli.home.with_name(f"steps-{words[-1]}-{when}-{number}-{step.replace('/', '-')}")
    what = [when, str(number), step.format(words[-1])]
    command = [sys.executable, "-m", "tests.e2e.killer", str(file), *what, "--", *words]
    environment = cli.environment | {"PATH": f"{slow_docker(cli)}:{os.environ['PATH']}", "SLOW": step.split()[-1]}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, f"{at}\n{result.stdout}{result.stderr}{file.read_text()}"


def check_nothing_is_left(lab: Lab, cli: Cli, before: tuple[str, ...]) -> None:
    """Neither at the engine nor in the store, nor a program that still runs."""
    assert at_engine(lab) == before
    assert Store(cli.home).leftovers() == []
    assert list((cli.home / "machines").iterdir()) == []
    assert find("--host", lab.socket) == []


def at_engine(lab: Lab) -> tuple[str, ...]:
    return lab.docker("ps", "-aq"), lab.docker("volume", "ls", "-q"), lab.docker("image", "ls", "-aq")


def test_container(lab: Lab, cli: Cli) -> None:
    """Each machine has a life of its own."""
    lab.rootfs("debian-12+engine")
    create = ["create", "-d", "container"]

    def give_up(name: str, at: At) -> None:
        killed(cli, at, *create, name)
        cli("rm", "-y", name)

    def go_on(name: str, born: At, verb: str, later: At, removed: At) -> None:
        killed(cli, born, *create, name)
        cli(*create, name)
        cli("env", name)  # over TLS
        killed(cli, later, *verb.split(), name)
        cli(*create, name)
        cli("env", name)
        killed(cli, removed, "rm", "-y", name)
        cli("rm", "-y", name)

    # the first import of an image
    for image in lab.docker("image", "ls", "-q", "machinekit/debian-12-engine").split():
        lab.docker("image", "rm", image)
    images = len(lab.docker("image", "ls", "-aq").split())
    killed(cli, ("after", 1, "start docker import"), *create, "first")
    cli(*create, "first")
    cli("rm", "-y", "first")
    assert len(lab.docker("image", "ls", "-aq").split()) == images + 1

    before = at_engine(lab)
    with ThreadPoolExecutor(4) as pool:
        lives = [pool.submit(go_on, f"on{number}", *life) for number, life in enumerate(GONE_ON)]
        lives += [pool.submit(give_up, f"up{number}", at) for number, at in enumerate(GIVEN_UP)]
        for each in lives:
            each.result()
    check_nothing_is_left(lab, cli, before)


def test_qemu(lab: Lab, cli: Cli) -> None:
    """Before the boot a kill is cheap to go on from; one machine is killed again and again and boots in the end."""
    lab.disk("debian-12+engine")
    create = ["create", "--qemu-cpus", "1"]  # it is emulated, and two would wait for each other
    kills: list[At] = [
        ("after", 1, "start qemu-img create"),
        ("after", 1, "end qemu-img create"),
        ("after", 1, "replace .disk.qcow2.draft disk.qcow2"),
        ("before", 1, "replace .seed.iso.draft seed.iso"),
        ("before", 1, "start qemu-system-x86_64 -name"),
        ("after", 1, "start qemu-system-x86_64 -name"),  # it daemonizes alone
    ]

    def give_up(number: int) -> None:
        name = f"up{number}"
        killed(cli, kills[number], *create, name)
        uid = Store(cli.home).load(name).uid
        cli("rm", "-y", name)
        assert find("-uuid", uid) == []

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(give_up, range(len(kills))))
    for at in kills:
        killed(cli, at, *create, "vm")
    uid = Store(cli.home).load("vm").uid
    cli(*create, "vm")
    cli("env", "vm")
    assert len(find("-uuid", uid)) == 1
    killed(cli, ("before", 1, "rename {0} {0}"), "rm", "-y", "vm")
    cli("rm", "-y", "vm")
    assert find("-uuid", uid) == []
    check_nothing_is_left(lab, cli, at_engine(lab))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_image_that_is_built(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    """No program, no folder and no mount outlives the next command."""
    (cli.home / "images").unlink()  # images of its own
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def build(driver: str) -> subprocess.Popen[bytes]:
        image = ["--engine", "none", f"--{driver}-image", f"debian-{'12' if driver == 'qemu' else '13'}"]
        command = [sys.executable, "-m", "machinekit", "create", "-d", driver, *image, f"for-{driver}"]
        return subprocess.Popen(command, env=cli.environment | {"TMPDIR": str(temporary)}, stderr=subprocess.DEVNULL)

    with build("container") as one, build("qemu") as two:
        for process, kind in ((one, "rootfs"), (two, "disk")):
            while not list((cli.home / "images" / kind).glob(".draft-*/*/*/usr/bin/dpkg")) and not list(
                (cli.home / "images" / kind).glob(".draft-*/root/usr/bin/dpkg")
            ):  # it has begun to unpack
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(number)
    assert {one.returncode, two.returncode} == {-number if number == signal.SIGKILL else 128 + number}
    cli("rm", "-y", "for-container", "for-qemu")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert [path.name for path in (cli.home / "images").glob("*/*") if not path.name.startswith(".lock")] == []
    assert list(temporary.iterdir()) == []
    assert [pid for pid in Path("/proc").glob("[0-9]*/cmdline") if is_of(pid, str(cli.home))] == []


def is_of(cmdline: Path, home: str) -> bool:
    try:
        return home in cmdline.read_text()
    except OSError:  # it has just ended
        return False
