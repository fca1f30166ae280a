"""No provider: an engine that already answers at a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from machinekit.errors import PreCheckError
from machinekit.machine import Birth, Instance, State
from machinekit.provider import Capabilities, Driver, Options, absolute, option

LAST_PORT = 65535


def _with_a_port(url: str) -> str:
    port = url.rpartition(":")[2]
    if url.startswith("tcp:") and not 1 <= int(port) <= LAST_PORT:
        raise ValueError(f"{port} is not a port")
    return url


@dataclass
class NoneOptions(Options):
    """Where the engine answers, and the certificates it wants."""

    url: str = option(
        "engine URL: tcp://HOST:PORT or unix:///PATH", pattern=r"^(tcp://.+:\d+|unix:///.+)$", check=_with_a_port
    )
    tls_ca: str = option("certificate of the CA that signed the engine's", default="", check=absolute)
    tls_cert: str = option("client certificate", default="", check=absolute)
    tls_key: str = option("client key", default="", check=absolute)

    def check(self) -> None:
        """All three certificate files, or none of them."""
        given = [bool(path) for path in (self.tls_ca, self.tls_cert, self.tls_key)]
        if any(given) and not all(given):
            raise ValueError("TLS needs all of --none-tls-ca, --none-tls-cert and --none-tls-key")
        if any(given) and self.url.startswith("unix:"):
            raise ValueError("a unix socket takes no certificates")


class NoDriver(Driver[NoneOptions]):
    """Adopts an engine; makes nothing and removes nothing."""

    Options = NoneOptions
    capabilities = Capabilities(ssh=False, power=False, births=False)

    @property
    def engine_url(self) -> str:
        """The engine's address, as given."""
        return self.options.url

    @property
    def certificates(self) -> tuple[Path, Path, Path] | None:
        """The CA, client certificate and client key to copy into the store, where there is TLS."""
        if not self.options.tls_ca:
            return None
        return Path(self.options.tls_ca), Path(self.options.tls_cert), Path(self.options.tls_key)

    def check(self) -> None:
        """The certificates can be read."""
        for path in self.certificates or ():
            if not path.is_file():
                raise PreCheckError(f"there is no file {path}", "give the path of a PEM file")

    def create(self, birth: Birth) -> None:
        """Nothing to make."""

    def find(self) -> Instance:
        """The engine's host, taken to run: the engine itself is asked by whoever needs to know."""
        tcp = re.fullmatch(r"tcp://(.+):(\d+)", self.options.url)
        if not tcp:
            return Instance(State.RUNNING, "localhost")
        return Instance(State.RUNNING, tcp[1].strip("[]"), engine_port=int(tcp[2]))

    def destroy(self) -> None:
        """Nothing to remove."""
