"""What a host carries, changed for real by the scripts on a host whose root is a directory: changed, and cut off."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from machinekit import carry, roles
from machinekit.carry import Carried, Load, Wanted
from machinekit.errors import EngineError
from tests.test_configure import EACH, PROGRAM

OWNER = f"{pwd.getpwuid(os.getuid()).pw_name}:{grp.getgrgid(os.getgid()).gr_name}"
COUNTED = ("base64", "chmod", "chown", "cp", "mkdir", "mv", "rm")  # what changes something
Result = subprocess.CompletedProcess[str]


@dataclass
class Host:
    """A host; the machine's files are in `etc`, what we keep is in `kept`."""

    root: Path

    def __post_init__(self) -> None:
        for folder in ("bin", "etc"):
            (self.root / folder).mkdir(parents=True)
        for name in COUNTED:
            (self.root / "bin" / name).write_text(PROGRAM.format(root=self.root, real=shutil.which(name)))
            (self.root / "bin" / name).chmod(0o755)

    def path(self, name: str) -> str:
        """A file of the machine's."""
        return str(self.root / "etc" / name)

    def run(self, script: str, left: int | None = None) -> Result:
        """Run it, all of it, or until so many programs have run."""
        if left is not None:
            (self.root / "left").write_text(str(left))
        script = script.replace("home=/var/lib/machinekit", f"home={self.root}/kept").replace(
            "/root/.docker", f"{self.root}/.docker"
        )
        result = subprocess.run(
            ["sh"],
            input=script,
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        (self.root / "left").unlink(missing_ok=True)
        return result

    def carried(self, load: Load) -> Carried:
        """What the probe finds."""
        result = self.run(carry.probe_script(load.roles, logins=bool(load.logins)))
        assert result.returncode == 0, result.stderr
        return carry.parse_carried(result.stdout.splitlines())

    def make(self, load: Load, secrets: dict[str, dict[str, str]] | None = None, left: int | None = None) -> Result:
        """As `put_on` does it."""
        return self.run(carry.script(load, self.carried(load), secrets or {}), left)

    def settle(self, load: Load) -> list[str]:
        """Make it so; returns what it was told to have done."""
        result = self.make(load)
        assert result.returncode == 0, result.stdout + result.stderr
        assert carry.differences(load, self.carried(load)) == []
        assert carry.script(load, self.carried(load), {}) == ""
        return carry.changes_told(result.stdout.splitlines())

    def tree(self) -> dict[str, str]:
        """Every file of the machine's, with its mode."""
        files = [path for path in (self.root / "etc").rglob("*") if path.is_file()]
        return {path.name: f"{path.stat().st_mode & 0o777:o} {path.read_text()}" for path in files}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(carry, "HOME", "/var/lib/machinekit")
    monkeypatch.setattr(roles, "STATE", str(tmp_path / "root" / "kept" / "roles"))
    return Host(tmp_path / "root")


def wanted(host: Host, name: str, content: bytes = b"hello\n", mode: str = "0644") -> Wanted:
    return Wanted(host.path(name), content, mode, OWNER)


def mine(folder: Path, name: str = "mine", *, run: str = "", check: str = "", remove: str = "", **options: Any) -> Any:
    """A role of the user's own scripts."""
    folder.mkdir(exist_ok=True)
    for script, text in {"run": run, "check": check, "remove": remove}.items():
        if text:
            (folder / f"{name}-{script}").write_text(f"#!/bin/sh\nset -eu\n{text}\n")
            options[script] = str(folder / f"{name}-{script}")
    return roles.prepare("script", name, roles.validated("script", options))


def test_a_file_there_and_back(host: Host) -> None:
    theirs = Path(host.path("theirs"))
    theirs.write_text("theirs\n")
    theirs.chmod(0o640)
    before = host.tree()
    load = Load((wanted(host, "theirs"), wanted(host, "deep/new", b"\x00\xff\n", "0600")))
    assert host.settle(load) == [f"file {theirs}", f"file {host.path('deep/new')}"]
    assert Path(host.path("deep/new")).read_bytes() == b"\x00\xff\n"
    assert Path(host.path("deep/new")).stat().st_mode & 0o777 == 0o600
    assert host.settle(Load()) == [f"file {host.path('deep/new')} removed", f"file {theirs} removed"]
    assert host.tree() == before


def test_a_link_that_was_there_is_put_back(host: Host) -> None:
    Path(host.path("link")).symlink_to("/nowhere")
    host.settle(Load((wanted(host, "link"),)))
    assert not Path(host.path("link")).is_symlink()
    host.settle(Load())
    assert Path(host.path("link")).readlink() == Path("/nowhere")


def test_what_is_there_already_is_no_change(host: Host) -> None:
    Path(host.path("same")).write_text("hello\n")
    Path(host.path("same")).chmod(0o644)
    assert host.settle(Load((wanted(host, "same"),))) == []
    assert host.settle(Load()) == [f"file {host.path('same')} removed"]
    assert Path(host.path("same")).read_text() == "hello\n", "it was there before us"


@pytest.mark.parametrize(
    ("drift", "said"),
    [
        (lambda path: path.write_text("other"), "other content"),
        (lambda path: path.chmod(0o600), f"{OWNER} 0600 instead of {OWNER} 0644"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_drift_is_told_and_mended(host: Host, drift: Callable[[Path], None], said: str) -> None:
    load = Load((wanted(host, "motd"),))
    host.settle(load)
    drift(Path(host.path("motd")))
    assert carry.differences(load, host.carried(load)) == [f"file {host.path('motd')}: {said}"]
    host.settle(load)


def test_what_cannot_be_put_there(host: Host) -> None:
    (host.root / "etc" / "folder").mkdir()
    result = host.make(Load((wanted(host, "folder"),)))
    assert (result.returncode, "is a folder on the host" in result.stdout) == (1, True)
    result = host.make(Load((Wanted(host.path("new"), b"", "0644", "nobody-at-all:nobody"),)))
    assert (result.returncode, "cannot belong to nobody-at-all:nobody" in result.stdout) == (1, True)
    assert host.tree() == {}, "no draft is left"


def test_a_secret_that_nobody_can_tell_is_left_as_it_is(host: Host) -> None:
    host.settle(Load((wanted(host, "secret"),)))
    unknown = Load((Wanted(host.path("secret"), None, "0644", OWNER),))
    assert carry.differences(unknown, host.carried(unknown)) == []


def test_logins_are_merged_and_taken_out_again(host: Host) -> None:
    config = host.root / ".docker" / "config.json"
    config.parent.mkdir()
    theirs = {"auths": {"theirs": {"auth": "eDp5"}, "both": {"auth": "b2xk"}}, "detachKeys": "ctrl-x"}
    config.write_text(json.dumps(theirs))
    load = Load(logins={"ours:5000": "ci:p w'", "both": "ci:new"})
    assert host.settle(load) == ["registry ours:5000", "registry both"]
    merged = json.loads(config.read_text())
    assert config.stat().st_mode & 0o777 == 0o600
    assert base64.b64decode(merged["auths"]["ours:5000"]["auth"]) == b"ci:p w'"
    assert merged["auths"]["theirs"] == theirs["auths"]["theirs"]  # type: ignore[index]
    other = Load(logins={"ours:5000": "ci:other", "both": None})
    assert carry.differences(other, host.carried(other)) == ["registry ours:5000: other credentials"]
    host.settle(Load(logins={"both": "ci:new"}))
    assert "ours:5000" not in json.loads(config.read_text())["auths"]
    assert host.settle(Load()) == ["registry both"]
    assert json.loads(config.read_text()) == theirs


def test_a_docker_config_of_ours_alone_goes_with_the_last_login(host: Host) -> None:
    host.settle(Load(logins={"ours": "ci:secret"}))
    host.settle(Load())
    assert not (host.root / ".docker" / "config.json").exists()
    assert sorted(path.name for path in (host.root / "kept").iterdir()) == []


def test_a_docker_config_that_is_none_is_an_error(host: Host) -> None:
    (host.root / ".docker").mkdir()
    (host.root / ".docker" / "config.json").write_text("{")
    with pytest.raises(EngineError, match="on the host is not valid JSON"):
        host.carried(Load(logins={"a": "b:c"}))


def test_a_role_is_installed_once_and_removed(host: Host, tmp_path: Path) -> None:
    made, log = tmp_path / "made", tmp_path / "log"
    role = mine(
        tmp_path / "scripts",
        run=f'echo "$GREETING $TOKEN" >>{log}; touch {made}; cat',
        check=f"test -e {made} || {{ echo it is gone; exit 1; }}",
        remove=f"rm {made}",
        environment={"GREETING": "it's"},
        secrets={"TOKEN": "env:TOKEN"},
    )
    load, secrets = Load(roles=(role,)), {"mine": {"secrets_TOKEN": "s'3"}}
    assert carry.differences(load, host.carried(load)) == ["role mine: new"]
    result = host.make(load, secrets)
    assert carry.changes_told(result.stdout.splitlines()) == ["role mine"], result.stdout + result.stderr
    assert log.read_text() == "it's s'3\n"
    assert carry.script(load, host.carried(load), secrets) == ""
    made.unlink()
    assert carry.differences(load, host.carried(load)) == ["role mine: it is gone"]
    host.make(load, secrets)
    assert made.exists()
    changed = Load(roles=(mine(tmp_path / "scripts", run=f"touch {made}", remove=f"rm {made}"),))
    assert carry.differences(changed, host.carried(changed)) == ["role mine: changed"]
    assert host.settle(changed) == ["role mine"]
    assert host.settle(Load()) == ["role mine removed"]
    assert not made.exists()
    assert (
        "s'3"
        not in subprocess.run(["grep", "-r", "s'3", host.root], capture_output=True, text=True, check=False).stdout
    )


def test_a_role_that_fails_is_named_with_its_last_lines(host: Host, tmp_path: Path) -> None:
    good = mine(tmp_path / "scripts", "good", run="true")
    bad = mine(tmp_path / "scripts", "bad", run="echo no room; false; echo never")
    never = mine(tmp_path / "scripts", "never", run="echo never")
    load = Load(roles=(good, bad, never))
    result = host.make(load)
    assert result.returncode == 1
    assert result.stdout.splitlines()[-2:] == ["no room", "role bad cannot be installed: its last lines are above"]
    assert "never" not in result.stdout
    assert carry.differences(load, host.carried(load)) == ["role bad: not installed to the end", "role never: new"]
    assert host.settle(Load(roles=(good,))) == ["role bad removed"]


def test_a_role_that_is_not_as_it_should_be_after_its_installation(host: Host, tmp_path: Path) -> None:
    result = host.make(Load(roles=(mine(tmp_path / "scripts", run="true", check="echo no answer; exit 1"),)))
    assert result.returncode == 1
    assert "no answer\nrole mine is installed and not as it should be" in result.stdout


def test_another_thing_under_the_same_name_is_removed_first(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = mine(tmp_path / "scripts", run=f"echo first >>{log}", remove=f"echo gone >>{log}")
    host.settle(Load(roles=(first,)))
    second = roles.Prepared(**vars(first) | {"identity": "0" * 64, "digest": "1" * 64})
    assert host.settle(Load(roles=(second,))) == ["role mine removed", "role mine"]
    assert log.read_text() == "first\ngone\nfirst\n"


def test_what_was_wrong_and_has_passed_is_no_change(host: Host, tmp_path: Path) -> None:
    """As when a machine starts: it is asked before all of it runs."""
    runs, up = tmp_path / "runs", tmp_path / "up"
    up.touch()
    load = Load(roles=(mine(tmp_path / "scripts", run=f"echo x >>{runs}", check=f"test -e {up}"),))
    host.settle(load)
    up.unlink()
    carried = host.carried(load)
    assert carry.differences(load, carried) == ["role mine: its check fails with exit code 1"]
    up.touch()
    result = host.run(carry.script(load, carried, {}))
    assert (result.returncode, carry.changes_told(result.stdout.splitlines())) == (0, [])
    assert runs.read_text() == "x\n"


def test_a_role_tells_what_is_installed(host: Host, tmp_path: Path) -> None:
    load = Load(roles=(mine(tmp_path / "scripts", run="true", check="echo machinekit:version=tool=1.2-3"),))
    host.settle(load)
    assert host.carried(load).roles["mine"].versions == {"tool": "1.2-3"}


def test_cut_off_at_every_step(host: Host, tmp_path: Path) -> None:
    theirs, made = Path(host.path("theirs")), tmp_path / "made"
    theirs.write_text("theirs\n")
    role = mine(tmp_path / "scripts", run=f"touch {made}", check=f"test -e {made}", remove=f"rm -f {made}")
    there, load = host.tree(), Load((wanted(host, "theirs"), wanted(host, "new")), {"ours": "ci:secret"}, (role,))
    cuts = 0
    for change, before in ((load, Load()), (Load(), load)):
        while True:
            host.settle(before)
            if host.make(change, left=cuts).returncode == 0:
                break
            host.settle(change)
            host.settle(Load())
            assert host.tree() == there, f"after {cuts} programs"
            assert not made.exists()
            cuts += EACH
        assert cuts > 8
        cuts = 0
