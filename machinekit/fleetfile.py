"""The fleet file: which machines there should be. Its models, and what they come to for each machine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from machinekit import drivers, fileerrors, fleetform, yamlfile
from machinekit.errors import MachinekitError, UsageError, nearest
from machinekit.provider import OptionInfo, Options, absolute
from machinekit.providers import DEFAULT
from machinekit.setup import NOTHING, Setup
from machinekit.spec import Spec, parse_options, parse_spec
from machinekit.swarmstate import MOST
from machinekit.wanted import Fleet, Wanted, with_secrets


def parse(text: str, file: str, folder: Path, variables: Mapping[str, str]) -> Fleet:
    """The fleet of a file's text; relative paths in it are found from `folder`.

    Raises UsageError with everything that is wrong, a line each with file, line and column.
    """
    document = yamlfile.read(text, file, variables)
    if not isinstance(document.data, dict):
        raise UsageError(f"{file} has no keys such as version, name and machines", "start with machinekit init")
    own = {key: value for key, value in document.data.items() if not key.startswith("x-")}  # as in a Compose file
    document.data = _with_absolute_paths(_with_tuples(own), folder)
    form = fleetform.form(frozenset(drivers.names()) & {*_drivers_named(document.data)})
    try:
        given = form.model_validate(document.data, context={"folder": folder})
    except ValidationError as error:
        raise UsageError("\n".join(fileerrors.explained(error, form, document, _about_key))) from None
    return _Expansion(given, document).fleet()


class _Expansion:
    """Makes the machines of a file that is right in form."""

    def __init__(self, given: Any, document: yamlfile.Document) -> None:
        self._given = given
        self._document = document
        self._problems: list[str] = []

    def fleet(self) -> Fleet:
        """The fleet; raises UsageError."""
        machines: dict[str, Wanted] = {}
        groups: dict[str, tuple[str, ...]] = {}
        for index, entry in enumerate(self._given.machines):
            path: yamlfile.Path = ("machines", index)
            names = self._names(entry, path)
            groups[entry.name] = names
            if twice := next((name for name in names if name in machines), None):
                self._wrong((*path, "name"), f"there is a machine {twice!r} already")
            if made := self._machine(entry, path):
                machines |= {name: dataclasses.replace(made, name=name) for name in names}
        if self._problems:
            raise UsageError("\n".join(self._problems))
        managers, workers = self._swarm(groups, machines.keys())
        if self._problems:
            raise UsageError("\n".join(self._problems))
        return Fleet(self._given.name, tuple(machines.values()), managers, workers)

    def _names(self, entry: Any, path: yamlfile.Path) -> tuple[str, ...]:
        if (entry.count is None) is bool(fleetform.INDEX.search(entry.name)):
            self._wrong((*path, "name"), "a group has both a count and {index} in its name, a single machine neither")
            return ()
        if entry.count is None:
            return (entry.name,)
        return tuple(_numbered(entry.name, number) for number in range(1, entry.count + 1))

    def _machine(self, entry: Any, path: yamlfile.Path) -> Wanted | None:
        """The machine of an entry, but for its name; None when something is wrong with it."""
        defaults, before = self._given.defaults, len(self._problems)
        driver = entry.driver if "driver" in entry.model_fields_set else defaults.driver
        labels = {**defaults.labels, **entry.labels}
        options = self._options(driver, entry, path)
        spec = self._spec(entry, labels, path)
        setup = self._setup(driver, entry, path)
        if len(self._problems) > before or options is None or spec is None or setup is None:
            return None
        return Wanted("", driver, options, spec, setup, labels, entry.name)

    def _options(self, driver: str, entry: Any, path: yamlfile.Path) -> Options | None:
        try:
            name, kind = drivers.canonical(driver), drivers.load(drivers.canonical(driver))
            if name != driver:
                raise UsageError(f"driver {driver} is called {name} here")
        except MachinekitError as error:
            self._wrong((*path, "driver"), f"{error.message}{f' ({error.hint})' if error.hint else ''}")
            return None
        own = {each for each in _drivers_in(entry) if each != driver}
        for stranger in own:
            self._wrong((*path, stranger), f"the machine's driver is {driver}")
        values = self._merged(driver, entry)
        try:
            return parse_options(driver, kind, with_secrets(driver, values))
        except UsageError as error:
            self._wrong((*path, driver), fleetform.in_words_of_the_file(error.message, driver))
        return None

    def _spec(self, entry: Any, labels: Mapping[str, str], path: yamlfile.Path) -> Spec | None:
        values = self._merged("engine", entry)
        if "source" in values:
            values["engine"] = values.pop("source")
        try:
            return parse_spec({**values, "labels": tuple(f"{key}={value}" for key, value in labels.items())})
        except UsageError as error:
            self._wrong((*path, "engine"), fleetform.in_words_of_the_file(error.message))
        return None

    def _setup(self, driver: str, entry: Any, path: yamlfile.Path) -> Setup | None:
        """The defaults' files and roles and the machine's own, which count where both have one."""
        both = (self._given.defaults, entry)
        files = {file.path: file for each in both for file in each.files}
        roles = {use.name: use for each in both for use in each.roles}
        names = [use.name for use in entry.roles]
        if twice := next((name for name in names if names.count(name) > 1), None):
            self._wrong((*path, "roles"), f"{twice} is there twice; give one of the two a name of its own")
            return None
        if driver in drivers.names() and not drivers.load(driver).capabilities.ssh:
            if entry.files or entry.roles:
                self._wrong((*path, "driver"), f"a machine of driver {driver} can carry neither files nor roles")
            return NOTHING
        return Setup(files=tuple(files.values()), registries=self._given.registries, roles=tuple(roles.values()))

    def _merged(self, section: str, entry: Any) -> dict[str, Any]:
        """What the defaults and the entry have in a section; the entry's counts."""
        parts = (getattr(each, section, None) for each in (self._given.defaults, entry))
        return {key: getattr(part, key) for part in parts if part for key in part.model_fields_set}

    def _swarm(
        self, groups: Mapping[str, tuple[str, ...]], names: Collection[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if not self._given.swarm:
            return (), ()
        found: dict[str, tuple[str, ...]] = {}
        for kind in ("managers", "workers"):
            meant: dict[str, None] = {}
            for index, name in enumerate(getattr(self._given.swarm, kind)):
                path: yamlfile.Path = ("swarm", kind, index)
                if name not in names and name not in groups:
                    self._wrong(path, f"no machine is called {name!r}{nearest(name, [*names, *groups])}")
                more = groups.get(name, (name,))
                if twice := next((each for each in more if each in meant), None):
                    self._wrong(path, f"{twice} is there twice")
                meant |= dict.fromkeys(more)
            found[kind] = tuple(meant)
        if both := sorted(set(found["managers"]) & set(found["workers"])):
            self._wrong(
                ("swarm", "workers"), f"{', '.join(both)} cannot be a worker too: managers run services as well"
            )
        if not 1 <= len(found["managers"]) <= MOST:
            self._wrong(("swarm", "managers"), f"a Swarm has 1 to {MOST} managers, not {len(found['managers'])}")
        return found["managers"], found["workers"]

    def _wrong(self, path: yamlfile.Path, why: str) -> None:
        self._problems.append(f"{self._document.at(path)}: {fileerrors.named(path)}: {why}")


def _numbered(pattern: str, number: int) -> str:
    def digits(found: re.Match[str]) -> str:
        return f"{number:0{found[1] or 1}}"

    return fleetform.INDEX.sub(digits, pattern)


def _entries(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The defaults and the machines, as far as they have the right form."""
    machines = data.get("machines")
    for entry in (data.get("defaults"), *(machines if isinstance(machines, tuple) else ())):
        if isinstance(entry, dict):
            yield entry


def _drivers_named(data: Mapping[str, Any]) -> Iterator[str]:
    """What may be drivers whose options the file has, or should have."""
    given = [entry["driver"] for entry in _entries(data) if isinstance(entry.get("driver"), str)]
    yield from given or [DEFAULT]
    for entry in _entries(data):
        yield from entry


def _drivers_in(entry: Any) -> list[str]:
    return [key for key in entry.model_fields_set if key in drivers.names()]


def _with_tuples(data: Any) -> Any:
    """Lists as the strict models want them."""
    if isinstance(data, dict):
        return {key: _with_tuples(value) for key, value in data.items()}
    return tuple(map(_with_tuples, data)) if isinstance(data, list) else data


def _with_absolute_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths are relative to the file, not to where somebody happens to be."""
    for entry in _entries(data):
        for name in set(drivers.names()) & entry.keys():
            _make_absolute(entry[name], {key: info.check for key, info in _infos(name).items() if info.check}, folder)
        _make_absolute(entry.get("engine"), dict.fromkeys(("tls_ca_cert", "tls_ca_key"), absolute), folder)
    return data


def _make_absolute(values: Any, checks: Mapping[str, Callable[[Any], Any]], folder: Path) -> None:
    """Change the values that their option's check would take for relative paths."""
    for key, check in checks.items():
        text = values.get(key) if isinstance(values, dict) else None
        if isinstance(text, str) and text and not text.startswith("~"):
            with suppress(ValueError, TypeError):  # which are said of the value later, with its place
                values[key] = str(folder / text) if check(text) == absolute(text) else text


def _infos(driver: str) -> dict[str, OptionInfo]:
    return drivers.load(driver).Options.infos()


def _about_key(path: yamlfile.Path) -> str:
    """What to do about a key that is none, where that is known: a secret option of a driver."""
    driver, field = (str(part) for part in path[-2:]) if len(path) > 1 else ("", "")
    if driver not in drivers.names():
        return ""
    info = _infos(driver).get(field)
    return (
        f": it is a secret, set ${drivers.variables(driver, field, info.aliases)[-1]}" if info and info.secret else ""
    )
