"""Engines from packages: the right key and no other, exact versions, and upgrades that can be undone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinekit import packages
from machinekit.engine import Facts
from machinekit.spec import Spec
from tests.e2e.lab import Cli, Host, Lab, run
from tests.e2e.repository import BETTER, BROKEN, CONTAINERD, FULL, GOOD, NEWER, REFUSING, Repository, serve


@pytest.fixture(scope="module")
def repository(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Served while the tests of this file run."""
    with serve(lab, tmp_path_factory.mktemp("repository")) as repository:
        yield repository


def adopt(host: Host, *more: str) -> list[str]:
    """The words that adopt the host."""
    return ["create", "-d", "generic", "--generic-ip-address", host.address, "--generic-ssh-key", str(host.key), *more]


def installed(host: Host, package: str = "docker-ce") -> str:
    """The version of a package on the host; empty when it is not there."""
    return host.sh(f"dpkg-query -W -f '${{Version}}' {package} 2>/dev/null || true")


def test_what_cannot_be_trusted_is_refused_and_leaves_nothing(lab: Lab, cli: Cli, repository: Repository) -> None:
    refused = [
        ("foreign", [], f"expected {repository.fingerprint}"),
        ("two", [], f"has the fingerprint {repository.fingerprint} and "),
        ("forged", [], "cannot be used for bookworm"),
        ("nowhere", [], f"cannot fetch the repository's key {repository.url}/nowhere/debian/gpg"),
        ("right", ["--engine-version", "28.0.7"], f"the nearest there are: {BETTER}, {GOOD}, {BROKEN}, {REFUSING}"),
    ]
    with lab.host() as host:
        for kind, more, said in refused:
            options = [*repository.options(kind), *more]
            assert said in cli.fail(*adopt(host), *options, "web", code=2 if more else 1), kind
            cli("rm", "-y", "web")
            assert installed(host) == ""
            left = "find /etc/apt/sources.list.d /etc/apt/keyrings -type f; find /tmp -maxdepth 1 -name 'tmp.*'"
            assert host.sh(left) == "", kind


def test_an_exact_version_stays_until_another_is_asked_for(
    lab: Lab, cli: Cli, repository: Repository, busybox: Path
) -> None:
    with lab.host() as host:
        cli(*adopt(host), *repository.options(), "--engine-version", GOOD, "web")
        assert installed(host) == installed(host, "docker-ce-cli") == FULL.format(GOOD)
        upgradable = "apt-get -qq update; apt list --upgradable 2>/dev/null | grep -c ^docker-ce"
        assert host.sh(upgradable) == "2\n"
        host.sh("DEBIAN_FRONTEND=noninteractive apt-get -qq -y upgrade")
        assert installed(host) == FULL.format(GOOD)
        assert "unchanged" in cli("upgrade", "web")

        client = cli.client("web")
        run("sh", "-euc", f"tar -C {busybox} -c busybox | docker import - box", env=client)
        run("docker", "run", "-d", "--name", "alive", "box", "/busybox", "sleep", "100000", env=client)
        started = alive(client)

        for bad in (BROKEN, REFUSING):
            said = cli.fail("upgrade", "--to", bad, "web")
            assert "this engine is broken" in said
            assert f"runs {GOOD} ({FULL.format(GOOD)}) again" in said
            assert installed(host) == FULL.format(GOOD)
            assert alive(client) == started
            assert "docker-ce" in host.sh("apt-mark showhold")
            assert "unchanged" in cli("upgrade", "web")

        said = cli("upgrade", "--to", BETTER, "web")
        assert f"engine upgraded from {GOOD} to {BETTER}" in said
        assert "1 running container kept running" in said
        assert installed(host) == FULL.format(BETTER)
        assert alive(client) == started
        assert "docker-ce" in host.sh("apt-mark showhold")
        assert host.sh("cat /etc/docker/daemon.json").count("live-restore") == 0
        assert "unchanged" in cli("upgrade", "--to", BETTER, "web")
        assert "unchanged" in cli("provision", "web")
        assert f'"version": "{BETTER}"' in cli("inspect", "web")

        # killed while packages are exchanged
        words = [sys.executable, "-m", "machinekit", "upgrade", "--to", GOOD, "web"]
        with subprocess.Popen(words, env=cli.environment, stdout=subprocess.DEVNULL) as killed:
            host.sh("until [ -e /var/lib/machinekit/installing ]; do sleep 0.05; done")
            killed.kill()
        cli("provision", "web")
        assert installed(host) == installed(host, "docker-ce-cli") == FULL.format(GOOD)
        assert host.sh("apt-mark showhold") == "docker-ce\ndocker-ce-cli\n"
        assert host.sh("cat /etc/docker/daemon.json").count("live-restore") == 0
        assert "unchanged" in cli("upgrade", "web")

        cli("upgrade", "--to", BETTER, "web")
        assert "not held any more" in cli("upgrade", "--to", "latest", "web")
        assert host.sh("apt-mark showhold") == ""


