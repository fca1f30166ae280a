"""Which packages a system gets, from where, in which version."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinekit import packages
from machinekit.engine import Facts
from machinekit.errors import EngineError, UsageError
from machinekit.packages import Offers
from machinekit.spec import Spec

DOCKER = "repository https://download.docker.com/linux/"
APT, RPM = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88", "060A61C51B558A7F742B77AAC52FEB6B621E9F35"
NONE_OF_ITS_OWN = "has no engine among its own packages"
NONE_OF_DOCKERS = "Docker's repository has nothing for"

# as /etc/os-release of these systems has it: ID, ID_LIKE, VERSION_ID; then what each source means there
SYSTEMS = [
    ("debian", "", "11", "install docker.io\n", f"{DOCKER}debian {APT}"),
    ("debian", "", "13", "install docker.io\n", f"{DOCKER}debian {APT}"),
    ("raspbian", "debian", "12", "install docker.io\n", f"{DOCKER}debian {APT}"),
    ("ubuntu", "debian", "22.04", "install docker.io\n", f"{DOCKER}ubuntu {APT}"),
    ("ubuntu", "debian", "24.04", "install docker.io\n", f"{DOCKER}ubuntu {APT}"),
    ("ubuntu", "debian", "26.04", "install docker.io\n", f"{DOCKER}ubuntu {APT}"),
    ("linuxmint", "ubuntu debian", "22", "install docker.io\n", f"{DOCKER}ubuntu {APT}"),
    ("rhel", "fedora", "8.10", NONE_OF_ITS_OWN, f"{DOCKER}rhel {RPM}"),
    ("rhel", "fedora", "10.0", NONE_OF_ITS_OWN, f"{DOCKER}rhel {RPM}"),
    ("rocky", "rhel centos fedora", "9.6", NONE_OF_ITS_OWN, f"{DOCKER}centos {RPM}"),
    ("almalinux", "rhel centos fedora", "10.0", NONE_OF_ITS_OWN, f"{DOCKER}centos {RPM}"),
    ("centos", "rhel fedora", "10", NONE_OF_ITS_OWN, f"{DOCKER}centos {RPM}"),
    ("ol", "fedora", "9.5", NONE_OF_ITS_OWN, f"{DOCKER}centos {RPM}"),
    ("fedora", "", "42", "install moby-engine\n", f"{DOCKER}fedora {RPM}"),
    ("amzn", "fedora", "2023", "install docker\n", NONE_OF_DOCKERS),
    ("opensuse-leap", "suse opensuse", "15.6", "install docker\n", NONE_OF_DOCKERS),
    ("opensuse-tumbleweed", "opensuse suse", "20250901", "install docker\n", NONE_OF_DOCKERS),
    ("sles", "suse", "15.7", "install docker\n", NONE_OF_DOCKERS),
    ("alpine", "", "3.22.1", "install docker docker-engine docker-cli\n", NONE_OF_DOCKERS),
]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: f"{system[0]}-{system[2]}")
def test_what_a_system_gets(system: tuple[str, str, str, str, str]) -> None:
    facts = Facts(os_id=system[0], os_like=system[1], os_version=system[2])
    for source, expected in (("distro", system[3]), ("docker", system[4])):
        spec = Spec(engine=source)  # type: ignore[arg-type]
        if expected in (NONE_OF_ITS_OWN, NONE_OF_DOCKERS):
            for script in (packages.install_script, packages.offers_script):
                with pytest.raises(UsageError) as caught:
                    script(spec, facts)
                assert expected in caught.value.message
                assert f"{system[0]} {system[2]}" in caught.value.message
                assert f"--engine {'docker' if source == 'distro' else 'distro'}" in caught.value.hint
        else:
            assert expected in packages.install_script(spec, facts)


@pytest.mark.parametrize("engine_", ["docker", "distro"])
def test_an_unknown_system_is_named(engine_: str) -> None:
    with pytest.raises(UsageError) as caught:
        packages.install_script(Spec(engine=engine_), Facts(os_id="plan9", os_like="unix"))  # type: ignore[arg-type]
    assert "no engine packages are known for plan9 (os-release: ID='plan9', ID_LIKE='unix')" in caught.value.message
    assert "--engine none" in caught.value.hint


def test_a_mirror_of_ones_own() -> None:
    spec = Spec(engine="docker", repository="https://mirror.test/docker/", key_fingerprint="ab" * 20)
    script = packages.install_script(spec, Facts(os_id="ubuntu"))
    assert f"packages_repository https://mirror.test/docker/ubuntu {'AB' * 20}\n" in script


def test_a_users_script_needs_no_known_system() -> None:
    script = packages.install_script(Spec(engine="script", install_url="https://x.test/$(id)'"), Facts(os_id="plan9"))
    assert """url='https://x.test/$(id)'"'"''""" in script


@pytest.mark.parametrize(
    ("os_id", "source", "words"),
    [
        ("debian", "docker", "docker-ce=V docker-ce-cli=V containerd.io docker-buildx-plugin"),
        ("rocky", "docker", "docker-ce-V docker-ce-cli-V containerd.io docker-buildx-plugin"),
        ("debian", "distro", "docker.io=V"),
        ("fedora", "distro", "moby-engine-V"),
        ("amzn", "distro", "docker-V"),
        ("suse", "distro", "docker=V"),
        ("alpine", "distro", "docker=V docker-engine=V docker-cli=V"),
    ],
)
def test_a_version_is_told_in_the_managers_words(os_id: str, source: Any, words: str) -> None:
    spec, facts = Spec(engine=source), Facts(os_id=os_id)
    assert f"packages_install {words}\n" in packages.install_script(spec, facts, "V")
    assert "packages_hold" not in packages.install_script(spec, facts, "V").rpartition("packages_install")[2]
    assert "packages_hold" in packages.install_script(spec, facts, "V", held=True).rpartition("packages_install")[2]


@pytest.mark.parametrize(
    ("os_id", "source", "words"),
    [
        ("debian", "docker", "docker-ce=V docker-ce-cli=V containerd.io=2.1-1 docker-buildx-plugin"),
        ("rocky", "docker", "docker-ce-V docker-ce-cli-V containerd.io-2.1-1 docker-buildx-plugin"),
        ("debian", "distro", "docker.io=V containerd.io=2.1-1"),
    ],
)
def test_versions_of_companions(os_id: str, source: Any, words: str) -> None:
    spec, facts = Spec(engine=source, version="1", packages=("containerd.io=2.1-1",)), Facts(os_id=os_id)
    script = packages.install_script(spec, facts, "V", held=True, released=["runc"])
    names = " ".join(word.partition("=")[0] for word in words.replace("-V", "=").replace("-2.1-1", "=").split())
    names = names.removesuffix(" docker-buildx-plugin")
    assert f"packages_release {names} runc\npackages_install {words}\npackages_hold {names}\n" in script
    said = f"packages_release {names} runc\npackages_hold {names} )\n"
    assert packages.hold_script(spec, facts, released=["runc"]).endswith(said)
    back = packages.install_script(Spec(engine=source), facts, "V", companions={"containerd.io": "2.1-1"}, held=True)
    assert f"packages_install {words}\n" in back
    assert "containerd.io" not in back.rpartition("packages_hold")[2], "only what was asked for is held"


def test_a_version_as_rpm_may_have_it() -> None:
    spec = Spec(version="28.0.1^20250101git1-1.fc42", packages=("containerd=2.0.5^git1-1.fc42",))
    script = packages.install_script(spec, Facts(os_id="fedora"), spec.version)
    assert "packages_install 'moby-engine-28.0.1^20250101git1-1.fc42' 'containerd-2.0.5^git1-1.fc42'\n" in script


@pytest.mark.parametrize(
    ("there", "others"),
    [
        ({"containerd": "1.6.20", "runc": "1.1.5"}, []),
        ({"containerd": "1.6.21", "runc": "1.1.5"}, ["containerd=1.6.21"]),
        ({"containerd": "1.6.21"}, ["containerd=1.6.21", "runc=none"]),
    ],
)
def test_other_versions_of_companions(there: dict[str, str], others: list[str]) -> None:
    spec = Spec(version="20.10.24", packages=("containerd=1.6.20", "runc=1.1.5"))
    facts = Facts(os_id="debian", dockerd="/usr/sbin/dockerd", package="docker.io 20.10.24-1", companions=there)
    assert packages.other_companions(spec, facts) == others
    assert packages.is_of_another_version(spec, facts) is bool(others)
    assert ", ".join(others) in packages.departure_of_companions(spec, facts)
    assert bool(packages.departure_of_companions(spec, facts)) is bool(others)


VERSIONS = ("5:29.1.2-1~debian.12~bookworm", "5:28.5.1-1~debian.12~bookworm", "5:28.0.2-1~debian.12~bookworm")


@pytest.mark.parametrize(
    ("wanted", "versions", "chosen"),
    [
        ("28.5.1", VERSIONS, VERSIONS[1]),
        ("5:28.5.1-1~debian.12~bookworm", VERSIONS, VERSIONS[1]),
        ("28.5.1-1~debian.12~bookworm", VERSIONS, VERSIONS[1]),
        ("28.0.1", ("28.0.1-1.el9",), "28.0.1-1.el9"),
        ("20.10.24", ("20.10.24+dfsg1-1+deb12u1", "20.10.24+dfsg1-1"), "20.10.24+dfsg1-1+deb12u1"),
        ("28.3.3", ("28.3.3_ce-150000.230.1",), "28.3.3_ce-150000.230.1"),
        ("28.3.3", ("28.3.3-r2",), "28.3.3-r2"),
        ("", VERSIONS, VERSIONS[0]),
        (packages.LATEST, VERSIONS, VERSIONS[0]),
    ],
)
def test_choosing_a_version(wanted: str, versions: tuple[str, ...], chosen: str) -> None:
    assert packages.choose(wanted, Offers(versions, ""), "it") == chosen


def test_the_package_manager_says_what_is_newest() -> None:
    assert packages.choose("", Offers(("2-backports", "1-stable"), "1-stable"), "it") == "1-stable"


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("28.5.3", "28.5.1, 28.0.2, 29.1.2"),
        ("28.5", "28.5.1, 28.0.2, 29.1.2"),
        ("28", "28.0.2, 28.5.1, 29.1.2"),
        ("30.0.0", "29.1.2, 28.0.2, 28.5.1"),
        ("28.0.20", "28.0.2, 28.5.1, 29.1.2"),
    ],
)
def test_a_version_that_does_not_exist_has_neighbours(wanted: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        packages.choose(wanted, Offers(VERSIONS, VERSIONS[0]), "docker-ce for debian 12")
    assert (
        caught.value.message
        == f"there is no version {wanted} of docker-ce for debian 12; the nearest there are: {near}"
    )


@pytest.mark.parametrize("wanted", ["", "28.0.1"])
def test_no_versions_at_all(wanted: str) -> None:
    with pytest.raises(UsageError, match=r"docker\.io for debian 12 is in no repository of the host"):
        packages.choose(wanted, Offers((), ""), "docker.io for debian 12")


NUMBERS = st.lists(st.integers(0, 99), min_size=1, max_size=4).map(lambda numbers: ".".join(map(str, numbers)))
FULL = st.builds(
    "{}{}{}".format, st.sampled_from(["", "5:"]), NUMBERS, st.sampled_from(["", "-1", "+dfsg1-1", "_ce-1"])
)


@given(wanted=st.one_of(FULL, NUMBERS), versions=st.lists(FULL, min_size=1, max_size=6).map(tuple))
def test_what_is_chosen_is_what_was_wanted(wanted: str, versions: tuple[str, ...]) -> None:
    try:
        chosen = packages.choose(wanted, Offers(versions, versions[0]), "it")
    except UsageError as error:
        assert not any(packages.is_version(wanted, version) for version in versions)
        assert (
            packages.short(versions[0]) in error.message or len(set(map(packages.short, versions))) > packages.NEAREST
        )
    else:
        assert chosen in versions
        assert packages.short(chosen) == packages.short(wanted)


def test_offers_among_other_lines() -> None:
    lines = ["Reading...", "machinekit:offer=2", "machinekit:candidate=1", "machinekit:offer=1", "machinekit:waiting=x"]
    assert packages.parse_offers(lines) == Offers(("2", "1"), "1")
    assert packages.parse_offers([]) == Offers((), "")


@pytest.mark.parametrize(
    ("engine_", "dockerd", "there"),
    [("distro", "", False), ("distro", "/usr/sbin/dockerd", True), ("none", "/usr/bin/dockerd", True)],
)
def test_installed(engine_: Any, dockerd: str, there: bool) -> None:
    assert packages.installed(Spec(engine=engine_), Facts(dockerd=dockerd)) is there


def test_no_engine_where_none_is_installed_is_an_error() -> None:
    with pytest.raises(EngineError, match="no dockerd on the host"):
        packages.installed(Spec(engine="none"), Facts())


@pytest.mark.parametrize(
    ("spec", "package", "said"),
    [
        ({}, "docker.io 20.10.24+dfsg1-1", ""),
        ({}, "docker-ce 5:28.0.1-1~x", "docker-ce 5:28.0.1-1~x, which is not from --engine distro"),
        ({"engine": "docker"}, "docker-ce 5:28.0.1-1~x", ""),
        ({"engine": "docker"}, "docker.io 20.10.24+dfsg1-1", "which is not from --engine docker"),
        ({"engine": "docker"}, "", "/opt/dockerd from no package that we know, which is not from --engine docker"),
        ({"version": "20.10.24"}, "docker.io 20.10.24+dfsg1-1", ""),
        ({"version": "20.10.25"}, "docker.io 20.10.24+dfsg1-1", "is docker.io 20.10.24+dfsg1-1, not 20.10.25"),
        ({"engine": "docker", "version": "28.0.1"}, "", "not 28.0.1"),
        ({"engine": "none"}, "docker-ce 5:28.0.1-1~x", ""),
    ],
)
def test_an_engine_that_is_not_the_one_asked_for(spec: dict[str, Any], package: str, said: str) -> None:
    departure = packages.departure(Spec(**spec), Facts(dockerd="/opt/dockerd", package=package))
    assert said in departure
    assert bool(said) is bool(departure)


def test_only_what_was_installed_from_the_source_is_upgraded() -> None:
    facts = Facts(os_id="debian", package="docker-ce 5:28.0.1-1")
    assert packages.version_there(Spec(engine="docker"), facts) == "5:28.0.1-1"
    with pytest.raises(UsageError, match=r"docker-ce 5:28\.0\.1-1, which is not from --engine distro"):
        packages.version_there(Spec(), facts)


@pytest.mark.parametrize(
    ("spec", "package", "other"),
    [
        ({}, "docker.io 20.10.24-1", False),
        ({"version": "20.10.24"}, "docker.io 20.10.24-1", False),
        ({"version": "20.10.25"}, "docker.io 20.10.24-1", True),
        ({"version": "20.10.25"}, "docker-ce 5:28.0.1-1", False),
        ({"version": "20.10.25"}, "", False),
        ({"engine": "none"}, "docker.io 20.10.24-1", False),
    ],
)
def test_another_version_of_the_same_package(spec: dict[str, Any], package: str, other: bool) -> None:
    facts = Facts(os_id="debian", package=package, dockerd="/usr/sbin/dockerd")
    assert packages.is_of_another_version(Spec(**spec), facts) is other


def test_the_newest_of_some() -> None:
    debian = ["20.10.24+dfsg1-1+b3", "20.10.5+dfsg1-1+deb11u2", "20.10.24+dfsg1-1+deb12u1"]
    assert packages.newest(debian) == "20.10.24+dfsg1-1+deb12u1"
    docker = ["5:28.0.2-1~debian.12~bookworm", "5:28.0.10-1~debian.12~bookworm", "5:27.5.1-1~debian.12~bookworm"]
    assert packages.newest(docker) == "5:28.0.10-1~debian.12~bookworm"


STUB = """#!/bin/sh
name=${0##*/}
echo "$name $*" >>"$LOG"
case "$name $*" in
apt-get*" update")
  if [ ! -e "$LOG.tried" ]; then
    : >"$LOG.tried"
    echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt)'
    exit 100
  fi
  ;;
