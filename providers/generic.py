"""A server that already exists, reached over SSH."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from machinekit.errors import PreCheckError
from machinekit.machine import Birth, Instance, State
from machinekit.provider import ENGINE_PORT, Access, Capabilities, Driver, Options, Source, absolute, option

from . import sshconfig

HOP = r"(ssh://)?([A-Za-z0-9_.-]+@)?([A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9a-fA-F:.]+\])(:[0-9]+)?"


@dataclass
class GenericOptions(Options):
    """Where the server is and how to log in."""

    ip_address: str = option(
        "address of the server, its name, or its alias in your ssh_config",
        aliases=("GENERIC_IP_ADDRESS",),
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:%-]*$",
    )
    ssh_user: str = option(
        "user to log in as, root if neither this nor your ssh_config says; any other needs sudo",
        default="",
        aliases=("GENERIC_SSH_USER",),
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.@-]*\$?)?$",
    )
    ssh_port: int = option(
        "SSH port; 0: as your ssh_config says, or 22", default=0, aliases=("GENERIC_SSH_PORT",), ge=0, le=65535
    )
    ssh_key: str = option(
        "private key to log in with, used where it is; without one, your agent's, your ssh_config's and default keys",
        default="",
        aliases=("GENERIC_SSH_KEY",),
        check=absolute,
    )
    ssh_key_passphrase_command: str = option(
        "command that prints the passphrase of the private key; $MACHINEKIT_GENERIC_SSH_KEY_PASSPHRASE may hold it",
        default="",
    )
    ssh_jump: str = option(
        "jump hosts on the way, [user@]host[:port], separated by commas; none: not even those of your ssh_config",
        default="",
        pattern=rf"^(none|({HOP})(,{HOP})*)?$",
    )
    sudo_password_command: str = option(
        "command that prints the user's password for sudo; $MACHINEKIT_GENERIC_SUDO_PASSWORD may hold it", default=""
    )
    host_key: str = option(
        "fingerprint of the server's host key (SHA256:...); without one your known_hosts count, or the key seen first",
        default="",
        pattern=r"^(SHA256:[A-Za-z0-9+/]{43})?$",
    )
    engine_port: int = option(
        "port for the engine to listen on", default=ENGINE_PORT, aliases=("GENERIC_ENGINE_PORT",), ge=1, le=65535
    )

    local_port: int = option(
        "for a server whose engine cannot be reached from here: a port of 127.0.0.1 that you forward to it",
        default=0,
        ge=0,
        le=65535,
    )


class Generic(Driver[GenericOptions]):
    """Adopts a server; never powers it on or off and never deletes it."""

    Options = GenericOptions
    capabilities = Capabilities(power=False, births=False)

    @cached_property
    def _settings(self) -> sshconfig.Settings:
        return sshconfig.settings(self.options.ip_address, user=self.options.ssh_user, port=self.options.ssh_port)

    @property
    def ssh_user(self) -> str:
        """As given, or as ssh_config has it."""
        return self._settings.user

    @property
    def ssh_key(self) -> str:
        """As given."""
        return self.options.ssh_key

    @property
    def host_keys(self) -> tuple[str, ...]:
        """The fingerprint to insist on at first contact, or those that the user's known_hosts have."""
        return (self.options.host_key,) if self.options.host_key else sshconfig.known_fingerprints(self._settings)

    @property
    def access(self) -> Access:
        """The user's own way in."""
        found, options = self._settings, self.options
        jump = options.ssh_jump or ("" if found.proxy else found.jump)
        proxy, through = found.proxy, f"ProxyCommand {found.proxy}"
        if jump:
            proxy, through = sshconfig.jump_command(jump), f"jump host {jump}"
        if jump == "none" or not proxy:
            proxy = through = ""
        return Access(
            address=found.address,
            port=found.port,
            proxy=proxy,
            through=through,
            agent=found.agent,
            keys=found.keys,
            only_keys=found.only_keys,
            passphrase=Source(
                "MACHINEKIT_GENERIC_SSH_KEY_PASSPHRASE",
                options.ssh_key_passphrase_command,
                "--generic-ssh-key-passphrase-command",
            ),
            sudo=Source(
                "MACHINEKIT_GENERIC_SUDO_PASSWORD", options.sudo_password_command, "--generic-sudo-password-command"
            ),
        )

    @property
    def engine_url(self) -> str:
        """The forwarded port's, where there is one."""
        return f"tcp://127.0.0.1:{self.options.local_port}" if self.options.local_port else ""

    @property
    def listen_port(self) -> int:
        """As given."""
        return self.options.engine_port

    def check(self) -> None:
        """The key file is there, and the user's ssh_config can be read."""
        if self.ssh_key and not Path(self.ssh_key).is_file():
            raise PreCheckError(f"there is no SSH key at {self.ssh_key}", "give the path of a private key")
        _ = self._settings

    def create(self, birth: Birth) -> None:
        """Nothing to make."""

    def find(self) -> Instance:
        """The server, taken to run: only its owner knows better."""
        return Instance(
            State.RUNNING,
            self.options.ip_address,
            self.options.ssh_port or sshconfig.SSH_PORT,
            self.options.engine_port,
        )

    def destroy(self) -> None:
        """The server stays as it is."""
