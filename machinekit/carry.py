"""What a host carries beside its engine: as it should be, as the probe found it, and the script between the two.

Runs nothing.
"""

from __future__ import annotations

import base64
import json
import shlex
from dataclasses import dataclass, field
from typing import Any

from machinekit import pack
from machinekit.errors import EngineError
from machinekit.render import render, static
from machinekit.roles import Prepared

HOME = "/var/lib/machinekit"  # on the host: what we have put there, and what was there before us
DOCKER_CONFIG = "/root/.docker/config.json"
CERTIFICATES = "/etc/docker/certs.d/"  # https://docs.docker.com/engine/security/certificates/


@dataclass(frozen=True)
class Wanted:
    """A file as it should be on the host. `content` is None where it is a secret that cannot be known now."""

    path: str
    content: bytes | None
    mode: str = "0644"
    owner: str = "root:root"

    @property
    def name(self) -> str:
        """What people know it by."""
        return _name(self.path)


@dataclass(frozen=True)
class Load:
    """Everything that a host should carry: files, logins at registries (host to "user:password"), roles.

    A password is None where it cannot be known now.
    """

    files: tuple[Wanted, ...] = ()
    logins: dict[str, str | None] = field(default_factory=dict)
    roles: tuple[Prepared, ...] = ()


@dataclass
class RoleFound:
    """A role that is on the host. Without a digest its installation did not end; `wrong` is what its check says."""

    identity: str
    digest: str
    wrong: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # of its packages, as its check tells them


@dataclass
class Carried:
    """What the probe found. `files` has digest, mode and owner, by name and by number, of each path.

    `logins` has what was there before ours, by registry.
    """

    files: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)
    roles: dict[str, RoleFound] = field(default_factory=dict)
    logins: dict[str, Any] = field(default_factory=dict)
    docker_config: dict[str, Any] = field(default_factory=dict)


def probe_script(roles: tuple[Prepared, ...], *, logins: bool) -> str:
    """The script whose output `parse_carried` reads; `logins` says whether some are wanted."""
    checks = [{"name": role.name, "digest": role.digest, "script": _encoded(_whole(role.check))} for role in roles]
    return render("setup/probe.sh.j2", home=HOME, roles=checks, logins=logins)


def parse_carried(lines: list[str]) -> Carried:
    """What the host carries from the probe's lines; other lines are passed over. Raises EngineError for nonsense."""
    found = Carried()
    for line in lines:
        prefix, _, rest = line.partition(":")
        kind, _, value = rest.removeprefix("carried ").partition("=")
        if prefix == "machinekit" and rest.startswith("carried "):
            try:
                _take(found, kind, value)
            except (ValueError, KeyError):
                raise EngineError(
                    f"what the host tells of its {kind} makes no sense", f"log in and look into {HOME}"
                ) from None
    return found


def _take(found: Carried, kind: str, value: str) -> None:
    words = value.split(" ")
    match kind:
        case "file":
            digest, mode, owner, numbers, path = words
            found.files[_decoded(path)] = (digest, mode.zfill(4), owner, numbers)
        case "role":
            name, identity, digest = words
            found.roles[name] = RoleFound(identity, digest)
        case "check":
            name, code, said = words
            _checked(found.roles[name], code, _decoded(said))
        case "logins":
            found.logins = _object(f"{HOME}/logins", _decoded(value))
        case "docker_config":
            found.docker_config = _object(DOCKER_CONFIG, _decoded(value))


def differences(load: Load, carried: Carried) -> list[str]:
    """What on the host is not as it should be, a line each: what is missing, changed, or there and not wanted."""
    lines = [f"{file.name}: {_file_difference(file, carried)}" for file in load.files if _differs(file, carried)]
    lines += [f"{_name(path)}: not wanted any more" for path in _gone(load, carried)]
    lines += [f"registry {host}: {why}" for host, why in _login_differences(load, carried).items()]
    for role in load.roles:
        if wrong := _role_difference(role, carried.roles.get(role.name)):
            lines.append(f"role {role.name}: {wrong}")
    lines += [f"role {name}: not wanted any more" for name in to_remove(load, carried)]
    return list(dict.fromkeys(lines))


def to_remove(load: Load, carried: Carried) -> list[str]:
    """The roles that are on the host and not wanted any more."""
    wanted = {role.name for role in load.roles}
    return [name for name in carried.roles if name not in wanted]


def to_install(load: Load, carried: Carried) -> list[Prepared]:
    """The roles that are not on the host as they should be."""
    return [role for role in load.roles if _role_difference(role, carried.roles.get(role.name))]


def script(load: Load, carried: Carried, secrets: dict[str, dict[str, str]], proxies: str = "") -> str:
    """The script that makes the host carry the load and no more; empty when there is nothing to do.

    `secrets` are those of the roles to install or to remove, by the role's name and the shell's variable; `proxies` are
    the shell lines for what is to be downloaded.
    """
    files = [file for file in load.files if file.content is not None and _differs(file, carried)]
    gone, leaving, installed = _gone(load, carried), to_remove(load, carried), to_install(load, carried)
    logins = _logins(load, carried)
    if not (files or gone or leaving or installed or logins):
        return ""
    return static("setup/carry.sh") + render(
        "setup/carry.sh.j2",
        proxies=proxies,
        leaving=[{"name": name, "secrets": _assigned(secrets.get(name, {}))} for name in leaving],
        gone=[{"key": _key(path), "path": path, "name": f"{_name(path)} removed"} for path in gone],
        files=[_put(file) for file in files],
        roles=[_installed(role, secrets.get(role.name, {})) for role in installed],
        **(logins or {"logins": None}),
    )


