"""What a lock makes of a fleet: resolved once, and the same for every machine from then on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from machinekit import fleet, lockfile, pinning, plan
from machinekit.create import find_image
from machinekit.errors import MachinekitError, UntrustedError, UsageError
from machinekit.imagestore import ABOUT
from machinekit.lockfile import Lock
from machinekit.machine import Machine, Phase
from machinekit.pins import PinnedImage, Pins
from machinekit.plan import Action, Difference, Plan
from machinekit.store import Store
from machinekit.upgrade import upgrade
from machinekit.wanted import Fleet
from machinekit.work import Work
from tests.conftest import Told
from tests.providers.fake import FakeCloud, Killed
from tests.servers import FakeHost

CLOUD = "version: 1\nname: ci\nmachines: [{name: 'm{index}', count: 2, driver: fake}, {name: web, driver: fake}]\n"
NEW, OLD = "20.10.26+dfsg1-1", "20.10.25+dfsg1-1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "machinekit.yaml"


def loaded(file: Path, text: str) -> Fleet:
    file.write_text(text)
    return fleet.load(file, {})


def locked(store: Store, file: Path, told: Told, **how: Any) -> Fleet:
    """The fleet of the file, after its lock was written."""
    wanted, place = fleet.load(file, {}), lockfile.place(file)
    before = pinning.read(place) if place.exists() else None
    pinning.save(pinning.lock(store, wanted, file.parent, told, **({"before": before} | how)), place)
    return pinning.locked(wanted, file)


def planned(store: Store, wanted: Fleet, **how: Any) -> Plan:
    return fleet.make_plan(store, wanted, **how)


def apply(store: Store, wanted: Fleet, told: Told) -> Plan:
    made, machines = planned(store, wanted), {machine.name: machine for machine in wanted.machines}
    for change in made.actions:
        fleet.carry_out(store, wanted.name, change, machines.get(change.name), told, agreed=True)
    return made


def images(store: Store, cloud: FakeCloud) -> dict[str, str]:
    return {name: cloud.instances[store.load(name).uid].image for name in store.names()}


# --- what a provider tells


def test_a_machine_that_comes_later_is_made_of_the_same(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    plain = loaded(file, CLOUD)
    apply(store, locked(store, file, told), told)
    cloud.images["newest"] = "image-2"
    more = loaded(file, CLOUD.replace("count: 2", "count: 3"))
    assert pinning.locked(more, file).machines[2].options.image == "newest", "the record has what the file says"  # type: ignore[attr-defined]
    apply(store, pinning.locked(more, file), told)
    assert images(store, cloud) == dict.fromkeys(("m1", "m2", "m3", "web"), "image-1")
    assert store.load("m3").options["image"] == "newest"
    assert not planned(store, more).actions, "without the lock it is what the file wants, too"
    assert not planned(store, pinning.locked(more, file)).actions
    assert not planned(store, pinning.locked(plain, file), targets=["m1"]).actions


def test_what_fits_stays_until_it_is_updated(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    loaded(file, CLOUD)
    first = locked(store, file, told)
    text = lockfile.place(file).read_text()
    cloud.images["newest"] = "image-2"
    assert locked(store, file, told) == first
    assert lockfile.place(file).read_text() == text
    assert cloud.calls["find image"] == 2, "nobody is asked for what is locked"
    groups = pinning.read(lockfile.place(file)).groups
    locked(store, file, told, anew=["m{index}"])
    after = pinning.read(lockfile.place(file)).groups
    assert (after["web"], after["m{index}"].options) == (groups["web"], {"image": "image-2"})
    with pytest.raises(UsageError, match=r"no entry of the file's machines is called 'wob'; did you mean web"):
        locked(store, file, told, anew=["wob"])


def test_another_lock_replaces_what_was_born_with_one(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    loaded(file, CLOUD)
    apply(store, locked(store, file, told), told)
    cloud.images["newest"] = "image-2"
    wanted = locked(store, file, told, anew=["web"])
    made = apply(store, wanted, told)
    assert [(change.name, change.differences) for change in made.actions] == [
        ("web", (Difference("fake.image", "image-1", "image-2", replaces=True),))
    ]
    assert images(store, cloud) == {"m1": "image-1", "m2": "image-1", "web": "image-2"}
    assert not planned(store, fleet.load(file, {})).actions


def test_what_was_born_without_a_lock_stays(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    apply(store, loaded(file, CLOUD), told)
    cloud.images["newest"] = "image-2"
    assert not planned(store, locked(store, file, told)).actions
    assert set(images(store, cloud).values()) == {"image-1"}


def test_half_made_without_the_lock_is_made_anew(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    wanted = loaded(file, CLOUD)
    cloud.dying.add("create")
    with pytest.raises(Killed):
        apply(store, wanted, told)
    cloud.images["newest"] = "image-2"
    made = apply(store, locked(store, file, told), told)
    assert made.changes[0].action is Action.REPLACE
    assert set(images(store, cloud).values()) == {"image-2"}


def test_half_made_with_the_lock_goes_on_with_it(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    loaded(file, CLOUD)
    wanted = locked(store, file, told)
    cloud.dying.add("create disk")
    with pytest.raises(Killed):
        apply(store, wanted, told)
    cloud.images["newest"] = "image-2"
    made = apply(store, fleet.load(file, {}), told)
    assert made.changes[0].differences == (Difference("instance", "half created", "ready"),)
    assert images(store, cloud) == {"m1": "image-1", "m2": "image-2", "web": "image-2"}


def test_a_saved_plan_knows_the_lock(store: Store, cloud: FakeCloud, told: Told, file: Path) -> None:
    loaded(file, CLOUD)
    wanted = locked(store, file, told)
    assert Fleet.from_json(json.loads(json.dumps(wanted.to_json()))) == wanted


# --- what machines tell


def adopting(host: FakeHost, more: str = "", **engine: str) -> str:
    """A fleet of that server alone."""
    key = host.directory / "key"
    options = f"{{ip_address: 127.0.0.1, ssh_port: {host.port}, ssh_key: {key}, engine_port: {host.engine.port}}}"
    return (
        f"version: 1\nname: ci\ndefaults: {{driver: generic, generic: {options}, engine: {json.dumps(engine)}}}\n"
        f"machines: [{{name: web}}{more}]\n"
    )


def test_the_engine_that_is_there_is_the_one(store: Store, told: Told, host: FakeHost, file: Path) -> None:
    loaded(file, adopting(host))
    with pytest.raises(MachinekitError, match="web: no machine tells the version of its engine"):
        locked(store, file, told)
    host.offers, host.facts["package"] = [NEW, OLD], f"docker.io {OLD}"
    apply(store, fleet.load(file, {}), told)
    wanted = locked(store, file, told)
    assert pinning.read(lockfile.place(file)).groups["web"].engine == OLD
    host.scripts.clear()
    made = apply(store, wanted, told)
    assert made.changes[0].differences == (Difference("engine.version", "", OLD),)
    assert any("packages_hold docker.io" in script for script in host.scripts)
    assert not planned(store, wanted).actions
    assert not planned(store, fleet.load(file, {})).actions, "without the lock the machine keeps to it"

    # somebody else's upgrade is seen and taken back
    host.facts["package"] = f"docker.io {NEW}"
    assert [each.what for each in planned(store, wanted).changes[0].differences] == ["engine.version"]
    apply(store, wanted, told)
    assert host.facts["package"] == f"docker.io {OLD}"

    # our own upgrade leaves the lock, and the next lock has it
    upgrade(store, "web", told, to="latest")
    assert not planned(store, fleet.load(file, {})).actions
    assert store.load("web").pins == {}
    assert not planned(store, locked(store, file, told, anew=["web"]), refresh=False).changes[0].differences[1:]
    assert pinning.read(lockfile.place(file)).groups["web"].engine == NEW


def test_what_comes_with_the_engine_is_locked_too(store: Store, told: Told, host: FakeHost, file: Path) -> None:
    loaded(file, adopting(host))
    host.offers = [NEW, OLD]
    host.facts |= {"package": f"docker.io {OLD}", "companion containerd": "1.6.20", "companion runc": "1.1.5"}
    apply(store, fleet.load(file, {}), told)
    wanted, companions = locked(store, file, told), ["containerd=1.6.20", "runc=1.1.5"]
    assert pinning.read(lockfile.place(file)).groups["web"].packages == {"containerd": "1.6.20", "runc": "1.1.5"}
    made = apply(store, wanted, told)
    assert made.changes[0].differences == (
        Difference("engine.version", "", OLD),
        Difference("engine.packages", [], companions),
    )
    assert any("packages_hold docker.io containerd runc" in script for script in host.scripts)
    assert not planned(store, wanted).actions
    assert not planned(store, fleet.load(file, {})).actions, "without the lock the machine keeps to it"

    # somebody else's upgrade is seen and taken back, the engine stays
    host.facts["companion containerd"] = "1.6.21"
    host.scripts.clear()
    assert planned(store, wanted).changes[0].differences == (
        Difference("engine.packages", ["containerd=1.6.21"], companions),
    )
    apply(store, wanted, told)
    assert host.facts["companion containerd"] == "1.6.20"
    (script,) = [script for script in host.scripts if "packages_install docker.io" in script]
    assert "containerd=1.6.21" in script.rpartition("packages_install docker.io")[2], "the way back"

    # an upgrade by hand leaves the lock
    upgrade(store, "web", told, to="latest")
    assert store.load("web").pins == {}
    assert store.load("web").spec["packages"] == []
    assert any("packages_release docker.io containerd runc\n" in script for script in host.scripts[-4:])
    assert not planned(store, fleet.load(file, {})).actions


def test_an_upgrade_to_the_lock_that_fails_is_planned_again(
    store: Store, told: Told, host: FakeHost, file: Path
) -> None:
    loaded(file, adopting(host))
    host.offers, host.facts["package"] = [NEW, OLD], f"docker.io {OLD}"
    apply(store, fleet.load(file, {}), told)
    place = lockfile.place(file)
    locked(store, file, told)
    place.write_text(place.read_text().replace(OLD, NEW))
    wanted = pinning.locked(fleet.load(file, {}), file)
    host.broken = NEW
    with pytest.raises(MachinekitError, match="it runs 20"):
        apply(store, wanted, told)
    assert host.facts["package"] == f"docker.io {OLD}"
    host.broken = ""
    assert planned(store, wanted).changes[0].action is Action.CHANGE
    apply(store, wanted, told)
    assert host.facts["package"] == f"docker.io {NEW}"
    assert not planned(store, wanted).actions


def test_an_exact_version_in_the_file_needs_no_machine(store: Store, told: Told, host: FakeHost, file: Path) -> None:
    loaded(file, adopting(host, version="20.10.25"))
    assert locked(store, file, told).machines[0].spec.version == "20.10.25"
    host.offers = [NEW, OLD]
    apply(store, fleet.load(file, {}), told)
    wanted = locked(store, file, told, anew=["web"])
    assert wanted.machines[0].spec.version == OLD, "the package's version is more exact than the engine's"
    loaded(file, adopting(host, version="20.10.26"))
    with pytest.raises(UsageError, match=r"web: engine\.version: 20\.10\.25 -> 20\.10\.26"):
        pinning.locked(fleet.load(file, {}), file)


def test_a_group_without_machines_takes_the_engine_of_one_like_it(
    store: Store, told: Told, host: FakeHost, file: Path
) -> None:
    loaded(file, adopting(host))
    host.offers, host.facts["package"] = [NEW, OLD], f"docker.io {OLD}"
    apply(store, fleet.load(file, {}), told)
    loaded(file, adopting(host, ", {name: 'more-{index}', count: 2}"))
    locked(store, file, told)
    assert pinning.read(lockfile.place(file)).groups["more-{index}"].engine == OLD
    loaded(file, adopting(host, ", {name: other, engine: {source: docker}}"))
    with pytest.raises(MachinekitError, match="other: no machine tells the version"):
        locked(store, file, told)
    host.fails = "say os_id"
    loaded(file, adopting(host))
    with pytest.raises(MachinekitError, match="web: no machine tells the version"):
        locked(store, file, told, anew=["web"])
    assert any(note.startswith("web: cannot be asked: ") for note in told.notes)


def test_roles_are_pinned_where_the_file_leaves_them_open(tmp_path: Path) -> None:
    text = """
