"""The fleet file: what its entries come to, and what is said of every kind of mistake."""

from __future__ import annotations

import cProfile
import json
import os
import re
from pathlib import Path

import jsonschema
import pytest

from machinekit import keys, yamlfile
from machinekit.errors import UsageError
from machinekit.fleetfile import parse
from machinekit.fleetform import schema
from machinekit.render import static
from machinekit.wanted import Fleet
from tests.providers.fake import FakeCloud

EXAMPLES = Path(__file__).parents[1] / "examples"
HEAD = "version: 1\nname: ci\n"


def fleet(text: str, **variables: str) -> Fleet:
    return parse(HEAD + text, "machinekit.yaml", Path("/project"), variables)


def test_defaults_and_what_a_machine_has_of_its_own() -> None:
    found = fleet(
        "defaults:\n"
        "  driver: generic\n"
        "  generic: {ip_address: 192.0.2.1, ssh_user: a}\n"
        "  engine: {source: docker, version: 29.1.2, registry_mirrors: [https://a.example]}\n"
        "  labels: {tier: web, zone: 1}\n"
        "  files: [{path: /etc/motd, content: a}, {path: /etc/other, content: a}]\n"
        "machines:\n"
        "  - name: one\n"
        "  - name: two\n"
        "    generic: {ssh_user: b}\n"
        "    engine: {version: 29.1.3}\n"
        "    labels: {tier: db}\n"
        "    files: [{path: /etc/motd, content: b}]\n"
    )
    one, two = found.machines
    assert [each.to_json()["options"]["ip_address"] for each in (one, two)] == ["192.0.2.1"] * 2
    assert [each.to_json()["options"]["ssh_user"] for each in (one, two)] == ["a", "b"]
    assert (two.spec.engine, two.spec.version, two.spec.registry_mirrors) == (
        "docker",
        "29.1.3",
        ("https://a.example",),
    )
    assert two.spec.labels == ("tier=db", "zone=1")
    assert {file.path: file.content for file in two.setup.files} == {"/etc/motd": "b", "/etc/other": "a"}


def test_groups_are_numbered_from_one() -> None:
    found = fleet(
        "machines: [{name: 'a-{index}', count: 2}, {name: 'b{index:02}', count: 1}, {name: 'c{index}', count: 0}]"
    )
    assert [machine.name for machine in found.machines] == ["a-1", "a-2", "b01"]


def test_paths_are_found_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello")
    (tmp_path / "ca.pem").write_bytes(keys.authority("a CA").cert)
    text = (
        "machines:\n"
        "  - name: a\n"
        "    driver: generic\n"
        "    generic: {ip_address: 192.0.2.1, ssh_key: ./key}\n"
        "    engine: {tls_ca_cert: ca.pem, tls_ca_key: /ca-key.pem}\n"
        "    files: [{path: /a, source: motd}, {path: /b, secret: 'file:motd'}]\n"
        "registries: [{host: 'r.example:5000', ca: ca.pem}]\n"
    )
    found = parse(HEAD + text, "machinekit.yaml", tmp_path, {}).machines[0]
    assert found.options.ssh_key == str(tmp_path / "key")  # type: ignore[attr-defined]
    assert (found.spec.tls_ca_cert, found.spec.tls_ca_key) == (str(tmp_path / "ca.pem"), "/ca-key.pem")
    assert found.setup.files[0].source == str(tmp_path / "motd")
    assert found.setup.files[1].secret == f"file:{tmp_path / 'motd'}"
    assert found.setup.registries[0].ca == str(tmp_path / "ca.pem")
    (tmp_path / "motd").unlink()
    with pytest.raises(
        UsageError, match=r"machinekit.yaml:8:13: machines\[0\].files\[0\]: cannot read .*motd: No such"
    ):
        parse(HEAD + text, "machinekit.yaml", tmp_path, {})


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("./disk.qcow2", "{}/disk.qcow2"),
        ("disks/a.raw", "{}/disks/a.raw"),
        ("debian-12", "debian-12"),
        ("/srv/disk.raw", "/srv/disk.raw"),
        ("https://a.test/b", "https://a.test/b"),
        ("~/disk.raw", "/home/me/disk.raw"),
    ],
)
def test_what_may_be_a_path_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str, found: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    text = f"machines: [{{name: a, driver: qemu, qemu: {{image: '{image}', image_checksum: 'sha256:{'0' * 64}'}}}}]\n"
    options = parse(HEAD + text, "machinekit.yaml", tmp_path, {}).machines[0].options
    assert options.image == found.format(tmp_path)  # type: ignore[attr-defined]


