"""Commands are killed anywhere, run at once, meet a provider that fails: what can go on goes on, nothing is left."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from machinekit import dockercontext, drivers, gc, lifecycle
from machinekit.create import create
from machinekit.errors import MachinekitError, NoSuchMachineError
from machinekit.machine import Phase, State
from machinekit.spec import Spec
from machinekit.store import Store
from tests.conftest import Told
from tests.crashing import Life, Together, WatchedCloud, living, watch
from tests.killing import read
from tests.providers.fake import Fake, FakeCloud, FakeOptions, Killed
from tests.servers import Certificates

FUZZ = int(os.environ.get("MACHINEKIT_FUZZ", "1"))  # how many times as much is tried
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (a disk starts to write at each rename)
ENDS = ("again", "rm", "gc")
NAMES = st.sampled_from(["a", "b"])
SIZES = st.sampled_from([1, 2])
KILLS = st.one_of(st.just(-1), st.integers(0, 75))  # below zero: not killed
BIRTHS = st.one_of(st.just(-1), st.integers(0, 126))  # a create has more steps
REQUESTS = st.sampled_from(["check", "create disk", "create", "find", "start", "stop", "destroy", "release", "list"])
VERBS = st.sampled_from(["rm", "start", "stop", "restart", "provision", "use", "gc", "create", "rm"])
Command = tuple[str, str, int, int]  # verb, machine, size, kill


class Crashes(RuleBasedStateMachine):
    """One user's machines, and everything that can happen to the commands."""

    cloud: FakeCloud

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="machinekit-crashes-", dir=MEMORY))
        self.store = Store(self.home / "store")
        self.docker = self.home / "docker"
        os.environ["DOCKER_CONFIG"] = str(self.docker)
        for things in (self.cloud.instances, self.cloud.disks, self.cloud.failing_once, self.cloud.lost):
            things.clear()

    @rule(name=NAMES, size=SIZES, kill=BIRTHS)
    def create(self, name: str, size: int, kill: int) -> None:
        """A create, killed or not."""
        if self._attempt(("create", name, size, kill)):
            self._check_works(name)

    @precondition(lambda self: self.store.names())
    @rule(data=st.data(), verb=VERBS, kill=KILLS)
    def work(self, data: st.DataObject, verb: str, kill: int) -> None:
        """Another command on a machine that is there, killed or not."""
        name = data.draw(st.sampled_from(self.store.names()))
        if self._attempt((verb, name, 1, kill)) and verb == "rm":
            self._check_gone(name)

    @rule(
        commands=st.lists(st.tuples(VERBS, st.just("a"), SIZES, KILLS), min_size=1, max_size=2),
        size=SIZES,
        kill=BIRTHS,
        order=st.lists(st.integers(0, 2), min_size=1),
    )
    def together(self, commands: list[Command], size: int, kill: int, order: list[int]) -> None:
        """A create and others at once: a step of one, a step of another."""
        Together([self._thread(command) for command in [("create", "a", size, kill), *commands]], order).run()

    @rule(request=REQUESTS)
    def provider_refuses(self, request: str) -> None:
        """The next such request has no effect."""
        self.cloud.failing_once.add(request)

    @rule(request=REQUESTS)
    def answer_is_lost(self, request: str) -> None:
        """The next such request has its effect, and fails."""
        self.cloud.lost.add(request)

    @rule()
    def computer_reboots(self) -> None:
        """The instances are off."""
        for instance in self.cloud.instances.values():
            instance.state = State.STOPPED

    @precondition(lambda self: self.store.names())
    @rule(data=st.data())
    def create_again(self, data: st.DataObject) -> None:
        """Ends with a machine that works, unless it is being removed."""
        self._calm()
        name = data.draw(st.sampled_from(self.store.names()))
        machine = self.store.load(name)
        if machine.phase is not Phase.REMOVING:
            self._run("create", name, machine.options["size"])
            self._check_works(name)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        """Ends with nothing."""
        self._calm()
        existed = self.store.exists(name)
        try:
            self._run("rm", name)
        except NoSuchMachineError:
            assert not existed
        self._check_gone(name)

    @invariant()
    def nothing_is_unknown(self) -> None:
        """Whatever the provider has is in a record, and every record can be read."""
        records = [self.store.load(name) for name in self.store.names()]
        assert set(self.cloud.instances) <= {record.uid for record in records}
        assert set(self.cloud.disks) <= {resource.name for record in records for resource in record.resources}

    def teardown(self) -> None:
        """In the end `gc` and `rm` leave nothing."""
        try:
            self._calm()
            self._run("gc", "")
            assert self.store.leftovers() == []
            for name in self.store.names():
                self._run("rm", name)
            assert (self.cloud.instances, self.cloud.disks) == ({}, {})
            left = {str(path.relative_to(self.home)) for path in self.home.rglob("*")}
            docker = {"docker", "docker/config.json", "docker/contexts", "docker/contexts/meta", "docker/contexts/tls"}
            folders = {f"store/{folder}" for folder in ("machines", "removed", "locks")}
            assert left <= {"store", "store/store-id"} | folders | docker
        finally:
            shutil.rmtree(self.home)

    def _thread(self, command: Command) -> tuple[Life, Callable[[], object]]:
        life = Life(command[-1])
        return life, lambda: self._attempt(command, life)

    def _attempt(self, command: Command, life: Life | None = None) -> bool:
        """Run a command, which may be killed or say what is wrong, and nothing else; whether it has ended well."""
        try:
            with living(life or Life(command[-1])):
                self._run(*command[:3])
        except (Killed, MachinekitError):
            return False
        return True

    def _run(self, verb: str, name: str, size: int = 1) -> None:
        told, options = Told(), FakeOptions("s3cret", size)
        lifecycles: dict[str, Callable[[Store, str, Told], object]] = {
            "rm": lifecycle.remove,
            "start": lifecycle.start,
            "stop": lifecycle.stop,
            "restart": lifecycle.restart,
            "provision": lifecycle.provision,
            "use": lifecycle.use,
        }
        if verb == "create":
            create(self.store, name, driver="fake", options=options, spec=Spec(), progress=told)
        elif verb == "gc":
            for garbage in gc.find(self.store, [("fake", options)]).garbage:
                gc.remove(self.store, garbage)
        else:
            lifecycles[verb](self.store, name, told)

    def _calm(self) -> None:
        self.cloud.failing_once.clear()
        self.cloud.lost.clear()

    def _check_gone(self, name: str) -> None:
        """Nothing has the machine's name any more."""
        assert not self.store.exists(name)
        assert self.store.leftovers_of(name) == []
        marks = [instance.marks for instance in self.cloud.instances.values()] + list(self.cloud.disks.values())
        assert name not in {mark["machinekit.name"] for mark in marks}
        assert name not in {context for context, _, _ in dockercontext.ours()}

    def _check_works(self, name: str) -> None:
        machine = self.store.load(name)
        assert machine.phase is Phase.READY
        assert self.cloud.instances[machine.uid].state is State.RUNNING
        mine = [disk for disk, marks in self.cloud.disks.items() if marks["machinekit.uid"] == machine.uid]
        assert mine == [resource.name for resource in machine.resources]
        assert len(mine) == 1
        assert self.store.leftovers_of(name) == []


