"""The tree of errors is the one that the docstring draws."""

from __future__ import annotations

import inspect
import re

import pytest

from machinekit import errors
from machinekit.errors import MachinekitError

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass)]


def drawn() -> dict[str, str]:
    """Each class with its parent, read off the picture."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"([│├└─ ]*)(\w+Error)\b", line):
            while path and path[-1][0] >= len(match[1]):
                path.pop()
            if path:
                parents[match[2]] = path[-1][1]
            path.append((len(match[1]), match[2]))
    return parents


def test_the_picture_is_the_tree() -> None:
    assert drawn() == {each.__name__: each.__mro__[1].__name__ for each in CLASSES if each is not MachinekitError}


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_says_what_happened_and_what_to_do(kind: type[MachinekitError]) -> None:
    error = kind("it broke", "mend it")
    assert (error.message, error.hint, str(error)) == ("it broke", "mend it", "it broke")
    assert kind("it broke").hint == ""
    assert kind.__doc__


@pytest.mark.parametrize(("name", "code"), [("UsageError", 2), ("PreCheckError", 3), ("DriverError", 1)])
def test_exit_codes(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code
    assert code == 1 or re.search(rf"{name} +exit {code}", errors.__doc__ or "")