def test_roles_are_held_to_their_own_options(tmp_path: Path) -> None:
    (tmp_path / "install").write_text("true")
    (tmp_path / "app").mkdir()
    text = "machines: [{{name: a, roles: [{{role: script, run: install{more}}}]}}]"
    found = parse(HEAD + text.format(more=""), "machinekit.yaml", tmp_path, {}).machines[0].setup.roles
    assert [(use.role, use.name, use.options["run"]) for use in found] == [
        ("script", "script", str(tmp_path / "install"))
    ]
    for more, said in (
        (", rnu: x", "machinekit.yaml:3:30: machines[0].roles[0]: rnu is no option; did you mean run?"),
        (", role2: x", "role2 is no option"),
        ("}, {role: script, run: install", "script is there twice; give one of the two a name of its own"),
        ("}, {role: scirpt", "machines[0].roles[1].role: there is no role 'scirpt'; did you mean script?"),
        (", secrets: {A: plain}", "secrets does not have the right form"),
    ):
        with pytest.raises(UsageError) as error:
            parse(HEAD + text.format(more=more), "machinekit.yaml", tmp_path, {})
        assert said in error.value.message
        assert "plain" not in error.value.message


def test_a_long_list_takes_no_more_calls_by_the_machine() -> None:
    def calls(count: int) -> int:
        machines = "".join(f"- name: w{number}\n" for number in range(count))
        workers = "".join(f"  - w{number}\n" for number in range(1, count))
        profile = cProfile.Profile()
        found = profile.runcall(fleet, f"machines:\n{machines}swarm:\n  managers: [w0]\n  workers:\n{workers}")
        assert len(found.workers) == count - 1
        return sum(entry.callcount for entry in profile.getstats())

    calls(2)  # what is remembered from then on
    assert calls(800) < 8 * calls(100) * 1.1


def test_a_swarm_names_machines_and_groups() -> None:
    found = fleet(
        "machines: [{name: m}, {name: 'w{index}', count: 2}]\nswarm: {managers: [m], workers: ['w{index}']}\n"
    )
    assert (found.managers, found.workers) == (("m",), ("w1", "w2"))


def test_numbers_are_texts_where_texts_belong() -> None:
    found = fleet("machines: [{name: a, driver: generic, generic: {ip_address: 192.0.2.1, ssh_user: 1000}}]")
    assert found.to_json()["machines"][0]["options"]["ssh_user"] == "1000"


def test_own_keys_are_for_anchors() -> None:
    assert fleet(
        "x-common: &c {driver: generic, generic: {ip_address: 192.0.2.1}}\nmachines: [{name: a, <<: *c}]"
    ).machines


def test_variables() -> None:
    assert len(fleet("machines:\n  - name: m{index}\n    count: ${N}\n", N="3").machines) == 3


def test_a_fleet_survives_json(cloud: FakeCloud) -> None:
    found = fleet("machines: [{name: a, driver: fake, fake: {tags: [x]}, labels: {b: c}}]\nswarm: {managers: [a]}")
    data = json.loads(json.dumps(found.to_json()))
    assert "s3cret" not in json.dumps(data)
    assert Fleet.from_json(data) == found


