"""Values arrive byte for byte and execute nothing; a disk that is full is named, and the host is as before."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from machinekit.providers.qemu import Qemu, QemuOptions

from machinekit.images import Images
from machinekit.machine import Birth, Machine, State
from tests.e2e.lab import Cli, Host, Lab, run

CANARY = f"/tmp/canary-{uuid.uuid4().hex}"  # noqa: S108 (what a value makes if anything executes it, here or there)
TEXTS = [
    f"$(touch {CANARY}) `touch {CANARY}` ${{IFS}} $HOME",
    f"'; touch {CANARY}; '",
    f'"; touch {CANARY}; "',
    f"\\$(touch {CANARY})\\",
    "it's \"quoted\" 'twice' \\\" \\'",
    "{{ 7 * 7 }} {% raw %} {# no #} {{.Names}}",
    "%h %n %% %",
    "\\ \\n \\x41 \\\\",
    "ünï → 🎉 \u200d\u00a0\ufeff",
    "-rf --help",
    "a=b=c,d;e",
    "  spaces  around  ",
    "# & | < > * ? [a] ~ ! ^",
    "true",
    "",
]
LINES = ["line one\nline two\n", "a\ttab", f"x\n$(touch {CANARY})\n'"]
NASTY = 'it\'s, a:"store" %h $(id) `id` {{ 7 }} ü'  # a place for machines


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has to be quoted everywhere."""
    home = tmp_path_factory.mktemp("values") / NASTY
    home.mkdir()
    return home


@pytest.fixture(scope="module")
def owner(lab: Lab, home: Path) -> Iterator[Cli]:
    """Somebody whose store is there."""
    with lab.user(home) as cli:
        yield cli


def test_every_value_arrives_as_it_was_given(lab: Lab, owner: Cli) -> None:
    lab.rootfs("debian-12+engine")
    texts = [*TEXTS, *LINES]
    labels = [f"label.{number}={text}" for number, text in enumerate(texts)]
    variables = [f"MK_{number}={text}" for number, text in enumerate(texts)]
    log_options = {"tag": TEXTS[0], "labels": TEXTS[4], "env": LINES[2], "labels-regex": TEXTS[5]}
    create = [
        *["create", "-d", "container", *(f"--engine-label={label}" for label in labels)],
        *(f"--engine-env={variable}" for variable in variables),
        *(f"--engine-opt=log-opt={key}={value}" for key, value in log_options.items()),
        *['--engine-opt=default-shm-size="64M"', "--engine-opt=max-concurrent-uploads=3", "node1"],
    ]
    owner(*create)
    told = run("docker", "info", "--format", "{{json .Labels}}", env=owner.client("node1"))
    assert sorted(json.loads(told)) == sorted(["provider=container", *labels])
    environment = owner("ssh", "node1", "base64 /proc/$(pidof dockerd)/environ")
    there = base64.b64decode(environment).split(b"\0")
    assert [pair for pair in there if pair.startswith(b"MK_")] == [variable.encode() for variable in variables]
    settings = json.loads(owner("ssh", "node1", "cat /etc/docker/daemon.json"))
    assert settings["log-opts"] == log_options
    assert (settings["default-shm-size"], settings["max-concurrent-uploads"]) == ("64M", 3)
    assert "(unchanged)" in owner(*create)
    assert Path(CANARY).name not in owner("ssh", "node1", "ls /tmp")
    assert not Path(CANARY).exists()


def test_a_virtual_machine_may_live_anywhere(lab: Lab, home: Path) -> None:
    """A comma ends a value of QEMU's options, a colon separates in some."""
    lab.disk("debian-12+engine")
    directory = home / "vm"
    directory.mkdir()
    driver = Qemu(Machine("vm", str(uuid.uuid4()), "qemu", "lab", ""), QemuOptions(), directory, lambda: None)
    image = Images(lab.images).find("disk", "debian-12+engine")
    try:
        driver.create(Birth("machinekit", "ssh-ed25519 A", "", "", "#cloud-config\n{}\n", image))
        found = driver.find()
        assert found is not None
        assert found.state is State.RUNNING
    finally:
        driver.destroy()
    assert [path.name for path in directory.iterdir()] == []


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Iterator[Host]:
    """A server without an engine."""
    with lab.host() as host:
        yield host


@pytest.mark.parametrize(
    ("folder", "size", "said"),
    [
        ("/var", "40m", "MB free in /var on the host, and the engine takes about 300 MB to install"),
        ("/var/cache/apt", "64k", "No space left on device"),
        ("/etc/docker", "8k", "the settings cannot be put in place; the settings from before are back"),
    ],
)
def test_a_full_disk_is_named_and_nothing_is_left(cli: Cli, bare: Host, folder: str, size: str, said: str) -> None:
    create = ["create", "-d", "generic", "--generic-ip-address", bare.address, "--generic-ssh-key", str(bare.key)]
    bare.sh(f"mkdir -p {folder}; mount -t tmpfs -o size={size},mode=755 tmpfs {folder}")
    try:
        refused = cli.fail(*create, "web")
        assert said in refused
        if folder == "/etc/docker":
            left = bare.sh(f"ls -A {folder}").split()
            assert [file for file in left if file != "key.json" and not file.startswith("daemon.json.before-")] == []
    finally:
        bare.sh(f"umount -l {folder}")
    if folder == "/etc/docker":
        assert "web: ready" in cli(*create, "web")
