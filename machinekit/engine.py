"""What the engine of a machine should look like: facts in, scripts and files out. Runs nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from machinekit import daemonjson, service
from machinekit.errors import EngineError
from machinekit.render import render, static
from machinekit.settings import COMPANIONS
from machinekit.spec import Spec

DAEMON_JSON = daemonjson.FILE
ORIGINAL = "/etc/docker/daemon.json.before-"  # and the machine's uid: what was there before us
CA = "/etc/docker/ca.pem"
CERT = "/etc/docker/server.pem"
KEY = "/etc/docker/server-key.pem"
MIRRORS = "/var/lib/machinekit/mirrors"  # those in daemon.json that the machine's setup has brought

# Settings that cannot be exchanged under running containers: where they and their network are.
UNDERFOOT = ("bip", "bridge", "containerd", "data-root", "exec-root", "fixed-cidr", "storage-driver", "userns-remap")


@dataclass
class Facts:
    """What the probe found on a host. `files` has the SHA-256 of each managed file that exists."""

    os_id: str = ""
    os_like: str = ""
    os_version: str = ""
    init: str = ""
    dockerd: str = ""
    package: str = ""  # the one that the engine came in, and its version
    companions: dict[str, str] = field(default_factory=dict)  # versions by package, of settings.COMPANIONS
    active: str = "no"
    containers: str = "0"  # that run
    exec_start: str = ""
    pending: str = "no"
    clock: str = ""  # seconds since 1970
    daemon_json: str = ""
    daemon_json_before: str = ""  # what an unfinished change found
    conf_d: str = ""
    mirrors: str = ""  # that an earlier setup has brought
    files: dict[str, str] = field(default_factory=dict)
    free: dict[str, int] = field(default_factory=dict)  # MB by folder
    originals: dict[str, str] = field(default_factory=dict)  # by machine uid, the oldest first

    @property
    def settings_before(self) -> str:
        """daemon.json, but as it was before a change that was cut off, if there was one."""
        return self.daemon_json_before or self.daemon_json

    @property
    def system(self) -> str:
        """The system in words."""
        return f"{self.os_id or 'unknown'} {self.os_version}".strip()


@dataclass(frozen=True)
class File:
    """A file to put on the host, or to take away."""

    path: str
    content: bytes = b""
    mode: str = "0644"
    gone: bool = False

    @property
    def base64(self) -> str:
        """The content as the script carries it."""
        return base64.b64encode(self.content).decode()


def probe_script() -> str:
    """The script whose output `parse_facts` reads."""
    return f"companions='{' '.join(COMPANIONS)}'\n" + static("engine/init.sh") + static("engine/probe.sh")


def parse_facts(lines: list[str]) -> Facts:
    """The facts from the probe's lines; other lines are passed over. Raises EngineError where they make no sense."""
    facts = Facts()
    for line in lines:
        prefix, _, rest = line.partition(":")
        key, separator, value = rest.partition("=")
        if prefix != "machinekit" or not separator:
            continue
        if key.startswith("sha256 "):
            facts.files[key.removeprefix("sha256 ")] = value
        elif key.startswith("companion "):
            facts.companions[key.removeprefix("companion ")] = value
        elif key.startswith("free "):
            if _is_number(value):
                facts.free[f"/{key.removeprefix('free ')}"] = int(value) // 1024
        elif key.startswith("original "):
            facts.originals[key.removeprefix("original ")] = value
        elif isinstance(getattr(Facts, key, None), str):  # the fields that are texts, and nothing else
            setattr(facts, key, value)
    _check(facts)
    return facts


def _check(facts: Facts) -> None:
    try:
        for encoded in (facts.daemon_json, facts.daemon_json_before, facts.conf_d, *facts.originals.values()):
            base64.b64decode(encoded)
        if facts.clock and not _is_number(facts.clock):
            raise ValueError("its clock has no number")
    except ValueError as error:
        raise EngineError(f"what the host tells of itself makes no sense: {error}", "log in and look") from None


def _is_number(text: str) -> bool:
    return re.fullmatch("[0-9]{1,11}", text) is not None  # seconds until the year 5138


