"""What is wrong with a file that people write, in words: where, what, and what may have been meant."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from machinekit import spec
from machinekit.errors import nearest
from machinekit.yamlfile import Document, Path

WANTED = {"string": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
WANTED |= {"tuple": "a list", "dict": "keys with values", "model": "keys with values", "mapping": "keys with values"}
WANTED["dataclass"] = WANTED["model_attributes"] = WANTED["model"]

EVERYWHERE = ("name", "version")  # keys that mean something else further out

Extra = Callable[[Path], str]  # more about a key that is none; empty when there is nothing to say


def explained(
    error: ValidationError, form: type[BaseModel], document: Document, extra: Extra = lambda _: ""
) -> list[str]:
    """A line for each problem that validating a document found."""
    return [_line(problem, problem["loc"], form, document, extra) for problem in error.errors(include_url=False)]


def named(path: Path) -> str:
    """A path as people read it: machines[0].name."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _line(problem: ErrorDetails, path: Path, form: type[BaseModel], document: Document, extra: Extra) -> str:
    while problem["type"] == "value_error" and path and path not in document.places:
        path = path[:-1]  # of a field that nobody writes, such as a digest
    where = document.at(path, key=problem["type"] == "extra_forbidden")
    return f"{where}: {named(path) or 'the file'}{_explanation(problem, path, form, extra)}"


def _explanation(problem: ErrorDetails, path: Path, form: type[BaseModel], extra: Extra) -> str:
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return (
            f" is no key here{extra(path) or _elsewhere(form, path) or nearest(str(path[-1]), _keys(form, path[:-1]))}"
        )
    if kind == "missing":
        return " is missing"
    if kind.endswith("_type"):
        right = WANTED.get(kind.removesuffix("_type"), "what belongs here")
        return f": {_said(given)} is not {right}{_quotes(kind, given) or _meant(given, form, path)}"
    if kind == "literal_error":
        return f": {_said(given)} is not {problem['ctx']['expected']}"
    if kind == "too_short":
        return ": at least one is needed"
    return spec.explanation(problem, _field(form, path))


def _said(given: Any) -> str:
    if given is None:
        return "nothing"
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, (list, tuple)):
        return "a list"
    if isinstance(given, dict):
        return "something with keys"
    return repr(given)


def _quotes(kind: str, given: Any) -> str:
    return "; put it in quotes" if kind == "string_type" and isinstance(given, (int, float)) else ""


def _meant(given: Any, form: type[BaseModel], path: Path) -> str:
    """What was to be given: a model's one necessary key, or what the field is for."""
    needed = [key for each in _models(form, path) for key, field in each.model_fields.items() if field.is_required()]
    if isinstance(given, str) and len(needed) == 1:
        return f"; did you mean {{{needed[0]}: {given}}}?"
    field = _field(form, path)
    return f" ({field.description})" if field and field.description else ""


def _elsewhere(form: type[BaseModel], path: Path) -> str:
    """Where a key that is none has its place: one section further in, or anywhere further out."""
    key, around = str(path[-1]), path[:-1]
    for section in _keys(form, around):
        if key in _keys(form, (*around, section)):
            return f"; it is a key of {section}"
    for depth in reversed(range(len(around))):
        outer = around[:depth]
        if key not in EVERYWHERE and key in _keys(form, outer):
            return f"; its place is {named(outer) or 'the top of the file'}"
    return ""


def _keys(form: type[BaseModel], path: Path) -> Iterable[str]:
    """The keys that the model has at a path."""
    inner = _models(form, path)
    return [key for each in inner for key in each.model_fields]


def _field(form: type[BaseModel], path: Path) -> Any:
    for each in _models(form, path[:-1]):
        if path and path[-1] in each.model_fields:
            return each.model_fields[str(path[-1])]
    return None


def _models(form: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    """The models that may describe what is at a path."""
    kinds: list[Any] = [form]
    for part in path:
        kinds = [inner for kind in kinds for inner in _below(kind, part)]
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _below(kind: Any, part: str | int) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _flat(kind.model_fields[str(part)].annotation) if part in kind.model_fields else []
    if get_origin(kind) in (tuple, dict, list):
        return [inner for each in get_args(kind) for inner in _flat(each)]
    return []


def _flat(kind: Any) -> list[Any]:
    """The members of a union, or the kind alone."""
    return list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]