*madison*) printf ' docker-ce | 5:28.0.1 | x\\n' ;;
*repoquery*) printf '28.0.1-1.el9\\n\\n28.0.2-1.el9\\n' ;;
*search*) printf 'S | Name | Type | Version | Arch\\n--+--\\n  | docker | package | 28.3.3_ce-1.1 | x86_64\\n' ;;
*policy*) printf 'docker policy:\\n  28.3.3-r2:\\n    https://x.test\\n  28.3.3-r1:\\n    https://y.test\\n' ;;
gpg*) printf 'pub:::\\nfpr:::::::::%s:\\nsub:::\\nfpr:::::::::SUB:\\n' "$FINGERPRINT" ;;
esac
"""


def run_with_stubs(script: str, folder: Path, stubs: str) -> tuple[list[str], str]:
    """Run a script where the package managers only write down what they were asked; returns that and the output."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in stubs.split():
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    log = folder / "log"
    log.write_text("")
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(log), "FINGERPRINT": RPM}
    result = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return log.read_text().splitlines(), result.stdout


@pytest.mark.parametrize(
    ("os_id", "source", "stubs", "candidate", "versions"),
    [
        ("rocky", "docker", "dnf gpg curl", "28.0.2-1.el9", ("28.0.2-1.el9", "28.0.1-1.el9")),
        ("fedora", "distro", "dnf", "28.0.2-1.el9", ("28.0.2-1.el9", "28.0.1-1.el9")),
        ("sles", "distro", "zypper", "28.3.3_ce-1.1", ("28.3.3_ce-1.1",)),
        ("alpine", "distro", "apk", "28.3.3-r2", ("28.3.3-r2", "28.3.3-r1")),
    ],
)
def test_offers_where_the_system_cannot_be_had_here(
    tmp_path: Path, os_id: str, source: Any, stubs: str, candidate: str, versions: tuple[str, ...]
) -> None:
    """With stand-ins for the package managers; apt has the real thing in tests/e2e."""
    script = packages.offers_script(Spec(engine=source), Facts(os_id=os_id, os_like="suse" * (os_id == "sles")))
    asked, said = run_with_stubs(script, tmp_path, stubs)
    assert packages.parse_offers(said.splitlines()) == Offers(versions, candidate)
    assert not any("install" in line for line in asked), asked


