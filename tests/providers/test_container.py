"""What the container driver asks its engine for, without an engine."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from machinekit.providers import container, privileges
from machinekit.providers.container import Container, ContainerOptions

from machinekit.errors import DriverError, PreCheckError
from machinekit.machine import Birth, Image, Instance, Machine, State

ALL = "CapBnd:\t000001ffffffffff\n"


def driver(**options: Any) -> Any:
    machine = Machine("node1", "0123456789", "container", "s", "")
    return Container(machine, ContainerOptions(**options), Path("/nowhere"), lambda: None)


@pytest.mark.parametrize(
    ("options", "has"),
    [
        ({}, ["--name node1-01234567", "--hostname node1", "--network bridge"]),
        ({}, ["--mount type=volume,source=vol,target=/var/lib/docker,volume-label=machinekit.uid=0123456789,"]),
        ({"network": "lab"}, ["--network lab"]),
        ({"publish": ("8080:80",)}, ["--publish 127.0.0.1:8080:80"]),
        ({"publish": ("0.0.0.0:8080:80",)}, ["--publish 0.0.0.0:8080:80"]),
        ({"cpus": 1.5, "memory": "1G"}, ["--cpus 1.5", "--memory 1G"]),
    ],
)
def test_the_options_of_docker_create(options: dict[str, Any], has: list[str]) -> None:
    words = " ".join(driver(**options)._run_options("vol"))
    assert [text for text in has if text not in words] == []
    assert "--privileged" not in words


@pytest.mark.parametrize(
    ("status", "cgroup_v2", "has", "lacks"),
    [
        (ALL, True, ["--cap-add", "ALL", "--cap-drop=SYS_MODULE"], ["--cap-drop=CHOWN", "--cgroupns"]),
        (ALL, False, ["--cgroupns", "/sys/fs/cgroup:/sys/fs/cgroup:rw"], ["--cap-drop=CHOWN"]),
        ("Name:\tx\nCapBnd:\t000001fffffffffe\nSeccomp:\t0\n", True, ["--cap-drop=CHOWN"], ["--cap-drop=BPF"]),
        ("CapBnd:\t0000000000000000\n", True, [f"--cap-drop={name}" for name in privileges.CAPABILITIES], []),
    ],
)
def test_what_an_engine_inside_needs(status: str, cgroup_v2: bool, has: list[str], lacks: list[str]) -> None:
    options = privileges.options(status, cgroup_v2=cgroup_v2)
    assert [word for word in has if word not in options] == []
    assert [word for word in lacks if word in " ".join(options)] == []


def test_the_keys_are_there_before_the_first_boot() -> None:
    archive = container._keys(Birth("root", "ssh-ed25519 A me", "PRIVATE\n", "ssh-ed25519 B", "", None))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {member.name: (member.mode, tar.extractfile(member)) for member in tar}
    assert {name: oct(mode) for name, (mode, _) in found.items()} == {
        "root/.ssh": "0o700",
        "root/.ssh/authorized_keys": "0o600",
        "etc/ssh/ssh_host_ed25519_key": "0o600",
        "etc/ssh/ssh_host_ed25519_key.pub": "0o644",
    }


def test_two_builds_of_an_image_have_two_tags() -> None:
    images = [Image("debian-12+engine", "rootfs", Path("/x"), build, "") for build in ("a", "b")]
    assert [container._tag(image) for image in images] == [
        "machinekit/debian-12-engine:a",
        "machinekit/debian-12-engine:b",
    ]


def test_no_docker_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PreCheckError, match="the docker client is not installed"):
        driver().check()
    with pytest.raises(DriverError, match="the docker client is not installed"):
        driver().find()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker client that answers from files and writes down what it was called with."""
    program = tmp_path / "docker"
    program.write_text(
        f'#!/bin/sh\nprintf "%s " "$@" "${{DOCKER_HOST-no-host}}" >>{tmp_path}/calls; echo >>{tmp_path}/calls\n'
        f'if [ -e "{tmp_path}/$3" ]; then cat "{tmp_path}/$3"; else echo "$3 fails" >&2; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:1")
    return tmp_path


INSPECT = """[{"Config": {"Labels": {"machinekit.uid": "0123456789"}}, "State": {"Status": "%s"},
  "NetworkSettings": {"Networks": {"none": {"IPAddress": ""}, "bridge": {"IPAddress": "172.17.0.2"}}}}]"""


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", State.RUNNING),
        ("exited", State.STOPPED),
        ("created", State.STOPPED),
        ("restarting", State.STARTING),
        ("unheard-of", State.ERROR),
    ],
)
def test_find_reads_the_engines_words(docker: Path, status: str, state: State) -> None:
    (docker / "ps").write_text("abc\n")
    (docker / "inspect").write_text(INSPECT % status)
    assert driver().find() == Instance(state, "172.17.0.2")
    calls = (docker / "calls").read_text().splitlines()
    assert calls[0] == (
        "--host unix:///var/run/docker.sock ps --all --quiet --no-trunc "
        "--filter label=machinekit.uid=0123456789 no-host "
    )


def test_find_nothing(docker: Path) -> None:
    (docker / "ps").touch()
    assert driver().find() is None


def test_an_engine_that_refuses_is_quoted(docker: Path) -> None:
    with pytest.raises(DriverError) as caught:
        driver(engine="unix:///x.sock").find()
    assert (caught.value.message, caught.value.hint) == ("docker ps: ps fails", "the engine is unix:///x.sock")
    with pytest.raises(PreCheckError, match="network fails"):
        driver().check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ""),
        ({"network": "lab", "cpus": 2}, ""),
        ({"network": "labs"}, 'the engine has no network "labs"; did you mean lab?'),
        ({"cpus": 2.5}, "--container-cpus asks for 2.5 CPUs, and the engine has 2"),
        ({"publish": ("192.0.2.1:8080:80",)}, "cannot publish 192.0.2.1:8080:80: 192.0.2.1 is not an address of"),
    ],
)
def test_what_the_engine_lacks_is_said_before_anything_is_made(
    docker: Path, options: dict[str, Any], said: str
) -> None:
    for command, answer in (("network", "bridge\nhost\nlab\n"), ("info", "2\n")):
        (docker / command).write_text(answer)
    if not said:
        driver(**options).check()
        return
    with pytest.raises(PreCheckError) as caught:
        driver(**options).check()
    assert said in caught.value.message


def test_the_docker_client_knows_no_tokens(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    monkeypatch.setenv("DOCKER_CONFIG", "/config")
    (docker / "docker").write_text("#!/bin/sh\nenv\n")
    said = driver()._docker("ps")
    assert "s3cret" not in said
    assert "DOCKER_CONFIG=/config\n" in said


def test_orphans_are_instances_and_volumes_of_others(docker: Path) -> None:
    (docker / "ps").write_text("u1 a s1 -\nu2 b s1 -\n")
    (docker / "volume").write_text("u1 a s1 a-u1\nu3 c s2 c-u3\n")
    found = Container.orphans(ContainerOptions(), lambda machine: machine.uid == "u2")
    assert [(orphan.uid, orphan.name, orphan.store, [r.name for r in orphan.resources]) for orphan in found] == [
        ("u1", "a", "s1", ["a-u1"]),
        ("u3", "c", "s2", ["c-u3"]),
    ]