FLEET = """
version: 1
name: ci
machines:
  - name: "m{{index}}"
    count: {count}
    driver: container
    container: {{engine: "{engine}"}}
    engine: {{source: docker, repository: "{url}/right", key_fingerprint: {fingerprint}}}
"""


def test_a_lock_holds_what_comes_with_the_engine(lab: Lab, cli: Cli, repository: Repository, tmp_path: Path) -> None:
    """Two machines made on different days have equal manifests, and one that has gone astray is brought back."""
    file = tmp_path / "machinekit.yaml"
    fleet = ("--file", str(file))

    def write(count: int) -> None:
        about = {"url": repository.url, "fingerprint": repository.fingerprint}
        file.write_text(FLEET.format(engine=lab.socket, count=count, **about))

    write(1)
    lab.rootfs("debian-12")
    cli("apply", *fleet, "--yes")
    cli("lock", *fleet)
    beside = f"    packages:\n      containerd.io: {CONTAINERD}\n      docker-buildx-plugin: 0.20.0-1\n"
    assert beside in file.with_suffix(".lock").read_text()

    with repository.later():
        write(2)
        cli("apply", *fleet, "--yes", "--locked")
        held = "containerd.io\ndocker-buildx-plugin\ndocker-ce\ndocker-ce-cli\n"
        assert {cli("ssh", name, "apt-mark showhold") for name in ("m1", "m2")} == {held}
        assert cli("manifest", "m1") == cli("manifest", "m2")

        install = f"apt-get -qq -y install --allow-change-held-packages containerd.io={NEWER}"
        upgrade = f"sudo sh -c 'apt-get -qq update && {install}' >/dev/null 2>&1"
        cli("ssh", "m2", upgrade)
        assert f"engine.packages: containerd.io={NEWER} -> " in cli("plan", *fleet, "--locked")
        assert f"m2: beside the engine: containerd.io={CONTAINERD}" in cli("apply", *fleet, "--yes", "--locked")
        assert cli("manifest", "m1") == cli("manifest", "m2")
        assert cli("plan", *fleet, "--locked") == "ci: 2 unchanged\n"

        # another lock brings both to the newer one
        cli("ssh", "m1", upgrade)
        cli("lock", *fleet, "--update")
        assert f"containerd.io: {NEWER}\n" in file.with_suffix(".lock").read_text()
        cli("apply", *fleet, "--yes", "--locked")
        assert cli("manifest", "m1") == cli("manifest", "m2")
        assert {cli("ssh", name, "apt-mark showhold") for name in ("m1", "m2")} == {held}

        # until nobody wants a version any more
        cli("upgrade", "--to", "latest", "m1")
        assert cli("ssh", "m1", "apt-mark showhold") == ""


