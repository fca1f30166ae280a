"""What a machine carries beside its engine, put on it and taken off it: files, logins at registries, roles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from machinekit import carry, pack, packages, reference, roles
from machinekit.carry import Load, Wanted
from machinekit.errors import MachinekitError, RemoteError, UsageError
from machinekit.machine import State
from machinekit.setup import NOTHING, RoleUse, Setup, looked_at_again, parse_setup
from machinekit.work import Work

SET_UP = 1800.0  # seconds: a role may download much
PART = 60.0  # for what is registered elsewhere to be taken back

Resolve = Callable[[str, str], str | None]  # a reference, and where it was written


def change(work: Work, setup: Setup) -> None:
    """Have the machine carry this when it converges; the roles that it loses are removed then.

    Its record stays as it was until that is done, and knows of the roles that are on their way.
    """
    before = parse_setup(work.machine.setup)
    work.setup = before.followed_by(setup)
    _record(work, before.before(setup))


def check(work: Work) -> None:
    """Raise UsageError when the machine cannot carry its setup, or a secret of it cannot be resolved."""
    if work.setup != NOTHING and not work.driver.capabilities.ssh:
        raise UsageError(f"a machine of driver {work.machine.driver} can carry neither files nor registries nor roles")
    resolve_secrets(work.setup)


def resolve_secrets(setup: Setup) -> None:
    """Raise UsageError when a secret cannot be resolved; those that can are known to this process from now on."""
    _resolve_all(setup, reference.resolve)


def reveal(setup: Setup) -> None:
    """Know the secrets that can be resolved, so that nothing shows them; the others count for nothing."""
    _resolve_all(setup, _if_known)


def _resolve_all(setup: Setup, resolve: Resolve) -> None:
    for file in setup.files:
        if file.secret:
            resolve(file.secret, file.path)
    for registry in setup.registries:
        if registry.password:
            resolve(registry.password, f"registry {registry.host}")
    for use in setup.roles:
        _secrets(use.name, use.kept.secrets, resolve)


def probe_script(work: Work) -> str:
    """The script whose output tells what the host carries; a role that cannot be found here any more is not asked."""
    checked = []
    for use in work.setup.roles:
        with contextlib.suppress(ValueError):
            checked.append(roles.prepare(use.role, use.name, use.options))
    logins = any(registry.username for registry in work.setup.registries)
    return carry.probe_script(tuple(checked), logins=logins)


def differences(work: Work) -> list[str]:
    """What on the host is not as it should be, a line each; a secret that nobody can tell now counts for nothing."""
    lines = carry.differences(load(work.setup, _if_known), work.carried)
    return [reference.redacted(line) for line in lines]


def set_up(work: Work) -> None:
    """Setting up what it carries

    Mend what the last lines name, and run the same command again.
    """
    now = looked_at_again(work.setup)
    wanted = load(now, reference.resolve)
    secrets = {
        role.name: _secrets(role.name, role.secrets, reference.resolve)
        for role in carry.to_install(wanted, work.carried)
    } | _secrets_to_remove(work, carry.to_remove(wanted, work.carried))
    if script := carry.script(wanted, work.carried, secrets, packages.proxies(work.spec)):
        work.changed += carry.changes_told(work.execute(script, SET_UP, work.heard))
    work.setup = now.model_copy(update={"leaving": ()})
    _record(work, work.setup)


def take_off(work: Work) -> None:
    """Taking off what it carries"""
    secrets = _secrets_to_remove(work, list(work.carried.roles))
    if script := carry.script(Load(), work.carried, secrets, packages.proxies(work.spec)):
        work.changed += carry.changes_told(work.execute(script, SET_UP))


def part(work: Work) -> None:
    """Take back what the machine's roles have registered elsewhere, before it goes; a failure is told and no more."""
    outside = [use for use in (*work.setup.roles, *work.setup.leaving) if use.kept.outside]
    found = work.driver.find() if outside else None
    if found is None:
        return
    try:
        if found.state is not State.RUNNING:
            raise RemoteError(f"the machine is {str(found.state).lower()}")
        work.place(found)
        work.carried = carry.parse_carried(work.execute(carry.probe_script((), logins=False), PART))
        there = [use.name for use in outside if use.name in work.carried.roles]
        if there:
            secrets = _secrets_to_remove(work, there)
            work.execute(carry.removal_script(there, secrets, packages.proxies(work.spec)), PART)
    except MachinekitError as error:
        names = ", ".join(use.name for use in outside)
        work.note(f"{names}: perhaps still registered, take it away there: {error.message}")
    finally:
        if work.connection:
            work.connection.close()
            work.connection = None


def _record(work: Work, setup: Setup) -> None:
    if setup != parse_setup(work.machine.setup):
        work.machine.setup = setup.model_dump(mode="json")
        work.save()


def load(setup: Setup, resolve: Resolve) -> Load:
    """What a host should carry, with the content of this computer's files and of secrets; raises UsageError."""
    try:
        return _load(setup, resolve)
    except ValueError as error:  # a file that is not there any more
        raise UsageError(str(error), "mend it, or change what the machine carries") from None


def _load(setup: Setup, resolve: Resolve) -> Load:
    files = [
        Wanted(file.path, _content(file.content, file.source, file.secret, file.path, resolve), file.mode, file.owner)
        for file in setup.files
    ]
    files += [
        Wanted(carry.certificate_of(registry.host), pack.content(Path(registry.ca)))
        for registry in setup.registries
        if registry.ca
    ]
    logins = {}
    for registry in setup.registries:
        if registry.username:
            password = resolve(registry.password, f"registry {registry.host}")
            logins[registry.host] = None if password is None else f"{registry.username}:{password}"
    return Load(tuple(files), logins, tuple(roles.prepare(use.role, use.name, use.options) for use in setup.roles))


def _content(text: str | None, source: str, secret: str, path: str, resolve: Resolve) -> bytes | None:
    if secret:
        return None if resolve(secret, path) is None else reference.content(secret, path)
    return pack.content(Path(source)) if source else (text or "").encode()


def _secrets(name: str, references: Mapping[str, str], resolve: Resolve) -> dict[str, str]:
    found = {variable: resolve(each, f"role {name}") for variable, each in references.items()}
    return {variable: value for variable, value in found.items() if value is not None}


def _secrets_to_remove(work: Work, names: list[str]) -> dict[str, dict[str, str]]:
    """As far as they can be known: many roles go without, and the others say so."""
    uses: dict[str, RoleUse] = {use.name: use for use in (*work.setup.leaving, *work.setup.roles)}
    return {name: _secrets(name, uses[name].kept.secrets, _if_known) for name in names if name in uses}


def _if_known(text: str, where: str) -> str | None:
    try:
        return reference.resolve(text, where)
    except MachinekitError:
        return None
