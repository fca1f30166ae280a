"""Find drivers by name and bind them to machines."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from machinekit.errors import DriverError, StoreError, UsageError, nearest
from machinekit.machine import Machine
from machinekit.provider import Driver

GROUP = "machinekit.providers"
ALIASES = "machinekit.aliases"


def names() -> list[str]:
    """Every installed driver's name, sorted."""
    return sorted(_installed(tuple(sys.path)))


def canonical(name: str) -> str:
    """The driver's own name, for one that Docker Machine has for it."""
    return _aliases(tuple(sys.path)).get(name, name)


def load(name: str) -> type[Driver[Any]]:
    """The driver class of that name; raises UsageError naming the nearest one, or DriverError."""
    if entry := _installed(tuple(sys.path)).get(name):
        try:
            driver: type[Driver[Any]] = entry.load()
        except (ImportError, AttributeError, SyntaxError) as error:
            raise DriverError(f'driver "{name}" cannot be loaded: {error}', f"install {entry.module} again") from None
        return driver
    raise UsageError(f'driver "{name}" not found{nearest(name, names())}', f"installed drivers: {', '.join(names())}")


@functools.cache
def _installed(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The drivers by name; looking through the packages on `path` takes longer than much else."""
    return {entry.name: entry for entry in reversed(tuple(entry_points(group=GROUP)))}  # the first of a name counts


def bind(machine: Machine, directory: Path, save: Callable[[], None] = lambda: None) -> Driver[Any]:
    """The driver of a recorded machine. Its secret options are read from the environment again."""
    try:
        driver = load(machine.driver)
    except UsageError as error:  # nobody has just asked for it
        raise DriverError(error.message, f"install the package that has driver {machine.driver}") from None
    options = dict(machine.options)
    for field, info in driver.Options.infos().items():
        if info.secret:
            options[field] = os.environ.get(variable(machine.driver, field, info.aliases), "")
    try:
        bound = driver.Options(**options)
        for each in dataclasses.fields(bound):
            if not isinstance(getattr(bound, each.name), _kind(each.type)):
                raise TypeError(f"{each.name} is {getattr(bound, each.name)!r}")
    except TypeError as error:
        raise StoreError(
            f'the options of "{machine.name}" are not those of driver {machine.driver}: {error}',
            "another version of the driver may have made it",
        ) from None
    return driver(machine, bound, directory, save)


def _kind(annotation: Any) -> type | tuple[type, ...]:
    """What a record may have for an option of this type."""
    text = annotation if isinstance(annotation, str) else annotation.__name__
    kinds: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float), "bool": bool}
    return kinds.get(text, str if text.startswith("Literal") else (list, tuple))


@functools.cache
def _aliases(path: tuple[str, ...]) -> dict[str, str]:
    return {entry.name: entry.value for entry in reversed(tuple(entry_points(group=ALIASES)))}


def variable(driver: str, field: str, aliases: tuple[str, ...]) -> str:
    """The environment variable that sets a driver's option now: the first that is not empty; empty for none."""
    return next((name for name in variables(driver, field, aliases) if os.environ.get(name)), "")


def flag(driver: str, field: str) -> str:
    """The command-line flag of a driver's option, such as --qemu-memory."""
    return f"--{driver}-{field}".replace("_", "-")


def variables(driver: str, field: str, aliases: tuple[str, ...]) -> list[str]:
    """The environment variables that set a driver's option, the first one found counts."""
    return [f"MACHINEKIT_{driver}_{field}".upper().replace("-", "_"), *aliases]
