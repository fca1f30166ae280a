"""The steps from a login to an engine that answers over TLS; each changes only what differs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import tenacity

from machinekit import carry, certificates, dockerapi, dockercontext, engine, hostkey, outfit, packages, service
from machinekit.errors import EngineError, PreCheckError, RemoteError
from machinekit.machine import Phase
from machinekit.reach import find_address, wait_for_ssh
from machinekit.work import Step, Work

PROBE = 60.0  # seconds: how long each wait goes on
LOOK = 20.0
INSTALL = 1200.0
CONFIGURE = 300.0
ENGINE = 60.0
GLANCE = 2.0


def detect_system(work: Work) -> None:
    """Detecting the system

    The host must have a POSIX shell, and systemd or OpenRC.
    """
    probe = engine.probe_script() + outfit.probe_script(work)
    lines = work.execute(hostkey.replacement_script(work) + probe, PROBE)
    hostkey.replaced(work)
    work.facts, work.carried = engine.parse_facts(lines), carry.parse_carried(lines)
    if work.facts.init not in service.KNOWN:
        raise RemoteError(f"{work.facts.system} runs {work.facts.init!r} as its init system, which is not one we know")


def look(work: Work, more: str = "") -> list[str]:
    """Hear from a host what is on it, and what `more` of a script says, in one execution; nothing is changed.

    Returns the lines that were said. Raises what `ssh.connect` and `Connection.run` raise, and no secret in it.
    """
    script = engine.probe_script() + outfit.probe_script(work) + more
    with work.redacting(lambda: outfit.reveal(work.setup)):
        with contextlib.closing(work.connected()) as connection:
            lines = connection.run(script, patience=LOOK)
        work.connection = None
        work.facts, work.carried = engine.parse_facts(lines), carry.parse_carried(lines)
    return lines


def install_engine(work: Work) -> None:
    """Installing the engine

    The lines above are the package manager's; mend what they name and create again.
    """
    exchanged = work.newborn and packages.is_of_another_version(work.spec, work.facts)
    if packages.installed(work.spec, work.facts) and not exchanged:
        _keep_engine(work)
        if work.newborn and work.spec.version:  # it came with the image
            work.execute(packages.hold_script(work.spec, work.facts), INSTALL)
        return
    packages.check_room(work.facts)
    version = ""
    if work.spec.version:
        version = packages.choose(work.spec.version, ask_versions(work), packages.what(work.spec, work.facts))
    script = packages.install_script(work.spec, work.facts, version, held=bool(version)) + engine.probe_script()
    work.facts = engine.parse_facts(work.execute(script, INSTALL, heard=work.heard))
    if not work.facts.dockerd:
        raise EngineError("the engine's installation ended well but left no dockerd", "try another --engine")
    work.changed.append("engine installed")


def agree_to_changes(work: Work) -> None:
    """Looking at what is in use

    Nothing was changed on the server.
    """
    step, machine, facts = agree_to_changes.__name__, work.machine, work.facts
    if work.driver.capabilities.births or machine.phase is not Phase.CREATING or step in machine.done:
        return
    if (facts.containers != "0" or facts.daemon_json) and not work.agreed:
        certificates.renew(work)
        lines = engine.changes(engine.to_change(wanted_files(work), facts), facts)
        if facts.active == "yes":
            lines.append(
                f"the engine is restarted; its running containers ({facts.containers}) stay where it can keep them"
            )
        lines += outfit.differences(work)
        lines.append(f"the engine listens at {_listen(work)} too, to clients with a certificate of this machine")
        about = f"{machine.address} ({facts.system}) is in use. This would change on it:"
        if not work.progress.confirm(machine.name, "\n  ".join([about, *lines])):
            raise PreCheckError("not agreed", "nothing was changed")
    machine.done.append(step)
    work.save()


def ask_versions(work: Work) -> packages.Offers:
    """The versions of the engine's package that the host can have."""
    script = packages.offers_script(work.spec, work.facts)
    return packages.parse_offers(work.execute(script, INSTALL, heard=work.heard))


def _keep_engine(work: Work) -> None:
    """Say that the engine on the host is another than was asked for; raises EngineError for a new machine's version."""
    spec, facts = work.spec, work.facts
    if departure := packages.departure(spec, facts) or packages.departure_of_companions(spec, facts):
        name = work.machine.name
        if work.machine.phase is Phase.READY:
            work.note(f"{departure}; machinekit upgrade {name} changes that" if work.spec.version else departure)
        elif work.spec.version:
            raise EngineError(
                departure, f"create it without --engine-version, then: machinekit upgrade --to VERSION {name}"
            )
        else:
            work.note(f"{departure}; it stays as it is")


