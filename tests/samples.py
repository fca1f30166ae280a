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
    "compose": {
        "project": str(HERE / "app"),
        "environment": {"GREETING": NASTY},
        "secrets": {"TOKEN": "env:TOKEN"},
        "version": "2.29.7",
        "checksum": "0" * 64,
        "url": f"http://{NASTY}",
    },
    "registry": {
        "port": 443,
        "cache_of": "https://registry.test",
        "cache_ca": str(HERE / "run"),
        "cache_username": "it's",
        "cache_password": "env:CACHE",
        "username": "it's",
        "password": "env:PASSWORD",
        "version": "2.8.2+ds1-1",
    },
    "gitlab-runner": {
        "url": "https://gitlab.test/it's",
        "token": "env:TOKEN",
        "version": "17.5.0",
        "image": NASTY,
        "tags": [NASTY, "b"],
        "privileged": True,
        "concurrent": 4,
        "ca": str(HERE / "run"),
        "repository": "https://packages.test/it's",
    },
    "github-actions-runner": {
        "url": "https://github.test/it's",
        "token": "env:TOKEN",
        "version": "2.319.1",
        "checksum": "0" * 64,
        "labels": [NASTY, "b"],
        "group": NASTY,
        "package": f"http://{NASTY}",
    },
}
PLAIN: dict[str, dict[str, Any]] = {  # no more than there must be
    "script": {"run": str(HERE / "run")},
    "compose": {"project": str(HERE / "app")},
    "registry": {},
    "gitlab-runner": {"url": "https://gitlab.test", "token": "env:TOKEN"},
    "github-actions-runner": {
        **{"url": "https://github.test/a", "token": "env:TOKEN", "version": "2.319.1", "checksum": "0" * 64},
        "docker": False,
    },
}
LOAD = Load(
    files=(Wanted(f"/etc/a place/{NASTY}", b"\x00\xff"), Wanted(carry.certificate_of("registry.test:5000"), b"PEM")),
    logins={"registry.test:5000": f"ci:{NASTY}"},
)


def prepared(role: str) -> roles.Prepared:
    """The built-in role with its sample's options."""
    return roles.prepare(role, role, roles.validated(role, SAMPLES[role]))


def scripts(samples: dict[str, dict[str, Any]], end: str = "") -> dict[str, Callable[[], str]]:
    """Every script of every role with these options, by the name of a file."""
    return {
        f"role-{role}-{script}{end}.sh": partial(_script, role, script, samples)
        for role in samples
        for script in roles.SCRIPTS
    }


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


def _script(role: str, script: str, samples: dict[str, dict[str, Any]]) -> str:
    one = roles.prepare(role, role, roles.validated(role, samples[role]))
    unused = "# shellcheck disable=SC2034 # not every script needs each\n"
    secrets = "" if script == "check" else "".join(f"{unused}{variable}=secret\n" for variable in one.secrets)
    return f"{secrets}{getattr(one, script)}"
