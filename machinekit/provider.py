"""The contract between the core and a driver; all that a driver may know of the core.

A driver is one file with one declaration: an options dataclass, whose fields are made by `option`,
and a `Driver` class that names it. Flags, environment variables, validation and help come from that
one declaration. It is a dataclass and not a pydantic model so that reading the state
of a machine stays light: see docs/decisions/0002.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from machinekit.machine import Birth, Image, Instance, Machine, Resource

ENGINE_PORT = 2376
PRIVATE_SLOT = "1e.0"  # of the PCI bus: the card of a private network, by which our system images know it


@dataclass(frozen=True)
class OptionInfo:
    """What the faces need to know of an option beside its name, type and default."""

    help: str
    aliases: tuple[str, ...] = ()  # further environment variables, such as Docker Machine's
    flags: tuple[str, ...] = ()  # further flags, such as Docker Machine's
    secret: bool = False  # never stored; asked for again at each use
    check: Callable[[Any], Any] | None = None  # gives the value its final form, or raises ValueError
    rules: dict[str, Any] = field(default_factory=dict)  # pydantic's: ge, le, pattern, min_length ...


def option(
    help: str,
    *,
    default: Any = MISSING,
    aliases: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    secret: bool = False,
    check: Callable[[Any], Any] | None = None,
    **rules: Any,
) -> Any:
    """Declare one option of a driver.

    `rules` are pydantic's field constraints; `check` is called with a value that keeps them, and returns what
    counts or raises ValueError, saying what is wrong. Without a default the option is required. A `bool` is a
    switch, a `tuple[str, ...]` may be given several times, a `Literal` is a choice.
    """
    info = OptionInfo(help, aliases, flags, secret, check, rules)
    return field(default=default, metadata={"option": info})


def absolute(path: str) -> str:
    """An option's check: the path as it is found from any directory; raises ValueError for an unknown user's home."""
    try:
        return str(Path(path).expanduser().absolute()) if path else ""
    except RuntimeError:
        raise ValueError(f"{path!r}: there is no such user") from None


@dataclass
class Options:
    """Base of every driver's options. `check` may refuse what a single option cannot see."""

    def check(self) -> None:
        """Raise ValueError, saying what is wrong, when the values do not fit each other."""

    @classmethod
    def infos(cls) -> dict[str, OptionInfo]:
        """Every option's declaration by field name."""
        return {f.name: f.metadata["option"] for f in fields(cls)}


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do; the verbs ask this and never the driver's name."""

    ssh: bool = True  # there is a host behind the engine that we log in to
    power: bool = True  # start, stop, restart, kill
    births: bool = True  # makes the instance, so our user and keys can be in it before the first boot
    image: str = ""  # the kind of image it boots: "disk", "rootfs", or none
    exposed_birth: bool = False  # what the first boot reads can be read inside later, by others than root


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # it works, and something should be done
    PROBLEM = "problem"  # something does not work


@dataclass(frozen=True)
class Check:
    """One thing that `doctor` looked at: how it is, and what to do about it."""

    level: Level
    subject: str
    text: str
    do: str = ""


@dataclass(frozen=True)
class Source:
    """Where a secret comes from before a person is asked: a variable of the environment, or a command that prints it.

    `flag` is the option that gives the command.
    """

    variable: str = ""
    command: str = ""
    flag: str = ""


@dataclass(frozen=True)
class Access:
    """How to get into a host that somebody else set up, beside its user and key.

    `address` and `port` are where it is, when that is not where the instance is said to be. `proxy` is a command
    whose stdin and stdout lead to the SSH port, with ssh_config(5)'s tokens; `through` names it to a person. `agent`
    is the socket of the agent: empty for $SSH_AUTH_SOCK, "none" for no agent. `keys` are tried after the agent's,
    or with `only_keys` instead of them; without any the user's default keys are.
    """

    address: str = ""
    port: int = 0
    proxy: str = ""
    through: str = ""
    agent: str = ""
    keys: tuple[Path, ...] = ()
    only_keys: bool = False
    passphrase: Source = Source()
    sudo: Source = Source()


OptionsT = TypeVar("OptionsT", bound=Options)


