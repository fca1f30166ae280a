"""A fleet of machines in memory: planned, made, changed, killed, destroyed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from machinekit import fleet, lifecycle, plan, swarming
from machinekit.create import create
from machinekit.errors import DriverError, MachinekitError, PreCheckError, UsageError
from machinekit.fleetwriter import written
from machinekit.machine import Phase, State
from machinekit.plan import Action, Difference, Plan
from machinekit.record import RECORD
from machinekit.spec import Spec
from machinekit.store import Store
from machinekit.wanted import Fleet
from tests.broken import SAID, broken
from tests.conftest import Told
from tests.providers.fake import Fake, FakeCloud, FakeOptions, Killed

THREE = "version: 1\nname: ci\nmachines: [{name: 'm{index}', count: 3, driver: fake}]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "machinekit.yaml"


def loaded(file: Path, text: str) -> Fleet:
    file.write_text(text)
    return fleet.load(file, {})


def planned(store: Store, wanted: Fleet, **how: object) -> Plan:
    return fleet.make_plan(store, wanted, **how)  # type: ignore[arg-type]


def apply(store: Store, wanted: Fleet, told: Told) -> Plan:
    made = planned(store, wanted)
    machines = {machine.name: machine for machine in wanted.machines}
    for change in made.actions:
        fleet.carry_out(store, wanted.name, change, machines.get(change.name), told)
    return made


def actions(made: Plan) -> dict[str, str]:
    return {change.name: change.action.value for change in made.changes}


def test_what_is_missing_is_made_and_then_nothing_is_left_to_do(
    store: Store, cloud: FakeCloud, told: Told, file: Path
) -> None:
    wanted = loaded(file, THREE)
    assert actions(apply(store, wanted, told)) == dict.fromkeys(("m1", "m2", "m3"), "create")
    assert {record.marks["machinekit.name"] for record in cloud.instances.values()} == {"m1", "m2", "m3"}
    assert [store.load(name).fleet for name in store.names()] == ["ci"] * 3
    before = cloud.calls.total()
    assert actions(planned(store, wanted)) == dict.fromkeys(("m1", "m2", "m3"), "unchanged")
    assert cloud.calls.total() == before + 1  # one call for all machines of an account
    assert not planned(store, wanted, refresh=False).actions
    assert cloud.calls.total() == before + 1


def test_a_group_that_shrinks_loses_its_last_ones(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    apply(store, loaded(file, THREE), told)
    made = apply(store, loaded(file, THREE.replace("count: 3", "count: 1")), told)
    assert actions(made) == {"m1": "unchanged", "m2": "remove", "m3": "remove"}
    assert store.names() == ["m1"]
    assert len(cloud.instances) == len(cloud.disks) == 1


def test_another_option_forces_another_machine(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    apply(store, loaded(file, THREE), told)
    uids = {name: store.load(name).uid for name in store.names()}
    wanted = loaded(file, THREE.replace("driver: fake", "driver: fake, fake: {size: 7}"))
    made = planned(store, wanted)
    assert made.changes[0].action is Action.REPLACE
    assert made.changes[0].differences == (Difference("fake.size", 1, 7, replaces=True),)
    apply(store, wanted, told)
    assert all(store.load(name).uid != uid for name, uid in uids.items())
    assert len(cloud.instances) == 3
    assert not planned(store, wanted).actions


def test_labels_are_changed_in_place(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    apply(store, loaded(file, THREE), told)
    uid = store.load("m1").uid
    made = apply(store, loaded(file, THREE.replace("driver: fake", "driver: fake, labels: {tier: 1}")), told)
    assert made.changes[0].differences == (Difference("labels", [], ["tier=1"]),)
    assert made.changes[0].action is Action.CHANGE
    assert store.load("m1").uid == uid
    assert store.load("m1").spec["labels"] == ["tier=1"]


@pytest.mark.parametrize(
    ("happened", "action", "difference"),
    [
        ("gone", "replace", Difference("instance", "gone", "running", replaces=True)),
        ("stopped", "change", Difference("instance", "stopped", "running")),
        ("broken", "replace", Difference("instance", "error", "running", replaces=True)),
    ],
)
def test_drift_is_seen_and_mended(
    store: Store, cloud: FakeCloud, told: Told, file: Path, happened: str, action: str, difference: Difference
) -> None:
    wanted = loaded(file, THREE)
    apply(store, wanted, told)
    uid = store.load("m2").uid
    if happened == "gone":
        del cloud.instances[uid]
    else:
        cloud.instances[uid].state = State.STOPPED if happened == "stopped" else State.ERROR
    made = apply(store, wanted, told)
    assert actions(made) == {"m1": "unchanged", "m2": action, "m3": "unchanged"}
    assert made.changes[1].differences == (difference,)
    assert not planned(store, wanted).actions
    assert len(cloud.instances) == 3


@pytest.mark.parametrize("state", [state for state in State if state not in (State.RUNNING, State.ERROR)])
def test_an_instance_that_may_come_back_is_never_thrown_away(
    store: Store, cloud: FakeCloud, told: Told, file: Path, state: State
) -> None:
    wanted = loaded(file, THREE)
    apply(store, wanted, told)
    cloud.instances[store.load("m2").uid].state = state
    assert actions(planned(store, wanted)) == {"m1": "unchanged", "m2": "change", "m3": "unchanged"}


def test_what_a_list_leaves_out_is_looked_up_before_it_counts_as_gone(
    store: Store, cloud: FakeCloud, told: Told, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = loaded(file, THREE)
    apply(store, wanted, told)
    whole = Fake.find_all

    def first_page(drivers: Sequence[Fake]) -> dict[str, object]:
        return dict(list(whole(drivers).items())[:1])

    monkeypatch.setattr(Fake, "find_all", staticmethod(first_page))
    assert not planned(store, wanted).actions
    del cloud.instances[store.load("m3").uid]
    assert actions(planned(store, wanted)) == {"m1": "unchanged", "m2": "unchanged", "m3": "replace"}


def test_a_provider_that_cannot_be_asked_ends_the_plan(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    wanted = loaded(file, THREE)
    apply(store, wanted, told)
    cloud.failing.add("find")
    with pytest.raises(MachinekitError, match='cannot ask driver fake for "m1": the provider refuses to find'):
        planned(store, wanted)
    assert not planned(store, wanted, refresh=False).actions


def test_what_was_cut_off_is_finished(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    wanted = loaded(file, THREE)
    cloud.dying.add("create")
    with pytest.raises(Killed):
        apply(store, wanted, told)
    made = apply(store, wanted, told)
    assert made.changes[0].differences == (Difference("instance", "half created", "ready"),)
    cloud.dying.add("destroy")
    with pytest.raises(Killed):
        apply(store, loaded(file, THREE.replace("count: 3", "count: 2")), told)
    assert store.load("m3").phase is Phase.REMOVING
    assert actions(planned(store, wanted))["m3"] == "replace"
    apply(store, loaded(file, THREE.replace("count: 3", "count: 2")), told)
    assert store.names() == ["m1", "m2"]
    assert len(cloud.instances) == len(cloud.disks) == 2


def test_other_options_after_a_create_that_was_cut_off(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    cloud.dying.add("create")
    with pytest.raises(Killed):
        apply(store, loaded(file, THREE), told)
    wanted = loaded(file, THREE.replace("driver: fake", "driver: fake, fake: {size: 7}"))
    assert actions(apply(store, wanted, told))["m1"] == "replace"
    assert len(cloud.instances) == 3


def test_targets_and_replacements(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    wanted = loaded(file, THREE)
    assert actions(planned(store, wanted, targets=["m2"])) == {"m2": "create"}
    apply(store, wanted, told)
    assert actions(planned(store, wanted, replace=["m3"])) == {"m1": "unchanged", "m2": "unchanged", "m3": "replace"}
    with pytest.raises(UsageError, match="no machine 'm4'"):
        planned(store, wanted, targets=["m4"])
    shrunk = loaded(file, THREE.replace("count: 3", "count: 1"))
    assert actions(planned(store, shrunk, targets=["m3"])) == {"m3": "remove"}


def test_only_the_fleets_own_machines_are_touched(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    create(store, "m2", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)
    create(store, "other", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told, fleet="else")
    create(store, "loose", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)
    wanted = loaded(file, THREE)
    with pytest.raises(MachinekitError, match="m2: made by hand") as error:
        planned(store, wanted)
    assert error.value.hint == "to have the fleet own them: machinekit import m2"
    with pytest.raises(UsageError, match="'loose' is not in the file"):
        fleet.adopt(store, wanted, "loose", told)
    fleet.adopt(store, wanted, "m2", told)
    assert actions(planned(store, wanted)) == {"m1": "create", "m2": "unchanged", "m3": "create"}
    assert actions(planned(store, Fleet("ci", ()))) == {"m2": "remove"}
    stolen = loaded(file, THREE.replace("'m{index}', count: 3", "other"))
    with pytest.raises(MachinekitError, match="other: of the fleet else"):
        planned(store, stolen)
    with pytest.raises(MachinekitError, match='is of the fleet "else"'):
        fleet.adopt(store, stolen, "other", told)


@pytest.mark.parametrize("action", ["remove", "replace", "change"])
def test_a_machine_that_took_the_name_after_the_plan_is_left_alone(
    store: Store, cloud: FakeCloud, told: Told, file: Path, action: str
) -> None:
    apply(store, loaded(file, THREE), told)
    texts = {"remove": ("count: 3", "count: 2"), "replace": ("fake}", "fake, fake: {size: 7}}")}
    wanted = loaded(file, THREE.replace(*texts.get(action, ("fake}", "fake, labels: {tier: a}}"))))
    (change,) = planned(store, wanted, targets=["m3"]).changes
    assert change.action.value == action
    lifecycle.remove(store, "m3", told)
    create(store, "m3", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)
    before = store.load("m3")
    machines = {machine.name: machine for machine in wanted.machines}
    with pytest.raises(MachinekitError, match='"m3" is another machine now than when this was planned'):
        fleet.carry_out(store, "ci", change, machines.get("m3"), told)
    assert store.load("m3") == before
    assert before.uid in cloud.instances


@pytest.mark.parametrize("kind", sorted(SAID.keys() - {"driver"}))
def test_a_record_that_cannot_be_read_is_named_and_the_others_are_made(
    store: Store, cloud: FakeCloud, told: Told, file: Path, kind: str
) -> None:
    broken(store, kind)
    wanted = loaded(file, THREE.replace("machines: [", "machines: [{name: bad, driver: fake}, "))
    made = apply(store, wanted, told)
    assert actions(made) == dict.fromkeys(("m1", "m2", "m3"), "create")
    (bad,) = made.unreadable
    assert bad.name == "bad"
    assert SAID[kind] in bad.message
    assert not planned(store, wanted).actions
    assert not planned(store, wanted, targets=["m1"]).unreadable
    assert planned(store, wanted, targets=["bad"]).unreadable == (bad,)


@pytest.mark.parametrize(
    ("kind", "whose"),
    [("half", "perhaps ours"), ("list", "perhaps ours"), ("newer", "by hand"), ("none", "no machine"), ("driver", "")],
)
def test_a_broken_record_that_is_not_in_the_file(
    store: Store, cloud: FakeCloud, told: Told, file: Path, kind: str, whose: str
) -> None:
    broken(store, kind)
    made = apply(store, loaded(file, THREE), told)
    assert actions(made) == dict.fromkeys(("m1", "m2", "m3"), "create")
    assert bool(made.unreadable) is (whose == "perhaps ours")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("options", {"size": "seven"}, "size is 'seven'"),
        ("spec", {"colour": "red"}, "--engine-colour is no option"),
        ("setup", {"ships": []}, "what the machine carries cannot be read"),
        ("pins", {"ships": []}, "what a lock has made exact cannot be read"),
        ("driver", "no-such-driver", 'driver "no-such-driver" not found'),
        ("schema", 99, "newer machinekit"),
    ],
)
def test_a_part_of_a_record_that_cannot_be_read_is_that_machines_trouble_alone(
    store: Store, cloud: FakeCloud, told: Told, file: Path, field: str, value: object, said: str
) -> None:
    wanted = loaded(file, THREE)
    apply(store, wanted, told)
    path = store.directory("m2") / RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    for refresh in (True, False):
        made = planned(store, wanted, refresh=refresh)
        assert actions(made) == {"m1": "unchanged", "m3": "unchanged"}
        assert [each.name for each in made.unreadable] == ["m2"]
        assert said in made.unreadable[0].message
    made = apply(store, Fleet("ci", ()), told)
    assert actions(made) == {"m1": "remove", "m3": "remove"}
    assert [each.name for each in made.unreadable] == ["m2"]
    assert len(cloud.instances) == 1


def test_create_by_hand_leaves_a_fleets_machine_alone(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    apply(store, loaded(file, THREE), told)
    with pytest.raises(MachinekitError, match='machine "m1" is of the fleet "ci"'):
        create(store, "m1", driver="fake", options=FakeOptions("s3cret"), spec=Spec(), progress=told)


def test_an_error_names_keys_of_the_file_and_no_flags(
    store: Store, cloud: FakeCloud, told: Told, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(driver: object) -> None:
        raise PreCheckError("--fake-size is too much, and --fake-sizes is no option", "with --engine-version too")

    monkeypatch.setattr("tests.providers.fake.Fake.check", full)
    wanted = loaded(file, THREE)
    with pytest.raises(PreCheckError) as error:
        apply(store, wanted, told)
    assert error.value.message == "fake.size is too much, and --fake-sizes is no option"
    assert error.value.hint == "with engine.version too"


def test_a_change_that_fails_is_planned_again(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    apply(store, loaded(file, THREE), told)
    wanted = loaded(file, THREE.replace("driver: fake", "driver: fake, labels: {tier: a}"))
    change = planned(store, wanted).changes[0]
    cloud.failing_once.add("find")
    with pytest.raises(DriverError):
        fleet.carry_out(store, "ci", change, wanted.machines[0], told)
    assert planned(store, wanted).changes[0] == change


def test_the_file_that_is_written_for_machines_finds_them_unchanged(
    store: Store, cloud: FakeCloud, told: Told, file: Path
) -> None:
    options = FakeOptions("s3cret", size=5, tags=("a$b", "c"))
    spec = Spec(labels=("tier=web",), opts=("log-level=warn",), registry_mirrors=("https://mirror.example",))
    create(store, "m1", driver="fake", options=options, spec=spec, progress=told)
    text = written([store.load("m1")])
    assert "s3cret" not in text
    wanted = loaded(file, text)
    fleet.adopt(store, wanted, "m1", told)
    assert not planned(store, wanted).actions


def test_the_json_of_a_plan(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    made = planned(store, loaded(file, THREE.replace("count: 3", "count: 1")))
    assert json.loads(json.dumps(made.to_json())) == {
        "version": plan.VERSION,
        "fleet": "ci",
        "changes": [{"name": "m1", "action": "create", "driver": "fake", "uid": "", "differences": []}],
        "unreadable": [],
        "remarks": [],
    }


def test_roles_in_a_swarm_are_planned(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    swarm = "swarm: {managers: [m1], workers: [m2, m3]}\n"
    apply(store, loaded(file, THREE), told)
    made = planned(store, loaded(file, THREE + swarm), refresh=False)
    assert [change.differences for change in made.changes] == [
        (Difference("swarm", "", "manager"),),
        (Difference("swarm", "", "worker"),),
        (Difference("swarm", "", "worker"),),
    ]
    for name, role in (("m1", "manager"), ("m2", "worker"), ("m3", "worker")):
        record = store.load(name)
        record.swarm = role
        store.save(record)
    assert not planned(store, loaded(file, THREE + swarm), refresh=False).actions
    wanted = loaded(file, THREE.replace("count: 3", "count: 2") + "swarm: {managers: [m1], workers: [m2]}\n")
    made = planned(store, wanted, refresh=False, replace=["m2"])
    assert [change.name for change in swarming.exits(store, wanted, made)] == ["m2", "m3"]
    nothing = Fleet("ci", ())
    assert swarming.exits(store, nothing, planned(store, nothing, refresh=False)) == ()  # the whole swarm ends
    assert swarming.concerns(store, nothing)


CLOUDS = """
version: 1
name: ci
defaults:
  aws: {{region: eu-central-1, allow: [203.0.113.7], {aws}}}
  openstack: {{region: north, auth_url: 'http://127.0.0.1:1/v3', project: ci, allow: [203.0.113.7]}}
