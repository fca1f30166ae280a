"""The life of one create: in memory with every way to die, and over SSH against a host on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from machinekit.providers.generic import GenericOptions
from machinekit.providers.none import NoneOptions
from machinekit.providers.qemu import QemuOptions

from machinekit import create as creating
from machinekit import dockercontext, engine, keys, lifecycle, service, ssh, work
from machinekit.create import create
from machinekit.errors import (
    ConnectError,
    DriverError,
    EngineError,
    GoneError,
    HostKeyError,
    LoginError,
    MachinekitError,
    NoSuchMachineError,
    PreCheckError,
    RemoteError,
    SpecChangedError,
    UnreachableError,
    UntrustedError,
    UsageError,
)
from machinekit.images import Images
from machinekit.machine import Birth, Phase, State
from machinekit.provider import Capabilities, Options
from machinekit.spec import Spec
from machinekit.store import CA, CA_KEY, CLIENT_CERT, CLIENT_KEY, HOST_KEY, KNOWN_HOSTS, SERVER_CERT, SSH_KEY, Store
from tests.conftest import Told, adopting
from tests.providers import fake as fake_driver
from tests.providers.fake import Fake, FakeCloud, FakeOptions, Killed
from tests.publisher import NAME as IMAGE
from tests.publisher import Publisher, disk
from tests.servers import Certificates, FakeHost, Proxy, Server, SshServer, encrypted, sudo
from tests.servers import engine as engine_serve

OPTIONS = FakeOptions("s3cret", 3, ("a",))


def fake(store: Store, told: Told, options: FakeOptions = OPTIONS, **spec: Any) -> list[str]:
    return create(store, "node1", driver="fake", options=options, spec=Spec(**spec), progress=told)


def test_create_makes_one_machine_and_then_changes_nothing(store: Store, told: Told, cloud: FakeCloud) -> None:
    assert fake(store, told) == ["created"]
    machine = store.load("node1")
    assert (machine.phase, machine.address, machine.tls) == (Phase.READY, "127.0.0.1", True)
    assert machine.url == f"tcp://127.0.0.1:{cloud.engine_port}"
    assert machine.done == ["check_driver", "make_keys", "find_image", "create_instance"]
    assert told.steps == [
        "Checking the driver",
        "Making keys",
        "Finding the image",
        "Creating the instance",
        "Waiting for an address",
        "Asking the engine over TLS",
    ]
    files = {path.name: path.stat().st_mtime_ns for path in store.directory("node1").iterdir()}
    assert fake(store, told) == []
    assert files == {path.name: path.stat().st_mtime_ns for path in store.directory("node1").iterdir()}
    assert (cloud.calls["create"], cloud.calls["check"]) == (1, 1)


def test_no_secret_gets_into_the_store(store: Store, told: Told, cloud: FakeCloud) -> None:
    fake(store, told)
    for path in store.home.rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes(), path
    assert store.load("node1").options == {"size": 3, "tags": ["a"], "spot": False, "image": "newest"}


@pytest.mark.parametrize("where", ["check", "create disk", "create", "find"])
@pytest.mark.parametrize("ends", ["again", "rm"])
def test_a_kill_after_any_request_loses_nothing(
    store: Store, told: Told, cloud: FakeCloud, where: str, ends: str
) -> None:
    cloud.dying.add(where)
    with pytest.raises(Killed):
        fake(store, told)
    uid = store.load("node1").uid
    assert set(cloud.instances) <= {uid}
    if ends == "again":
        assert "created" in fake(store, told)
        assert list(cloud.instances) == [uid]
        assert len(cloud.disks) == 1
    else:
        lifecycle.remove(store, "node1", told)
        assert (cloud.instances, cloud.disks, store.names()) == ({}, {}, [])


@pytest.mark.parametrize("step", [step.__name__ for step in creating.BIRTH])
def test_a_kill_before_any_step_is_gone_on_from(
    store: Store, told: Told, cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def dying(work: object) -> None:
        raise Killed(step)

    dying.__name__ = step
    with monkeypatch.context() as patch:
        steps = [dying if each.__name__ == step else each for each in creating.BIRTH]
        patch.setattr(creating, "BIRTH", tuple(steps))
        with pytest.raises(Killed):
            fake(store, told)
    done = store.load("node1").done
    assert step not in done
    assert fake(store, told) == ["created"]
    assert store.load("node1").done[: len(done)] == done


@pytest.mark.parametrize("where", ["create disk", "create"])
def test_a_refusal_keeps_the_record_until_it_is_mended_or_removed(
    store: Store, told: Told, cloud: FakeCloud, where: str
) -> None:
    cloud.failing.add(where)
    with pytest.raises(DriverError) as caught:
        fake(store, told)
    assert f"refuses to {where}" in caught.value.message
    assert caught.value.hint == "Run the same command again to go on, or `machinekit rm` to give up."
    cloud.failing.clear()
    assert fake(store, told) == ["created"]


def test_a_driver_that_refuses_leaves_no_name_taken(store: Store, told: Told, cloud: FakeCloud) -> None:
    with pytest.raises(PreCheckError, match="refuses the token") as caught:
        fake(store, told, FakeOptions("wrong"))
    assert caught.value.exit_code == 3
    assert store.names() == []


def test_an_image_that_does_not_exist_leaves_no_name_taken(store: Store, told: Told, tmp_path: Path) -> None:
    for program in ("qemu-system-x86_64", "qemu-img"):
        (tmp_path / program).touch(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(UsageError, match='no image "debian-99"'):
            create(store, "node1", driver="qemu", options=QemuOptions(image="debian-99"), spec=Spec(), progress=told)
    assert store.names() == []


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a" * 64])
def test_no_machine_without_a_name(store: Store, told: Told, name: str) -> None:
    with pytest.raises(UsageError):
        create(store, name, driver="none", options=NoneOptions("unix:///s"), spec=Spec(), progress=told)
    assert not store.home.exists()


@pytest.mark.parametrize(
    ("options", "spec", "said"),
    [
        (FakeOptions("s3cret", 4, ("a",)), {}, ["  --fake-size: 3 -> 4"]),
        (
            FakeOptions("s3cret", 3, ("a", "b"), True),
            {},
            ["  --fake-tags: ['a'] -> ['a', 'b']", "  --fake-spot: False"],
        ),
        (OPTIONS, {"labels": ["a=b"]}, ["  --engine-label: [] -> ['a=b']"]),
        (OPTIONS, {"engine": "docker"}, ["  --engine: 'distro' -> 'docker'"]),
    ],
)
def test_other_options_are_refused_with_the_difference(
    store: Store, told: Told, cloud: FakeCloud, options: FakeOptions, spec: dict[str, Any], said: list[str]
) -> None:
    fake(store, told)
    before = store.read("node1")
    with pytest.raises(SpecChangedError) as caught:
        fake(store, told, options, **spec)
    assert [line for line in said if line not in caught.value.message] == []
    assert "machinekit rm node1" in caught.value.hint
    assert store.read("node1") == before


def test_another_driver_is_refused(store: Store, told: Told, cloud: FakeCloud) -> None:
    fake(store, told)
    with pytest.raises(SpecChangedError, match="--driver: 'fake' -> 'none'"):
        create(store, "node1", driver="none", options=NoneOptions("unix:///s"), spec=Spec(), progress=told)


def test_another_secret_is_no_change(store: Store, told: Told, cloud: FakeCloud) -> None:
    cloud.failing.add("create")
    with pytest.raises(DriverError, match="refuses to create"):
        fake(store, told)
    with pytest.raises(DriverError, match="refuses the token"):  # the one given now counts, not the environment's
        fake(store, told, FakeOptions("new", 3, ("a",)))


def test_a_machine_that_is_being_removed_is_not_created(store: Store, told: Told, cloud: FakeCloud) -> None:
    fake(store, told)
    cloud.failing.add("release")
    with pytest.raises(DriverError):
        lifecycle.remove(store, "node1", told)
    with pytest.raises(SpecChangedError, match="is being removed"):
        fake(store, told)


def test_an_instance_that_vanished_is_not_made_again_silently(store: Store, told: Told, cloud: FakeCloud) -> None:
    fake(store, told)
    cloud.instances.clear()
    with pytest.raises(GoneError) as caught:
        fake(store, told)
    assert "machinekit rm node1" in caught.value.hint


def test_a_stopped_instance_is_started(store: Store, told: Told, cloud: FakeCloud) -> None:
    fake(store, told)
    next(iter(cloud.instances.values())).state = State.STOPPED
    assert fake(store, told) == ["started"]


@pytest.mark.parametrize("tls", [True, False])
def test_an_engine_that_is_there_is_adopted(
    store: Store, told: Told, certificates: Certificates, tmp_path: Path, tls: bool
) -> None:
    files = [str(path) for path in certificates.client_files] if tls else []
    serve = encrypted(engine_serve, certificates.context()) if tls else engine_serve
    with Server(serve) as server:
        options = NoneOptions(f"tcp://127.0.0.1:{server.port}", *files)
        assert create(store, "node1", driver="none", options=options, spec=Spec(), progress=told) == ["created"]
    machine = store.load("node1")
    assert (machine.tls, machine.ssh_port, machine.address) == (tls, 0, "127.0.0.1")
    assert (store.directory("node1") / CLIENT_KEY).exists() is tls
    assert bool(told.notes) is not tls
    if tls:
        assert (store.directory("node1") / CLIENT_KEY).stat().st_mode & 0o777 == 0o600


def test_a_certificate_that_is_missing_refuses_before_anything_is_made(store: Store, told: Told) -> None:
    options = NoneOptions("tcp://127.0.0.1:1", "/no/ca", "/no/cert", "/no/key")
    with pytest.raises(PreCheckError, match="there is no file /no/ca"):
        create(store, "node1", driver="none", options=options, spec=Spec(), progress=told)
    assert store.names() == []


# --- over SSH


def adopt(store: Store, told: Told, options: Options, **spec: Any) -> list[str]:
    return create(store, "node1", driver="generic", options=options, spec=Spec(**spec), progress=told)


def test_a_server_becomes_a_docker_host_in_three_executions(store: Store, told: Told, host: FakeHost) -> None:
    assert adopt(store, told, adopting(host), labels=["tier=web"]) == [
        "engine installed",
        "engine configured",
        "created",
    ]
    assert len(host.scripts) == 3
    assert told.notes == [f"node1: pinned the host key seen at first contact: {ssh.fingerprint(host.host_key)}"]
    settings = json.loads(host.files[engine.DAEMON_JSON])
    assert settings["labels"] == ["provider=generic", "tier=web"]
    assert f"tcp://0.0.0.0:{host.engine.port}" in settings["hosts"]
    machine, directory = store.load("node1"), store.directory("node1")
    assert (directory / KNOWN_HOSTS).read_text().startswith(f"{machine.uid} ssh-ed25519 ")
    assert not (directory / HOST_KEY).exists()
    assert {path.name for path in directory.iterdir() if path.stat().st_mode & 0o077} == set()

    host.scripts.clear()
    assert adopt(store, told, adopting(host), labels=["tier=web"]) == []
    assert lifecycle.provision(store, "node1", told) == []
    assert len(host.scripts) == 2, "one execution on a converged host"


@pytest.mark.parametrize(
    ("broken", "changed"),
    [
        ({engine.CA: b"x"}, ["certificates renewed"]),
        ({engine.DAEMON_JSON: b"{}"}, ["engine configured"]),
        ({service.DROP_IN: b"x"}, ["engine configured"]),
        ({engine.DAEMON_JSON: None}, ["engine configured"]),
        ({}, ["engine started"]),
    ],
)
def test_provision_repairs_what_differs(
    store: Store, told: Told, host: FakeHost, broken: dict[str, bytes | None], changed: list[str]
) -> None:
    adopt(store, told, adopting(host))
    before = dict(host.files)
    host.facts["active"] = "no"
    for path, content in broken.items():
        if content is None:
            del host.files[path]
        else:
            host.files[path] = content
    assert lifecycle.provision(store, "node1", told) == changed
    assert host.files == before
    assert lifecycle.provision(store, "node1", told) == []


@pytest.mark.parametrize("client", [True, False])
def test_certificates_are_issued_again(store: Store, told: Told, host: FakeHost, client: bool) -> None:
    adopt(store, told, adopting(host))
    directory = store.directory("node1")
    before = {path.name: path.read_bytes() for path in directory.glob("*.pem")}
    renewed = ["client certificate renewed"] * client + ["certificates renewed"]
    assert lifecycle.regenerate_certs(store, "node1", told, client=client) == renewed
    changed = {name for name, content in before.items() if (directory / name).read_bytes() != content}
    assert changed == {"server.pem", "server-key.pem"} | ({"cert.pem", "key.pem"} if client else set())
    assert host.files[engine.CERT] == (directory / SERVER_CERT).read_bytes()


@pytest.mark.parametrize(
    ("fails", "said"),
    [("apt-get", "it failed"), ("give_up", "it failed"), ("say os_id", "failed with exit code 1")],
)
def test_a_script_that_fails_is_gone_on_from(store: Store, told: Told, host: FakeHost, fails: str, said: str) -> None:
    host.fails = fails
    with pytest.raises(RemoteError) as caught:
        adopt(store, told, adopting(host))
    assert said in caught.value.message
    assert caught.value.hint
    host.fails = ""
    assert "created" in adopt(store, told, adopting(host))


def test_settings_can_be_mended_while_no_engine_is_in_use(store: Store, told: Told, host: FakeHost) -> None:
    host.fails = "give_up"
    with pytest.raises(RemoteError):
        adopt(store, told, adopting(host), labels=["a=b"])
    host.fails = ""
    assert "created" in adopt(store, told, adopting(host), labels=["a=c"])
    assert json.loads(host.files[engine.DAEMON_JSON])["labels"][-1] == "a=c"


@pytest.mark.parametrize(
    ("facts", "spec", "kind", "said"),
    [
        ({"init": "runit"}, {}, RemoteError, "debian 12 runs 'runit' as its init system"),
        ({"os_id": "plan9"}, {}, UsageError, "no engine packages are known for plan9 12"),
        ({}, {"engine": "none"}, EngineError, "there is no dockerd on the host"),
    ],
)
def test_a_host_that_cannot_be_served(
    store: Store, told: Told, host: FakeHost, facts: dict[str, str], spec: Any, kind: type[MachinekitError], said: str
) -> None:
    host.facts |= facts
    with pytest.raises(kind, match=said):
        adopt(store, told, adopting(host), **spec)
    assert host.files == {}


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_connection_that_is_cut_is_made_again(store: Store, told: Told, host: FakeHost, at: int) -> None:
    """By a reboot in the middle, or by the network: the same create goes on."""
    started = []

    def begin() -> None:
        started.append(len(host.scripts))
        if len(started) == at:
            link.cut()

    host.before_exec = begin
    with Proxy(host.port) as link:
        assert adopt(store, told, adopting(host, ssh_port=link.port))[-1] == "created"
    assert len(started) == 4
    assert len(told.notes) == 2
    assert "; waiting for the host to come back" in told.notes[-1]


def test_a_host_that_does_not_come_back(
    store: Store, told: Told, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is the last one, and create again goes on from there."""
    monkeypatch.setattr(work, "COMEBACK", 0.3)
    with Proxy(host.port) as link:
        host.before_exec = link.leave
        options = adopting(host, ssh_port=link.port)
        with pytest.raises(UnreachableError, match="closes the connection at once"):
            adopt(store, told, options)
        host.before_exec = lambda: None
        link.come_back()
        assert adopt(store, told, options)[-1] == "created"


