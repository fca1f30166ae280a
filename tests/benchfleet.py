"""How fast fleets are: the rows of `make bench` about them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.benchmark import Row, call, compare, peak_memory, seconds
from tests.conftest import install_fake
from tests.e2e.lab import Cli
from tests.servers import Certificates, Server, encrypted, engine

COUNT = 1000
PARALLEL = 64
CALL = 0.05  # seconds
CALLS = 8  # of a create, as on AWS


def containers(cli: Cli, program: Path) -> None:
    """Eight container machines from one file, against one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "machinekit.yaml")
        words = [str(program), "apply", "--yes", "--file", str(file)]

        def apply(count: int) -> float:
            file.write_text(_fleet(f"count: {count}, driver: container, container: {{engine: '{cli.lab.socket}'}}"))
            taken = seconds(partial(call, words, cli.environment))
            call([str(program), "destroy", "--yes", "--file", str(file)], cli.environment)
            return taken

        one, eight = zip(*((apply(1), apply(8)) for _ in range(3)), strict=True)
    compare("apply of 8 container machines at once / of one", list(eight), list(one), 4)


def thousand() -> None:
    """Plan and apply of a thousand machines of a provider in memory, whose calls take 50 ms."""
    with tempfile.TemporaryDirectory() as name, _engine(Path(name)) as environment:
        folder = Path(name)
        file = folder / "machinekit.yaml"
        file.write_text(_fleet(f"count: {COUNT}, driver: fake"))
        program = [sys.executable, "-m", "tests.fleetprogram", str(folder / "cloud"), environment["PORT"]]
        slow = environment | {"FAKE_CALL": str(CALL)}
        words = ["apply", "--yes", "--parallel", str(PARALLEL), "--file", str(file)]
        taken, ideal = seconds(partial(call, [*program, *words], slow)), COUNT * CALLS * CALL / PARALLEL
        Row(
            f"apply of {COUNT}, {CALLS} calls of 50 ms each / ideal of {PARALLEL} at once",
            *(f"{taken:.1f} s", f"{ideal:.1f} s", taken / ideal, 1 / 0.6),
        ).print()
        plan = [*program, "plan", "--file", str(file)]
        taken = seconds(partial(call, plan, environment))
        Row(f"plan of {COUNT} machines / 3 s", f"{taken:.2f} s", "3 s", taken / 3, 1).print()
        peak = peak_memory(plan, environment)
        Row(f"peak memory of a plan of {COUNT} / 200 MB", f"{peak / 1e6:.0f} MB", "200 MB", peak / 200e6, 1).print()


def _fleet(machine: str) -> str:
    return f"version: 1\nname: bench\nmachines: [{{name: 'm{{index}}', {machine}}}]\n"


@contextmanager
def _engine(folder: Path) -> Iterator[dict[str, str]]:
    """An engine behind all machines, and the environment in which the driver `fake` finds it."""
    for each in ("certificates", "site"):
        (folder / each).mkdir()
    certificates = Certificates(folder / "certificates")
    with Server(encrypted(engine, certificates.context())) as server:
        yield os.environ | {
            "MACHINEKIT_HOME": str(folder / "home"),
            "PYTHONPATH": os.pathsep.join([str(install_fake(folder / "site")), str(Path.cwd())]),
            "CERTIFICATES": str(folder / "certificates"),
            "FAKE_TOKEN": "s3cret",
            "PORT": str(server.port),
        }
