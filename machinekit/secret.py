"""Secrets that only a person knows: from a variable, from a command, or asked for, each once a process.

They are texts as os.environ has them: os.fsencode gives the bytes, whatever these are.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable

from machinekit.errors import LoginError
from machinekit.provider import Source

Ask = Callable[[str], str | None]  # puts a question to a person; None when there is nobody

PATIENCE = 120.0  # seconds for a command, which may itself ask a person

_answers: dict[str, str] = {}
_one_question = threading.Lock()  # machines that work at the same time share the answer


def nobody(question: str) -> None:
    """There is no person to ask."""


def reveal(question: str, source: Source, ask: Ask, *, wrong: str | None = None) -> str | None:
    """The answer to the question, such as "password of bob"; None when nobody knows one.

    `wrong` is the answer that was refused: a person may then give another one. Raises LoginError when the
    command fails.
    """
    with _one_question:
        if _answers.get(question) in (None, wrong):
            answer = _known_to(source, question)
            if answer in (None, wrong):
                answer = ask(question if wrong is None else f"{question} (the last one was wrong)")
            if answer is None:
                return None
            _answers[question] = answer
        return _answers[question]


def advice(source: Source) -> str:
    """How to tell the secret without a person, for a hint."""
    return f"give it on a terminal, with {source.flag}, or in ${source.variable}" if source.flag else ""


def _known_to(source: Source, question: str) -> str | None:
    if source.variable and source.variable in os.environ:
        return os.environ[source.variable]
    if not source.command:
        return None
    try:
        command = ["sh", "-c", source.command]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise LoginError(f"the command of {source.flag} does not end within {PATIENCE:.0f} s", "try it alone") from None
    if result.returncode != 0 or not result.stdout.strip():
        said = result.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
        raise LoginError(f"the command of {source.flag} gave no {question}: {said[0]}", "try it alone")
    return os.fsdecode(result.stdout.splitlines()[0])  # as `pass` has it: the secret is the first line
