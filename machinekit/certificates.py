"""Have a machine's certificates as they must be: in date for both sides, with every name, of the right CA."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from machinekit import engine, keys
from machinekit.errors import PreCheckError
from machinekit.machine import Phase
from machinekit.spec import Spec
from machinekit.store import CA, CA_KEY, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, SERVER_KEY, TIME
from machinekit.work import Work

UNEVEN = timedelta(minutes=4)  # clocks that differ by less count as equal; keys.CLOCK_SKEW covers it


def check(spec: Spec) -> None:
    """Raise PreCheckError when a CA of the user's own cannot issue certificates."""
    if spec.tls_ca_cert:
        _foreign(spec)


def renew(work: Work) -> None:
    """Issue what is missing, about to end, of another CA, or without one of the machine's names."""
    clocks = _clocks(work)
    ca = _authority(work, clocks)
    names = server_names(work)
    _renew(work, SERVER_CERT, SERVER_KEY, lambda: keys.server(ca(), names, clocks), clocks=clocks, names=names)
    client = _renew(work, CLIENT_CERT, CLIENT_KEY, lambda: keys.client(ca(), work.machine.name, clocks), clocks=clocks)
    if client and work.machine.phase is Phase.READY:
        work.changed.append("client certificate renewed")
    due = min(keys.renewal_due(work.read(file)) for file in (SERVER_CERT, CLIENT_CERT))
    _remember(work, due)


def server_names(work: Work) -> list[str]:
    """What the server's certificate must be good for."""
    return [work.machine.address, work.machine.name, "localhost", "127.0.0.1", *work.spec.tls_sans]


def postpone(work: Work) -> None:
    """After a renewal that failed, let the next command try no earlier than tomorrow."""
    _remember(work, datetime.now(UTC) + timedelta(days=1))


def on_the_host(work: Work) -> dict[str, bytes]:
    """What the engine reads, by path."""
    return {
        engine.CA: keys.issuer(work.read(CA)),
        engine.CERT: work.read(SERVER_CERT),
        engine.KEY: work.read(SERVER_KEY),
    }


def _remember(work: Work, due: datetime) -> None:
    # by a clock that is ahead it may be further away than a life: commands take that for a clock that was set back
    text = min(due, datetime.now(UTC) + keys.LEAF_LIFE).strftime(TIME)
    if work.machine.renewal_due != text:
        work.machine.renewal_due = text
        work.save()


def _clocks(work: Work) -> keys.Clocks:
    """This computer's clock and the host's, which may be an hour off."""
    here = datetime.now(UTC)
    there = datetime.fromtimestamp(int(work.facts.clock), UTC) if work.facts.clock else here
    if abs(there - here) < UNEVEN:
        return keys.Clocks(here, here)
    minutes = round((there - here).total_seconds() / 60)
    work.note(
        f"the host's clock is {abs(minutes)} minutes {'ahead of' if minutes > 0 else 'behind'} this computer's; "
        "the certificates allow for it, other programs may not: set the one that is wrong"
    )
    return keys.Clocks(min(here, there), max(here, there))


def _authority(work: Work, clocks: keys.Clocks) -> Callable[[], keys.Pair]:
    """What issues, once its certificate is in the store; a foreign key is read only when it is needed."""
    if work.spec.tls_ca_cert:
        _take_over(work)
        return lambda: _foreign(work.spec)
    if not _is_whole(work, CA, CA_KEY):
        _put(work, CA, CA_KEY, keys.authority(work.machine.name, clocks))
    elif keys.must_renew(work.read(CA), work.read(CA), clocks=clocks):
        work.write(CA, keys.authority(work.machine.name, clocks, work.read(CA_KEY)).cert)
    return lambda: keys.Pair(work.read(CA), work.read(CA_KEY))


def _take_over(work: Work) -> None:
    """Keep a copy of the foreign certificate; what is there already serves while the file cannot be read."""
    given, own = Path(work.spec.tls_ca_cert), work.directory / CA
    if own.exists() and (not os.access(given, os.R_OK) or given.read_bytes() == work.read(CA)):
        return
    work.write(CA, _foreign(work.spec).cert)
    work.delete(CA_KEY)  # of our own CA, which signs nothing any more


def _foreign(spec: Spec) -> keys.Pair:
    try:
        cert, key = (Path(file).read_bytes() for file in (spec.tls_ca_cert, spec.tls_ca_key))
    except OSError as error:
        raise PreCheckError(
            f"cannot read the CA's file {error.filename}: {error.strerror}", "it is needed to issue certificates"
        ) from None
    try:
        return keys.foreign_authority(cert, key)
    except keys.UNREADABLE as error:
        raise PreCheckError(
            f"the CA in {spec.tls_ca_cert} cannot be used: {error}", "see --tls-ca-cert and --tls-ca-key"
        ) from None


def _renew(
    work: Work, cert: str, key: str, issue: Callable[[], keys.Pair], *, clocks: keys.Clocks, names: Iterable[str] = ()
) -> bool:
    with suppress(*keys.UNREADABLE):
        if _is_whole(work, cert, key) and not keys.must_renew(work.read(cert), work.read(CA), names, clocks):
            return False
    _put(work, cert, key, issue())
    return True


def _is_whole(work: Work, cert: str, key: str) -> bool:
    """Whether both are there and belong together; a disk that was full may have left anything."""
    if not (work.directory / cert).exists() or not (work.directory / key).exists():
        return False
    try:
        return keys.is_pair(work.read(cert), work.read(key))
    except keys.UNREADABLE:
        return False


def _put(work: Work, cert: str, key: str, pair: keys.Pair) -> None:
    # without a certificate the pair is made anew, so a crash in between leaves none that does not match
    work.delete(cert)
    work.write_all({key: pair.key, cert: pair.cert})
