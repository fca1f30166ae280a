"""Resolve what floats in a fleet file, for its lock: asked of providers, images and the machines that there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machinekit import collect, converge, drivers, lockfile, packages, roles
from machinekit.carry import RoleFound
from machinekit.checkup import Nobody
from machinekit.errors import MachinekitError, UsageError, nearest
from machinekit.files import write
from machinekit.images import Images
from machinekit.lockfile import Asked, Group, Lock
from machinekit.machine import Machine, Phase
from machinekit.pins import PinnedImage
from machinekit.provider import Driver
from machinekit.setup import RoleUse
from machinekit.spec import storable
from machinekit.store import Store
from machinekit.wanted import Fleet, Wanted
from machinekit.work import Progress, Work

HOSTS = 64  # asked at once
VERSION = "version"  # what roles call the pin that a machine can tell


def locked(fleet: Fleet, fleet_file: Path) -> Fleet:
    """The fleet as the lock beside its file has it; raises UsageError where the two do not fit."""
    file = lockfile.place(fleet_file)
    return lockfile.locked(fleet, read(file), str(file))


def read(file: Path) -> Lock:
    """The lock in a file; raises UsageError."""
    try:
        return lockfile.parse(file.read_text(), str(file))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "machinekit lock writes it") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not a text in UTF-8", lockfile.AGAIN) from None


def save(lock: Lock, file: Path) -> bool:
    """Write a lock; returns whether that changes the file."""
    text, draft = lockfile.written(lock).encode(), file.with_name(f".{file.name}.draft")
    try:
        if file.exists() and file.read_bytes() == text:
            return False
        write(draft, text, 0o644)
        draft.replace(file)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise MachinekitError(f"cannot write {file}: {error.strerror}") from None
    return True


def lock(
    store: Store, fleet: Fleet, folder: Path, progress: Progress, *, before: Lock | None, anew: Collection[str] = ()
) -> Lock:
    """The lock of a fleet whose file is in `folder`: what `before` has and still fits stays, but for groups in `anew`.

    Raises UsageError for one that is none, MachinekitError for what cannot be told.
    """
    groups = lockfile.groups(fleet)
    for name in anew:
        if name not in groups:
            raise UsageError(f"no entry of the file's machines is called {name!r}{nearest(name, groups)}")
    asked = {name: lockfile.asked(wanted, folder) for name, wanted in groups.items()}
    known = before.groups if before and before.fleet == fleet.name else {}
    kept = {name: known[name] for name in known.keys() - set(anew) if known[name].asked == asked.get(name)}
    open_ends = [wanted for name, wanted in groups.items() if name not in kept]
    witnesses = _witnesses(store, fleet, open_ends, progress)
    found = {wanted.group: _resolved(store, wanted, asked[wanted.group], witnesses, progress) for wanted in open_ends}
    return Lock(version=1, fleet=fleet.name, groups={**kept, **found})


def check_images(store: Store, born: Iterable[Wanted]) -> None:
    """Raise UntrustedError unless the images of the machines that are to be born are the ones of the lock."""
    library, seen = Images(store.images), set[str]()
    for wanted in born:
        if (pin := wanted.pins.image) and wanted.group not in seen:
            seen.add(wanted.group)
            driver = _driver(store, wanted)
            name = driver.image or pin.name
            pin.check(*library.would_be(driver.capabilities.image, name, driver.image_checksum))


@dataclass(frozen=True)
class _Witness:
    """A machine that was asked, and what the file wants it to be."""

    wanted: Wanted
    image: str
    engine: str
    companions: Mapping[str, str]
    roles: Mapping[str, RoleFound]


def _resolved(store: Store, wanted: Wanted, asked: Asked, witnesses: Sequence[_Witness], progress: Progress) -> Group:
    progress.step(wanted.group, "Resolving what floats")
    like = [each for each in witnesses if _kind_of(each.wanted) == _kind_of(wanted)]
    like = [each for each in like if each.wanted.group == wanted.group] or like
    engine = _engine(wanted, like, progress)
    return Group(
        asked=asked,
        options=drivers.load(wanted.driver).pinned(wanted.options),
        image=_image(store, wanted, like, progress),
        engine=engine,
        packages=_companions(wanted, engine, like),
        roles={use.name: {VERSION: _role_version(wanted, use, like)} for use in wanted.setup.roles if _floating(use)},
    )


def _witnesses(store: Store, fleet: Fleet, groups: Sequence[Wanted], progress: Progress) -> list[_Witness]:
    """What the machines say that are of the same kind as one of the groups; those that cannot be asked are told."""
    telling = [each for each in groups if lockfile.has_versions(each) or any(map(_floating, each.setup.roles))]
    kinds = [_kind_of(wanted) for wanted in telling]
    known = {wanted.name: wanted for wanted in fleet.machines if _kind_of(wanted) in kinds}
    records, unreadable = collect.records(store)
    ours = [each for name, each in records.items() if name in known and _is_like(each, fleet, known[name])]
    for name in known.keys() & unreadable.keys():
        progress.note(name, f"cannot be asked: {unreadable[name].message}")

    def ask(machine: Machine) -> _Witness | None:
        try:
            work = Work(store, machine, Nobody())
            converge.look(work)
        except MachinekitError as error:
            progress.note(machine.name, f"cannot be asked: {error.message}")
            return None
        facts, image = work.facts, machine.image.rpartition("/")[2]
        engine = facts.package.partition(" ")[2]
        return _Witness(known[machine.name], image, engine, facts.companions, work.carried.roles)

    with ThreadPoolExecutor(HOSTS) as pool:
        return [found for found in pool.map(ask, ours) if found]


def _is_like(record: Machine, fleet: Fleet, wanted: Wanted) -> bool:
    """Whether a machine is what the file wants it to be now, as far as that decides which engine it got."""
    same = (record.fleet, record.phase, record.driver) == (fleet.name, Phase.READY, wanted.driver)
    floating, _ = _kind_of(wanted)[1:]
    source = {"engine": wanted.spec.engine, "repository": wanted.spec.repository}
    return same and {**record.options, **floating} == record.options and {**record.spec, **source} == record.spec


def _kind_of(wanted: Wanted) -> tuple[str, dict[str, Any], tuple[str, str]]:
    """What decides which versions there are of the engine and of roles."""
    floating = lockfile.floating(drivers.load(wanted.driver), wanted.options)
    return wanted.driver, floating, (wanted.spec.engine, wanted.spec.repository)


def _engine(wanted: Wanted, like: Sequence[_Witness], progress: Progress) -> str:
    if not lockfile.has_versions(wanted):
        return ""
    exact = wanted.spec.version
    versions = {each.wanted.name: each.engine for each in like if each.engine}
    versions = {name: each for name, each in versions.items() if not exact or packages.is_version(exact, each)}
    if not versions:
        if exact:
            return exact
        raise MachinekitError(
            f"{wanted.group}: no machine tells the version of its engine",
            "machinekit apply, then lock; or write engine.version into the file",
        )
    newest = packages.newest(versions.values())
    for name, version in versions.items():
        if version != newest:
            progress.note(wanted.group, f"{name} has the engine {version}; {newest} is locked")
    return newest


def _companions(wanted: Wanted, engine: str, like: Sequence[_Witness]) -> dict[str, str]:
    """The newest of each companion that machines with the engine have; nothing where the file names them."""
    told: dict[str, list[str]] = {}
    for each in like if engine and not wanted.spec.packages else ():
        for name, version in each.companions.items() if each.engine == engine else ():
            told.setdefault(name, []).append(version)
    return {name: packages.newest(versions) for name, versions in sorted(told.items())}


def _image(store: Store, wanted: Wanted, like: Sequence[_Witness], progress: Progress) -> PinnedImage | None:
    """The image that a machine would boot now, which is put here if it is missing."""
    driver = _driver(store, wanted)
    kind = driver.capabilities.image
    if not kind:
        return None
    library = Images(store.images)
    made_of = next((each.image for each in like if each.image), "")
    name = driver.image or made_of or library.default(kind, engine=wanted.spec.takes_any_engine)
    image = library.ensure(
        kind,
        name,
        lambda text: progress.note(wanted.group, text),
        lambda text: progress.part(wanted.group, text),
        checksum=driver.image_checksum,
    )
    return PinnedImage.of(image)


def _floating(use: RoleUse) -> list[str]:
    """The pins of a role that the file leaves open."""
    return [pin for pin in roles.find(use.role).about.pins if not use.options.get(pin)]


def _role_version(wanted: Wanted, use: RoleUse, like: Sequence[_Witness]) -> str:
    floating = _floating(use)
    found = [
        each.roles[use.name].versions for each in like if use in each.wanted.setup.roles and use.name in each.roles
    ]
    told = {version for versions in found if len(versions) == 1 for version in versions.values() if version}
    if floating != [VERSION] or not told:
        raise MachinekitError(
            f"{wanted.group}: role {use.name}: no machine can tell its {' and '.join(floating)}",
            "write that into the file; or machinekit apply, then lock",
        )
    return packages.newest(told)


def _driver(store: Store, wanted: Wanted) -> Driver[Any]:
    """The driver of a machine that need not be there yet."""
    machine = Machine(wanted.name, "", wanted.driver, "", "", options=storable(wanted.options))
    return drivers.bind(machine, store.directory(wanted.name))
