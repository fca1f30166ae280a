"""How fast it is, as ratios within one run: `make bench`.

This computer is shared and noisy, so each command is run in turn with its floor, and the medians are
compared. Nothing here asserts; what is deterministic is a test (tests/e2e/test_generic.py counts SSH
executions, tests/test_hot_path.py imports).
"""

from __future__ import annotations

import itertools
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from machinekit import engine, keys
from machinekit.machine import Machine, Phase
from machinekit.spec import Spec
from machinekit.store import Store
from tests import benchfleet
from tests.benchmark import Row, call, compare, in_turn, peak_memory, seconds
from tests.clouds import sigv4
from tests.clouds.ec2 import Ec2
from tests.clouds.openstack import twenty
from tests.clouds.openstack.cloud import CACHE, Cloud
from tests.e2e.lab import Cli, Host, Lab, obstacle, run

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure and print."""
    if reason := obstacle():
        raise SystemExit(f"the benchmark needs real hosts: {reason}")
    print(f"{'what':<58} {'ours':>10} {'floor':>10} {'ratio':>6} {'limit':>6}")
    with tempfile.TemporaryDirectory(prefix="machinekit-bench-") as folder, laboratory() as lab:
        program = installed(Path(folder) / "venv")
        with lab.user(Path(folder)) as cli:
            create_on_servers(lab, cli, program)
            hot_path(lab, cli, program)
            many(lab, cli, program)
            cloud(cli, program)
            benchfleet.containers(cli, program)
        servers(program, Path(folder))
    benchfleet.thousand()


@contextmanager
def laboratory() -> Iterator[Lab]:
    """A laboratory, cleaned up at the end."""
    root = Path(tempfile.mkdtemp(prefix="machinekit-lab-"))
    lab = Lab(root, root / "images")
    try:
        lab.start()
        yield lab
    finally:
        lab.cleanup()


def installed(venv: Path) -> Path:
    """The wheel, built and installed with bytecode in an environment of its own; returns its program."""
    dist = venv.with_name("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT))
    run(sys.executable, "-m", "venv", str(venv))
    (wheel,) = dist.glob("*.whl")
    run(str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--compile", f"{wheel}[aws,openstack]")
    return venv / "bin" / "machinekit"


def create_on_servers(lab: Lab, cli: Cli, program: Path) -> None:
    """Create on a bare server, on one with the engine, and again, against scripts over one connection."""

    def create(host: Host, name: str) -> Callable[[], None]:
        words = ["create", "-d", "generic", "--generic-ip-address", host.address, "--generic-ssh-key", str(host.key)]
        return partial(call, [str(program), *words, name], cli.environment)

    bare, scripted, present, reconfigured = [], [], [], []
    for turn in range(3):
        with lab.host() as host, lab.host() as other:
            scripted.append(seconds(partial(floor, other, install=True)))
            bare.append(seconds(create(host, f"bare{turn}")))
        with lab.host("debian-12+engine") as host, lab.host("debian-12+engine") as other:
            for each in (host, other):
                each.sh("systemctl start docker")
            reconfigured.append(seconds(partial(floor, other, install=False)))
            present.append(seconds(create(host, f"present{turn}")))
            if turn < 2:
                continue
            compare("create, engine from packages / the same by one script", bare, scripted, 1.2)
            compare("create, engine is there / the same by one script", present, reconfigured, 3)
            again = create(host, f"present{turn}")
            ours, bare_ssh = in_turn(again, partial(call, openssh(host, "true"), cli.environment), 15)
            compare("create again, nothing to do / ssh HOST true", ours, bare_ssh, 2)


def hot_path(lab: Lab, cli: Cli, program: Path) -> None:
    """What a CI job calls five times a build, against a bare interpreter; the peak of its memory."""
    lab.rootfs("debian-12+engine")
    cli("create", "-d", "container", "node1")
    python = program.with_name("python")
    for words, limit in ((["env"], 4.5), (["config"], 4.5), (["url"], 3), (["ip"], 3), (["ls", "-q"], 3)):
        name = [] if words[0] == "ls" else ["node1"]
        ours, bare = in_turn(
            partial(call, [str(program), *words, *name], cli.environment),
            partial(call, [str(python), "-I", "-c", "pass"], cli.environment),
            41,
        )
        compare(f"{' '.join(words)} / python -I -c pass", ours, bare, limit)
    peak = peak_memory([str(program), "env", "node1"], cli.environment)
    Row("peak memory of env / 30 MB", f"{peak / 1e6:.1f} MB", "30 MB", peak / 30e6, 1).print()


def cloud(cli: Cli, program: Path) -> None:
    """A create on AWS from its start until the instance is asked for: the endpoint's own time is in it."""
    taken = []
    with Ec2() as endpoint:
        environment = cli.environment | {"AWS_ACCESS_KEY_ID": sigv4.KEY, "AWS_SECRET_ACCESS_KEY": sigv4.SECRET}
        words = ["create", "-d", "aws", "--aws-endpoint", endpoint.url, "--aws-allow", "::1"]
        for number in range(5):
            started = time.monotonic()
            with subprocess.Popen(
                [str(program), *words, f"aws{number}"], env=environment, stdout=subprocess.DEVNULL
            ) as process:
                while "RunInstances" not in endpoint.calls():
                    time.sleep(0.005)
                taken.append(time.monotonic() - started)
                process.kill()
            run(str(program), "rm", "-f", f"aws{number}", env=environment)
            endpoint.reset()
    ours = statistics.median(taken)
    Row("create on AWS up to RunInstances, API included / 1 s", f"{ours:.2f} s", "1 s", ours, 1).print()


