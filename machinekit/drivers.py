"""Find drivers by name and bind them to machines."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from machinekit.errors import StoreError, UsageError
from machinekit.machine import Machine
from machinekit.provider import Driver

GROUP = "machinekit.providers"


def names() -> list[str]:
    """Every installed driver's name, sorted."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load(name: str) -> type[Driver[Any]]:
    """The driver class of that name; raises UsageError naming the nearest one."""
    for entry in entry_points(group=GROUP, name=name):
        driver: type[Driver[Any]] = entry.load()
        return driver
    near = difflib.get_close_matches(name, names(), 1)
    raise UsageError(
        f'driver "{name}" not found' + (f"; did you mean {near[0]}?" if near else ""),
        f"installed drivers: {', '.join(names())}",
    )


def bind(machine: Machine, directory: Path, save: Callable[[], None] = lambda: None) -> Driver[Any]:
    """The driver of a recorded machine. Its secret options are read from the environment again."""
    driver = load(machine.driver)
    options = dict(machine.options)
    for field, info in driver.Options.infos().items():
        if info.secret:
            options[field] = from_environment(machine.driver, field, info.aliases)
    try:
        return driver(machine, driver.Options(**options), directory, save)
    except TypeError as error:
        raise StoreError(
            f'the options of "{machine.name}" are not those of driver {machine.driver}: {error}',
            "another version of the driver may have made it",
        ) from None


def from_environment(driver: str, field: str, aliases: tuple[str, ...]) -> str:
    """The first of an option's environment variables that is not empty."""
    return next((text for variable in variables(driver, field, aliases) if (text := os.environ.get(variable))), "")


def flag(driver: str, field: str) -> str:
    """The command-line flag of a driver's option, such as --qemu-memory."""
    return f"--{driver}-{field}".replace("_", "-")


def variables(driver: str, field: str, aliases: tuple[str, ...]) -> list[str]:
    """The environment variables that set a driver's option, the first one found counts."""
    return [f"MACHINEKIT_{driver}_{field}".upper().replace("-", "_"), *aliases]
