"""A server that already exists, reached over SSH."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from machinekit.errors import PreCheckError
from machinekit.machine import Birth, Instance, State
from machinekit.provider import ENGINE_PORT, Capabilities, Driver, Options, absolute, option


@dataclass
class GenericOptions(Options):
    """Where the server is and how to log in."""

    ip_address: str = option(
        "address or name of the server", aliases=("GENERIC_IP_ADDRESS",), pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:%-]*$"
    )
    ssh_user: str = option(
        "user to log in as; any but root needs sudo without a password",
        default="root",
        aliases=("GENERIC_SSH_USER",),
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?$",
    )
    ssh_port: int = option("SSH port", default=22, aliases=("GENERIC_SSH_PORT",), ge=1, le=65535)
    ssh_key: str = option(
        "private key to log in with, used where it is; without one, the agent and your default keys",
        default="",
        aliases=("GENERIC_SSH_KEY",),
        check=absolute,
    )
    host_key: str = option(
        "fingerprint of the server's host key (SHA256:...); without one, the key seen first is pinned",
        default="",
        pattern=r"^(SHA256:[A-Za-z0-9+/]{43})?$",
    )
    engine_port: int = option(
        "port for the engine to listen on", default=ENGINE_PORT, aliases=("GENERIC_ENGINE_PORT",), ge=1, le=65535
    )


class Generic(Driver[GenericOptions]):
    """Adopts a server; never powers it on or off and never deletes it."""

    Options = GenericOptions
    capabilities = Capabilities(power=False, births=False)

    @property
    def ssh_user(self) -> str:
        """As given."""
        return self.options.ssh_user

    @property
    def ssh_key(self) -> str:
        """As given."""
        return self.options.ssh_key

    @property
    def host_key(self) -> str:
        """The fingerprint to insist on at first contact, if given."""
        return self.options.host_key

    @property
    def listen_port(self) -> int:
        """As given."""
        return self.options.engine_port

    def check(self) -> None:
        """The key file is there."""
        if self.ssh_key and not Path(self.ssh_key).is_file():
            raise PreCheckError(f"there is no SSH key at {self.ssh_key}", "give the path of a private key")

    def create(self, birth: Birth) -> None:
        """Nothing to make."""

    def find(self) -> Instance:
        """The server, taken to run: only its owner knows better."""
        return Instance(State.RUNNING, self.options.ip_address, self.options.ssh_port, self.options.engine_port)

    def destroy(self) -> None:
        """The server stays as it is."""
