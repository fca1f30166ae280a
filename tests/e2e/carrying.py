"""Machines that carry something, as a fleet's file would have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from machinekit.providers.container import ContainerOptions
from machinekit.providers.generic import GenericOptions

from machinekit import converge, outfit
from machinekit.create import create
from machinekit.provider import Options
from machinekit.setup import Setup
from machinekit.spec import Spec
from machinekit.store import Store
from machinekit.work import run, working_on
from tests.conftest import Told
from tests.e2e.lab import Cli, Host


def born(cli: Cli, name: str, spec: Spec | None = None, **carried: Any) -> list[str]:
    """A container machine that carries this; returns what was done."""
    cli.lab.rootfs("debian-12+engine")
    options = ContainerOptions(engine=cli.lab.socket, image="debian-12+engine")
    return _made(cli, name, "container", options, spec or Spec(), carried)


def adopted(cli: Cli, host: Host, name: str, **carried: Any) -> list[str]:
    """A server of the laboratory that carries this; returns what was done."""
    options = GenericOptions(host.address, ssh_key=str(host.key))
    return _made(cli, name, "generic", options, Spec(), carried)


def carry(cli: Cli, name: str, **carried: Any) -> list[str]:
    """From now on it carries this and no more, as `apply` does it; returns what was done."""
    return _carry(cli.home, name, carried)


def carrying(cli: Cli, name: str, **carried: Any) -> subprocess.Popen[bytes]:
    """The same in a process of its own, which can be killed."""
    words = [sys.executable, "-m", "tests.e2e.carrying", str(cli.home), name, json.dumps(carried)]
    return subprocess.Popen(words, env=cli.environment, cwd=Path(__file__).parents[2])


def _carry(home: Path, name: str, carried: dict[str, Any]) -> list[str]:
    with working_on(Store(home), name, "apply", Told()) as work:
        outfit.change(work, Setup.model_validate(carried))
        run(work, converge.steps(work))
        return work.changed


def _made(cli: Cli, name: str, driver: str, options: Options, spec: Spec, carried: dict[str, Any]) -> list[str]:
    return create(
        Store(cli.home),
        name,
        driver=driver,
        options=options,
        spec=spec,
        progress=Told(),
        setup=Setup.model_validate(carried),
        agreed=True,
    )


if __name__ == "__main__":
    _carry(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