LOCK = r"""
use Fcntl;
my $lock = pack("s s x4 q q i x4", F_WRLCK, SEEK_SET, 0, 0, 0);  # struct flock of 64-bit Linux
for my $file (@ARGV) {
    open(my $handle, ">", $file) or die;
    push @handles, $handle;
    fcntl($handle, F_SETLK, $lock) or die;
}
open(my $ready, ">", "/run/locked.draft");
print $ready $$;
close($ready);
rename("/run/locked.draft", "/run/locked");
sleep 1000;
"""
LOCKS = "/var/lib/apt/lists/lock /var/lib/dpkg/lock-frontend"


def hold_locks(host: Host) -> str:
    """Have a process on the host hold apt's locks, as unattended-upgrades does; returns its id."""
    host.sh(f"mkdir -p /run/test; cat >/run/test/lock.pl <<'END'\n{LOCK}\nEND")
    host.sh(f"rm -f /run/locked; setsid perl -MFcntl=:flock,:seek /run/test/lock.pl {LOCKS} >/dev/null 2>&1 &")
    return host.sh("until [ -e /run/locked ]; do sleep 0.1; done; cat /run/locked")


def test_others_at_work_are_waited_for(lab: Lab, cli: Cli) -> None:
    """cloud-init that has not ended, and a process with apt's locks."""
    with lab.host() as host:
        holder = hold_locks(host)
        quick = packages.install_script(Spec(), Facts(os_id="debian")).replace("patience=300", "patience=2")
        code, said = outcome(host, quick)
        assert code == 1
        assert f"apt is still locked after 2 s: /var/lib/apt/lists/lock. It is held by process {holder}" in said

        cloud_init = "#!/bin/sh\nuntil [ -e /run/cloud-init/result.json ]; do sleep 0.1; done\n"
        host.sh(
            f"printf %s '{cloud_init}' >/usr/local/bin/cloud-init; chmod +x /usr/local/bin/cloud-init;"
            "mkdir -p /run/cloud-init; : >/run/cloud-init/enabled"
        )
        code, said = outcome(host, quick)
        assert (code, said.splitlines()[-1]) == (
            1,
            "cloud-init is still at work after 2 s; see cloud-init status --long",
        )

        words = [sys.executable, "-m", "machinekit", *adopt(host), "--engine-version", "20.10.24", "web"]
        told = ""
        with subprocess.Popen(words, env=cli.environment, stdout=subprocess.PIPE, text=True) as create:
            assert create.stdout
            for line in create.stdout:
                told += line
                if "waiting for cloud-init to end" in line:
                    host.sh("touch /run/cloud-init/result.json")
                if f"held by process {holder}" in line:
                    host.sh(f"kill {holder}")
        assert create.returncode == 0, told
        assert "waiting for cloud-init to end" in told
        assert "waiting for the lock" in told
        assert installed(host, "docker.io").startswith("20.10.24+")
        assert host.sh("apt-mark showhold") == "docker.io\n"


def outcome(host: Host, script: str) -> tuple[int, str]:
    """Run a script on the host; its exit code and everything it said."""
    lines = host.sh(f'set +e; (\n{script}\n) 2>&1; echo "code $?"').rpartition("code ")
    return int(lines[2]), lines[0]


def test_an_engine_of_another_source_or_version_is_no_silent_success(
    lab: Lab, cli: Cli, repository: Repository
) -> None:
    with lab.host("debian-12+engine") as host:
        said = cli.fail(*adopt(host), *repository.options(), "--engine-version", GOOD, "web")
        assert "the engine on the host is docker.io 20.10.24+dfsg1" in said
        assert f"not {GOOD}" in said
        said = cli(*adopt(host), *repository.options(), "web")
        assert "which is not from --engine docker; it stays as it is" in said
        assert "which is not from --engine docker" in cli.fail("upgrade", "web", code=2)


def alive(client: dict[str, str]) -> str:
    """When the container started, and whether it runs."""
    return run("docker", "inspect", "-f", "{{.State.StartedAt}} {{.State.Running}}", "alive", env=client)