machines:
  - {{name: 'm-{{index}}', count: 3, driver: aws}}
  - {{name: w, driver: aws, aws: {{security_group: [mine], allow: [], peers: []}}}}
  - {{name: o, driver: openstack, openstack: {{{openstack}}}}}
  - {{name: lan, driver: qemu, qemu: {{network: lan}}}}
  - {{name: alone, driver: qemu}}
  - {{name: c, driver: container}}
"""
AWS = "no other machine of the Swarm can reach m-{index}: set aws.peers, see docs/swarm.md"
OPENSTACK = "no other machine of the Swarm can reach o: set openstack.peers, see docs/swarm.md"
QEMU = "no other machine of the Swarm can reach alone: set qemu.network, see docs/swarm.md"


@pytest.mark.parametrize(
    ("aws", "openstack", "swarm", "said"),
    [
        ("", "", "managers: ['m-{index}'], workers: [w, o, lan, alone, c]", (AWS, OPENSTACK, QEMU)),
        ("peers: [10.0.0.0/8]", "", "managers: ['m-{index}'], workers: [o]", (OPENSTACK,)),
        ("peers: [10.0.0.0/8]", "peers: ['2001:db8::/64']", "managers: ['m-{index}'], workers: [o]", ()),
        ("", "", "managers: [w], workers: [lan, c]", ()),
        ("", "", "managers: [o]", ()),  # there is no other machine
    ],
)
def test_machines_of_a_swarm_that_do_not_reach_each_other(
    store: Store,
    file: Path,
    environment: pytest.MonkeyPatch,
    aws: str,
    openstack: str,
    swarm: str,
    said: tuple[str, ...],
) -> None:
    machines = CLOUDS.format(aws=aws, openstack=openstack)
    assert planned(store, loaded(file, f"{machines}swarm: {{{swarm}}}\n")).remarks == said
    assert planned(store, loaded(file, machines)).remarks == ()


def test_machines_that_are_a_swarm_reach_each_other(
    store: Store, cloud: FakeCloud, told: Told, file: Path, environment: pytest.MonkeyPatch
) -> None:
    """A group may have been opened by hand: nothing is said where there is nothing to do."""
    environment.setattr(Fake, "option_for_peers", lambda options: "size")
    wanted = loaded(file, THREE + "swarm: {managers: [m1], workers: [m2]}\n")
    assert planned(store, wanted).remarks == (
        "no other machine of the Swarm can reach m{index}: set fake.size, see docs/swarm.md",
    )
    apply(store, wanted, told)
    for name in ("m1", "m2"):
        record = store.load(name)
        record.swarm = wanted.swarm_role(name)
        store.save(record)
    made = planned(store, wanted, refresh=False)
    assert (made.actions, made.remarks) == ((), ())


def test_a_swarm_that_cannot_be_is_told_with_its_manager(
    store: Store, cloud: FakeCloud, told: Told, file: Path
) -> None:
    apply(store, loaded(file, THREE), told)
    for name in ("m1", "m2"):
        record = store.load(name)
        record.swarm = "manager" if name == "m1" else "worker"
        store.save(record)
    wanted = loaded(file, THREE + "swarm: {managers: [m1], workers: [m2]}\n")
    first = planned(store, wanted).changes[0]  # the engine of the tests answers to nothing but pings
    assert first.action is Action.CHANGE
    assert [each.what for each in first.differences] == ["swarm"]
    assert '"m1" does not answer' in first.differences[0].before
