"""What is really on a machine, in an order and with digests by which two machines can be compared. Reads only.

Names, addresses, certificates and secrets are left out: they are each machine's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from machinekit import converge, daemonjson, pack
from machinekit.checkup import Nobody
from machinekit.errors import MachinekitError
from machinekit.render import static
from machinekit.setup import Setup
from machinekit.store import Store
from machinekit.work import Work, unfinished

VERSION = 1
MARK = "machinekit:manifest "
OWN = "hosts"  # the one setting of an engine that has its machine's address


def manifest(store: Store, name: str) -> dict[str, Any]:
    """What is on a machine; raises MachinekitError when nobody can look, or what `ssh.connect` raises."""
    machine = store.load(name)
    if error := unfinished(machine):
        raise error
    work = Work(store, machine, Nobody())
    if not work.driver.capabilities.ssh:
        raise MachinekitError(f'nobody can look into "{name}": driver {machine.driver} has only its engine')
    told = list(_told(converge.look(work, static("manifest/probe.sh"))))
    about = dict(told)
    return {
        "version": VERSION,
        "system": about.get("system", ""),
        "kernel": about.get("kernel", ""),
        "engine": {"program": about.get("engine", ""), "package": work.facts.package},
        "daemon.json": _settings(daemonjson.read(work.facts.daemon_json)),
        "files": _files(work.setup, work.carried.files),
        "registries": sorted(work.carried.logins),
        "roles": {
            name: {"digest": role.digest, "versions": role.versions}
            for name, role in sorted(work.carried.roles.items())
        },
        "packages": _packages(value for key, value in told if key == "package"),
    }


def _told(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        key, separator, value = line.removeprefix(MARK).partition("=")
        if line.startswith(MARK) and separator:
            yield key, value


def _settings(settings: dict[str, Any]) -> dict[str, str]:
    """The digest of each setting: what is in one may be nobody else's business."""
    told = {key: json.dumps(value, sort_keys=True).encode() for key, value in settings.items() if key != OWN}
    return {key: pack.digest(value) for key, value in sorted(told.items())}


def _files(setup: Setup, found: dict[str, tuple[str, str, str, str]]) -> dict[str, str]:
    """Content, mode and owner of each file; of a secret not even a digest, by which a short one could be guessed."""
    secrets = {file.path for file in setup.files if file.secret}
    return {
        path: f"{'secret' if path in secrets else digest} {mode} {owner}"
        for path, (digest, mode, owner, _) in sorted(found.items())
    }


def _packages(lines: Iterable[str]) -> dict[str, str]:
    """The versions by name; a system may have several kernels."""
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, version = line.partition(" ")
        found.setdefault(name, []).append(version)
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}
