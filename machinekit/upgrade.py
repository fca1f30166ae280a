"""Upgrade the engine's packages of a machine, or go back to the version from before when that fails."""

from __future__ import annotations

from machinekit import converge, engine, packages, reach, reference
from machinekit.errors import EngineError, MachinekitError, RemoteError
from machinekit.store import Store
from machinekit.work import Progress, Work, run, working_on

BACK = "machinekit:back=yes"  # said by the script between the journal of the new engine and the old one's return
JOURNAL = 12  # its lines, as templates/engine/journal.sh asks for


def upgrade(store: Store, name: str, progress: Progress, *, to: str = "") -> list[str]:
    """Bring the engine to version `to`, else to the version in the record, else to the newest.

    A version that is given is remembered and held; `packages.LATEST` ends that. Running containers go on where
    the engine allows it. Returns what was done; empty means that there was nothing to do.
    """
    with working_on(store, name, "upgrade", progress) as work:
        if work.spec.engine not in ("distro", "docker") or not work.driver.capabilities.ssh:
            raise MachinekitError(
                f'the engine of "{name}" came from --engine {work.spec.engine}, which has no versions to choose from',
                "upgrade it the way it was installed",
            )

        def exchange(work: Work) -> None:
            _exchange(work, to)

        exchange.__doc__ = _exchange.__doc__
        before = (reach.find_address, reach.wait_for_ssh, converge.detect_system, converge.install_engine)
        run(work, (*before, exchange, converge.detect_system, converge.configure_engine, converge.verify_engine))
        return work.changed


def _exchange(work: Work, to: str) -> None:
    """Upgrading the engine

    The lines above are the package manager's or the engine's; mend what they name and upgrade again.
    """
    spec, facts, remembered = work.spec, work.facts, work.spec.version
    old = packages.version_there(spec, facts)
    wanted = to or remembered
    if wanted == old:
        _hold(work, old)
        return
    offers = converge.ask_versions(work)
    new = packages.choose(wanted, offers, packages.what(spec, facts))
    pinned = "" if to == packages.LATEST else to or remembered
    if new == old and pinned == remembered:
        return
    there, back = (f"{packages.short(version)} ({version})" for version in (new, old))
    install = packages.install_script(spec, facts, new, held=bool(pinned))
    undo = packages.install_script(spec, facts, old, held=bool(remembered)) if old in offers.versions else ""
    if not undo:
        work.note(f"no repository has {back} any more: there will be no way back to it")
    _remember(work, pinned)  # before anything is changed: after a crash, the same command or provision goes on
    try:
        lines = _run(work, install, undo) if new != old else work.execute(install, converge.INSTALL)
        if BACK not in lines:
            work.changed.append(_done(old, new, pinned))
        converge.verify_engine(work)
    except (RemoteError, EngineError) as error:
        _remember(work, remembered)
        raise EngineError(f"{error.message}\nthe upgrade to {there} failed; {_undone(work, undo, back)}") from error
    if BACK in lines:
        _remember(work, remembered)
        journal = "\n".join(lines[: lines.index(BACK)][-JOURNAL:])
        raise EngineError(
            f"{reference.redacted(journal)}\nthe engine does not start with {there}; it runs {back} again"
        )


def _hold(work: Work, version: str) -> None:
    """Keep the very version that is there, as a lock wants it: no repository has to be asked for that."""
    if version != work.spec.version:
        work.execute(packages.hold_script(work.spec, work.facts), converge.INSTALL)
        _remember(work, version)
        work.changed.append(_done(version, version, version))


def _done(old: str, new: str, pinned: str) -> str:
    if new == old:
        return f"held at {packages.short(new)}" if pinned else "not held any more"
    return f"engine upgraded from {packages.short(old)} to {packages.short(new)}"


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


def _remember(work: Work, version: str) -> None:
    work.spec = work.spec.model_copy(update={"version": version})
    work.machine.spec = work.spec.model_dump(mode="json")
    if work.machine.pins.get("engine") != version:
        work.machine.pins.pop("engine", None)  # whoever upgrades by hand leaves the lock
    work.save()
