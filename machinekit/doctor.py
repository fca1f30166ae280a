"""Look at this computer, the store and each machine, and say what to do.

Changes nothing, and does not stop at trouble.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from machinekit import bootstrap, checkup, drivers
from machinekit.checkup import looked
from machinekit.errors import MachinekitError, PreCheckError
from machinekit.provider import Check, Level, Options
from machinekit.store import Store

HERE = "this computer"
STORE = "store"
THREADS = 64
PATIENCE = 20.0  # seconds for a program of this computer
ENOUGH = 2e9  # bytes: a machine's disk grows
BARELY = 100e6  # ... and a record must always find room
PYTHON = (3, 11)
CLIENTS = {"ssh": "openssh-client", "scp": "openssh-client", "docker": "docker-cli, or docker.io"}


def everything(store: Store, sources: Mapping[str, Options], wrong: Mapping[str, MachinekitError]) -> list[Check]:
    """This computer, the drivers in `sources` with what is `wrong` with others, the store, and every machine."""
    found = [*looked(HERE, _computer), *looked(STORE, lambda: _store(store)), *_drivers(store, sources)]
    found += [_unusable(f"driver {name}", error) for name, error in wrong.items()]
    with contextlib.suppress(MachinekitError):  # told above
        found += machines(store, store.names())
    return found


def machines(store: Store, names: Iterable[str]) -> list[Check]:
    """Each of these machines, in parallel, in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [check for checks in pool.map(lambda name: checkup.machine(store, name), names) for check in checks]


def _unusable(subject: str, error: MachinekitError) -> Check:
    """A driver whose options cannot be had: not installed is no trouble, for machines that need it say so."""
    if isinstance(error, PreCheckError):
        return Check(Level.OK, subject, f"not set up: {error.message}")
    return Check(Level.WARNING, subject, error.message, error.hint)


def _computer() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        yield Check(Level.PROBLEM, HERE, f"Python {version} is too old", "install Python 3.11 or later")
    else:
        yield Check(Level.OK, HERE, f"Python {version}")
    for program, package in CLIENTS.items():
        if not shutil.which(program):
            yield Check(Level.WARNING, HERE, f"{program} is not installed", f"apt-get install {package}")
        elif program != "scp":  # it has no version of its own
            yield Check(Level.OK, HERE, _version(program))


def _version(program: str) -> str:
    command = [program, "-V"] if program == "ssh" else [program, "--version"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not tell its version: {error}"
    return (result.stdout + result.stderr).strip().partition("\n")[0] or f"{program} is installed"


def _drivers(store: Store, sources: Mapping[str, Options]) -> Iterator[Check]:
    used = set()
    with contextlib.suppress(MachinekitError):
        for name in store.names():
            with contextlib.suppress(MachinekitError):
                used.add(store.load(name).driver)
    for name, options in sources.items():
        driver = drivers.load(name)
        for check in looked(f"driver {name}", lambda: driver.requirements(options, f"driver {name}")):  # noqa: B023
            # what no machine needs is no problem
            yield replace(check, level=Level.WARNING) if check.level is Level.PROBLEM and name not in used else check
    if any(drivers.load(name).capabilities.image for name in sources):
        yield from _images()


def _images() -> Iterator[Check]:
    try:
        bootstrap.check()
        yield Check(Level.OK, "images", "can be built")
    except MachinekitError as error:
        yield Check(Level.WARNING, "images", error.message, error.hint)


def _store(store: Store) -> Iterator[Check]:
    if not store.home.exists():
        yield Check(Level.OK, STORE, f"{store.home} is made with the first machine")
        return
    yield Check(Level.OK, STORE, str(store.home))
    for folder in (store.home, store.machines, store.locks):  # there is no secret in an image
        if folder.exists():
            yield from checkup.private(STORE, folder)
    names, strangers = store.names(), store.strangers()
    for stranger in strangers:
        yield Check(Level.WARNING, STORE, f"{stranger!a} in {store.machines} is no machine of ours", "move it away")
    if names:
        store.known_identity()
    if not os.access(store.home, os.W_OK):
        yield Check(Level.PROBLEM, STORE, "cannot be written", f"mount it writable, or check who owns {store.home}")
    yield from _space(store)


def _space(store: Store) -> Iterator[Check]:
    places = {folder.stat().st_dev: folder for folder in (store.images, store.home) if folder.exists()}
    for folder in reversed(places.values()):
        free = shutil.disk_usage(folder).free
        text = f"{free / 1e9:.1f} GB free in {folder}"
        if free < BARELY:
            yield Check(Level.PROBLEM, STORE, text, "free some: nothing can be saved soon")
        elif free < ENOUGH:
            yield Check(Level.WARNING, STORE, text, "free some: an image takes 1 GB, and the disks of machines grow")
        else:
            yield Check(Level.OK, STORE, text)