def servers(program: Path, folder: Path) -> None:
    """Twenty servers of an OpenStack at once, against its own client."""
    with Cloud(Path(os.environ.get(CACHE) or folder / "openstack")) as openstack:
        openstack.start_fake_host()
        turns = twenty.measured(openstack, program.with_name("python"), folder)
        ours, theirs = zip(*itertools.islice(turns, 3), strict=True)
    compare("create of 20 OpenStack servers / by its own client", list(ours), list(theirs), 1.3)


def many(lab: Lab, cli: Cli, program: Path) -> None:
    """Eight machines at once, a store of a thousand, a hundred that do not answer."""

    def create(*names: str) -> float:
        taken = seconds(partial(call, [str(program), "create", "-d", "container", *names], cli.environment))
        cli("rm", "-y", *names)
        return taken

    one, eight = zip(*((create("one"), create(*(f"m{n}" for n in range(8)))) for _ in range(3)), strict=True)
    compare("create of 8 container machines at once / of one", list(eight), list(one), 4)

    with tempfile.TemporaryDirectory() as folder:
        elsewhere = cli.environment | {"MACHINEKIT_HOME": folder}
        fill(Store(Path(folder)), 1000, "tcp://127.0.0.1:1")
        ours, env = in_turn(
            partial(call, [str(program), "ls", "-q"], elsewhere),
            partial(call, [str(program), "env", "node1"], cli.environment),
            21,
        )
        compare("ls -q of 1000 machines / env", ours, env, 2)
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=200) as deaf:
        fill(Store(Path(folder)), 100, f"tcp://127.0.0.1:{deaf.getsockname()[1]}")
        elsewhere = cli.environment | {"MACHINEKIT_HOME": folder}
        taken = seconds(partial(call, [str(program), "ls", "--timeout", "2"], elsewhere))
        Row("ls of 100 machines, none answering / its 2 s and 1", f"{taken:.2f} s", "3 s", taken / 3, 1).print()


def fill(store: Store, count: int, url: str) -> None:
    """Machines whose engine is at `url`."""
    for number in range(count):
        machine = Machine(f"node{number}", f"uid-{number}", "none", "bench", "", {"url": url}, phase=Phase.READY)
        machine.url, machine.address, machine.tls = url, "127.0.0.1", False
        store.reserve(machine)


def floor(host: Host, *, install: bool) -> None:
    """The least that does the same: one script over one OpenSSH connection."""
    ca = keys.authority("floor")
    pair = keys.server(ca, [host.address])
    facts = engine.Facts(exec_start="/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock")
    files = engine.wanted_files(
        Spec(),
        facts,
        driver="generic",
        listen="tcp://0.0.0.0:2376",
        certificates={engine.CA: ca.cert, engine.CERT: pair.cert, engine.KEY: pair.key},
    )
    lines = ["set -eu", "export DEBIAN_FRONTEND=noninteractive"]
    if install:
        packages = "docker.io iptables ca-certificates"
        lines += ["apt-get -q update", f"apt-get -q -y install --no-install-recommends {packages}"]
    lines += ["mkdir -p /etc/docker /etc/systemd/system/docker.service.d"]
    lines += [f"echo {file.base64} | base64 -d >{file.path}" for file in files]
    lines += ["systemctl daemon-reload", "systemctl restart docker"]
    script = "\n".join(lines)
    subprocess.run(openssh(host, "sh -s"), input=script.encode(), check=True, capture_output=True)


def openssh(host: Host, command: str) -> list[str]:
    """An OpenSSH client's command line for a server of the laboratory."""
    known = host.key.with_name("known_hosts")
    options = [f"UserKnownHostsFile={known}", "HostKeyAlias=host", "BatchMode=yes", "IdentitiesOnly=yes"]
    words = [word for option in options for word in ("-o", option)]
    return ["ssh", "-F", "/dev/null", *words, "-i", str(host.key), f"root@{host.address}", command]


if __name__ == "__main__":
    main()
