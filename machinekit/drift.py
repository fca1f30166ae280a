"""How machines differ from what their records say: asked of the providers and the hosts themselves. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from machinekit import collect, converge, engine, keys, outfit, packages, reference
from machinekit.checkup import Nobody
from machinekit.errors import MachinekitError
from machinekit.machine import Instance, Machine, Phase, State
from machinekit.plan import Difference
from machinekit.store import TIME, Store
from machinekit.work import Work

HOSTS = 64  # asked at once
ENGINE_VERSION = "engine.version"
ENGINE_PACKAGES = "engine.packages"


def look(store: Store, machines: Sequence[Machine]) -> dict[str, list[Difference]]:
    """The differences by machine; each provider is asked once for all of its machines.

    Raises MachinekitError when a provider cannot be asked: what it has is then not known.
    """
    whole = [machine for machine in machines if machine.phase is Phase.READY]
    found = collect.instances(store, whole)
    with ThreadPoolExecutor(HOSTS) as pool:
        looks = pool.map(lambda machine: _machine(store, machine, found[machine.name]), whole)
        return {machine.name: differences for machine, differences in zip(whole, looks, strict=True)}


def _machine(store: Store, machine: Machine, found: Instance | MachinekitError | None) -> list[Difference]:
    if isinstance(found, MachinekitError):
        raise _unknown(machine, found)
    work = Work(store, machine, Nobody())
    try:
        found = found or work.driver.find()  # a list may leave out what is there, and what is gone is replaced
    except MachinekitError as error:
        raise _unknown(machine, error) from None
    if found is None:
        return [Difference("instance", "gone", "running", replaces=True)]
    if found.state is not State.RUNNING:
        # what is just starting or stopping is waited for, never thrown away
        broken = found.state is State.ERROR
        return [Difference("instance", found.state.value.lower(), "running", replaces=broken)]
    if not work.driver.capabilities.ssh:
        return []
    address = work.located(found)
    if address != (machine.address, machine.ssh_port):
        before, after = (f"{host}:{port}" for host, port in ((machine.address, machine.ssh_port), address))
        return [Difference("address", before, after)]
    try:
        return list(_host(work))
    except MachinekitError as error:
        return [Difference("host", error.message, "answers")]


def _unknown(machine: Machine, error: MachinekitError) -> MachinekitError:
    return MachinekitError(
        f'cannot ask driver {machine.driver} for "{machine.name}": {error.message}',
        error.hint or "with --no-refresh the plan is made from the records alone",
    )


def _host(work: Work) -> Iterator[Difference]:
    """What the host tells of itself against what we would have it be."""
    converge.look(work)
    facts, machine = work.facts, work.machine
    if not facts.dockerd:
        yield Difference("engine", "not installed", "installed")
        return
    if work.spec.version and (departure := packages.departure(work.spec, facts)):
        yield Difference(ENGINE_VERSION, departure, work.spec.version)
    if others := packages.other_companions(work.spec, facts):
        yield Difference(ENGINE_PACKAGES, others, list(work.spec.packages))
    if facts.active != "yes":
        yield Difference("engine", "stopped", "running")
    if machine.renewal_due and machine.renewal_due <= datetime.now(UTC).strftime(TIME):
        yield Difference("certificates", "about to end", "renewed")
    try:
        changed = engine.to_put(converge.wanted_files(work), facts)
    except keys.UNREADABLE:
        yield Difference("certificates", "cannot be read", "renewed")
        return
    for file in changed:
        yield Difference(file.path, _state(file, facts), "as configured")
    for line in outfit.differences(work):
        what, _, how = reference.redacted(line).partition(": ")
        yield Difference(what, how, "as in the file")


def _state(file: engine.File, facts: engine.Facts) -> str:
    if file.path == engine.DAEMON_JSON and facts.daemon_json:
        return f"{', '.join(engine.settings_to_change(file, facts)) or 'more than ours'} changed on the host"
    return "changed on the host" if file.path in facts.files else "missing"