def test_another_host_comes_back(store: Store, told: Told, host: FakeHost) -> None:
    """A cut connection is no way past the pinned key."""
    other = SshServer()
    with other, Proxy(host.port) as link:

        def begin() -> None:
            link.lead_to(other.port)
            link.cut()

        host.before_exec = begin
        with pytest.raises(HostKeyError, match="shows another host key than the pinned one"):
            adopt(store, told, adopting(host, ssh_port=link.port))


def test_a_slow_link_is_crossed_seldom(store: Store, told: Told, host: FakeHost) -> None:
    """400 ms there and back: one login after the look at the host key, three executions."""
    with Proxy(host.port, delay=0.2) as link:
        assert adopt(store, told, adopting(host, ssh_port=link.port))[-1] == "created"
        assert (link.connections, len(host.scripts)) == (2, 3)


def test_the_fingerprint_given_is_the_one_that_counts(store: Store, told: Told, host: FakeHost) -> None:
    with pytest.raises(HostKeyError, match="has no host key SHA256:"):
        adopt(store, told, adopting(host, host_key=ssh.fingerprint(host.public)))
    assert host.scripts == []
    lifecycle.remove(store, "node1", told)
    assert "created" in adopt(store, told, adopting(host, host_key=ssh.fingerprint(host.host_key)))
    assert told.notes == []


