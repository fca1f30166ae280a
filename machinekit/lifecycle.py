"""What happens to a machine after its creation: power, provisioning, certificates, removal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from machinekit import converge, dockercontext, keys
from machinekit.errors import MachinekitError
from machinekit.machine import Phase, Resource, State
from machinekit.store import CA, CA_KEY, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, Store
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
    """Issue a new server certificate, with `client` a new client certificate too, and restart the engine with it."""
    with working_on(store, name, "regenerate-certs", progress) as work:
        if not work.driver.capabilities.ssh:
            raise MachinekitError(
                f'the certificates of "{name}" are not ours to renew', "its engine was set up by others"
            )
        if client:
            pair = keys.client(keys.Pair(work.read(CA), work.read(CA_KEY)), name)
            work.write(CLIENT_KEY, pair.key)
            work.write(CLIENT_CERT, pair.cert)
        (work.directory / SERVER_CERT).unlink(missing_ok=True)  # what is missing is issued anew
        run(work, converge.steps(work))
        return work.changed


def remove(store: Store, name: str, progress: Progress, *, force: bool = False) -> None:
    """Remove the instance, what was made beside it, its docker context and last its record.

    With `force` the record goes even when the provider fails, which may leave something that costs money;
    the failure is noted.
    """
    with working_on(store, name, "rm", progress) as work:
        progress.step(name, "Removing")
        machine = work.machine
        machine.phase = Phase.REMOVING
        work.save()
        releases = [partial(_release, work, resource) for resource in reversed(machine.resources)]
        removals: list[Callable[[], None]] = [work.driver.destroy, *releases]
        for removal in removals:
            try:
                removal()
            except MachinekitError as error:
                if not force:
                    raise
                work.note(f"forgotten, but not removed at its provider: {error.message}")
        dockercontext.remove(name, machine.uid)
        store.remove(name)


def _release(work: Work, resource: Resource) -> None:
    work.driver.release(resource)
    work.machine.resources.remove(resource)
    work.save()


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
