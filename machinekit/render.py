"""Render the texts that go to a machine. Every value is quoted with the `q` filter where a shell reads it."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machinekit

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """A template of templates/ with values; a value that is missing is an error."""
    return _environment().get_template(template).render(**values)


def filled(text: str, **values: Any) -> str:
    """The text of somebody else's template with values; it may include files of templates/ and touch nothing else here.

    Raises ValueError when it cannot be filled in.
    """
    from jinja2 import TemplateError

    try:
        return _sandbox().from_string(text).render(**values)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"the template cannot be filled in: {error}") from None


def static(name: str) -> str:
    """A file of templates/ that has no values, without the cost of loading the template engine."""
    return _found(name).read_text()


def folder(name: str) -> Path:
    """A folder of templates/."""
    return _found(name)


def _found(name: str) -> Path:
    for place in machinekit.__path__:
        path = Path(place) / "templates" / name
        if path.exists():
            return path
    raise FileNotFoundError(name)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment

    return _equipped(Environment)


@functools.cache
def _sandbox() -> Environment:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return _equipped(ImmutableSandboxedEnvironment)


def _equipped(kind: type[Environment]) -> Environment:
    from jinja2 import PackageLoader, StrictUndefined

    environment = kind(
        loader=PackageLoader("machinekit.templates", ""),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=False,
    )
    environment.filters["q"] = lambda value: shlex.quote(str(value))
    return environment
