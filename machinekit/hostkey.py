"""The machine's SSH host key: ours from birth, and another one once user-data could have told it."""

from __future__ import annotations

import base64
from pathlib import Path

import tenacity

from machinekit import keys
from machinekit.errors import HostKeyError, UnreachableError
from machinekit.render import render
from machinekit.store import HOST_KEY, HOST_KEY_NEXT, HOST_KEY_PUBLIC, KNOWN_HOSTS
from machinekit.work import Work

RELOAD = 15.0  # seconds for sshd to show its new key


def born(work: Work) -> None:
    """Make the key that the instance has from its first boot, and pin it."""
    private, public = keys.ssh_key(work.machine.name)
    work.write_all({HOST_KEY: private, HOST_KEY_PUBLIC: public.encode() + b"\n"})
    _pin(work, public)


def replacement_script(work: Work) -> str:
    """What puts a new key in the place of one that can be read inside the machine; empty when there is no need.

    From here on both are accepted, so that a cut connection leaves no machine that we do not know.
    """
    if not work.driver.capabilities.exposed_birth or not (work.directory / HOST_KEY).exists():
        return ""
    if not (work.directory / HOST_KEY_NEXT).exists():
        work.write(HOST_KEY_NEXT, keys.ssh_key(work.machine.name)[0])
    private = work.read(HOST_KEY_NEXT)
    public = keys.ssh_public(private, work.machine.name)
    _pin(work, work.read(HOST_KEY_PUBLIC).decode().strip(), public)
    return render("ssh/replace-host-key.sh.j2", private=base64.b64encode(private).decode(), public=public)


def replaced(work: Work) -> None:
    """Accept only the new key, once the host shows it; raises HostKeyError when it does not."""
    from machinekit import ssh

    next_ = work.directory / HOST_KEY_NEXT
    if not next_.exists():
        return
    public = keys.ssh_public(work.read(HOST_KEY_NEXT), work.machine.name)
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((HostKeyError, UnreachableError)),
        wait=tenacity.wait_exponential(multiplier=0.1, max=2),
        stop=tenacity.stop_after_delay(RELOAD),
        reraise=True,
    )
    waiting(ssh.scan, work.host, (ssh.fingerprint(public),))
    _pin(work, public)
    # neither is needed any more: the host has its own
    for file in (HOST_KEY, HOST_KEY_PUBLIC, HOST_KEY_NEXT):
        Path(work.directory / file).unlink(missing_ok=True)


def _pin(work: Work, *public: str) -> None:
    work.write(KNOWN_HOSTS, "".join(f"{work.machine.uid} {key}\n" for key in public).encode())
