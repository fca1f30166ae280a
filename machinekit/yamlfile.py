"""Read YAML that people write, as plain data with the place of each part and variables filled in; and write it.

A part of the data is named by its path: ("machines", 0, "name").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from machinekit.errors import UsageError

Path = tuple[str | int, ...]

PARTS = 200_000  # more come only from aliases of aliases
DEPTH = 100
DIGITS = 40  # of a number: more is a typo
TOO_MUCH = "too much of it: aliases that contain themselves?"

# YAML 1.2's core schema, where yes, no, on and off are texts, and so is 0644: https://yaml.org/spec/1.2.2/#103-core-schema
_CORE = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+.0123456789"),
    ("merge", "<<", "<"),
)
# as Compose has them: $$ is a dollar sign, ${NAME:-default} where NAME may be missing, ${NAME:?why} where it must not
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^}]*))?\}|)")
_OPEN_QUOTE = "unexpected end of stream"
# what to do about PyYAML's words for what is no YAML; the first that is found in them counts
_HINTS = {
    r"'\\t'": "YAML is indented with spaces, not with tabs",
    "found character|undefined alias": "a value that begins with @, %, ` or * wants quotes",
    "found '<scalar>'|got '{'": 'a value with { or : in it wants quotes, as in "runner-{index}"',
    "<block end>|mapping values": "lines of one list or section begin in the same column; quote a value with : in it",
    _OPEN_QUOTE: "the quote that begins there is not closed",
    "<stream end>|got ':'": "a bracket or brace is not closed",
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way)


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what either version of YAML would take for something else than a text."""


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    """Lines as lines, where YAML can."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
for _tag, _form, _first in _CORE:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), [*_first])
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))


@dataclass
class Document:
    """What a file says. `places` has the line and column of each part, `keys` those of its key, both from 1."""

    file: str
    data: Any = None
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def at(self, path: Path, *, key: bool = False) -> str:
        """FILE:LINE:COLUMN of a part or its key, or of the nearest part around it that the file has."""
        places = self.keys if key else self.places
        while path and path not in places:
            path, places = path[:-1], self.places
        line, column = places.get(path, (1, 1))
        return f"{self.file}:{line}:{column}"


def read(text: str, file: str, variables: Mapping[str, str]) -> Document:
    """The document; raises UsageError with file, line and column."""
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        said = str(error.problem or error.context)
        mark = error.context_mark if _OPEN_QUOTE in said else error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        hint = next((hint for words, hint in _HINTS.items() if re.search(words, said)), "")
        raise UsageError(f"{where}: not YAML: {said}", hint) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{file}: not YAML: {' '.join(str(error).split()) or 'too deep'}") from None
    document = Document(file)
    if node is not None:
        try:
            document.data = _Reader(document, variables).value(node, ())
        except RecursionError:
            raise UsageError(f"{file}: {TOO_MUCH}") from None
    return document


def written(data: Any) -> str:
    """The YAML that `read` makes this data of again."""
    return str(yaml.dump(_escaped(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


class _Merger(yaml.constructor.SafeConstructor):
    """Puts what `<<` brings among the keys, unless that is more than anybody writes."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """PyYAML's own way, told in advance how much it comes to."""
        brought = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        sources = [each for value in brought for each in (value.value if _is_list(value) else [value])]
        size = 0
        for source in sources:
            if isinstance(source, yaml.MappingNode):
                self.flatten_mapping(source)
                size += len(source.value)
            if size > PARTS:
                raise yaml.constructor.ConstructorError(None, None, TOO_MUCH, node.start_mark)
        super().flatten_mapping(node)


def _is_list(node: yaml.Node) -> bool:
    return isinstance(node, yaml.SequenceNode)


class _Reader:
    """Makes data of PyYAML's nodes."""

    def __init__(self, document: Document, variables: Mapping[str, str]) -> None:
        self._document = document
        self._variables = variables
        self._merger = _Merger()
        self._resolver: Any = _Loader("")
        self._parts = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The data of a node, and its place."""
        self._document.places[path] = _place(node)
        self._parts += 1
        if self._parts > PARTS or len(path) > DEPTH:
            raise self._wrong(node, TOO_MUCH)
        if isinstance(node, yaml.MappingNode):
            return dict(self._items(node, path))
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*path, index)) for index, each in enumerate(node.value)]
        return self._scalar(node, str(node.value))

    def _items(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, Any]]:
        own: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in own:
                    raise self._wrong(key_node, f"{key_node.value!r} is there twice")
                own.add(key_node.value)
        try:
            self._merger.flatten_mapping(node)  # what `<<` brings comes first, so that own keys win
        except yaml.MarkedYAMLError as error:
            raise self._wrong(node, str(error.problem)) from None
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._wrong(key_node, "a key is a text")
            key = str(key_node.value)
            self._document.keys[(*path, key)] = _place(key_node)
            yield key, self.value(value_node, (*path, key))

    def _scalar(self, node: yaml.Node, text: str) -> Any:
        tag = str(node.tag)
        if "$" in text:
            text = _VARIABLE.sub(lambda found: self._variable(node, found), text)
            if getattr(node, "style", None) is None:  # without quotes it may be a number now
                tag = self._resolver.resolve(yaml.ScalarNode, text, (True, False))
        kind = tag.removeprefix("tag:yaml.org,2002:")
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind in ("int", "float"):
            return self._number(node, kind, text)
        if kind in ("str", "merge"):
            return text
        raise self._wrong(node, f"{node.tag} is no type that counts here; put the value in quotes")

    def _number(self, node: yaml.Node, kind: str, text: str) -> int | float:
        try:
            if len(text) > DIGITS:
                raise ValueError
            return float(text) if kind == "float" else int(text, 16 if text.startswith("0x") else 10)
        except ValueError:
            raise self._wrong(node, f"{text[:DIGITS]!r} is no number that counts here") from None

    def _variable(self, node: yaml.Node, found: re.Match[str]) -> str:
        dollar, name, how, rest = found.groups()
        if dollar:
            return "$"
        if not name:
            word = re.match(r"\$[{(]?\w*[})]?", found.string[found.start() :])
            raise self._wrong(node, f"{word and word[0]}: a variable is written ${{NAME}}, and a dollar sign $$")
        if rest and "${" in rest:
            raise self._wrong(node, f"what stands in for ${{{name}}} cannot have a variable in it")
        if value := self._variables.get(name):
            return value
        if how == "-":
            return str(rest)
        if name in self._variables and how != "?":
            return ""
        raise self._wrong(node, f"${{{name}}} is not set{f': {rest}' if rest else ''}")

    def _wrong(self, node: yaml.Node, why: str) -> UsageError:
        line, column = _place(node)
        return UsageError(f"{self._document.file}:{line}:{column}: {why}")


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _escaped(data: Any) -> Any:
    """A dollar sign would begin a variable."""
    if isinstance(data, dict):
        return {key: _escaped(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_escaped(value) for value in data]
    return data.replace("$", "$$") if isinstance(data, str) else data
