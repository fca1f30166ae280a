"""Create a machine, or go on with one where an earlier create stopped."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from machinekit import certificates, cloudinit, converge, drivers, hostkey, images, keys, outfit
from machinekit.drivers import flag
from machinekit.errors import MachinekitError, PreCheckError, SpecChangedError, UsageError
from machinekit.machine import Birth, Image, Machine, Phase
from machinekit.pins import NO_PINS, Pins
from machinekit.provider import Options
from machinekit.setup import NOTHING, Setup, parse_setup
from machinekit.spec import Spec, check_name, engine_flag, storable
from machinekit.store import (
    CA,
    CLIENT_CERT,
    CLIENT_KEY,
    HOST_KEY,
    HOST_KEY_PUBLIC,
    SSH_KEY,
    SSH_KEY_PUBLIC,
    TIME,
    Store,
)
from machinekit.work import Progress, Step, Work, run


def create(
    store: Store,
    name: str,
    *,
    driver: str,
    options: Options,
    spec: Spec,
    progress: Progress,
    setup: Setup = NOTHING,
    pins: Pins = NO_PINS,
    fleet: str = "",
    agreed: bool = False,
) -> list[str]:
    """Make the machine `name` and its engine, and return what was done, in words; empty means "unchanged".

    `pins` are what a lock has made exact of the options; spec and setup have it already. The same call again goes on
    where the last one stopped. A server that is in use is changed when that is `agreed`, or
    else when the person who is asked agrees. Raises SpecChangedError when the machine exists with other options,
    PreCheckError when the driver refuses before anything is made.
    """
    check_name(name)
    with store.lock(name, "create", lambda holder: progress.note(name, f"waiting: {holder}")):
        store.tidy(name)
        wanted = Machine(
            name=name,
            uid=str(uuid.uuid4()),
            driver=driver,
            store=store.identity(),
            created=time.strftime(TIME, time.gmtime()),
            options=storable(options),
            spec=spec.model_dump(mode="json"),
            setup=setup.model_dump(mode="json"),
            pins=pins.to_json(),
            fleet=fleet,
        )
        machine = _reserved(store, wanted)
        work = Work(store, machine, progress, agreed)
        # a driver's secrets are not in the record: the ones given now count
        work.driver.options = pins.of_options(options)
        try:
            run(work, (*(_once(step) for step in BIRTH if step.__name__ not in machine.done), *converge.steps(work)))
        except (PreCheckError, UsageError):
            if not _has_begun(machine):
                store.remove(name)
            raise
        if machine.phase is not Phase.READY:
            machine.phase = Phase.READY
            work.save()
            work.changed.append("created")
        return work.changed


def check_driver(work: Work) -> None:
    """Checking the driver"""
    work.driver.check()
    certificates.check(work.spec)
    outfit.check(work)
    if own := work.driver.user_data:
        cloudinit.parts(own)
    for remark in work.driver.remarks():
        work.note(remark)
    if not work.driver.capabilities.ssh and work.spec != Spec():
        work.note(f"driver {work.machine.driver} does not configure the engine: its options count for nothing")
    if kind := work.driver.capabilities.image:
        library = images.Images(work.store.images)
        library.check(kind, _wanted_image(work, library), work.driver.image_checksum)


def make_keys(work: Work) -> None:
    """Making keys"""
    machine = work.machine
    if not work.driver.capabilities.ssh:
        _copy_certificates(work)
        return
    if work.driver.capabilities.births:  # nobody would put our key on a host that is there already
        private, public = keys.ssh_key(f"machinekit {machine.name}")
        work.write_all({SSH_KEY: private, SSH_KEY_PUBLIC: public.encode() + b"\n"})
        if work.driver.carries_host_key:
            hostkey.born(work)


def find_image(work: Work) -> None:
    """Finding the image"""
    if work.driver.capabilities.image:
        _image(work)


def create_instance(work: Work) -> None:
    """Creating the instance

    Run the same command again to go on, or `machinekit rm` to give up.
    """
    try:
        work.driver.create(_birth(work))
    except PreCheckError:  # the provider refused only now, and has nothing of it
        work.machine.done.clear()
        raise


BIRTH: tuple[Step, ...] = (check_driver, make_keys, find_image, create_instance)
# After a crash these are done again: the first make nothing outside, the last goes on with what it finds there.
REPEATED = (check_driver, make_keys, create_instance)


def _once(step: Step) -> Step:
    """The step, remembered in the record once it is done; on disk with the next that is not simply repeated."""

    def remembered(work: Work) -> None:
        step(work)
        work.machine.done.append(step.__name__)
        if step not in REPEATED:
            work.save()

    remembered.__doc__, remembered.__name__ = step.__doc__, step.__name__
    return remembered


def _birth(work: Work) -> Birth:
    def text(file: str) -> str:
        return work.read(file).decode().strip() if (work.directory / file).exists() else ""

    user, key, host_key, public = work.driver.ssh_user, text(SSH_KEY_PUBLIC), text(HOST_KEY), text(HOST_KEY_PUBLIC)
    return Birth(
        user=user,
        authorized_key=key,
        host_key=host_key,
        host_key_public=public,
        user_data=cloudinit.user_data(
            work.machine.name, user, key, host_key + "\n", public + "\n", own=work.driver.user_data
        ),
        image=_image(work) if work.machine.image else None,
    )


def _image(work: Work) -> Image:
    """The machine's image: the one it has been given before, or what was asked for."""
    kind, _, name = work.machine.image.partition("/")
    library = images.Images(work.store.images)
    if name and (image := library.find(kind, name)):
        library.verify(image)
        return image
    kind = work.driver.capabilities.image
    wanted, checksum = _wanted_image(work, library), work.driver.image_checksum
    image = library.ensure(kind, wanted, work.note, work.part, checksum=checksum)
    if pinned := Pins(**work.machine.pins).image:
        pinned.check(image.digest, "" if image.digest else image.build)
    work.machine.image = f"{kind}/{image.name}"
    work.save()
    return image


