"""What happens to a machine after its creation: power, provisioning, certificates, removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from machinekit import certificates, converge, dockerapi, dockercontext, drivers, images, outfit, reach
from machinekit.errors import MachinekitError, StoreError
from machinekit.machine import Machine, Phase, State
from machinekit.store import CLIENT_CERT, NAME, SERVER_CERT, Store
from machinekit.work import Progress, Work, run, working_on


def start(store: Store, name: str, progress: Progress) -> list[str]:
    """Power on, and wait until the engine answers at what may be a new address. Returns what was done."""
    with working_on(store, name, "start", progress) as work:
        _needs_power(work)
        run(work, converge.steps(work))  # the first step starts what is stopped
        return work.changed


def stop(store: Store, name: str, progress: Progress) -> list[str]:
    """Shut the system down and wait until it is off. Returns what was done."""
    with working_on(store, name, "stop", progress) as work:
        _needs_power(work)
        return _power_off(work, "Stopping", work.driver.stop)


def kill(store: Store, name: str, progress: Progress) -> list[str]:
    """Cut the power. Returns what was done."""
    with working_on(store, name, "kill", progress) as work:
        _needs_power(work)
        return _power_off(work, "Killing", work.driver.kill)


def restart(store: Store, name: str, progress: Progress) -> list[str]:
    """Shut down and power on again. Returns what was done."""
    with working_on(store, name, "restart", progress) as work:
        _needs_power(work)
        _power_off(work, "Stopping", work.driver.stop)
        run(work, converge.steps(work))
        return work.changed


def provision(store: Store, name: str, progress: Progress) -> list[str]:
    """Make engine, settings and certificates as they should be. Returns what was done; empty means "unchanged"."""
    with working_on(store, name, "provision", progress) as work:
        run(work, converge.steps(work))
        return work.changed


def regenerate_certs(store: Store, name: str, progress: Progress, *, client: bool = False) -> list[str]:
    """Issue a new server certificate, with `client` a new client certificate too, and restart the engine with it.

    Nothing else on the machine is changed. Returns what was done.
    """
    with working_on(store, name, "regenerate-certs", progress) as work:
        if not work.driver.capabilities.ssh:
            raise MachinekitError(
                f'the certificates of "{name}" are not ours to renew', "its engine was set up by others"
            )
        for file in (SERVER_CERT, CLIENT_CERT) if client else (SERVER_CERT,):
            work.delete(file)  # what is missing is issued anew
        run(work, (reach.find_address, reach.wait_for_ssh, *converge.RENEWAL))
        return work.changed


def renew(store: Store, name: str, progress: Progress) -> list[str]:
    """Renew the certificates that are due. Returns what was done.

    A failure puts the next try off to tomorrow, so that not every command of a day waits for it. Raises LockedError
    at once when another process works on the machine.
    """
    with working_on(store, name, "renew", progress, patience=0) as work:
        try:
            run(work, converge.RENEWAL)
        except MachinekitError as error:
            certificates.postpone(work)
            raise MachinekitError(
                f'the certificates of "{name}" are due and cannot be renewed: {error.message}',
                f"tried again tomorrow, or now with machinekit regenerate-certs {name}",
            ) from None
        return work.changed


def use(store: Store, name: str, progress: Progress) -> None:
    """Point the docker client of every shell at the machine, if its engine answers."""
    machine = store.load(name)
    if not machine.url:
        raise MachinekitError(f'machine "{name}" has no address yet', "run the same machinekit create again")
    dockerapi.ping(machine.url, store.directory(name) if machine.tls else None)
    # under the lock: a context that is written while the machine is removed would stay
    with store.lock(name, "use", lambda holder: progress.note(name, f"waiting: {holder}")):
        machine = store.load(name)
        tls = store.directory(name) if machine.tls else None
        dockercontext.use(name, machine.uid, machine.url, tls, machine.store)


def remove(
    store: Store,
    name: str,
    progress: Progress,
    *,
    force: bool = False,
    restore: bool = False,
    check: Callable[[Machine], None] = lambda machine: None,
) -> None:
    """Remove the instance, what was made beside it, its docker context and last its record.

    With `restore` a server that was adopted gets its settings from before back. With `force` the record goes even when
    the provider fails or the record cannot be read, which may leave something that costs money; the failure is noted.
    A directory without a record is not ours to remove; `check` raises where the machine is not the one that is meant.
    """
    # a create that has just begun has nothing but its lock
    if not store.has_record(name) and not (store.leftovers_of(name) and NAME.fullmatch(name)):
        store.load(name)  # says that there is none
    with store.lock(name, "rm", lambda holder: progress.note(name, f"waiting: {holder}")):
        if store.tidy(name) and not store.exists(name):
            return  # that was all that an earlier one had left to do
        if not store.has_record(name):
            store.load(name)
        progress.step(name, "Removing")
        with _forced(force, name, progress):
            check(machine := store.load(name))
            work = Work(store, machine, progress)
            adopted = work.machine.phase is Phase.READY and not work.driver.capabilities.births
            if restore and work.driver.capabilities.ssh and not work.driver.capabilities.births:
                with _forced(force, name, progress):
                    run(work, converge.RESTORATION)
                    adopted = False
            with _forced(force, name, progress):
                outfit.part(work)
            work.machine.phase = Phase.REMOVING
            _save(work, force)
            with _forced(force, name, progress):
                work.driver.destroy()
            for resource in reversed(list(work.machine.resources)):
                with _forced(force, name, progress):
                    work.driver.release(resource)
                    work.machine.resources.remove(resource)
                    _save(work, force)
            dockercontext.remove(name, work.machine.uid)
            if adopted and work.driver.capabilities.ssh:
                work.note(
                    "the server stays as it is, with our settings in /etc/docker; --restore would have put them back"
                )
        store.remove(name)
    library = images.Images(store.images)
    for draft in library.leftovers():  # its create may have been killed while it built one
        library.sweep(draft)


def is_adopted(store: Store, name: str) -> bool:
    """Whether the machine is a server that was there before us."""
    capabilities = drivers.load(store.load(name).driver).capabilities
    return capabilities.ssh and not capabilities.births


def _save(work: Work, force: bool) -> None:
    try:
        work.save()
    except StoreError:
        if not force:  # on a full disk only removing something makes room
            raise


@contextmanager
def _forced(force: bool, name: str, progress: Progress) -> Iterator[None]:
    """Go on after a failure when that is wanted, and say what it was."""
    try:
        yield
    except (MachinekitError, OSError) as error:
        if not force:
            raise
        progress.note(name, f"forgotten, but perhaps not gone: {error}; machinekit gc finds what is left")


def _needs_power(work: Work) -> None:
    if not work.driver.capabilities.power:
        raise MachinekitError(
            f'"{work.machine.name}" cannot be powered on or off through driver {work.machine.driver}',
            f"log in with machinekit ssh {work.machine.name}" if work.driver.capabilities.ssh else "",
        )


def _power_off(work: Work, text: str, how: Callable[[], None]) -> list[str]:
    found = work.driver.find()
    if found is None or found.state is State.STOPPED:
        return []
    work.progress.step(work.machine.name, text)
    how()
    work.changed.append("stopped")
    return work.changed
