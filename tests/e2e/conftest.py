"""The laboratory, once for all tests; a store of its own for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.instances import Instances, real_instances
from tests.conftest import IMAGES
from tests.e2e.lab import Cli, Lab, obstacle, run

# The longest first, so that in the end no worker is alone with one. The first ones have images of their own to build.
LONG = """test_openstack test_aws test_instances test_qemu test_container test_roles test_network test_examples
test_registry test_swarm test_repository test_setup test_kill test_contract test_fleet test_lock
test_clients test_generic test_ssh test_openrc test_image test_secrets test_values test_broken_ground
test_certificates test_wheel test_proxy""".split()
THEN = ["test_fleet_kill", "test_crashes", "test_races", "test_fuzz", "test_checkup", "test_doctor"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is e2e. What takes long comes first, unit tests last: they are short and fill every gap."""
    for item in items:
        if _is_ours(item):
            item.add_marker("e2e")
    items.sort(key=_turn)


def _is_ours(item: pytest.Item) -> bool:
    return Path(__file__).parent in item.path.parents


def _turn(item: pytest.Item) -> int:
    order = LONG if _is_ours(item) else THEN
    place = order.index(item.path.stem) if item.path.stem in order else len(order)
    return place if _is_ours(item) else len(LONG) + 1 + place


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The laboratory; where it cannot run the test is skipped with the reason, which CI takes for a failure."""
    if reason := obstacle():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"real hosts cannot run here: {reason}")
    lab = Lab(Path(tempfile.mkdtemp(prefix="machinekit-lab-")), Path(os.environ[IMAGES]))
    try:
        lab.start()
        yield lab
    finally:
        lab.cleanup()


@pytest.fixture(scope="session")
def instances(lab: Lab) -> Iterator[Instances]:
    """An EC2 endpoint whose instances are real hosts."""
    with real_instances(lab) as instances:
        yield instances


@pytest.fixture
def cli(lab: Lab, tmp_path: Path) -> Iterator[Cli]:
    """A user for one test."""
    with lab.user(tmp_path) as cli:
        yield cli


@pytest.fixture(scope="session")
def busybox(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build context for an image of one static program: no registry is needed."""
    context = tmp_path_factory.mktemp("busybox")
    with lab.alone():
        program = lab.images / "busybox"
        if not program.exists():
            draft = program.with_name(".busybox")
            run(str(Path(__file__).parents[2] / "scripts" / "busybox"), str(draft))
            draft.rename(program)
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