def _wanted_image(work: Work, library: images.Images) -> str:
    """The name, path or URL asked for, or the default's name, which a lock remembers."""
    kind, pinned = work.driver.capabilities.image, Pins(**work.machine.pins).image
    if pinned and not work.driver.image:
        return pinned.name
    return work.driver.image or library.default(kind, engine=work.spec.takes_any_engine)


def _copy_certificates(work: Work) -> None:
    files = work.driver.certificates
    work.machine.tls = files is not None
    try:
        read = {
            file: Path(source).read_bytes()
            for file, source in zip((CA, CLIENT_CERT, CLIENT_KEY), files or (), strict=False)
        }
    except OSError as error:
        raise MachinekitError(
            f"cannot read {error.filename}: {error.strerror}", "give the path of a PEM file"
        ) from None
    work.write_all(read)
    if not files and work.driver.engine_url.startswith("tcp:"):
        work.note("no certificates were given: the connection to this engine is neither encrypted nor verified")


def _reserved(store: Store, wanted: Machine) -> Machine:
    """The record to go on with: the one that is there, or a new one, on disk when this returns."""
    if not store.exists(wanted.name):
        store.reserve(wanted)
        return wanted
    machine = store.load(wanted.name)
    same = (_flags(machine), machine.pins) == (_flags(wanted), wanted.pins)
    if machine.phase is Phase.CREATING and not same and not _has_begun(machine):
        store.remove(wanted.name)  # nothing is made yet: what is asked for now counts
        store.reserve(wanted)
        return wanted
    settled = (machine.spec, machine.setup) == (wanted.spec, wanted.setup)
    if machine.phase is Phase.CREATING and machine.fleet == wanted.fleet and not settled:
        # no engine is in use yet: a refused setting can be mended without starting over
        after = parse_setup(machine.setup).followed_by(parse_setup(wanted.setup))
        machine.spec, machine.setup, machine.pins = wanted.spec, after.model_dump(mode="json"), wanted.pins
        store.save(machine)
    _refuse_changes(machine, wanted)
    return machine


def _refuse_changes(machine: Machine, wanted: Machine) -> None:
    if machine.phase is Phase.REMOVING:
        raise SpecChangedError(
            f'machine "{machine.name}" is being removed', f"finish with machinekit rm {machine.name}, then create it"
        )
    if machine.fleet != wanted.fleet:
        raise SpecChangedError(*_of_another(machine, wanted))
    before, after = _flags(machine), _flags(wanted)
    if machine.driver != wanted.driver:  # other options are then no news
        before, after = {"--driver": machine.driver}, {"--driver": wanted.driver}
    changes = [
        f"  {flag}: {before[flag]!r} -> {after.get(flag)!r}" for flag in before if before[flag] != after.get(flag)
    ]
    if changes:
        raise SpecChangedError(
            f'Docker machine "{machine.name}" already exists, with other options:\n' + "\n".join(changes),
            f"to replace it: machinekit rm {machine.name}, then create it again",
        )


def _of_another(machine: Machine, wanted: Machine) -> tuple[str, str]:
    """Why a machine of one fleet, or of none, is not made or changed for another, and what to do."""
    if not machine.fleet:
        return (
            f'machine "{machine.name}" was made by hand',
            f"to have the fleet own it: machinekit import {machine.name}",
        )
    if not wanted.fleet:
        return f'machine "{machine.name}" is of the fleet "{machine.fleet}"', "change its file, then machinekit apply"
    return f'machine "{machine.name}" is of another fleet, "{machine.fleet}"', "give one of the two another name"


def _has_begun(machine: Machine) -> bool:
    """Whether something may exist outside of the store: an instance of ours, or changes on a server that was agreed."""
    births = drivers.load(machine.driver).capabilities.births
    last = find_image if births else converge.agree_to_changes
    return last.__name__ in machine.done or bool(machine.resources)


def _flags(machine: Machine) -> dict[str, Any]:
    options = {flag(machine.driver, field): value for field, value in machine.options.items()}
    return options | {engine_flag(field): value for field, value in machine.spec.items()}