def configure_engine(work: Work) -> None:
    """Configuring the engine and TLS

    Mend what the last lines name, and run the same command again.
    """
    certificates.renew(work)
    files = wanted_files(work)
    if engine.owned_by_another(work.facts, work.machine.uid):
        work.note("another machine of machinekit was made of this server; its certificates are replaced")
    _put_in_place(work, files)


def renew_certificates(work: Work) -> None:
    """Renewing the certificates

    Mend what the last lines name, and run the same command again.
    """
    if work.facts.pending == "yes":
        configure_engine(work)  # a change was cut off: it has to be finished first
        return
    certificates.renew(work)
    _put_in_place(work, engine.certificate_files(certificates.on_the_host(work)))


def wanted_files(work: Work) -> list[engine.File]:
    """Every file we manage on the host, as it should be after what the probe found."""
    return engine.wanted_files(
        work.spec,
        work.facts,
        driver=work.machine.driver,
        listen=_listen(work),
        certificates=certificates.on_the_host(work),
        original=work.machine.uid if work.machine.phase is Phase.CREATING else "",
        previous=work.previous,
        mirrors=work.setup.mirrors,
    )


def verify_engine(work: Work) -> None:
    """Asking the engine over TLS

    The engine runs on the host; a firewall may stand in between.
    """
    tls = work.directory if work.machine.tls else None
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(EngineError),
        wait=tenacity.wait_exponential(multiplier=0.05, max=2, exp_base=1.5),
        stop=tenacity.stop_after_delay(ENGINE if work.changed else dockerapi.PATIENCE),
        reraise=True,
    )
    if work.connection and (work.host.access.proxy or work.driver.engine_url):
        _verify_through_ssh(work, retrying, tls)
    else:
        retrying(dockerapi.version, work.machine.url, tls)
    dockercontext.refresh(work.machine.name, work.machine.uid, work.machine.url, tls, work.machine.store)


def _verify_through_ssh(work: Work, retrying: tenacity.Retrying, tls: Path | None) -> None:
    """Whoever comes in through a jump host may not reach the engine's port without one."""
    assert work.connection is not None  # noqa: S101 (the caller says so)
    url, name, port = work.machine.url, work.machine.name, work.driver.listen_port
    with work.connection.forwarded("127.0.0.1", port) as local:
        try:
            retrying(dockerapi.version, f"tcp://127.0.0.1:{local}", tls)
        except EngineError as error:
            text = error.message.replace(
                f"tcp://127.0.0.1:{local}", f"the server's own port {port}, asked through SSH,"
            )
            raise EngineError(text, "the engine must run, and the server's sshd allow TCP forwarding") from None
    try:
        dockerapi.ping(url, tls, GLANCE)
    except EngineError:
        way = f"while this runs: machinekit ssh {name} -N -L {url.rpartition(':')[2]}:127.0.0.1:{port}"
        way = way if work.driver.engine_url else 'see docs/adopt.md, "Behind a jump host"'
        work.note(f"the engine answers through SSH, but docker cannot reach {url} from here: {way}")


def steps(work: Work) -> tuple[Step, ...]:
    """The steps that apply to the machine's driver."""
    if not work.driver.capabilities.ssh:
        return (find_address, verify_engine)
    return (
        *(find_address, wait_for_ssh, detect_system, agree_to_changes),
        *(install_engine, configure_engine, verify_engine, outfit.set_up),
    )


def restore_settings(work: Work) -> None:
    """Putting back the settings from before

    The engine's journal is above; machinekit's settings are still there.
    """
    files = engine.restored_files(
        work.spec, work.facts, work.machine.uid, driver=work.machine.driver, listen=_listen(work)
    )
    if files:
        _put_in_place(work, files)


def _listen(work: Work) -> str:
    return f"tcp://{'[::]' if ':' in work.machine.address else '0.0.0.0'}:{work.driver.listen_port}"  # noqa: S104


def _put_in_place(work: Work, files: list[engine.File]) -> None:
    """Change what differs on the host and have the engine run with it."""
    changed = engine.to_put(files, work.facts)
    if changed:
        lines = work.execute(engine.configure_script(changed, work.facts, work.machine.uid), CONFIGURE)
        only = {engine.CA, engine.CERT, engine.KEY}.issuperset(file.path for file in changed)
        work.changed.append("certificates renewed" if only else "engine configured")
        if told := engine.containers_told(lines):
            work.note(told)
    elif work.facts.active != "yes":
        work.execute(engine.start_script(), CONFIGURE)
        work.changed.append("engine started")


# for a machine that answers where it did last time
RENEWAL: tuple[Step, ...] = (detect_system, renew_certificates, verify_engine)
RESTORATION: tuple[Step, ...] = (detect_system, outfit.take_off, restore_settings)