def removal_script(roles: list[str], secrets: dict[str, dict[str, str]], proxies: str = "") -> str:
    """The script that takes roles off the host and leaves everything else there."""
    leaving = [{"name": name, "secrets": _assigned(secrets.get(name, {}))} for name in roles]
    about: dict[str, Any] = {"leaving": leaving, "gone": [], "files": [], "roles": [], "logins": None}
    return static("setup/carry.sh") + render("setup/carry.sh.j2", proxies=proxies, **about)


def changes_told(lines: list[str]) -> list[str]:
    """What a script did, in words."""
    mark = "machinekit:changed="
    return list(dict.fromkeys(line.removeprefix(mark) for line in lines if line.startswith(mark)))


def _checked(role: RoleFound, code: str, said: str) -> None:
    mark = "machinekit:version="
    for line in said.splitlines():
        if line.startswith(mark):
            package, _, version = line.removeprefix(mark).partition("=")
            role.versions[package] = version
    if code != "0":
        rest = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith(mark)]
        role.wrong = "; ".join(rest[-3:]) or f"its check fails with exit code {code}"


def _differs(file: Wanted, carried: Carried) -> bool:
    return bool(_file_difference(file, carried))


def _file_difference(file: Wanted, carried: Carried) -> str:
    digest, mode, *owners = carried.files.get(file.path, ("", "", "", ""))
    if not digest:
        return "new"
    if digest == "-":
        return "missing"
    if file.content is not None and digest != pack.digest(file.content):
        return "other content"
    if mode == file.mode and file.owner in owners:
        return ""
    return f"{owners[0]} {mode} instead of {file.owner} {file.mode}"


def _role_difference(role: Prepared, found: RoleFound | None) -> str:
    if found is None:
        return "new"
    if not found.digest:
        return "not installed to the end"
    return "changed" if found.digest != role.digest else found.wrong


def _gone(load: Load, carried: Carried) -> list[str]:
    wanted = {file.path for file in load.files}
    return sorted(path for path in carried.files if path not in wanted)


def _login_differences(load: Load, carried: Carried) -> dict[str, str]:
    """The registries whose login is to be put in place or taken away, and why."""
    auths, found = carried.docker_config.get("auths", {}), {}
    for host, login in load.logins.items():
        if host not in carried.logins:
            found[host] = "no credentials"
        elif login is not None and auths.get(host) != _auth(login):
            found[host] = "other credentials"
    return found | dict.fromkeys((host for host in carried.logins if host not in load.logins), "not wanted any more")


def _logins(load: Load, carried: Carried) -> dict[str, Any] | None:
    """The values for the script's part about logins; None when they are as they should be."""
    changed = _login_differences(load, carried)
    if not changed:
        return None
    config = dict(carried.docker_config)
    auths, before = dict(config.pop("auths", {})), dict(carried.logins)
    for host in list(before):
        if host not in load.logins:
            previous = before.pop(host)
            auths.pop(host, None)
            auths |= {host: previous} if previous else {}
    for host, login in load.logins.items():
        before.setdefault(host, auths.get(host))
        auths |= {host: _auth(login)} if login is not None else {}
    config |= {"auths": auths} if auths else {}
    return {
        "logins": _encoded(json.dumps(before)),
        "logins_left": bool(before),
        "docker_config": _encoded(json.dumps(config, indent=2) + "\n") if config else "",
        "logins_changed": [f"registry {host}" for host in changed],
    }


def _auth(login: str) -> dict[str, str]:
    return {"auth": _encoded(login)}


def _put(file: Wanted) -> dict[str, str]:
    content = base64.b64encode(file.content or b"").decode()
    return {**vars(file), "name": file.name, "key": _key(file.path), "base64": content}


def _installed(role: Prepared, secrets: dict[str, str]) -> dict[str, str]:
    scripts = {each: _encoded(_whole(getattr(role, each))) for each in ("install", "check", "remove")}
    about = {"name": role.name, "identity": role.identity, "digest": role.digest}
    return {**about, **scripts, "secrets": _assigned(secrets)}


def _assigned(secrets: dict[str, str]) -> str:
    """Shell variables with the secrets; they are never exported and never in an argument list."""
    return _encoded("".join(f"{name}={shlex.quote(value)}\n" for name, value in secrets.items()))


def _whole(text: str) -> str:
    """The script as a shell may read it from a pipe: whole before it starts, and no program in it reads the rest."""
    return f"main() {{\n{text}\n}}\nmain </dev/null\n"


def certificate_of(host: str) -> str:
    """Where the engine looks for the CA of a registry."""
    return f"{CERTIFICATES}{host}/ca.crt"


def _name(path: str) -> str:
    """What people know a file of ours by."""
    return (
        f"registry {path.removeprefix(CERTIFICATES).partition('/')[0]}"
        if path.startswith(CERTIFICATES)
        else f"file {path}"
    )


def _key(path: str) -> str:
    return pack.digest(path.encode())[:16]


def _object(path: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path} on the host is not valid JSON: {error}", "mend it by hand") from None
    if not isinstance(found, dict) or not isinstance(found.get("auths", {}), dict):
        raise EngineError(f"{path} on the host is not what docker login writes", "mend it by hand")
    return found


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode(errors="surrogateescape")).decode()


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode(errors="surrogateescape")
