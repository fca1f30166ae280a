"""The commands on a fleet file, as a shell calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from machinekit.cli.fleet import print_plan
from machinekit.cli.fleetrun import reason
from machinekit.plan import Action, Change, Difference, Plan
from machinekit.store import Store
from tests.conftest import Cli, Told, adopting
from tests.providers.fake import FakeCloud
from tests.servers import FakeHost

FLEET = "version: 1\nname: ci\nmachines: [{name: 'm{index}', count: 2, driver: fake}]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    """A project with a fleet file, where the command is run."""
    project = tmp_path / "project"
    project.mkdir()
    environment.chdir(project)
    environment.setenv("COLUMNS", "200")
    (project / "machinekit.yaml").write_text(FLEET)
    return project


def test_from_nothing_to_nothing(cli: Cli, cloud: FakeCloud, store: Store) -> None:
    said = cli("plan")
    assert (said.code, said.out) == (0, "+ create   m1 (fake)\n+ create   m2 (fake)\nci: 2 to create\n")
    assert not store.names()
    said = cli("apply", "--yes")
    assert said.code == 0, said
    assert "m1: created" in said.out
    assert said.out.endswith("\nci: 2 created\n")
    assert cli("plan").out == "ci: 2 unchanged\n"
    assert cli("apply").out == "ci: 2 unchanged\n"  # nothing to ask
    said = cli("destroy")
    assert (said.code, store.names()) == (2, ["m1", "m2"])  # no terminal to ask at
    said = cli("destroy", "--yes")
    assert (said.code, said.out.splitlines()[-1]) == (0, "ci: 2 removed")
    assert (store.names(), cloud.instances, cloud.disks) == ([], {}, {})


def test_exit_codes_of_a_plan(cli: Cli, cloud: FakeCloud, folder: Path) -> None:
    assert cli("plan", "--detailed-exitcode").code == 2
    cli("apply", "-y")
    assert cli("plan", "--detailed-exitcode").code == 0
    cloud.failing.add("find")
    assert cli("plan", "--detailed-exitcode").code == 1
    assert cli("plan", "--detailed-exitcode", "--no-refresh").code == 0
    (folder / "machinekit.yaml").write_text("a: b")
    assert cli("plan", "--detailed-exitcode").code == 1
    assert cli("plan").code == 2


def test_differences_are_told(cli: Cli, cloud: FakeCloud, folder: Path) -> None:
    cli("apply", "-y")
    (folder / "machinekit.yaml").write_text(
        FLEET.replace("count: 2", "count: 1").replace("fake}", "fake, fake: {size: 3}, labels: {a: b}}")
    )
    assert cli("plan").out.splitlines() == [
        "± replace  m1 (fake)",
        "    ~ fake.size: 1 -> 3 (only a new machine can have it)",
        "    ~ labels: none -> a=b",
        "- remove   m2 (fake)",
        "ci: 1 to replace, 1 to remove",
    ]


def test_what_keeps_a_swarm_from_working_is_told_before(cli: Cli, folder: Path) -> None:
    (folder / "machinekit.yaml").write_text(
        "version: 1\nname: ci\nmachines: [{name: 'm{index}', count: 2, driver: qemu}]\nswarm: {managers: [m1], "
        "workers: [m2]}\n"
    )
    remark = "no other machine of the Swarm can reach m{index}: set qemu.network, see docs/swarm.md"
    assert cli("plan").out.splitlines()[-2:] == [f"! {remark}", "ci: 2 to create"]
    assert json.loads(cli("plan", "--json").out)["remarks"] == [remark]
    assert f"! {remark}\n" in cli("apply").out, "before anybody agrees"


@pytest.mark.parametrize(
    ("what", "before", "after", "said"),
    [
        (
            "roles.registry",
            {"options": {"port": 5000, "username": ""}, "kept": {"digest": "a"}},
            {"options": {"port": 5001, "username": "ci"}, "kept": {"digest": "b"}},
            "~ roles.registry: port: 5000 -> 5001, username: none -> ci",
        ),
        (
            "roles.compose",
            {"options": {"environment": {"A": "1", "B": "2"}}, "kept": {}},
            {"options": {"environment": {"A": "3", "C": "4"}}, "kept": {}},
            "~ roles.compose: A: 1 -> 3, B: 2 -> none, C: none -> 4",
        ),
        ("roles.mine", {"kept": {"digest": "a"}}, {"kept": {"digest": "b"}}, "~ roles.mine: its files"),
        (
            "registries.a",
            {"mirror": False, "digest": "a"},
            {"mirror": True, "digest": "b"},
            "~ registries.a: mirror: false -> true, other content",
        ),
        (
            "files./a",
            {"content": "a\n", "mode": "1"},
            {"content": "b", "mode": "2"},
            "~ files./a: content, mode: 1 -> 2",
        ),
    ],
)
def test_what_differs_in_what_a_machine_carries(
    what: str, before: object, after: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change = Change("m1", Action.CHANGE, "fake", (Difference(what, before, after),))
    print_plan(Plan("ci", (change,)))
    assert capsys.readouterr().out.splitlines()[1] == f"    {said}"


def test_for_programs(cli: Cli, cloud: FakeCloud) -> None:
    made = json.loads(cli("plan", "--json").out)
    assert [change["action"] for change in made["changes"]] == ["create", "create"]
    cloud.failing_once.add("create disk")
    said = cli("apply", "-y", "--json", "--parallel", "1")
    assert said.code == 1
    first, second = json.loads(said.out)["results"]
    assert (first["name"], first["ok"], first["error"]) == ("m1", False, "the provider refuses to create disk")
    assert (second["name"], second["ok"], second["done"]) == ("m2", True, ["created"])


def test_a_failure_does_not_stop_the_others_and_apply_goes_on(cli: Cli, cloud: FakeCloud, store: Store) -> None:
    cloud.failing_once.add("create")
    said = cli("apply", "-y")
    assert said.code == 1
    assert "1 of 2 failed; apply again goes on with them:" in said.err
    assert said.out.endswith("\nci: 1 created\n")
    assert "the provider refuses to create" in said.err
    assert cli("apply", "-y").code == 0
    assert len(cloud.instances) == len(store.names()) == 2


def test_a_saved_plan_is_carried_out_as_it_was_shown_or_not_at_all(
    cli: Cli, cloud: FakeCloud, store: Store, folder: Path
) -> None:
    assert cli("plan", "--out", "ci.plan").code == 0
    plan = folder / "ci.plan"
    assert plan.stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in plan.read_text()
    (folder / "machinekit.yaml").write_text(FLEET.replace("count: 2", "count: 9"))  # the plan knows what it was
    assert cli("apply", "-y", "ci.plan").code == 0
    assert store.names() == ["m1", "m2"]
    said = cli("apply", "-y", "ci.plan")
    assert said.code == 1
    assert "the machines are not as they were when this was planned: m1, m2" in said.err
    for text in ("{}", "not json", "[]", '{"version": 99}'):
        plan.write_text(text)
        assert cli("apply", "-y", "ci.plan").code == 2
    assert "cannot read gone.plan" in cli("apply", "-y", "gone.plan").err


def test_a_saved_replacement_is_made_once(cli: Cli, cloud: FakeCloud, store: Store, folder: Path) -> None:
    cli("apply", "-y")
    cli("plan", "--replace", "m1", "--out", "ci.plan")
    before = store.load("m1").uid
    assert cli("apply", "-y", "ci.plan").code == 0
    made = store.load("m1").uid
    said = cli("apply", "-y", "ci.plan")
    assert (said.code, store.load("m1").uid) == (1, made)
    assert made != before
    assert "the machines are not as they were when this was planned: m1" in said.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--target", "m1"], "--target"),
        (["--replace", "m1"], "--replace"),
        (["--var", "A=b"], "--var"),
        (["-f", "other.yaml"], "--file"),
        (["--no-refresh", "--locked"], "--locked, --no-refresh"),
    ],
)
def test_what_narrows_a_plan_down_is_refused_with_one_that_is_saved(
    words: list[str], named: str, cli: Cli, cloud: FakeCloud, store: Store
) -> None:
    cli("plan", "--out", "ci.plan")
    said = cli("apply", "-y", "ci.plan", *words)
    assert (said.code, store.names()) == (2, [])
    assert f"a saved plan is carried out as it is: give {named} to plan --out" in said.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("it broke", "it broke"),
        ("", ""),
        (
            "a script on root@h:22 failed with exit code 1:\nE: no package\nrole a cannot be installed",
            "role a cannot",
        ),
        ("docker ps: it is wrong\nand more", "docker ps: it is wrong"),
        ("a script on root@h:22 failed with exit code 1:", "a script on root@h:22 failed with exit code 1:"),
    ],
)
def test_a_failure_in_one_line(error: str, said: str) -> None:
    assert reason(error).startswith(said)


def test_a_target_may_be_a_group(cli: Cli, cloud: FakeCloud, store: Store, folder: Path) -> None:
    (folder / "machinekit.yaml").write_text(FLEET.replace("]\n", ", {name: alone, driver: fake}]\n"))
    assert cli("plan", "--target", "m{index}", "--out", "ci.plan").out.endswith("ci: 2 to create\n")
    assert cli("apply", "-y", "ci.plan").code == 0
    assert store.names() == ["m1", "m2"]
    assert cli("plan", "--replace", "m{index}").out.endswith("ci: 1 to create, 2 to replace\n")
    assert cli("apply", "-y", "--target", "alone", "--target", "m{index}", "--replace", "m{index}").code == 0
    assert store.names() == ["alone", "m1", "m2"]
    assert "the fleet has no machine 'x{index}'" in cli("plan", "--target", "x{index}").err


def test_what_goes_on_with_a_destroy_is_destroy(cli: Cli, cloud: FakeCloud, store: Store) -> None:
    cli("apply", "-y")
    cloud.failing_once.add("destroy")
    said = cli("destroy", "-y")
    assert said.code == 1
    assert "1 of 2 failed; destroy again goes on with them:" in said.err


def test_a_saved_plan_is_for_the_machines_that_it_was_made_for(cli: Cli, cloud: FakeCloud, store: Store) -> None:
    cli("apply", "-y")
    assert cli("plan", "--replace", "m1", "--out", "ci.plan").code == 0
    assert cli("rm", "-y", "m1").code == cli("apply", "-y").code == 0
    uid = store.load("m1").uid
    said = cli("apply", "-y", "ci.plan")
    assert (said.code, store.load("m1").uid) == (1, uid)
    assert "the machines are not as they were when this was planned: m1" in said.err


@pytest.mark.parametrize("changed", ["motd", "role/install.sh.j2"])
def test_a_saved_plan_carries_the_files_that_it_was_made_with(
    cli: Cli, store: Store, host: FakeHost, folder: Path, changed: str
) -> None:
    (folder / "role").mkdir()
    (folder / "role" / "role.yaml").write_text("description: mine\n")
    for script in ("install", "check", "remove"):
        (folder / "role" / f"{script}.sh.j2").write_text("true\n")
    (folder / "motd").write_text("as it was shown")
    options = adopting(host)
    (folder / "machinekit.yaml").write_text(
        "version: 1\nname: ci\nmachines:\n- name: a\n  driver: generic\n  roles: [{role: ./role}]\n"
        "  files: [{path: /etc/motd, source: motd}]\n"
        f"  generic: {{ip_address: 127.0.0.1, ssh_port: {options.ssh_port},"
        f" ssh_key: {options.ssh_key}, engine_port: {options.engine_port}}}\n"
    )
    assert cli("plan", "--out", "ci.plan").code == 0
    (folder / changed).write_text("echo something else\n")
    said = cli("apply", "-y", "ci.plan")
    assert (said.code, store.names(), host.scripts) == (1, [], [])
    assert "a: what it carries is not what it was when this was planned: " in said.err
    assert cli("plan", "--out", "ci.plan").code == 0
    assert cli("apply", "-y", "ci.plan").code == 0


def test_a_saved_plan_of_another_store(cli: Cli, cloud: FakeCloud, tmp_path: Path) -> None:
    cli("apply", "-y")
    cli("plan", "--replace", "m1", "--out", "ci.plan")
    said = cli("-s", str(tmp_path / "elsewhere"), "apply", "-y", "ci.plan")
    assert (said.code, len(cloud.instances)) == (1, 2)
    assert f"this was planned for another store than {tmp_path / 'elsewhere'}" in said.err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fleet", {"name": "", "machines": [], "managers": [], "workers": []}),  # machines made by hand have no fleet
        ("fleet", {"name": "../../outside", "machines": [], "managers": [], "workers": []}),
        ("targets", [1]),
        ("replace", ["../m1"]),
        ("plan", []),
    ],
)
def test_a_saved_plan_that_was_tampered_with(
    cli: Cli, cloud: FakeCloud, store: Store, folder: Path, key: str, value: object
) -> None:
    cli("create", "-d", "fake", "loose")
    cli("plan", "--out", "ci.plan")
    saved = json.loads((folder / "ci.plan").read_text())
    (folder / "ci.plan").write_text(json.dumps({**saved, key: value}))
    assert cli("apply", "-y", "ci.plan").code in (1, 2)
    assert store.names() == ["loose"]
    assert not (store.home.parent / "outside").exists()


def test_a_saved_plan_that_nests_too_deep(cli: Cli, folder: Path) -> None:
    (folder / "ci.plan").write_text("[" * 100_000)
    assert "is not a plan that machinekit has saved" in cli("apply", "-y", "ci.plan").err


def test_a_plan_goes_into_files_only(cli: Cli, cloud: FakeCloud, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("real.plan")
    (folder / ".real.plan.draft").write_text("open to all")
    said = cli("plan", "--out", "pipe")
    assert (said.code, said.err.splitlines()[0]) == (2, "machinekit: pipe is not a file")
    assert (folder / "pipe").is_fifo()
    assert cli("plan", "--out", "link").code == 0
    assert (folder / "link").is_symlink()
    assert (folder / "real.plan").stat().st_mode & 0o777 == 0o600
    assert not list(folder.glob(".*draft"))


def test_a_machine_whose_record_is_broken_is_told_and_the_others_are_seen_to(
    cli: Cli, cloud: FakeCloud, store: Store, folder: Path
) -> None:
    cli("apply", "-y")
    (store.directory("m1") / "machine.json").write_text("{")
    (folder / "machinekit.yaml").write_text(FLEET.replace("count: 2", "count: 3"))
    said = cli("plan")
    assert said.code == cli("plan", "--detailed-exitcode").code == 1
    assert "! unreadable m1: cannot read " in said.out
    assert said.out.endswith("ci: 1 to create, 1 unchanged, 1 unreadable\n")
    assert json.loads(cli("plan", "--json").out)["unreadable"][0]["name"] == "m1"
    assert cli("plan", "--out", "ci.plan").code == 1
    said = cli("apply", "-y", "ci.plan", "--json")
    assert said.code == 1
    assert [(each["name"], each["ok"]) for each in json.loads(said.out)["results"]] == [("m3", True), ("m1", False)]
    assert "1 of 2 failed; apply again goes on with them:\n  m1: cannot read " in said.err
    assert (cli("apply").code, cli("destroy", "-y").code, store.names()) == (1, 1, ["m1"])
    assert cli("rm", "-y", "-f", "m1").code == cli("apply", "-y").code == 0


def test_two_at_once_on_one_fleet(cli: Cli, cloud: FakeCloud, store: Store, told: Told) -> None:
    with store.lock_fleet("ci", "apply", lambda _: None, 0):
        said = cli("apply", "-y", "--lock-timeout", "0")
    assert said.code == 1
    assert f'fleet "ci" is held by apply (pid {os.getpid()}) since ' in said.err
    assert not store.names()
    assert cli("apply", "-y", "--lock-timeout", "0").code == 0
    assert not list(store.fleets.iterdir())


def test_a_secret_that_is_not_there_ends_an_apply_before_anything_is_made(
    cli: Cli, cloud: FakeCloud, store: Store, folder: Path
) -> None:
    (folder / "machinekit.yaml").write_text(
        "version: 1\nname: ci\nmachines: [{name: a, driver: fake}, {name: b, driver: generic, "
        "generic: {ip_address: 127.0.0.1}, files: [{path: /etc/token, secret: 'env:NO_SUCH_TOKEN'}]}]\n"
    )
    assert cli("plan").code == 0  # whoever plans need not know secrets
    said = cli("apply", "--yes")
    assert (said.code, store.names(), cloud.instances) == (2, [], {})
    assert "/etc/token: env:NO_SUCH_TOKEN cannot be resolved" in said.err


def test_variables_that_cannot_be_read(cli: Cli, folder: Path) -> None:
    (folder / ".env").write_bytes(b"A=\xff")
    assert ".env is not a text in UTF-8" in cli("validate").err


@pytest.mark.parametrize("seconds", ["nan", "-1"])
def test_a_wait_that_would_never_end(cli: Cli, seconds: str) -> None:
    said = cli("apply", "-y", f"--lock-timeout={seconds}")
    assert (said.code, f"{seconds} is not 0 or more" in said.err) == (2, True)


def test_variables(cli: Cli, cloud: FakeCloud, folder: Path, environment: pytest.MonkeyPatch) -> None:
    (folder / "machinekit.yaml").write_text("version: 1\nname: ${NAME}\nmachines: []\n")
    assert "machinekit.yaml:2:7: ${NAME} is not set" in cli("validate").err
    (folder / ".env").write_text("NAME=of-the-file\n")
    assert "fleet of-the-file, 0 machines" in cli("validate").out
    environment.setenv("NAME", "of-the-environment")
    assert "fleet of-the-environment" in cli("validate").out
    assert "fleet given" in cli("validate", "--var", "NAME=given").out
    assert "'NAME' is not of the form NAME=VALUE" in cli("validate", "--var", "NAME").err


def test_files(cli: Cli, folder: Path) -> None:
    (folder / "machinekit.yaml").unlink()
    said = cli("plan")
    assert (said.code, said.err.splitlines()) == (
        2,
        [
            "machinekit: cannot read machinekit.yaml: No such file or directory",
            "  machinekit init writes one to start with; -f names one elsewhere",
        ],
    )
    said = cli("init", "no/such/file.yaml")
    assert (said.code, said.err) == (1, "machinekit: cannot write no/such/file.yaml: No such file or directory\n")
    said = cli("plan", "ci.yaml")
    assert "there is no place for 'ci.yaml'\n  a fleet file is given with -f: machinekit plan -f ci.yaml" in said.err
    assert cli("init").code == 0
    assert cli("validate").out == "machinekit.yaml: fleet project, 1 machine (qemu)\n"
    assert "is there already" in cli("init").err
    for odd in ("True Story", "true", "1e3"):
        (folder / odd).mkdir()
        assert cli("init", f"{odd}/machinekit.yaml").code == 0
        assert "fleet my-fleet, 1 machine" in cli("validate", "-f", f"{odd}/machinekit.yaml").out
    (folder / "machinekit.yaml").write_bytes(b"\xff")
    assert "is not a text in UTF-8" in cli("plan").err
    assert "Is a directory" in cli("plan", "-f", ".").err


def test_a_machine_made_by_hand_is_taken_in(cli: Cli, cloud: FakeCloud, folder: Path) -> None:
    assert cli("create", "-d", "fake", "--fake-size", "7", "m1").code == 0
    said = cli("plan")
    assert said.code == 1
    assert "m1: made by hand" in said.err
    text = cli("show", "--yaml", "m1").out
    assert "size: 7" in text
    (folder / "machinekit.yaml").write_text(text)
    assert "of the fleet my-fleet now" in cli("import", "m1").out
    assert cli("plan").out == "my-fleet: 1 unchanged\n"
    assert cli("import", "nobody").code == 2


def test_a_variable_may_stand_for_any_value_in_an_editor(cli: Cli) -> None:
    found = jsonschema.Draft202012Validator(json.loads(cli("schema").out))
    file = (
        "version: 1\nname: ci\nmachines: [{name: 'm{index}', count: %s, engine: {source: '${FROM}'}, "
        "roles: [{role: gitlab-runner, url: %s, token: 'env:T'}]}]"
    )
    assert found.is_valid(yaml.safe_load(file % ("'${N:-3}'", "'${URL:-https://gitlab.example}'")))
    assert not found.is_valid(yaml.safe_load(file % ("many", "https://gitlab.example")))
    assert not found.is_valid(yaml.safe_load(file % ("3", "gitlab.example")))


def test_schema(cli: Cli) -> None:
    found = json.loads(cli("schema").out)
    assert found["properties"]["version"]["const"] == 1


def test_commands_that_only_look_are_quick_to_refuse(folder: Path) -> None:
    (folder / "machinekit.yaml").write_text("version: 1\nname: a\nmachines: [{name: a, drivr: qemu}]\n")
    command = [sys.executable, "-m", "machinekit", "validate"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "machinekit: machinekit.yaml:3:22: machines[0].drivr is no key here; did you mean driver?\n"