@pytest.fixture
def crashes(cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> type[Crashes]:
    """The machine with a provider of its own, every step of a command watched."""
    fields = {field.name: getattr(cloud, field.name) for field in dataclasses.fields(cloud)}
    monkeypatch.setattr(Fake, "cloud", WatchedCloud(**fields))
    monkeypatch.setattr(Crashes, "cloud", Fake.cloud, raising=False)
    monkeypatch.setattr(drivers, "load", functools.cache(drivers.load))  # reads every installed package's metadata
    watch(monkeypatch)
    return Crashes


def test_any_sequence(crashes: type[Crashes]) -> None:
    run_state_machine_as_test(
        crashes,
        settings=settings(max_examples=1000 * FUZZ, stateful_step_count=8, print_blob=True),
    )


@pytest.mark.parametrize("verb", ["create", "rm", "start", "stop", "restart", "provision", "use"])
def test_a_kill_at_each_step(crashes: type[Crashes], verb: str) -> None:
    """Before and after its effect; then it is created again, removed, or swept up."""
    before = crashes()
    if verb != "create":
        before._run("create", "a")
        before._run("use", "a")
    instances, disks = copy.deepcopy(before.cloud.instances), copy.deepcopy(before.cloud.disks)
    for kill in itertools.count():
        for ends in ENDS if FUZZ > 1 else ENDS[kill % 3 : kill % 3 + 1]:
            user, life = crashes(), Life(kill)
            shutil.copytree(before.home, user.home, dirs_exist_ok=True)
            user.cloud.instances |= copy.deepcopy(instances)
            user.cloud.disks |= copy.deepcopy(disks)
            if verb == "start":
                user.computer_reboots()
            user._attempt((verb, "a", 1, kill), life)
            user.nothing_is_unknown()
            if ends == "again" and user.store.exists("a") and user.store.load("a").phase is not Phase.REMOVING:
                user._run("create", "a")
                user._check_works("a")
            elif ends == "rm":
                user.remove("a")
            user.teardown()
        if kill > 2 * len(life.steps):
            break
    shutil.rmtree(before.home)


@pytest.mark.parametrize("verb", ["create", "provision", "rm"])
def test_a_real_sigkill(cloud: FakeCloud, store: Store, certificates: Certificates, tmp_path: Path, verb: str) -> None:
    """The same with real processes; every few steps, as it takes longer."""
    file = tmp_path / "cloud"
    file.write_bytes(pickle.dumps(({}, {})))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.killing", str(store.home), str(file), str(cloud.engine_port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": sys.path[0], "CERTIFICATES": str(certificates.directory)},
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(verb: str, kill: int = -1) -> tuple[int, int]:
            print(json.dumps([verb, kill]), file=process.stdin, flush=True)
            code, steps = json.loads(process.stdout.readline() if process.stdout else "")
            return code, steps

        killed = 0
        for kill in itertools.count(0, 1 if FUZZ > 1 else 3):
            assert verb == "create" or run("create")[0] == 0
            code, steps = run(verb, kill)
            assert code in {0, -signal.SIGKILL}
            killed += code != 0
            if kill % 2:
                again = run("create")[0]
                assert again == 0 or store.load("a").phase is Phase.REMOVING
            assert run("rm")[0] == 0 or not store.names()
            assert read(file) == ({}, {})
            run("gc")
            assert (store.names(), store.leftovers()) == ([], [])
            if kill > 2 * steps:
                break
        assert killed > 2
        process.stdin.close()