def test_another_host_behind_the_address_is_refused(store: Store, told: Told, host: FakeHost) -> None:
    adopt(store, told, adopting(host))
    known = store.directory("node1") / KNOWN_HOSTS
    known.write_text(known.read_text().split()[0] + " " + host.public + "\n")
    with pytest.raises(HostKeyError, match="another host key"):
        lifecycle.provision(store, "node1", told)


def test_trouble_with_the_login_is_told_apart(
    store: Store, told: Told, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "CONNECT", 0.3)
    with pytest.raises(UnreachableError, match="refuses the connection"):
        adopt(store, told, adopting(host, ssh_port=1))
    lifecycle.remove(store, "node1", told)
    host.shell = sudo("right")
    with pytest.raises(LoginError, match="asks for the password of bob"):
        adopt(store, told, adopting(host, ssh_user="bob"))


def test_a_key_file_that_is_missing_refuses_before_anything_is_made(store: Store, told: Told, host: FakeHost) -> None:
    with pytest.raises(PreCheckError, match="there is no SSH key at /no/key"):
        adopt(store, told, adopting(host, ssh_key="/no/key"))
    with pytest.raises(NoSuchMachineError):
        store.load("node1")


def test_a_server_is_logged_in_to_with_the_users_own_default_key(
    store: Store, told: Told, host: FakeHost, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody has put a key of ours there."""
    environment.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(host.private)
    (tmp_path / ".ssh" / "id_ed25519").chmod(0o600)
    assert "created" in adopt(store, told, adopting(host, ssh_key=""))
    assert not (store.directory("node1") / SSH_KEY).exists()


@pytest.mark.parametrize("cert", [SERVER_CERT, CLIENT_CERT])
def test_a_certificate_whose_making_was_cut_off_is_made_anew(
    store: Store, told: Told, host: FakeHost, cert: str
) -> None:
    adopt(store, told, adopting(host))
    (store.directory("node1") / cert).unlink()
    lifecycle.provision(store, "node1", told)
    assert (store.directory("node1") / cert).exists()


def test_a_client_certificate_is_renewed_in_time(store: Store, told: Told, host: FakeHost) -> None:
    adopt(store, told, adopting(host))
    directory, then = store.directory("node1"), datetime.now(UTC) - timedelta(days=250)
    ca = keys.Pair((directory / CA).read_bytes(), (directory / CA_KEY).read_bytes())
    old = keys.client(ca, "node1", keys.Clocks(then, then))
    store.write("node1", CLIENT_KEY, old.key)
    store.write("node1", CLIENT_CERT, old.cert)
    assert lifecycle.provision(store, "node1", told) == ["client certificate renewed"]
    assert (directory / CLIENT_CERT).read_bytes() != old.cert


def test_a_server_of_another_machine_is_taken_over_aloud(store: Store, told: Told, host: FakeHost) -> None:
    host.facts["original another-uid"] = base64.b64encode(b"{}").decode()
    adopt(store, told, adopting(host))
    assert [note for note in told.notes if "its certificates are replaced" in note] != []


@pytest.mark.parametrize("verb", [lifecycle.start, lifecycle.provision, lifecycle.regenerate_certs])
def test_a_machine_that_is_not_whole_is_not_worked_on(store: Store, told: Told, cloud: FakeCloud, verb: Any) -> None:
    cloud.dying.add("create")
    with pytest.raises(Killed):
        fake(store, told)
    with pytest.raises(MachinekitError, match="was not created to the end"):
        verb(store, "node1", told)
    fake(store, told)
    machine = store.load("node1")
    machine.phase = Phase.REMOVING
    store.save(machine)
    with pytest.raises(MachinekitError, match="was not removed to the end"):
        verb(store, "node1", told)


def test_wrong_options_are_mended_while_nothing_is_made(store: Store, told: Told) -> None:
    with pytest.raises(ConnectError):
        adopt(store, told, GenericOptions("no-such-host.invalid"))
    with pytest.raises(ConnectError, match="resolve other"):
        adopt(store, told, GenericOptions("other.invalid"))


def test_the_context_of_a_machine_follows_its_address(store: Store, told: Told, cloud: FakeCloud) -> None:
    fake(store, told)
    machine = store.load("node1")
    dockercontext.use("node1", machine.uid, "tcp://192.0.2.1:1", None)
    lifecycle.provision(store, "node1", told)
    meta = next(Path.home().rglob("meta.json")).read_text()
    assert json.loads(meta)["Endpoints"]["docker"]["Host"] == machine.url


@pytest.mark.parametrize(
    "fact", [{"containers": "2", "active": "yes"}, {"daemon_json": base64.b64encode(b"{}").decode()}]
)
def test_a_server_in_use_is_changed_only_when_somebody_agrees(
    store: Store, told: Told, host: FakeHost, fact: dict[str, str]
) -> None:
    host.facts |= {"dockerd": "/usr/bin/dockerd", **fact}
    with pytest.raises(UsageError, match=r"is in use\. This would change on it:\n  /etc/docker/ca\.pem: new"):
        adopt(store, told, adopting(host))
    assert len(host.scripts) == 1  # it was only looked at
    assert store.names() == []
    options = adopting(host)
    assert create(store, "node1", driver="generic", options=options, spec=Spec(), progress=told, agreed=True) == [
        "engine configured",
        "created",
    ]
    assert adopt(store, told, options) == []  # once is enough


class Disk(Fake):
    """A driver in memory that boots a disk image."""

    capabilities = Capabilities(ssh=False, image="disk")
    wanted = ""
    births: ClassVar[list[Birth]] = []

    @property
    def image(self) -> str:
        """What the test wants."""
        return self.wanted

    def create(self, birth: Birth) -> None:
        """As ever."""
        self.births.append(birth)
        super().create(birth)


@pytest.fixture
def disks(cloud: FakeCloud, environment: pytest.MonkeyPatch, direct: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """The fake driver boots disks, of which a publisher on loopback has one."""
    environment.setattr(fake_driver, "Fake", Disk)
    environment.setattr(Disk, "births", [])
    environment.setattr(Disk, "wanted", IMAGE)
    with Publisher() as publisher:
        publisher.publish(disk())
        environment.setattr(Images.__init__, "__defaults__", ({IMAGE: publisher.entry()},))
        yield publisher


def test_the_image_is_pulled_once_and_said(store: Store, told: Told, disks: Publisher) -> None:
    fake(store, told)
    assert told.notes[0].startswith(f"node1: pulling {IMAGE} from 127.0.0.1:")
    assert told.notes[1].startswith(f"node1: pulled {IMAGE}, 0 MB, in ")
    assert store.load("node1").image == f"disk/{IMAGE}"
    (birth,) = Disk.births
    assert birth.image == Images(store.images).find("disk", IMAGE)
    create(store, "node2", driver="fake", options=OPTIONS, spec=Spec(), progress=told)
    assert told.notes[-1].startswith(f"node2: the image is {IMAGE}, from 127.0.0.1:")
    assert len(disks.requests()) == 1


def test_an_image_that_was_tampered_with_boots_nothing(store: Store, told: Told, disks: Publisher) -> None:
    file = Images(store.images).pull(IMAGE, lambda _: None).path / "disk.raw"
    file.chmod(0o600)
    file.write_bytes(b"x")
    with pytest.raises(UntrustedError, match="is not what it was"):
        fake(store, told)
    assert Disk.births == []


def test_an_image_that_went_away_in_between_is_had_again(store: Store, told: Told, disks: Publisher) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Disk, "create", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            fake(store, told)
    Images(store.images).remove("disk", IMAGE)
    assert fake(store, told) == ["created"]
    assert len(disks.requests()) == 2


def test_an_image_of_ones_own_must_be_whole_before_anything_is_made(
    store: Store, told: Told, disks: Publisher, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(Disk, "wanted", "/nowhere/disk.qcow2")
    environment.setattr("shutil.which", lambda *_, **__: "/bin/true")
    with pytest.raises(PreCheckError, match=r"cannot read /nowhere/disk\.qcow2"):
        fake(store, told)
    assert store.names() == []