class Driver(ABC, Generic[OptionsT]):
    """One machine of one provider. Every method is safe to call again after a crash.

    `directory` is the machine's own in the store: files put there die with the record. Whatever is
    made elsewhere carries `marks()`; what is made beside the instance is journalled with `plan`
    first. A missing id never means "gone": `find` looks by uid.
    """

    Options: ClassVar[type[Options]]
    capabilities: ClassVar[Capabilities] = Capabilities()
    not_taken: ClassVar[dict[str, str]] = {}  # Docker Machine's flags for credentials: the variables to set instead
    floating: ClassVar[tuple[str, ...]] = ()  # the options that name, and no more, what a machine is made of

    def __init__(self, machine: Machine, options: OptionsT, directory: Path, save: Callable[[], None]) -> None:
        self.machine = machine
        self.options = options
        self.directory = directory
        self._save = save

    # --- what it says of itself

    @property
    def ssh_user(self) -> str:
        """Who we log in as."""
        return "machinekit"

    @property
    def ssh_key(self) -> str:
        """A private key of the user's own instead of the machine's; empty for the machine's."""
        return ""

    @property
    def host_keys(self) -> tuple[str, ...]:
        """The fingerprints (SHA256:...), one of which a host that we did not make must show; none: the first seen."""
        return ()

    @property
    def access(self) -> Access:
        """How to get in, where that needs more than address, user and key."""
        return Access()

    @property
    def carries_host_key(self) -> bool:
        """Whether an instance that we make has our host key from its first boot; else the first one seen is pinned."""
        return True

    @property
    def user_data(self) -> bytes:
        """The user's own user-data, to be merged with ours; raises PreCheckError when it cannot be had."""
        return b""

    @property
    def engine_url(self) -> str:
        """The engine's address where it is not tcp:// at the instance's; empty otherwise."""
        return ""

    @property
    def certificates(self) -> tuple[Path, Path, Path] | None:
        """The files (CA, client certificate, client key) of an engine that already has TLS; None for ours."""
        return None

    @property
    def image(self) -> str:
        """The image asked for, where `capabilities.image` says it boots one; empty for the default."""
        return ""

    @property
    def image_checksum(self) -> str:
        """The checksum (sha256:... or sha512:...) that the image asked for must have; empty when none was given."""
        return ""

    @property
    def listen_port(self) -> int:
        """The port the engine listens on inside the machine."""
        return ENGINE_PORT

    # --- the life of an instance

    def check(self) -> None:
        """Raise PreCheckError when create cannot work: credentials, quota, programs, options."""

    def remarks(self) -> list[str]:
        """What a person should know before the instance is made, a line each."""
        return []

    @abstractmethod
    def create(self, birth: Birth) -> None:
        """Make the instance, or go on with the one that carries our uid; it starts or has started."""

    @abstractmethod
    def find(self) -> Instance | None:
        """The instance with our uid, or None when it certainly does not exist."""

    def start(self) -> None:
        """Power on; nothing when it runs."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ask the system to power off and wait until it has."""
        raise NotImplementedError

    def kill(self) -> None:
        """Cut the power."""
        raise NotImplementedError

    @abstractmethod
    def destroy(self) -> None:
        """Remove the instance; success when there is none."""

    def console(self) -> str:
        """What the instance's console has shown, or the end of it; empty where the provider does not keep that."""
        return ""

    def release(self, resource: Resource) -> None:
        """Remove one journalled resource; success when it was never made or is gone."""
        raise NotImplementedError

    @classmethod
    def pinned(cls, options: Any) -> dict[str, str]:
        """The options, among these, that would say exactly what they only name now, such as an image's id.

        Images that `capabilities.image` speaks of are the core's to tell. Raises PreCheckError when that is not one.
        """
        return {}

    # --- many machines at once

    @classmethod
    def find_all(cls, drivers: Sequence[Driver[Any]]) -> dict[str, Instance | None]:
        """The instances of many machines by uid, in as few calls as the provider allows."""
        return {driver.machine.uid: driver.find() for driver in drivers}

    @classmethod
    def account(cls, options: Any) -> tuple[Hashable, ...]:
        """What tells the account, engine or region of these options from another, which has to be asked too."""
        return ()

    @classmethod
    def option_for_peers(cls, options: Any) -> str:
        """The option that lets the machines of a Swarm reach each other, where these do not; empty where they do."""
        return ""

    @classmethod
    def is_set_up(cls, options: Any) -> bool:
        """Whether there is anybody to ask: without credentials or programs nothing of ours can be there."""
        return True

    @classmethod
    def orphans(cls, options: Any, known: Callable[[Machine], bool]) -> list[Machine]:
        """Instances and resources with our marks that `known` denies, as records that `destroy` understands.

        `known` is asked only after everything was listed: what is listed later may be of a machine that is born
        meanwhile. `destroy` and `release` are called with such a record and an empty directory.
        """
        return []

    @classmethod
    def requirements(cls, options: Any, subject: str) -> list[Check]:
        """What this computer or account has of what the driver needs, a line each under `subject`; changes nothing."""
        return []

    @classmethod
    def forget_image(cls, options: Any, image: Image) -> None:
        """Drop the copies the provider keeps of an image that is about to be removed."""

    # --- for drivers

    def marks(self) -> dict[str, str]:
        """The labels or tags that make everything of ours findable."""
        return {
            "machinekit.uid": self.machine.uid,
            "machinekit.name": self.machine.name,
            "machinekit.store": self.machine.store,
        }

    def plan(self, kind: str, name: str) -> str:
        """Journal a side resource, on disk when this returns, and only then make it; returns its name."""
        resource = Resource(kind, name, math.ceil(time.time()))
        self.machine.resources = [other for other in self.machine.resources if other != resource] + [resource]
        self._save()
        return name

    def forget(self, resource: Resource) -> None:
        """Take a side resource that is gone out of the journal."""
        self.machine.resources.remove(resource)
        self._save()
