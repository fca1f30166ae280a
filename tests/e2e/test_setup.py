"""Files and scripts of a machine's own: put there, kept, taken away, and no secret where it does not belong."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.carrying import adopted, carry, carrying
from tests.e2e.lab import Cli, Host, Lab
from tests.e2e.test_secrets import Sampler, forms

SECRET = f"secret-{uuid.uuid4().hex}"


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    with lab.host("debian-12+engine") as host:
        host.sh("echo theirs >/etc/motd; useradd ci")
        yield host


def doctor(cli: Cli, name: str = "web") -> str:
    """What it says; its exit code is of this computer too."""
    command = [sys.executable, "-m", "machinekit", "doctor", name]
    return subprocess.run(command, env=cli.environment, capture_output=True, text=True, check=False).stdout


def test_files_there_and_back(cli: Cli, host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"\x00\xff\n")
    files = [
        {"path": "/etc/motd", "content": "ours\n"},
        {"path": "/srv/deep/er/copy", "source": str(source), "mode": "0640", "owner": "ci:ci"},
    ]
    assert {"file /etc/motd", "file /srv/deep/er/copy", "created"} <= set(adopted(cli, host, "web", files=files))
    assert host.sh("cat /etc/motd") == "ours\n"
    assert host.sh("stat -c '%a %U:%G %s' /srv/deep/er/copy; stat -c %a /srv/deep/er") == "640 ci:ci 3\n755\n"
    host.count_executions()
    assert "unchanged" in cli("provision", "web")
    assert host.executions() == 1

    host.sh("echo drifted >/etc/motd; chmod 600 /srv/deep/er/copy")
    said = doctor(cli)
    assert "not as configured: file /etc/motd: other content, file /srv/deep/er/copy: ci:ci 0600 instead" in said
    assert "web: file /etc/motd, file /srv/deep/er/copy" in cli("provision", "web")
    assert host.sh("cat /etc/motd") == "ours\n"

    assert carry(cli, "web", files=files[1:]) == ["file /etc/motd removed"]
    assert host.sh("cat /etc/motd") == "theirs\n"
    assert carry(cli, "web") == ["file /srv/deep/er/copy removed"]
    assert host.sh("ls -A /srv/deep/er /var/lib/machinekit/files") == "/srv/deep/er:\n\n/var/lib/machinekit/files:\n"


def test_restoring_a_server_takes_everything_off(cli: Cli, host: Host, tmp_path: Path) -> None:
    run, remove = tmp_path / "run", tmp_path / "remove"
    run.write_text("#!/bin/sh\ntouch /srv/made\n")
    remove.write_text("#!/bin/sh\nrm /srv/made\n")
    before = host.sh("find /etc /srv -type f | sort")
    files = [{"path": "/etc/motd", "content": "ours\n"}]
    adopted(cli, host, "web", files=files, roles=[{"role": "script", "run": str(run), "remove": str(remove)}])
    assert host.sh("ls /srv") == "made\n"
    cli("rm", "-y", "--restore", "web")
    assert host.sh("cat /etc/motd") == "theirs\n"
    assert host.sh("ls /srv") == ""
    after = host.sh("find /etc /srv -type f | sort")
    new = [line for line in after.splitlines() if line not in before.splitlines()]
    assert new == ["/etc/docker/key.json"], "which is the engine's own"


def test_no_secret_is_where_it_does_not_belong(
    cli: Cli, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in process lists, files that others may read, the record, what is said, or the host's journal."""
    monkeypatch.setenv("SECRET", SECRET)
    run = tmp_path / "run"
    run.write_text(
        '#!/bin/sh\nset -eu\nprintf %s "$TOKEN" | sha256sum >/srv/made\necho "$TOKEN"\n[ ! -e /srv/broken ]\n'
    )
    carried = {
        "files": [{"path": "/etc/key", "secret": "env:SECRET", "mode": "0600"}],
        "registries": [{"host": "registry.test:5000", "username": "ci", "password": "env:SECRET"}],
        "roles": [{"role": "script", "run": str(run), "secrets": {"TOKEN": "env:SECRET"}}],
    }
    with Sampler() as sampler:
        adopted(cli, host, "web", **carried)
        said = [cli("-D", "provision", "web"), cli("inspect", "web"), doctor(cli)]
        host.sh("touch /srv/broken; rm -r /var/lib/machinekit/roles")
        failed = cli.fail("-D", "provision", "web")
    assert "role script cannot be installed: its last lines are above" in failed
    assert "***" in failed
    assert host.sh("cat /etc/key") == SECRET
    secret = forms(SECRET)
    assert not any(form in text.encode() for form in secret for text in (*said, failed))
    shown = b"\n".join(text for kind, text in sampler.seen if kind == "cmdline")
    assert b"machinekit" in shown
    assert not any(form in shown for form in secret)
    for path in (cli.home / "machines").rglob("*"):
        assert not path.is_file() or not any(form in path.read_bytes() for form in secret), path
    needles = b"\n".join(secret)
    script = "grep -rlaFf - /etc /root /home /tmp /run /var/log /var/tmp /var/lib/machinekit /opt /srv || true"
    places = host.lab.docker("exec", "-i", host.driver._name, "sh", "-c", script, stdin=needles).split()
    assert sorted(places) == ["/etc/key", "/root/.docker/config.json"]
    assert host.sh("stat -c %a /etc/key /root/.docker/config.json").split() == ["600", "600"]
    journal = host.sh("journalctl --no-pager -o cat").encode()
    assert not any(form in journal for form in secret)


def test_a_machine_that_was_killed_while_it_was_set_up(cli: Cli, host: Host, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text("#!/bin/sh\necho x >>/srv/runs\nwhile [ ! -e /srv/go ]; do sleep 0.1; done\n")
    adopted(cli, host, "web")
    files = [{"path": "/etc/motd", "content": "ours\n"}]
    roles = [{"role": "script", "run": str(run)}]
    with carrying(cli, "web", files=files, roles=roles) as killed:
        host.sh("until [ -e /srv/runs ]; do sleep 0.1; done")
        killed.kill()
    host.sh("kill $(pgrep -f own-run); touch /srv/go")  # the script on the host would go on by itself
    assert carry(cli, "web", files=files, roles=roles) == ["role script"]
    assert host.sh("cat /etc/motd /srv/runs") == "ours\nx\nx\n"
    assert "unchanged" in cli("provision", "web")
