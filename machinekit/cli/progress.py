"""Show people how the work goes: a live line per machine on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, TextIO

from machinekit.cli.command import confirm, harmless
from machinekit.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_echoing: list[Any] | None = None  # the terminal's settings from before a question
_ASKING = threading.Lock()  # one question at a time
SLOW = 0.1  # seconds from which a step's duration is worth a line
OFTEN = 10.0  # seconds between two lines of one step
STILL = 60.0  # between two that say the same


class PlainProgress:
    """One line when a step begins, and one when a slow one ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._current: dict[str, str] = {}
        self._told: dict[str, float] = {}
        self._parts: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        pass

    def stop(self) -> None:
        """There is nothing to take away but a question."""
        _show_typing()

    def end(self, machine: str, outcome: str = "") -> None:
        """Print what came of it."""
        if outcome:
            self.note(machine, outcome)

    def step(self, machine: str, text: str) -> None:
        """Print it."""
        self._current[machine] = text
        self._told[machine] = time.monotonic()
        self.note(machine, text)

    def part(self, machine: str, text: str) -> None:
        """Print it now and then, what is no news less often."""
        pause = STILL if self._parts.get(machine) == text else OFTEN
        if time.monotonic() - self._told[machine] >= pause:
            self._told[machine] = time.monotonic()
            self._parts[machine] = text
            self.note(machine, text)

    def done(self, machine: str, seconds: float) -> None:
        """Print how long it took, where it was long."""
        if seconds >= SLOW:
            self.note(machine, f"{self._current[machine]}: {seconds:.1f} s")

    def note(self, machine: str, text: str) -> None:
        """Print it."""
        self._stream.write(f"{machine}: {harmless(text)}\n")  # in one piece: other machines are told of meanwhile
        self._stream.flush()

    def confirm(self, machine: str, question: str) -> bool:
        """Ask, one machine at a time."""
        with _ASKING:
            return _asked(machine, question, self._stream)

    def ask(self, question: str) -> str | None:
        """Ask on the terminal."""
        with _ASKING:
            return _typed(question)


class LiveProgress:
    """A spinner per machine with its present step; finished slow steps stay above."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(file=stream, markup=False, highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress: RichProgress = Progress(*columns, console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._current: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the display away, and give the terminal its cursor back."""
        self._progress.stop()
        _show_typing()

    def end(self, machine: str, outcome: str = "") -> None:
        """Take the machine's line away and leave what came of it."""
        with self._lock:
            task = self._tasks.pop(machine, None)
        if task is not None:
            self._progress.remove_task(task)
        if outcome:
            self.note(machine, outcome)

    def step(self, machine: str, text: str) -> None:
        """Show it as the machine's present step."""
        with self._lock:
            if machine not in self._tasks:
                self._tasks[machine] = self._progress.add_task("", total=None)
            self._current[machine] = text
        self._progress.reset(self._tasks[machine], description=f"{machine}: {text}")

    def part(self, machine: str, text: str) -> None:
        """Show it behind the present step."""
        description = f"{machine}: {self._current[machine]}: {harmless(text)}"
        self._progress.update(self._tasks[machine], description=description)

    def done(self, machine: str, seconds: float) -> None:
        """Leave a line for a slow step."""
        if seconds >= SLOW:
            self.note(machine, f"{self._current[machine]}: {seconds:.1f} s")

    def note(self, machine: str, text: str) -> None:
        """Leave a line."""
        self._progress.console.print(f"{machine}: {harmless(text)}")

    def confirm(self, machine: str, question: str) -> bool:
        """Ask, with the spinners out of the way."""
        with self._paused():
            return _asked(machine, question, self._progress.console.file)

    def ask(self, question: str) -> str | None:
        """Ask on the terminal, with the spinners out of the way."""
        with self._paused():
            return _typed(question)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """No spinners until the question is answered, and the next machine's too."""
        with _ASKING:
            self._progress.stop()
            try:
                yield
            finally:
                self._progress.start()


def _asked(machine: str, question: str, stream: IO[str]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{machine}: {question}", "add --yes to agree; there is no terminal to ask at")
    return confirm(f"{machine}: {harmless(question)}\nGo on?", stream)


def progress(stream: TextIO | None = None) -> PlainProgress | LiveProgress:
    """The progress that suits the stream, stdout if none is given."""
    stream = stream or sys.stdout
    return LiveProgress(stream) if stream.isatty() else PlainProgress(stream)


def _typed(question: str) -> str | None:
    """What a person types unseen; None without a terminal, or when nothing or Ctrl-D is typed."""
    if not sys.stdin.isatty():
        return None
    import getpass

    global _echoing  # noqa: PLW0603 (there is one terminal)
    _echoing = termios.tcgetattr(sys.stdin)
    try:
        return getpass.getpass(f"{question}: ") or None
    except EOFError:
        return None
    finally:
        _echoing = None


def _show_typing() -> None:
    """Let the terminal show what is typed again, when a question is broken off by the end of the process."""
    if _echoing:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, _echoing)
