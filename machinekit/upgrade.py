"""Upgrade the engine's packages of a machine, or go back to the version from before when that fails."""

from __future__ import annotations

from collections.abc import Sequence

from machinekit import converge, engine, packages, reach, reference
from machinekit.engine import Facts
from machinekit.errors import EngineError, MachinekitError, RemoteError
from machinekit.spec import Spec
from machinekit.store import Store
from machinekit.work import Progress, Work, run, working_on

BACK = "machinekit:back=yes"  # said by the script between the journal of the new engine and the old one's return
JOURNAL = 12  # its lines, as templates/engine/journal.sh asks for


def upgrade(
    store: Store, name: str, progress: Progress, *, to: str = "", companions: tuple[str, ...] | None = None
) -> list[str]:
    """Bring the engine to version `to`, else to the version in the record, else to the newest.

    A version that is given is remembered and held; `packages.LATEST` ends that. `companions` are as `Spec.packages` has
    them; without it, those in the record as long as the version stays, else whichever are the newest. Running
    containers go on where the engine allows it. Returns what was done; empty means that there was nothing to do.
    """
    with working_on(store, name, "upgrade", progress) as work:
        if work.spec.engine not in ("distro", "docker") or not work.driver.capabilities.ssh:
            raise MachinekitError(
                f'the engine of "{name}" came from --engine {work.spec.engine}, which has no versions to choose from',
                "upgrade it the way it was installed",
            )

        def exchange(work: Work) -> None:
            wanted = to or work.spec.version
            stays = work.spec.packages if wanted == work.spec.version else ()
            _exchange(work, wanted, stays if companions is None else companions)

        exchange.__doc__ = _exchange.__doc__
        before = (reach.find_address, reach.wait_for_ssh, converge.detect_system, converge.install_engine)
        run(work, (*before, exchange, converge.detect_system, converge.configure_engine, converge.verify_engine))
        return work.changed


def _exchange(work: Work, wanted: str, companions: tuple[str, ...]) -> None:
    """Upgrading the engine

    The lines above are the package manager's or the engine's; mend what they name and upgrade again.
    """
    before, facts = work.spec, work.facts
    pinned = "" if wanted == packages.LATEST else wanted
    after = before.model_copy(update={"version": pinned, "packages": companions})
    others = packages.other_companions(after, facts)
    old = packages.version_there(before, facts)
    if wanted == old and not others:
        _hold(work, after)
        return
    offers = converge.ask_versions(work)
    new = packages.choose(wanted, offers, packages.what(before, facts))
    if new == old and after == before and not others:
        return
    into, back = (f"{packages.short(version)} ({version})" for version in (new, old))
    install = packages.install_script(after, facts, new, held=bool(pinned), released=packages.companions_of(before))
    undo = _back_to(before, facts, old, after) if old in offers.versions else ""
    if not undo:
        work.note(f"no repository has {back} any more: there will be no way back to it")
    _remember(work, after)  # before anything is changed: after a crash, the same command or provision goes on
    try:
        lines = _run(work, install, undo) if new != old or others else work.execute(install, converge.INSTALL)
        if BACK not in lines:
            work.changed.append(_done(old, new, after, others))
        converge.verify_engine(work)
    except (RemoteError, EngineError) as error:
        _remember(work, before)
        raise EngineError(f"{error.message}\nthe upgrade to {into} failed; {_undone(work, undo, back)}") from error
    if BACK in lines:
        _remember(work, before)
        journal = "\n".join(lines[: lines.index(BACK)][-JOURNAL:])
        raise EngineError(f"{reference.redacted(journal)}\nthe engine does not start with {into}; it runs {back} again")


def _hold(work: Work, spec: Spec) -> None:
    """Keep the very versions that are there, as a lock wants it: no repository has to be asked for that."""
    if spec != work.spec:
        before = packages.companions_of(work.spec)
        work.execute(packages.hold_script(spec, work.facts, released=before), converge.INSTALL)
        _remember(work, spec)
        work.changed.append(_done(spec.version, spec.version, spec))


def _back_to(before: Spec, facts: Facts, old: str, after: Spec) -> str:
    """The script that installs what was there, and holds no more of it than was held."""
    names = packages.companions_of(after)
    there = {name: version for name, version in facts.companions.items() if name in names}
    return packages.install_script(before, facts, old, held=bool(before.version), released=names, companions=there)


def _done(old: str, new: str, after: Spec, others: Sequence[str] = ()) -> str:
    if new != old:
        return f"engine upgraded from {packages.short(old)} to {packages.short(new)}"
    if others:
        return f"beside the engine: {', '.join(after.packages)}"
    return f"held at {packages.short(new)}" if after.version else "not held any more"


def _undone(work: Work, undo: str, back: str) -> str:
    """Go back to the old version, and how that went, in words."""
    if not undo:
        return f"no repository has {back} to go back to"
    work.note(f"going back to {back}")
    try:
        _run(work, undo)
        converge.verify_engine(work)
    except (RemoteError, EngineError) as error:
        return f"going back to {back} failed too: {error.message}"
    return f"the engine runs {back} again"


def _run(work: Work, install: str, undo: str = "") -> list[str]:
    """Install while running containers are kept, restart, and take it back with `undo` when the engine stays down."""
    script = engine.configure_script([], work.facts, work.machine.uid, install, undo)
    lines = work.execute(script, converge.INSTALL, heard=work.heard)
    if told := engine.containers_told(lines):
        work.note(told)
    return lines


def _remember(work: Work, spec: Spec) -> None:
    work.spec = spec
    work.machine.spec = spec.model_dump(mode="json")
    if work.machine.pins.get("engine") != spec.version:
        for pin in ("engine", "packages"):
            work.machine.pins.pop(pin, None)  # whoever upgrades by hand leaves the lock
    work.save()
