"""Every error a user may see: what happened, and what to do next.

MachinekitError              exit 1
├── UsageError               exit 2   the command line or an option is wrong
├── PreCheckError            exit 3   the driver refused before anything was made
│   └── NotSetUpError                 there is nobody to ask: no credentials, or a library is missing
├── NoSuchMachineError                no record of that name
├── SpecChangedError                  create again with other options
├── StoreError                        a record or directory cannot be read or written
│   └── LockedError                   another process works on the machine
├── DriverError                       a cloud, hypervisor or engine refused
│   └── GoneError                     the instance behind a record does not exist any more
├── ConnectError                      no SSH connection
│   ├── UnreachableError              route, port or silence: waiting may help
│   │   └── BrokenError               an open connection was cut: what ran may be run again
│   ├── WrongAddressError             no such name, or something else answers: waiting does not help
│   ├── HostKeyError                  the host is not the one that was pinned
│   └── LoginError                    key, shell or sudo refused
├── DownloadError                     a file of a publisher cannot be had: network, proxy, or it is not there
├── UntrustedError                    a checksum or signature is wrong, or a file is not what it was
├── RemoteError                       a script failed on the host
├── EngineError                       no valid answer from the engine over TLS
└── DeadlineError                     a wait ended without what it waited for
"""

from __future__ import annotations

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The end of a message about an unknown word: what may have been meant; empty when nothing is near.

    `likeness` is the share of letters, from 0 to 1, that the two must have in common.
    """
    import difflib

    near = difflib.get_close_matches(word, list(known), 1, likeness)
    return f"; did you mean {near[0]}?" if near else ""


class MachinekitError(Exception):
    """Base of all: `message` says what failed, `hint` what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MachinekitError):
    """The command line or an option is wrong."""

    exit_code = 2


class PreCheckError(MachinekitError):
    """The driver refused before anything was made."""

    exit_code = 3


class NotSetUpError(PreCheckError):
    """This computer has nothing of the driver's provider: no credentials, or a library is missing."""


class NoSuchMachineError(MachinekitError):
    """No record of that name."""


class SpecChangedError(MachinekitError):
    """The machine exists with other options."""


class StoreError(MachinekitError):
    """A record or directory cannot be read or written."""


class LockedError(StoreError):
    """Another process works on the machine."""


class DriverError(MachinekitError):
    """A cloud, hypervisor or engine refused."""


class GoneError(DriverError):
    """The instance behind a record does not exist any more."""


class ConnectError(MachinekitError):
    """No SSH connection."""


class UnreachableError(ConnectError):
    """Nobody answers there now: waiting may help."""


class BrokenError(UnreachableError):
    """An open connection was cut: what ran may be run again."""


class WrongAddressError(ConnectError):
    """No such name, or something else than an SSH server of our kind answers: waiting does not help."""


class HostKeyError(ConnectError):
    """The host is not the one that was pinned."""


class LoginError(ConnectError):
    """The host refused the key, or sudo refused us."""


class DownloadError(MachinekitError):
    """A publisher's file cannot be had."""


class UntrustedError(MachinekitError):
    """A checksum or signature is wrong, or a file is not what it was."""


class RemoteError(MachinekitError):
    """A script failed on the host."""


class EngineError(MachinekitError):
    """The engine gave no valid answer over TLS; `status` is HTTP's, of an engine that refused."""

    def __init__(self, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


class DeadlineError(MachinekitError):
    """A wait ended without what it waited for."""
