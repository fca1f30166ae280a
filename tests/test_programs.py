"""Programs that are run, that do not answer, and that end with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from machinekit.providers.processes import find, gone

from machinekit import programs
from machinekit.errors import DeadlineError


def test_what_a_program_says() -> None:
    result = programs.run(["sh", "-c", "cat; echo bad >&2; exit 3"], data=b"in")
    assert (result.stdout, result.stderr, result.returncode) == (b"in", b"bad\n", 3)


@pytest.mark.parametrize("code", [0, 3])
def test_a_long_one_is_no_different(code: int, tmp_path: Path) -> None:
    result = programs.run(["sh", "-c", f"pwd; exit {code}"], cwd=tmp_path, long=True)
    assert (result.stdout, result.returncode) == (f"{tmp_path}\n".encode(), code)


def test_a_program_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError):
        programs.run(["no-such-program"])


def test_tokens_stay_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    assert b"s3cret" not in programs.run(["env"]).stdout
    assert (
        programs.run(["sh", "-c", 'echo "$SOME_TOKEN"'], environment=programs.given("SOME_TOKEN")).stdout == b"s3cret\n"
    )


@pytest.mark.parametrize("long", [True, False])
def test_a_program_that_does_not_answer_is_ended_with_all_that_it_started(tmp_path: Path, long: bool) -> None:
    never = tmp_path / "never"
    os.mkfifo(never)
    with pytest.raises(DeadlineError):
        programs.run(["sh", "-c", f"cat {never}; :"], patience=0.5, long=long)
    assert gone(str(never), patience=20)


def test_a_long_one_and_all_that_it_started_end_when_we_are_killed(tmp_path: Path) -> None:
    never = tmp_path / "never"
    os.mkfifo(never)
    script = "import sys; from machinekit import programs; programs.run(['sh', '-c', sys.argv[1]], long=True)"
    # as mmdebstrap has it: the one in the middle leaves it to the others to end
    command = [sys.executable, "-c", script, f"trap '' TERM; (trap - TERM; exec cat {never}); :"]
    with subprocess.Popen(command) as process:
        while not find(str(never)):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert gone(str(never), patience=20)
