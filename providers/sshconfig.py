"""What the user's own ssh_config says of a host: OpenSSH itself is asked, so every directive counts."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from machinekit import programs
from machinekit.errors import PreCheckError

SSH_PORT = 22
PATIENCE = 30.0  # seconds for OpenSSH to tell what it has read

# ours come last, where the first word found counts: what nobody has set
FILE = """Include "{home}/.ssh/config"
Include /etc/ssh/ssh_config
Match all
User root
"""


@dataclass(frozen=True)
class Settings:
    """Where and how to log in to a host."""

    address: str
    port: int
    user: str
    keys: tuple[Path, ...] = ()
    only_keys: bool = False
    agent: str = ""
    jump: str = ""
    proxy: str = ""
    alias: str = ""
    known_hosts: tuple[Path, ...] = ()


def settings(name: str, *, user: str = "", port: int = 0) -> Settings:
    """The settings for the name that ssh would be given; `user` and `port` win over what is configured.

    Without OpenSSH's client there is no configuration. Raises PreCheckError when it cannot be read.
    """
    if not shutil.which("ssh"):
        return Settings(name, port or SSH_PORT, user or "root")
    given = [*(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
    code, said, complaint = _asked(
        "ssh", "-G", "-T", "-F", "/dev/stdin", *given, "--", name, text=FILE.format(home=Path.home())
    )
    if code != 0:
        why = complaint.strip().splitlines() or ["it says nothing"]
        raise PreCheckError(f"ssh refuses its configuration for {name}: {why[-1]}", f"try: ssh -G {name}")
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)

    def one(key: str) -> str:
        value = found.get(key, [""])[0]
        return "" if value == "none" and key != "identityagent" else value

    known_hosts = [path for key in ("userknownhostsfile", "globalknownhostsfile") for path in one(key).split()]
    return Settings(
        one("hostname"),
        int(one("port")),
        one("user"),
        tuple(Path(path).expanduser() for path in found.get("identityfile", [])),
        one("identitiesonly") == "yes",
        one("identityagent"),
        one("proxyjump"),
        one("proxycommand"),
        one("hostkeyalias"),
        tuple(Path(path).expanduser() for path in known_hosts),
    )


def jump_command(hops: str) -> str:
    """The command that leads through jump hosts, given as ssh's -J takes them.

    Each hop is the user's own affair: their ssh_config, agent and known_hosts count. Nobody is asked anything, and
    a hop that is not in known_hosts is refused.
    """
    command = ""
    for hop in hops.split(","):
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10"]
        if command:
            options.append(f"ProxyCommand={command.replace('%', '%%')}")
        destination = hop if hop.startswith("ssh://") else f"ssh://{hop}"
        words = ["ssh", *(word for option in options for word in ("-o", option)), "-W", "[%h]:%p", destination]
        command = shlex.join(words)
    return command


def known_fingerprints(settings: Settings) -> tuple[str, ...]:
    """The fingerprints (SHA256:...) of the host's keys in the user's known_hosts."""
    address = settings.alias or settings.address
    name = address if settings.port == SSH_PORT or settings.alias else f"[{address}]:{settings.port}"
    found = []
    for path in settings.known_hosts:
        if path.is_file() and shutil.which("ssh-keygen"):
            _, said, _ = _asked("ssh-keygen", "-l", "-F", name, "-f", str(path))
            # a line that names the place, and says CA or REVOKED of what is no host's key, is before each key
            for place, key in zip(*[iter(said.splitlines())] * 2, strict=False):
                if not place.rstrip().endswith(("CA", "REVOKED")):
                    found += [word for word in key.split() if word.startswith("SHA256:")]
    return tuple(dict.fromkeys(found))


def _asked(*words: str, text: str = "") -> tuple[int, str, str]:
    """The exit code of a program of OpenSSH's, what it says and what it complains of, any of which may be no text."""
    # a command of the user's (Match exec) may need their environment
    result = programs.run(words, data=os.fsencode(text), patience=PATIENCE, environment=os.environ)
    return result.returncode, result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
