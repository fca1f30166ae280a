"""Machines for the command line to talk about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machinekit.providers.none import NoneOptions

from machinekit.create import create
from machinekit.machine import Machine
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told
from tests.providers.fake import FakeCloud, FakeOptions
from tests.servers import Certificates, Server, encrypted, engine


@pytest.fixture
def adopted(store: Store, told: Told, certificates: Certificates) -> Iterator[Machine]:
    """The machine `node1`, an engine with TLS that was there before."""
    with Server(encrypted(engine, certificates.context())) as server:
        options = NoneOptions(f"tcp://127.0.0.1:{server.port}", *map(str, certificates.client_files))
        create(store, "node1", driver="none", options=options, spec=Spec(), progress=told)
        yield store.load("node1")


@pytest.fixture
def plain(store: Store, told: Told) -> Iterator[Machine]:
    """The machine `plain`, an engine without TLS."""
    with Server(engine) as server:
        options = NoneOptions(f"tcp://127.0.0.1:{server.port}")
        create(store, "plain", driver="none", options=options, spec=Spec(), progress=told)
        yield store.load("plain")


@pytest.fixture
def unfinished(store: Store) -> Machine:
    """The machine `half`, whose create was stopped before it had an address."""
    machine = Machine("half", "uid-half", "none", "s", "", options={"url": "tcp://127.0.0.1:1"})
    store.reserve(machine)
    return machine


@pytest.fixture
def made(store: Store, told: Told, cloud: FakeCloud) -> Machine:
    """The machine `fake1`, whose instance is in memory."""
    create(store, "fake1", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)
    return store.load("fake1")
