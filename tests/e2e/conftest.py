"""The laboratory, once for all tests; a store of its own for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Cli, Lab, obstacle


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is e2e."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The laboratory; where it cannot run the test is skipped with the reason, which CI takes for a failure."""
    if reason := obstacle():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"real hosts cannot run here: {reason}")
    lab = Lab(Path(tempfile.mkdtemp(prefix="machinekit-lab-")))
    try:
        lab.start()
        yield lab
    finally:
        lab.cleanup()


@pytest.fixture
def cli(lab: Lab, tmp_path: Path) -> Iterator[Cli]:
    """A user with an empty store that shares the laboratory's images; their machines are removed at the end."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    lab.images.mkdir(exist_ok=True)
    (home / "images").symlink_to(lab.images)
    cli = Cli(lab, home)
    try:
        yield cli
    finally:
        for name in cli("ls", "-q").split():
            cli("rm", "-f", name)


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build context for an image of one static program: no registry is needed."""
    context = tmp_path_factory.mktemp("busybox")
    program = shutil.which("busybox")
    assert program, "apt-get install busybox-static"
    shutil.copy(program, context / "busybox")
    (context / "index.html").write_text("served from a container\n")
    (context / "Dockerfile").write_text(
        "FROM scratch\n"
        "COPY busybox /bin/busybox\n"
        "COPY index.html /www/index.html\n"
        'RUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
        'CMD ["/bin/sh"]\n'
    )
    return context
