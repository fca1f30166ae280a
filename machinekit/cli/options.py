"""Turn declared options into flags and back: the engine's from its model, a driver's from its dataclass."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from machinekit import drivers
from machinekit.cli.command import store_of
from machinekit.drivers import flag, load, variables
from machinekit.errors import MachinekitError, UsageError
from machinekit.provider import Driver, Options
from machinekit.spec import Spec, engine_flag, parse_options

ENGINE = "engine option "  # what the parsed attributes start with, so that no name can collide
DRIVER = "driver option "

# Docker Machine's environment variables for the engine's settings
ENGINE_VARIABLES = {
    "install_url": "MACHINE_DOCKER_INSTALL_URL",
    "registry_mirrors": "ENGINE_REGISTRY_MIRROR",
    "tls_ca_cert": "MACHINE_TLS_CA_CERT",
    "tls_ca_key": "MACHINE_TLS_CA_KEY",
}


def chosen_driver(words: Sequence[str]) -> str:
    """The driver that a command line names, before it is parsed: its options are not known until then."""
    from machinekit.providers import DEFAULT

    if named := named_driver(words):
        return named
    chosen = drivers.canonical(os.environ.get("MACHINE_DRIVER") or str(DEFAULT))
    try:
        load(chosen)
    except UsageError as error:
        raise UsageError(f"$MACHINE_DRIVER: {error.message}", error.hint) from None
    return chosen


def named_driver(words: Sequence[str]) -> str:
    """The same where no driver may be meant: empty without `--driver`."""
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    scan.add_argument("-d", "--driver", default="")
    try:
        known, _ = scan.parse_known_args(words)
    except argparse.ArgumentError:  # a flag without its value; the real parser will say so
        return ""
    return drivers.canonical(str(known.driver))


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting of the engine."""
    group = parser.add_argument_group("engine")
    for name, field in Spec.model_fields.items():
        repeated = isinstance(field.default, tuple)
        text = (field.description or "") + (", repeatable" if repeated else "")
        variable = ENGINE_VARIABLES.get(name)
        group.add_argument(
            engine_flag(name),
            dest=ENGINE + name,
            action="append" if repeated else "store",
            default=argparse.SUPPRESS,
            metavar=_metavar(engine_flag(name)),
            help=(text + (f" [${variable}]" if variable else "")).replace("%", "%%"),
        )


def add_driver_options(parser: argparse.ArgumentParser, name: str, *, short: bool = False) -> None:
    """One flag for each option of the driver; `short` ones, such as --region, too."""
    driver = load(name)
    hints = get_type_hints(driver.Options)
    group = parser.add_argument_group(f"driver {name}")
    for field in dataclasses.fields(driver.Options):
        info = field.metadata["option"]
        kind = hints[field.name]
        text = info.help + _default_text(field)
        shown = f"{text} [${variables(name, field.name, info.aliases)[-1]}]".replace("%", "%%")
        common: dict[str, Any] = {"dest": DRIVER + field.name, "default": argparse.SUPPRESS, "help": shown}
        flags = [flag(name, field.name), *info.flags]
        flags += [f"--{field.name}".replace("_", "-")] if short else []
        if kind is bool:
            group.add_argument(*flags, action=argparse.BooleanOptionalAction, **common)
        else:
            action = "append" if kind == tuple[str, ...] else "store"
            added = group.add_argument(*flags, action=action, metavar=_metavar(field.name), **common)
            if field.name == "image" and driver.capabilities.image:
                added.completer = _image_names(driver.capabilities.image)  # type: ignore[attr-defined]


def given(args: argparse.Namespace, prefix: str) -> dict[str, Any]:
    """The options that were on the command line, by field name; for the engine also Docker Machine's variables."""
    found = {key.removeprefix(prefix): value for key, value in vars(args).items() if key.startswith(prefix)}
    if prefix == ENGINE:
        for name, variable in engine_variables(args).items():
            value = os.environ[variable]
            found[name] = [value] if isinstance(Spec.model_fields[name].default, tuple) else value
    return found


def engine_variables(args: argparse.Namespace) -> dict[str, str]:
    """Docker Machine's variables that set what the command line leaves open, by field name."""
    return {
        name: variable
        for name, variable in ENGINE_VARIABLES.items()
        if os.environ.get(variable) and ENGINE + name not in args
    }


def driver_variables(name: str, driver: type[Driver[Any]]) -> dict[str, str]:
    """The environment variables that set options of the driver, by field name."""
    found = {field: drivers.variable(name, field, info.aliases) for field, info in driver.Options.infos().items()}
    return {field: variable for field, variable in found.items() if variable}


def from_environment(name: str, driver: type[Driver[Any]]) -> dict[str, Any]:
    """The driver's options that the environment sets; lists are separated by commas."""
    hints = get_type_hints(driver.Options)
    values = {field: os.environ[variable] for field, variable in driver_variables(name, driver).items()}
    return {field: text.split(",") if hints[field] == tuple[str, ...] else text for field, text in values.items()}


def chosen_options(name: str, args: argparse.Namespace | None = None) -> Options:
    """The driver's options from the environment and, before it, the command line; raises UsageError."""
    driver, typed = load(name), given(args, DRIVER) if args else {}
    variables = {field: variable for field, variable in driver_variables(name, driver).items() if field not in typed}
    return parse_options(name, driver, from_environment(name, driver) | typed, variables)


def elsewhere(option: str) -> str:
    """What to say of an option that is another driver's or not taken from anybody; empty when there is none."""
    for name in drivers.names():
        driver = load(name)
        infos = driver.Options.infos()
        if option in [each for field, info in infos.items() for each in (flag(name, field), *info.flags)]:
            return f"is an option of driver {name}"
        if option in driver.not_taken:
            return f"would be seen in process lists: set ${driver.not_taken[option]}"
    return ""


def remarks(name: str, driver: type[Driver[Any]], args: argparse.Namespace) -> list[str]:
    """What a person should know of the options on the command line."""
    return [
        f"{flag(name, field)} on the command line is seen in process lists, and no later command knows it: "
        f"set ${drivers.variables(name, field, info.aliases)[-1]} instead"
        for field, info in driver.Options.infos().items()
        if info.secret and DRIVER + field in args
    ]


def available() -> tuple[dict[str, Options], dict[str, MachinekitError]]:
    """The drivers that need no more options than the environment has, and what is wrong with the options of others."""
    sources: dict[str, Options] = {}
    wrong: dict[str, MachinekitError] = {}
    for name in drivers.names():
        try:
            driver = load(name)
            required = {
                field.name for field in dataclasses.fields(driver.Options) if field.default is dataclasses.MISSING
            }
            if required <= driver_variables(name, driver).keys():
                sources[name] = chosen_options(name)
        except MachinekitError as error:
            wrong[name] = error
    return sources, wrong


def _image_names(kind: str) -> Callable[..., list[str]]:
    def names(parsed_args: argparse.Namespace, **_: object) -> list[str]:
        from machinekit.images import Images

        return Images(store_of(parsed_args).images).names(kind)

    return names


def _metavar(name: str) -> str:
    return re.split("[-_]", name)[-1].upper()


def _default_text(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return " (required)"
    if field.default in ("", (), False):
        return ", repeatable" if field.default == () else ""
    return f" ({field.default})"