@pytest.mark.parametrize("source", ["distro", "docker"])
def test_a_lock_that_apt_does_not_wait_for(tmp_path: Path, source: Any) -> None:
    spec = Spec(engine=source, key_fingerprint=RPM if source == "docker" else "")
    script = packages.offers_script(spec, Facts(os_id="debian")).replace("/etc/ssl/certs", "/etc")
    script = script.replace("/etc/ca-certificates.crt", "/etc/os-release")
    asked, said = run_with_stubs(script, tmp_path, "apt-get apt-cache dpkg gpg curl")
    assert "machinekit:waiting=for the lock /var/lib/apt/lists/lock. It is held by process 7 (apt)" in said
    assert sum(line.endswith("update") for line in asked) == 2
    assert packages.parse_offers(said.splitlines()).versions == ("5:28.0.1",)


@pytest.mark.parametrize(
    ("os_id", "version", "stubs", "asked"),
    [
        (
            "suse",
            "28.3.3_ce-1.1",
            "zypper",
            [
                "refresh",
                "removelock docker",
                "install --no-recommends --oldpackage docker=28.3.3_ce-1.1",
                "addlock docker",
            ],
        ),
        (
            "alpine",
            "28.3.3-r2",
            "apk",
            ["update", "add --upgrade docker=28.3.3-r2 docker-engine=28.3.3-r2 docker-cli=28.3.3-r2"],
        ),
        (
            "amzn",
            "25.0.8-1.amzn2023",
            "dnf modprobe",
            [
                "makecache",
                "versionlock delete docker",
                "install docker-25.0.8-1.amzn2023",
                "install dnf-command(versionlock)",
                "versionlock add docker",
            ],
        ),
    ],
)
def test_installing_where_the_system_cannot_be_had_here(
    tmp_path: Path, os_id: str, version: str, stubs: str, asked: list[str]
) -> None:
    script = packages.install_script(Spec(), Facts(os_id=os_id), version, held=True)
    script = script.replace("/var/lib/machinekit", f"{tmp_path}/var")
    lines, _ = run_with_stubs(script, tmp_path, stubs)
    managers = [line for line in lines if not line.startswith("modprobe")]
    assert len(managers) == len(asked), lines
    assert all(line.endswith(words) for line, words in zip(managers, asked, strict=True)), lines
