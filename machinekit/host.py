"""Where and how to log in, for us and for OpenSSH's clients alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from machinekit.provider import Access


@dataclass(frozen=True)
class Host:
    """Where to log in, as whom, and the key the host must show.

    `alias` stands for the host in `known_hosts`, so that an address may change. Without `key_file`
    the agent and the keys of `access` are tried.
    """

    address: str
    port: int
    user: str
    alias: str
    known_hosts: Path
    key_file: Path | None
    access: Access = field(default_factory=Access)

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{address}:{self.port}"

    def openssh_options(self) -> list[str]:
        """The options that make OpenSSH's clients go the same way, with the same key and the same pinned host key."""
        options = [
            f"HostKeyAlias={self.alias}",
            f"UserKnownHostsFile={_ssh_quoted(self.known_hosts)}",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "PasswordAuthentication=no",
            "ConnectTimeout=10",
            "ServerAliveInterval=60",
            "LogLevel=ERROR",
        ]
        if self.access.proxy:
            options.append(f"ProxyCommand={self.access.proxy}")
        if self.access.agent:
            options.append(f"IdentityAgent={_ssh_quoted(Path(self.access.agent))}")
        keys = [self.key_file] if self.key_file else [path for path in self.access.keys if path.exists()]
        options += [f"IdentityFile={_ssh_quoted(path)}" for path in keys]
        if self.key_file or self.access.only_keys:
            options.append("IdentitiesOnly=yes")
        return options


def _ssh_quoted(path: Path) -> str:
    # ssh_config(5): a quoted argument may hold escaped quotes, and % starts a token
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'
