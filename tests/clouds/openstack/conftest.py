"""The cloud, once for all tests of this folder; where it cannot run they are skipped, which CI takes for a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinekit.images import Images
from machinekit.imagestore import DISK
from tests.clouds.openstack.cloud import CACHE, Cloud, obstacle
from tests.conftest import IMAGES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the cloud, which is in one of the workers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("clouds")
            item.add_marker(pytest.mark.xdist_group("openstack"))


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud with nothing in it."""
    if reason := obstacle():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"OpenStack cannot run here: {reason}")
    with Cloud(Path(os.environ.get(CACHE) or tmp_path_factory.mktemp("cloud"))) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def with_engine(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of an image with an engine baked in."""
    images = Images(Path(os.environ.get(IMAGES) or tmp_path_factory.mktemp("images")))
    return cloud.upload(images.ensure(DISK, "debian-12+engine", print), "debian-12+engine")