def wanted_files(
    spec: Spec,
    facts: Facts,
    *,
    driver: str,
    listen: str,
    certificates: dict[str, bytes],
    original: str = "",
    previous: Spec | None = None,
    mirrors: tuple[str, ...] = (),
) -> list[File]:
    """Every file we manage on the host, as it should be.

    `listen` is the engine's TCP address, such as tcp://0.0.0.0:2376; `certificates` are by path; `mirrors` are the
    registries of the machine's setup that images are asked for at first. With `original` our settings are merged with
    what was there before us, not with what is there now: an earlier try may have left settings that were taken back.
    What only the `previous` spec wanted goes.
    """
    hosts = service.hosts(facts.exec_start)
    current = daemonjson.read(facts.daemon_json)
    base = daemonjson.read(facts.originals.get(original) or facts.settings_before)
    if previous:
        before = daemonjson.read(next(reversed(facts.originals.values()), ""))
        old = daemon_settings(before, previous, driver=driver, listen=listen, unit_hosts=hosts)
        base = daemonjson.without(base, old, before)
    former = facts.mirrors.split()
    wanted = daemon_settings(base, spec, driver=driver, listen=listen, unit_hosts=hosts, mirrors=mirrors, former=former)
    # a file that says the same in other words stays as its owner wrote it
    text = base64.b64decode(facts.daemon_json) if wanted == current else json.dumps(wanted, indent=2).encode() + b"\n"
    files = [*certificate_files(certificates), File(DAEMON_JSON, text)]
    if ours := daemonjson.brought(base, mirrors, former):
        files.append(File(MIRRORS, "\n".join(ours).encode() + b"\n"))
    elif former or facts.pending == "yes":
        files.append(File(MIRRORS, gone=True))
    if facts.init == "openrc":
        conf = service.conf_d(spec, facts.exec_start, base64.b64decode(facts.conf_d).decode(errors="surrogateescape"))
        return [*files, File(service.CONF_D, conf.encode(errors="surrogateescape"))] if conf else files
    return [*files, File(service.DROP_IN, service.drop_in(spec, facts.exec_start).encode())]


def certificate_files(certificates: dict[str, bytes]) -> list[File]:
    """The files of the certificates that are given by path."""
    return [File(path, content, "0600" if path == KEY else "0644") for path, content in certificates.items()]


def restored_files(spec: Spec, facts: Facts, uid: str, *, driver: str, listen: str) -> list[File]:
    """Every file we manage as it was before us; what others have changed since stays changed.

    Empty when this machine never configured the host. Raises EngineError when another machine's settings rest on ours.
    """
    if uid not in facts.originals:
        return []
    if list(facts.originals)[-1] != uid:
        raise EngineError(
            "another machine of machinekit was made of this server later", "remove that one first, with --restore"
        )
    current, before = daemonjson.read(facts.settings_before), daemonjson.read(facts.originals[uid])
    hosts, mirrors = service.hosts(facts.exec_start), facts.mirrors.split()
    ours = daemon_settings(before, spec, driver=driver, listen=listen, unit_hosts=hosts, mirrors=mirrors)
    wanted = daemonjson.without(current, ours, before)
    content = json.dumps(wanted, indent=2).encode() + b"\n"
    if wanted == before:
        content = base64.b64decode(facts.originals[uid])  # to the byte
    gone = (CA, CERT, KEY, service.DROP_IN, MIRRORS, ORIGINAL + uid)
    files = [File(DAEMON_JSON, content, gone=not wanted), *(File(path, gone=True) for path in gone)]
    if facts.init == "openrc" and facts.conf_d:
        own = service.without_ours(base64.b64decode(facts.conf_d).decode(errors="surrogateescape"))
        files.append(File(service.CONF_D, own.encode(errors="surrogateescape")))
    return files


def changes(files: list[File], facts: Facts) -> list[str]:
    """What putting the files in place would change on the host, a line each."""
    lines = []
    for file in files:
        if file.path == DAEMON_JSON and facts.daemon_json:
            lines.append(f"{file.path}: {', '.join(settings_to_change(file, facts))} (the rest stays, a copy is kept)")
        else:
            lines.append(f"{file.path}: {'replaced' if file.path in facts.files else 'new'}")
    return lines