version: 1
name: ci
machines:
  - {name: web, driver: container, roles: [{role: gitlab-runner, url: 'https://gitlab.test', token: env:TOKEN}]}
  - {name: exact, driver: container, roles: [{role: registry, version: '1.0'}]}
"""
    wanted = loaded(tmp_path / "machinekit.yaml", text)
    web, exact = wanted.machines
    pins = Pins(roles={"gitlab-runner": {"version": "17.5.0-1"}, "registry": {"version": "2.0"}})
    pinned = web.pinned(pins).setup.roles[0]
    assert pinned.options["version"] == "17.5.0-1"
    assert pinned.kept.digest != web.setup.roles[0].kept.digest
    assert pinned.kept.secrets == {"token": "env:TOKEN"}
    assert exact.pinned(pins).setup == exact.setup
    with pytest.raises(UsageError, match=r"role gitlab-runner cannot be as it was locked: .*version"):
        web.pinned(Pins(roles={"gitlab-runner": {"version": "$(id)"}}))


def test_a_plan_of_many_that_are_pinned_is_quick(file: Path) -> None:
    use = "{role: gitlab-runner, url: 'https://gitlab.test', token: env:TOKEN}"
    text = f"version: 1\nname: ci\nmachines: [{{name: 'm{{index}}', count: 300, driver: container, roles: [{use}]}}]\n"
    wanted = loaded(file, text)
    pins = Pins(engine=OLD, roles={"gitlab-runner": {"version": "17.5.0-1"}})
    like = wanted.machines[0].pinned(pins).to_json()
    about = {key: like[key] for key in ("options", "spec", "setup", "pins")}
    records = {
        each.name: Machine(each.name, each.name, "container", "", "", fleet="ci", phase=Phase.READY, **about)
        for each in wanted.machines
    }
    started = time.monotonic()
    assert not plan.make(wanted, records, {}).actions
    assert time.monotonic() - started < 5, "each of them would take a twentieth of a second"


# --- images of this computer


def place_image(store: Store, build: str) -> None:
    path = store.images / "rootfs" / "mine"
    path.mkdir(parents=True, exist_ok=True)
    (path / ABOUT).write_text(json.dumps({"build": build, "created": "2026-01-01T00:00:00Z"}))


def test_an_image_of_another_build_is_refused_before_anything_is_made(store: Store, told: Told, file: Path) -> None:
    loaded(file, "version: 1\nname: ci\nmachines: [{name: web, driver: container, container: {image: mine}}]\n")
    place_image(store, "b1")
    group = lockfile.Group(
        asked=lockfile.asked(fleet.load(file, {}).machines[0], file.parent),
        image=PinnedImage(name="mine", build="b1"),
        engine=OLD,
    )
    pinning.save(Lock(version=1, fleet="ci", groups={"web": group}), lockfile.place(file))
    wanted = pinning.locked(fleet.load(file, {}), file)
    assert planned(store, wanted).changes[0].action is Action.CREATE
    place_image(store, "b2")
    with pytest.raises(UntrustedError, match=r"the lock has image mine \(build b1\), and the one here is build b2"):
        planned(store, wanted)
    assert planned(store, fleet.load(file, {})).changes[0].action is Action.CREATE


def test_the_image_is_looked_at_again_when_the_machine_is_made(store: Store, told: Told) -> None:
    """Somebody may have built it anew since the plan."""
    place_image(store, "b1")
    pins = Pins(image=PinnedImage(name="mine", build="b1")).to_json()
    store.reserve(Machine("web", "uid", "container", "", "", options={"engine": "", "image": ""}, pins=pins))
    work = Work(store, store.load("web"), told)
    find_image(work)
    assert work.machine.image == "rootfs/mine", "not the default of today"
    work.machine.image = ""
    place_image(store, "b2")
    with pytest.raises(UntrustedError, match="the one here is build b2"):
        find_image(work)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MachinekitError, match=r"cannot write .*gone/a\.lock: No such file or directory"):
        pinning.save(Lock(version=1, fleet="ci"), tmp_path / "gone" / "a.lock")
