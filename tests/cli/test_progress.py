"""How the work is shown: lines for a pipe, a live display for a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios

import pytest

from machinekit.cli.command import report
from machinekit.cli.fleet import print_plan
from machinekit.cli.progress import LiveProgress, PlainProgress, progress
from machinekit.errors import MachinekitError
from machinekit.plan import Action, Change, Difference, Plan, Unreadable
from machinekit.work import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It does."""
        return True


def tell(shown: Progress) -> None:
    shown.step("a", "Creating the instance")
    shown.done("a", 0.04)
    shown.step("a", "Waiting [for] an address")
    shown.note("b", "a [note]")
    shown.done("a", 1.26)


def test_how_far_a_step_is_fills_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with progress(stream) as shown:
        shown.step("a", "Finding the image")
        for number in range(100):
            shown.part("a", f"{number} of 100 MB")
        assert stream.getvalue() == "a: Finding the image\n"
        monkeypatch.setattr("machinekit.cli.progress.OFTEN", 0)
        shown.part("a", "100 of 100 MB")
        shown.part("a", "100 of 100 MB")  # no news
        shown.part("a", "closing")
    assert stream.getvalue().splitlines()[1:] == ["a: 100 of 100 MB", "a: closing"]


HOSTILE = "\x1b]0;title\x07 \x1b[2J\r\x9b1A \u202eback\ttab\nline é"
TAMED = "?]0;title? ?[2J??1A ?back\ttab\nline é"


def test_no_text_of_a_host_moves_the_cursor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report(MachinekitError(HOSTILE, HOSTILE))
    assert capsys.readouterr().err == f"machinekit: {TAMED}\n  {TAMED}\n"
    PlainProgress(sys.stdout).note("a", HOSTILE)
    change = Change("a", Action.CHANGE, "fake", (Difference(HOSTILE, HOSTILE, "answers"),))
    print_plan(Plan("ci", (change,), (Unreadable("b", HOSTILE),)))
    assert "\x1b" not in capsys.readouterr().out
    for kind in (PlainProgress, LiveProgress):
        monkeypatch.setenv("TERM", "xterm")
        stream = Terminal()
        with kind(stream) as shown:
            shown.step("a", "Waiting")
            shown.part("a", HOSTILE)
            shown.note("a", HOSTILE)
        assert "title\x07" not in stream.getvalue()
        assert "\u202e" not in stream.getvalue()


def test_a_terminal_shows_how_far_a_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress(stream) as shown:
        shown.step("a", "Finding the image")
        shown.part("a", "5 of 100 MB")
    assert "a: Finding the image: 5 of 100 MB" in stream.getvalue()


def test_lines_for_a_pipe() -> None:
    stream = io.StringIO()
    with progress(stream) as shown:
        assert isinstance(shown, PlainProgress)
        tell(shown)
    assert stream.getvalue().splitlines() == [
        "a: Creating the instance",
        "a: Waiting [for] an address",
        "b: a [note]",
        "a: Waiting [for] an address: 1.3 s",
    ]


@pytest.mark.parametrize("wanted", ["b: a [note]", "a: Waiting [for] an address: 1.3 s"])
def test_a_terminal_keeps_notes_and_slow_steps(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress(stream) as shown:
        assert isinstance(shown, LiveProgress)
        tell(shown)
    assert wanted in stream.getvalue()


@pytest.mark.parametrize("kind", ["PlainProgress", "LiveProgress"])
def test_a_secret_is_typed_unseen(kind: str) -> None:
    """On a real terminal, which shows again afterwards what is typed."""
    ours, theirs = pty.openpty()
    script = f"""
import sys
from machinekit.cli.progress import {kind}
with {kind}(sys.stdout) as shown:
    shown.step("a", "Waiting")
    answer = shown.ask("password of bob")
print("length", len(answer))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        said = b""
        while b"password of bob: " not in said:
            said += os.read(ours, 1000)
        while termios.tcgetattr(theirs)[3] & termios.ECHO:
            assert process.poll() is None
        os.write(ours, b"hunter2\n")
        while b"length 7" not in said:
            said += os.read(ours, 1000)
        assert process.wait(60) == 0
    assert b"hunter2" not in said
    assert termios.tcgetattr(theirs)[3] & termios.ECHO
    os.close(ours)
    os.close(theirs)


def test_a_question_goes_where_the_progress_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`create --json` has its output for a program."""
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    stream = io.StringIO()
    assert PlainProgress(stream).confirm("a", "This would change.")
    assert (stream.getvalue(), capsys.readouterr().out) == ("a: This would change.\nGo on? (y/n): ", "")


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hunter2\n"))
    assert PlainProgress(io.StringIO()).ask("password of bob") is None