WRONG = [
    ("machines: []\ncolour: red", "4:1: colour is no key here"),
    ("machine: []", "3:1: machine is no key here; did you mean machines?"),
    ("{}", "not YAML"),
    ("machines: [{name: a, registries: []}]", "registries is no key here; its place is the top of the file"),
    ("machines: [{name: a, memory: 2G}]", "machines[0].memory is no key here; it is a key of qemu"),
    ("machines: [{name: a, driver: fake, size: 2}]", "machines[0].size is no key here; it is a key of fake"),
    ("machines: [{name: a, opts: []}]", "machines[0].opts is no key here; it is a key of engine"),
    ("machines: []\ndriver: qemu", "driver is no key here; it is a key of defaults"),
    ("machines: [{name: a, qemu: {labels: {}}}]", "machines[0].qemu.labels is no key here; its place is machines[0]"),
    ("machines: [{name: a, engine: {opts: {a: b}}}]", "something with keys is not a list (dockerd option, name=value"),
    ("machines: [{name: a, roles: [compose]}]", "'compose' is not keys with values; did you mean {role: compose}?"),
    ("machines: [{name: a, roles: [{role: script, run: 'a\n\n  b'}]}]", "and so on is a text; give the path of a file"),
    ("machines: {a: b}", "3:11: machines: something with keys is not a list"),
    ("machines: [a]", "3:12: machines[0]: 'a' is not keys with values"),
    ("machines: [{nmae: a}]", "3:13: machines[0].nmae is no key here; did you mean name?"),
    ("machines: [{name: a b}]", "3:19: machines[0].name: 'a b' is not a name of 1 to 63 letters"),
    ("machines: [{name: a, count: -1}]", "3:29: machines[0].count: -1 is not a whole number from 0 to 10000"),
    ("machines: [{name: a, count: many}]", "3:29: machines[0].count: 'many' is not a whole number"),
    ("machines: [{name: a, count: 2}]", "3:19: machines[0].name: a group has both a count and {index} in its name"),
    ("machines: [{name: 'a{index}'}]", "3:19: machines[0].name: a group has both"),
    ("machines: [{name: a}, {name: a}]", "3:30: machines[1].name: there is a machine 'a' already"),
    ("machines: [{name: a1}, {name: 'a{index}', count: 2}]", "there is a machine 'a1' already"),
    ("machines: [{name: a, driver: quemu}]", "3:30: machines[0].driver: driver \"quemu\" not found; did you mean qemu"),
    ("machines: [{name: a, driver: fake, files: [{path: /a, content: b}]}]", "can carry neither files nor roles"),
    ("machines: [{name: a, driver: amazonec2}]", "driver amazonec2 is called aws here"),
    ("machines: [{name: a, qemu: {memroy: 1G}}]", "machines[0].qemu.memroy is no key here; did you mean memory?"),
    ("machines: [{name: a, qemu: {cpus: lots}}]", "machines[0].qemu.cpus: 'lots' is not a whole number"),
    ("machines: [{name: a, qemu: {cpus: 0}}]", "machines[0].qemu.cpus: 0 is not a whole number from 1 to 255"),
    ("machines: [{name: a, driver: generic}]", "generic.ip_address is required"),
    (
        "machines: [{name: a, driver: aws, aws: {region: eu-central-1, peers: [lan]}}]",
        "aws.peers: 'lan' is no address and no network such as 203.0.113.0/24",
    ),
    (
        "machines: [{name: a, driver: aws, aws: {region: eu-central-1, peers: [10.0.0.0/8], security_group: [mine]}}]",
        "aws.peers goes with the group that machinekit makes, not with aws.security_group",
    ),
    ("machines: [{name: a, driver: generic, qemu: {}}]", "machines[0].qemu: the machine's driver is generic"),
    ("machines: [{name: a, driver: fake, fake: {token: x}}]", "token is no key here: it is a secret, set $FAKE_TOKEN"),
    ("machines: [{name: a, driver: fake, fake: {size: 60, spot: true}}]", "no spot instance is larger than 32"),
    ("machines: [{name: a, engine: {version: 20.10}}]", "engine.version: 20.1 is not a text; put it in quotes"),
    ("machines: [{name: a, engine: {source: snap}}]", "'snap' is not 'distro', 'docker', 'script' or 'none'"),
    ("machines: [{name: a, engine: {source: script}}]", "engine.source script needs engine.install_url"),
    ("machines: [{name: a, engine: {registry_mirrors: [ftp://x]}}]", "'ftp://x' is not a URL"),
    ("machines: [{name: a, labels: {com.docker.x: y}}]", "labels: 'com.docker.x=y': names that start with"),
    ("machines: [{name: a, files: [{path: etc}]}]", "machines[0].files[0].path"),
    ("machines: [{name: a}]\nswarm: {managers: []}", "4:19: swarm.managers: at least one is needed"),
    ("machines: [{name: abc}]\nswarm: {managers: [abd]}", "4:20: swarm.managers[0]: no machine is called 'abd'"),
    ("machines: [{name: a}]\nswarm: {managers: [a], workers: [a]}", "swarm.workers: a cannot be a worker too"),
    ("machines: [{name: a}]\nswarm: {managers: [a, a]}", "swarm.managers[1]: a is there twice"),
    ("machines: [{name: 'a{index}', count: 8}]\nswarm: {managers: ['a{index}']}", "a Swarm has 1 to 7 managers, not 8"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong(cloud: FakeCloud, text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        fleet(text)
    assert said in error.value.message
    assert error.value.message.startswith("machinekit.yaml:")
    assert "s3cret" not in error.value.message


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError) as error:
        fleet("machines: [{nam: a}, {name: b, coutn: 3}]\nswam: {}")
    assert len(error.value.message.splitlines()) == 4


@pytest.mark.parametrize("text", ["", "[]", "3"])
def test_what_is_no_fleet_file_at_all(text: str) -> None:
    with pytest.raises(UsageError, match="has no keys such as version"):
        parse(text, "machinekit.yaml", Path("/project"), {})


def test_versions() -> None:
    with pytest.raises(UsageError, match=r"machinekit.yaml:1:10: version: 2 is not 1"):
        parse("version: 2\nname: a\nmachines: []", "machinekit.yaml", Path("/project"), {})


def test_the_file_to_start_with_is_right() -> None:
    assert parse(static("fleet/machinekit.yaml"), "machinekit.yaml", Path("/project"), {}).machines


def test_what_the_file_to_start_with_leaves_out_is_right_too() -> None:
    text, count = re.subn(r"(?m)^( *)# ( *(?:- )?\{?\w+:.*)$", r"\1\2", static("fleet/machinekit.yaml"))
    found = parse(text, "machinekit.yaml", Path("/project"), {})
    assert count > 10
    assert (len(found.machines), found.managers) == (4, ("node1",))
    assert (found.machines[0].spec.engine, len(found.machines[0].setup.registries)) == ("docker", 1)


def test_the_schema_knows_every_driver() -> None:
    found = schema()
    entry = found["$defs"]["MachineEntry"]["properties"]
    assert {"name", "count", "driver", "engine", "aws", "container", "qemu", "generic"} <= entry.keys()
    assert "access_key" not in json.dumps(found)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: str(file.name))
def test_the_schema_takes_the_examples(file: Path) -> None:
    jsonschema.validate(yamlfile.read(file.read_text(), file.name, os.environ).data, schema())


@pytest.mark.parametrize(
    ("machine", "right"),
    [
        ("{name: a, roles: [{role: script, run: x}]}", True),
        ("{name: a, roles: [{role: ./own, anything: x}]}", True),
        ("{name: a, roles: [{role: script}]}", False),
        ("{name: a, roles: [{role: script, run: x, rnu: y}]}", False),
        ("{name: a, drivr: qemu}", False),
        ("{name: a, count: -1}", False),
        ("{name: a, qemu: {cpus: none}}", False),
    ],
)
def test_the_schema_knows_right_from_wrong(machine: str, right: bool) -> None:
    data = yamlfile.read(f"{HEAD}machines: [{machine}]", "f", {}).data
    found = list(jsonschema.Draft202012Validator(schema()).iter_errors(data))
    assert bool(found) is not right
