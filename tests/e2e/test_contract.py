"""The drivers that make real things pass the contract."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from machinekit.providers.container import Container, ContainerOptions
from machinekit.providers.qemu import Qemu, QemuOptions

from machinekit.images import Images
from machinekit.machine import Image, Machine
from machinekit.provider import Driver, Options
from machinekit.spec import storable
from tests.e2e.lab import Lab
from tests.providers.contract import DriverContract, Make


def maker(kind: type[Driver[Options]], name: str, options: Options, folder: Path) -> Make:
    """Gives drivers of fresh machines, each with a directory of its own."""

    def make(save: object) -> Driver[Options]:
        machine = Machine("contract", str(uuid.uuid4()), name, "lab", "", storable(options))
        directory = folder / machine.uid
        directory.mkdir()
        assert callable(save)
        return kind(machine, options, directory, save)

    return make


class TestContainer(DriverContract):
    @pytest.fixture
    def make(self, lab: Lab, tmp_path: Path) -> Make:
        return maker(Container, "container", ContainerOptions(engine=lab.socket), tmp_path)

    @pytest.fixture
    def image(self, lab: Lab) -> Image | None:
        lab.rootfs("debian-12+engine")
        return Images(lab.images).find("rootfs", "debian-12+engine")


class TestQemu(DriverContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return maker(Qemu, "qemu", QemuOptions(cpus=1), tmp_path)

    @pytest.fixture
    def image(self, lab: Lab) -> Image | None:
        lab.disk("debian-12+engine")
        return Images(lab.images).find("disk", "debian-12+engine")
