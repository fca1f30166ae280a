"""Options for every built-in role, as nasty as they may be, and the scripts that come from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from machinekit import carry, roles
from machinekit.carry import Load, RoleFound, Wanted

HERE = Path(__file__).with_name("sample")
NASTY = 'it\'s "$(id)" `id` {{ 7 }} {% raw %} \\ end'
SAMPLES: dict[str, dict[str, Any]] = {
    "script": {
        "run": str(HERE / "run"),
        "check": str(HERE / "run"),
        "environment": {"GREETING": NASTY},
        "secrets": {"TOKEN": "env:TOKEN"},
    },
}
LOAD = Load(
    files=(Wanted(f"/etc/a place/{NASTY}", b"\x00\xff"), Wanted(carry.certificate_of("registry.test:5000"), b"PEM")),
    logins={"registry.test:5000": f"ci:{NASTY}"},
)


def prepared(role: str) -> roles.Prepared:
    """The built-in role with its sample's options."""
    return roles.prepare(role, role, roles.validated(role, SAMPLES[role]))


def scripts() -> dict[str, Callable[[], str]]:
    """Every script of every role, by the name of its golden file."""
    return {f"role-{role}-{script}.sh": partial(_script, role, script) for role in SAMPLES for script in roles.SCRIPTS}


def probe() -> str:
    """What a host with a role and a login is asked."""
    return carry.probe_script((prepared("script"),), logins=True)


def change() -> str:
    """Everything that can happen to what a host carries."""
    carried = carry.Carried(
        files={NASTY: ("", "", "", "")}, roles={"old": RoleFound("", "")}, logins={"old": None}, docker_config={"a": 1}
    )
    secrets = {"old": {"token": NASTY}, "script": {"secrets_TOKEN": NASTY}}
    load = Load(LOAD.files, LOAD.logins, (prepared("script"),))
    return carry.script(load, carried, secrets)


def _script(role: str, script: str) -> str:
    one = prepared(role)
    secrets = "" if script == "check" else "".join(f"{variable}=secret\n" for variable in one.secrets)
    return f"{secrets}{getattr(one, script)}"
