"""Facts in, scripts and files out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinekit import daemonjson, engine, packages, service
from machinekit.engine import Facts, File
from machinekit.errors import EngineError
from machinekit.spec import Spec

UNIX = "unix:///var/run/docker.sock"
LISTEN = "tcp://0.0.0.0:2376"
OURS = {
    "labels": ["provider=fake"],
    "hosts": [UNIX, LISTEN],
    "tlsverify": True,
    "tlscacert": engine.CA,
    "tlscert": engine.CERT,
    "tlskey": engine.KEY,
}


def merged(current: dict[str, Any], spec: Spec, *unit_hosts: str) -> dict[str, Any]:
    return engine.daemon_settings(current, spec, driver="fake", listen=LISTEN, unit_hosts=list(unit_hosts))


def encoded(settings: Any) -> str:
    return base64.b64encode(json.dumps(settings).encode()).decode()


@pytest.mark.parametrize(
    ("lines", "facts"),
    [
        ([], Facts()),
        (["machinekit:os_id=debian", "machinekit:os_version=12"], Facts(os_id="debian", os_version="12")),
        (["Reading package lists...", "machinekit:active=yes", "machinekit"], Facts(active="yes")),
        (["machinekit:exec_start=/usr/bin/dockerd --label a=b"], Facts(exec_start="/usr/bin/dockerd --label a=b")),
        (["machinekit:sha256 /etc/docker/ca.pem=abc"], Facts(files={"/etc/docker/ca.pem": "abc"})),
        (["machinekit:no_such_fact=1", "machinekit:files"], Facts()),
        (["machinekit:active=no", "machinekit:active=yes"], Facts(active="yes")),
    ],
)
def test_facts(lines: list[str], facts: Facts) -> None:
    assert engine.parse_facts(lines) == facts


@pytest.mark.parametrize(
    ("facts", "system"),
    [(Facts(), "unknown"), (Facts(os_id="debian", os_version="12"), "debian 12"), (Facts(os_id="arch"), "arch")],
)
def test_the_system_in_words(facts: Facts, system: str) -> None:
    assert facts.system == system


@pytest.mark.parametrize(
    ("current", "spec", "changes"),
    [
        ({}, {}, {}),
        ({"debug": True}, {}, {"debug": True}),
        ({}, {"opts": ["log-level=warn"]}, {"log-level": "warn"}),
        ({}, {"opts": ["max-concurrent-downloads=2", "debug=true"]}, {"max-concurrent-downloads": 2, "debug": True}),
        ({}, {"opts": ['default-ulimits={"n": 1}']}, {"default-ulimits": {"n": 1}}),
        ({}, {"opts": ["data-root=/srv/a=b"]}, {"data-root": "/srv/a=b"}),
        ({"log-level": "info"}, {"opts": ["log-level=warn"]}, {"log-level": "warn"}),
        ({}, {"opts": ["dns=1.1.1.1", "dns=9.9.9.9"]}, {"dns": ["1.1.1.1", "9.9.9.9"]}),
        ({"dns": ["8.8.8.8"]}, {"opts": ["dns=1.1.1.1"]}, {"dns": ["8.8.8.8", "1.1.1.1"]}),
        ({"dns": None}, {"opts": ["dns=1.1.1.1"]}, {"dns": ["1.1.1.1"]}),
        (
            {"log-opts": {"max-file": "3"}},
            {"opts": ["log-opt=max-size=1m", "log-opt=tag=a=b"]},
            {"log-opts": {"max-file": "3", "max-size": "1m", "tag": "a=b"}},
        ),
        ({}, {"storage_driver": "overlay2"}, {"storage-driver": "overlay2"}),
        ({}, {"insecure_registries": ["r:5000", "r:5000"]}, {"insecure-registries": ["r:5000"]}),
        (
            {"registry-mirrors": ["http://a"]},
            {"registry_mirrors": ["http://b", "http://a"]},
            {"registry-mirrors": ["http://a", "http://b"]},
        ),
        ({}, {"labels": ["tier=web"]}, {"labels": ["provider=fake", "tier=web"]}),
        ({"labels": ["tier=db", "x=y"]}, {"labels": ["tier=web"]}, {"labels": ["tier=web", "x=y", "provider=fake"]}),
        ({"labels": ["provider=other"]}, {}, {"labels": ["provider=fake"]}),
        ({}, {"labels": ["provider=mine"]}, {"labels": ["provider=mine"]}),
        ({}, {"opts": ["label=a=1"], "labels": ["a=2"]}, {"labels": ["provider=fake", "a=2"]}),
        ({"labels": None}, {}, {"labels": ["provider=fake"]}),
        ({"hosts": ["fd://", LISTEN]}, {}, {"hosts": ["fd://", LISTEN]}),
        ({"hosts": []}, {}, {"hosts": [UNIX, LISTEN]}),
        ({"tlsverify": False, "tlskey": "/mine"}, {}, {}),
    ],
)
def test_settings_are_merged(current: dict[str, Any], spec: dict[str, Any], changes: dict[str, Any]) -> None:
    before = json.dumps(current)
    assert merged(current, Spec(**spec)) == OURS | changes
    assert json.dumps(current) == before, "what is there was changed in place"


@pytest.mark.parametrize(
    ("current", "spec", "said"),
    [
        ({"labels": "a=b"}, {}, '"labels" must be a list of texts'),
        ({"labels": [1]}, {}, '"labels" must be a list of texts'),
        ({"hosts": "fd://"}, {}, '"hosts" must be a list of texts'),
        ({"hosts": [{}]}, {}, '"hosts" must be a list of texts'),
        ({"dns": 7}, {"opts": ["dns=1.1.1.1"]}, '"dns" must be a list of texts'),
        ({"log-opts": ["a"]}, {"opts": ["log-opt=max-size=1m"]}, '"log-opts" must be an object'),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(current: dict[str, Any], spec: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=f"{said} in /etc/docker/daemon.json"):
        merged(current, Spec(**spec))


NAMES = st.sampled_from(["a", "b", "provider", "x.y"])
PAIR = st.builds("{}={}".format, NAMES, st.text(max_size=6))
OPTION = st.one_of(
    st.builds("{}={}".format, st.sampled_from([*daemonjson.LISTS, "label", "log-opt"]), PAIR),
    st.builds(
        "{}={}".format, st.sampled_from(["debug", "log-level", "mtu"]), st.sampled_from(["1", "true", "x", "{}"])
    ),
)
TEXTS = st.lists(PAIR, max_size=4).map(tuple)
SPECS = st.builds(
    Spec,
    opts=st.lists(OPTION, max_size=6).map(tuple),
    labels=TEXTS,
    insecure_registries=st.lists(st.sampled_from(["a", "b:5000", "10.0.0.0/8"]), max_size=4).map(tuple),
    registry_mirrors=st.lists(st.sampled_from(["http://a", "https://b:1/c"]), max_size=4).map(tuple),
    storage_driver=st.sampled_from(["", "overlay2"]),
)
CURRENT = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.none() | st.lists(PAIR, max_size=3),
        "hosts": st.lists(st.sampled_from(["fd://", UNIX, LISTEN]), max_size=3),
        "dns": st.lists(NAMES, max_size=2),
        "log-opts": st.none() | st.dictionaries(NAMES, NAMES, max_size=2),
        "log-level": NAMES,
        "unknown": st.integers(),
    },
)


@given(current=CURRENT, spec=SPECS, unit_hosts=st.lists(st.just("fd://"), max_size=1))
def test_merging_twice_is_merging_once(current: dict[str, Any], spec: Spec, unit_hosts: list[str]) -> None:
    once = merged(current, spec, *unit_hosts)
    assert merged(once, spec, *unit_hosts) == once
    assert merged(json.loads(json.dumps(once)), spec) == once
    assert LISTEN in once["hosts"]
    keys = [label.partition("=")[0] for label in once["labels"]]
    assert len(keys) == len(set(keys))
    assert "provider" in keys


@pytest.mark.parametrize(
    ("exec_start", "hosts", "kept"),
    [
        ("", [UNIX], None),
        ("/usr/bin/dockerd", [UNIX], None),
        ("/usr/bin/dockerd -H fd:// --containerd=/run/c.sock", ["fd://"], "/usr/bin/dockerd --containerd=/run/c.sock"),
        ("/usr/sbin/dockerd -H fd:// $DOCKER_OPTS", ["fd://"], "/usr/sbin/dockerd $DOCKER_OPTS"),
        ("/usr/bin/dockerd -Hfd://", ["fd://"], "/usr/bin/dockerd"),
        ("/usr/bin/dockerd -H=fd:// -D", ["fd://"], "/usr/bin/dockerd -D"),
        ("/usr/bin/dockerd --host=fd:// --host unix:///s", ["fd://", "unix:///s"], "/usr/bin/dockerd"),
        ("/usr/bin/dockerd --host-gateway-ip=10.0.0.1", [UNIX], None),
        ("/usr/bin/dockerd -D --hosts-file=x", [UNIX], None),
    ],
)
def test_the_units_own_hosts_move_into_the_settings(exec_start: str, hosts: list[str], kept: str | None) -> None:
    facts = Facts(exec_start=exec_start)
    files = engine.wanted_files(Spec(), facts, driver="fake", listen=LISTEN, certificates={})
    settings, drop_in = (file.content.decode() for file in files)
    assert json.loads(settings)["hosts"] == [*hosts, LISTEN]
    assert drop_in == "# Written by machinekit.\n[Service]\n" + (f"ExecStart=\nExecStart={kept}\n" if kept else "")


@pytest.mark.parametrize(
    ("pair", "line"),
    [
        ("A=b", 'Environment="A=b"'),
        ("A=b c", 'Environment="A=b c"'),
        ('A=%h "x" \\', 'Environment="A=%%h \\"x\\" \\\\"'),
        ("A=", 'Environment="A="'),
        ("A=x\ny\tz \\n", 'Environment="A=x\\ny\\tz \\\\n"'),
    ],
)
def test_the_environment_of_the_unit(pair: str, line: str) -> None:
    assert service.drop_in(Spec(env=(pair,)), "").splitlines()[2:] == [line]


BLOCK = "# machinekit begins\n{}\n# machinekit ends\n"


@pytest.mark.parametrize(
    ("current", "command", "env", "text"),
    [
        ("", "dockerd ", (), ""),
        ("# theirs", "dockerd ", (), "# theirs"),
        ("", "dockerd ", ("A=b c",), BLOCK.format("export 'A=b c'")),
        ("# theirs\n", "dockerd ", ("A=b",), "# theirs\n" + BLOCK.format("export A=b")),
        ("# theirs\n" + BLOCK.format("export A=b") + "# more\n", "dockerd ", (), "# theirs\n# more\n"),
        (
            'DOCKER_OPTS="-H fd:// -D"\n',
            "dockerd -H fd:// -D --mtu=9",
            (),
            'DOCKER_OPTS="-H fd:// -D"\n' + BLOCK.format("DOCKER_OPTS='-D --mtu=9'"),
        ),
    ],
)
def test_the_service_under_openrc(current: str, command: str, env: tuple[str, ...], text: str) -> None:
    spec = Spec(env=env)
    assert service.conf_d(spec, command, current) == text
    assert service.conf_d(spec, command, text) == text
    facts = Facts(init="openrc", exec_start=command, conf_d=base64.b64encode(current.encode()).decode())
    paths = {file.path: file.content.decode() for file in files_for(facts, spec)}
    assert paths.get(service.CONF_D, "") == text
    assert service.DROP_IN not in paths


def files_for(facts: Facts, spec: Spec) -> list[File]:
    return engine.wanted_files(spec, facts, driver="fake", listen=LISTEN, certificates={})


def wanted(facts: Facts, spec: Spec | None = None) -> dict[str, File]:
    certificates = {engine.CA: b"ca", engine.CERT: b"cert", engine.KEY: b"key"}
    files = engine.wanted_files(spec or Spec(), facts, driver="fake", listen=LISTEN, certificates=certificates)
    return {file.path: file for file in files}


def test_only_the_key_is_secret() -> None:
    assert {path: file.mode for path, file in wanted(Facts()).items()} == {
        engine.CA: "0644",
        engine.CERT: "0644",
        engine.KEY: "0600",
        engine.DAEMON_JSON: "0644",
        service.DROP_IN: "0644",
    }


def test_only_what_differs_is_changed() -> None:
    files = wanted(Facts())
    assert engine.to_change(list(files.values()), Facts()) == list(files.values())
    sha256 = {"ca": "6959097001d10501ac7d54c0bdb8db61420f658f2922cc26e46d536119a31126"}
    assert files[engine.CA].base64 == base64.b64encode(b"ca").decode()
    there = Facts(
        files={engine.CA: sha256["ca"], engine.CERT: "0" * 64},
        daemon_json=base64.b64encode(files[engine.DAEMON_JSON].content).decode(),
    )
    assert [file.path for file in engine.to_change(list(files.values()), there)] == [
        engine.CERT,
        engine.KEY,
        service.DROP_IN,
    ]


def test_settings_that_say_the_same_stay_as_their_owner_wrote_them() -> None:
    text = base64.b64encode(json.dumps(OURS, separators=(" ,", " : ")).encode()).decode()
    facts = Facts(daemon_json=text)
    files = wanted(facts)
    assert files[engine.DAEMON_JSON].base64 == text
    assert engine.DAEMON_JSON not in [file.path for file in engine.to_change(list(files.values()), facts)]


@pytest.mark.parametrize(
    ("daemon_json", "said"),
    [
        (base64.b64encode(b"{").decode(), "is not valid JSON"),
        (encoded([]), "is not a JSON object"),
        (encoded("x"), "is not a JSON object"),
    ],
)
def test_settings_that_cannot_be_read_are_not_overwritten(daemon_json: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        wanted(Facts(daemon_json=daemon_json))


def test_an_empty_settings_file_is_no_settings() -> None:
    files = engine.wanted_files(Spec(), Facts(daemon_json=""), driver="fake", listen=LISTEN, certificates={})
    assert json.loads(files[0].content) == OURS


@pytest.mark.parametrize(
    "line", ["machinekit:system=x", "machinekit:files=x", "machinekit:__class__=x", "machinekit:x=y"]
)
def test_a_host_can_only_tell_facts(line: str) -> None:
    assert engine.parse_facts([line]) == engine.Facts()


def test_settings_that_were_taken_back_do_not_stay() -> None:
    def encode(settings: dict[str, Any]) -> str:
        return base64.b64encode(json.dumps(settings).encode()).decode()

    left = encode({"log-level": "warn", "insecure-registries": ["typo.test"]})
    facts = Facts(daemon_json=left, originals={"uid": encode({"log-level": "warn"})})
    for original, expected in (("uid", None), ("", ["typo.test"])):
        files = engine.wanted_files(
            Spec(), facts, driver="fake", listen="tcp://0.0.0.0:2376", certificates={}, original=original
        )
        settings = json.loads(files[0].content)
        assert settings.get("insecure-registries") == expected
        assert settings["log-level"] == "warn"


def adopted(theirs: dict[str, Any], now: dict[str, Any] | None = None, **more: Any) -> Facts:
    """The facts of a server whose owner had these settings before us, and has others now."""
    originals = more.pop("originals", {}) | {"uid": encoded(theirs)}
    configured = engine.daemon_settings(theirs, SPEC, driver="fake", listen=LISTEN, unit_hosts=[])
    return Facts(daemon_json=encoded(now or configured), originals=originals, **more)


SPEC = Spec(labels=("tier=ci",), opts=("log-level=debug",), insecure_registries=("r.test",))


@pytest.mark.parametrize(
    ("theirs", "changed", "left"),
    [
        ({}, {}, None),
        ({"debug": True}, {}, {"debug": True}),
        ({"labels": ["owner=me"], "log-level": "error"}, {}, {"labels": ["owner=me"], "log-level": "error"}),
        ({"hosts": ["unix:///var/run/docker.sock"]}, {}, {"hosts": ["unix:///var/run/docker.sock"]}),
        # what was changed since is its owner's
        ({"log-level": "error"}, {"log-level": "fatal"}, {"log-level": "fatal"}),
        ({}, {"insecure-registries": ["r.test", "theirs.test"]}, {"insecure-registries": ["theirs.test"]}),
        ({}, {"debug": True}, {"debug": True}),
    ],
)
def test_what_a_server_gets_back(theirs: dict[str, Any], changed: dict[str, Any], left: dict[str, Any] | None) -> None:
    configured = engine.daemon_settings(theirs, SPEC, driver="fake", listen=LISTEN, unit_hosts=[])
    facts = adopted(theirs, configured | changed)
    files = {file.path: file for file in engine.restored_files(SPEC, facts, "uid", driver="fake", listen=LISTEN)}
    settings = files.pop(engine.DAEMON_JSON)
    assert settings.gone is (left is None)
    if left is not None:
        assert json.loads(settings.content) == left
        assert changed or settings.content == base64.b64decode(encoded(theirs))
    ours = {engine.CA, engine.CERT, engine.KEY, service.DROP_IN, engine.MIRRORS, f"{engine.ORIGINAL}uid"}
    assert set(files) == ours
    assert all(file.gone for file in files.values())


def test_a_server_that_was_never_changed_has_nothing_to_get_back() -> None:
    assert engine.restored_files(SPEC, Facts(), "uid", driver="fake", listen=LISTEN) == []


def test_settings_that_another_machine_rests_on_stay() -> None:
    facts = adopted({})
    facts.originals["later"] = facts.daemon_json
    with pytest.raises(EngineError, match="made of this server later"):
        engine.restored_files(SPEC, facts, "uid", driver="fake", listen=LISTEN)
    assert engine.restored_files(SPEC, facts, "later", driver="fake", listen=LISTEN)


def test_the_changes_in_words() -> None:
    facts = Facts(daemon_json=encoded({"debug": True}), files={engine.CA: "0"})
    files = engine.wanted_files(
        Spec(), facts, driver="fake", listen=LISTEN, certificates={engine.CA: b"ca", engine.KEY: b"key"}
    )
    ours = "labels, hosts, tlsverify, tlscacert, tlscert, tlskey"
    assert engine.changes(files, facts) == [
        "/etc/docker/ca.pem: replaced",
        "/etc/docker/server-key.pem: new",
        f"/etc/docker/daemon.json: {ours} (the rest stays, a copy is kept)",
        "/etc/systemd/system/docker.service.d/10-machinekit.conf: new",
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", ""),
        ("machinekit:containers=1", "1 running container kept running"),
        ("machinekit:containers=12", "12 running containers kept running"),
        ("machinekit:containers=2 of a swarm", "2 running containers stopped with the engine: of a swarm"),
    ],
)
def test_what_became_of_the_containers(line: str, told: str) -> None:
    assert engine.containers_told(["something", line]) == told


def test_containers_are_not_kept_over_settings_that_move_them() -> None:
    facts = Facts(daemon_json=encoded({"data-root": "/a", "debug": True}))
    moved = [engine.File(engine.DAEMON_JSON, json.dumps({"data-root": "/b", "storage-driver": "vfs"}).encode())]
    assert "'data-root and storage-driver cannot change under them'" in engine.configure_script(moved, facts, "uid")
    kept = [engine.File(engine.DAEMON_JSON, json.dumps({"data-root": "/a"}).encode())]
    assert "cannot change under them" not in engine.configure_script(kept, facts, "uid")


def test_a_change_that_was_cut_off_starts_from_what_it_found() -> None:
    """Its own file may have live-restore on, which nobody asked for."""
    facts = Facts(
        daemon_json=encoded({"live-restore": True}), daemon_json_before=encoded({"debug": True}), pending="yes"
    )
    settings = json.loads(wanted(facts)[engine.DAEMON_JSON].content)
    assert settings["debug"] is True
    assert "live-restore" not in settings


def test_a_proxy_reaches_packages_and_the_engine() -> None:
    spec = Spec(proxy="http://proxy.test:3128", no_proxy=(".corp,10.0.0.0/8",), env=("NO_PROXY=mine",))
    script = packages.install_script(spec, Facts(os_id="debian"))
    direct = "localhost,127.0.0.1,::1,.corp,10.0.0.0/8"
    for name, value in (("http_proxy", "http://proxy.test:3128"), ("NO_PROXY", direct), ("no_proxy", direct)):
        assert f"export {name}={value}\n" in script
    unit = wanted(Facts(), spec)[service.DROP_IN].content.decode().splitlines()
    assert unit[2:] == [
        'Environment="HTTP_PROXY=http://proxy.test:3128"',
        'Environment="HTTPS_PROXY=http://proxy.test:3128"',
        f'Environment="NO_PROXY={direct}"',
        'Environment="NO_PROXY=mine"',
    ]