def settings_to_change(file: File, facts: Facts) -> list[str]:
    """The keys of daemon.json that are others on the host."""
    current, wanted = daemonjson.read(facts.daemon_json), json.loads(file.content or b"{}")
    return [key for key in wanted if wanted[key] != current.get(key)]


def owned_by_another(facts: Facts, uid: str) -> bool:
    """Whether another machine's record was the last to configure this host, and ours never did."""
    return bool(facts.originals) and uid not in facts.originals


def to_change(files: list[File], facts: Facts) -> list[File]:
    """The files that differ on the host."""
    contents = {DAEMON_JSON: facts.daemon_json} if facts.daemon_json else {}
    contents |= {ORIGINAL + uid: content for uid, content in facts.originals.items()}
    there = facts.files | {path: _sha256(base64.b64decode(content)) for path, content in contents.items()}
    return [file for file in files if there.get(file.path) != _digest(file)]


def to_put(files: list[File], facts: Facts) -> list[File]:
    """The files to put in place: those that differ, or all of them to end a change that was cut off."""
    return files if facts.pending == "yes" else to_change(files, facts)


def configure_script(files: list[File], facts: Facts, uid: str, install: str = "", back: str = "") -> str:
    """The script that puts the files in place and restarts the engine, or puts everything back.

    The file with what was there before us, if it is among them, goes last. `install`, a script of `packages`, runs
    before the restart, and `back` when the engine does not come up after it.
    """
    before = daemonjson.read(facts.settings_before)
    after = next((json.loads(file.content or b"{}") for file in files if file.path == DAEMON_JSON), before)
    live_before, live_after = (settings.get("live-restore") is True for settings in (before, after))
    original = ORIGINAL + uid
    changed = [file for file in files if file.path != original]
    fixed = " and ".join(key for key in UNDERFOOT if before.get(key) != after.get(key))
    parts = ("engine/journal.sh", "engine/init.sh", "engine/files.sh", "engine/keep.sh")
    return "".join(map(static, parts)) + render(
        "engine/configure.sh.j2",
        files=changed,
        restores=len(changed) < len(files),
        managed=[CA, CERT, KEY, DAEMON_JSON, service.DROP_IN, service.CONF_D, MIRRORS],
        settings=DAEMON_JSON,
        original=original,
        kept_before=_live_restore(before, True),
        kept_after=_live_restore(after, True),
        released_before=_live_restore(before, live_before),
        released_after=_live_restore(after, live_after),
        live_before=json.dumps(live_before),
        live_after=json.dumps(live_after),
        fixed=f"{fixed} cannot change under them" if fixed else "",
        dockerd=facts.dockerd,
        install=install,
        back=back,
    )


def containers_told(lines: list[str]) -> str:
    """What became of the containers that ran, from the configure script's output; empty when there were none."""
    for line in lines:
        if line.startswith("machinekit:containers="):
            count, _, why = line.partition("=")[2].partition(" ")
            what = "1 running container" if count == "1" else f"{count} running containers"
            return f"{what} stopped with the engine: {why}" if why else f"{what} kept running"
    return ""


def start_script() -> str:
    """The script that starts an engine that is configured and not running."""
    return "".join(map(static, ("engine/journal.sh", "engine/init.sh", "engine/start.sh")))


def daemon_settings(current: dict[str, Any], spec: Spec, **about: Any) -> dict[str, Any]:
    """daemon.json: what is there, with our settings merged in; `about` is what `daemonjson.merged` takes."""
    return daemonjson.merged(current, spec, **about) | {
        "tlsverify": True,
        "tlscacert": CA,
        "tlscert": CERT,
        "tlskey": KEY,
    }


def _digest(file: File) -> str | None:
    return None if file.gone else _sha256(file.content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _live_restore(settings: dict[str, Any], on: bool) -> str:
    return base64.b64encode(json.dumps(settings | {"live-restore": on}).encode()).decode()
