"""The form of a fleet file: its keys, as pydantic models that know the installed drivers."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from machinekit import drivers, roles
from machinekit.providers import DEFAULT
from machinekit.setup import HostFile, Registry, RoleUse
from machinekit.spec import Spec, engine_flag, in_words_of, model
from machinekit.store import NAME

INDEX = re.compile(r"\{index(?::0([1-9]))?\}")
VARIABLE = r"\$\{"  # what a value with a variable in it has
# of JSON Schema: what a value must be, where a text with a variable is something else
RULES = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
MOST = 10_000  # machines of one group: more is a typo
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


def _text(value: Any) -> Any:
    """A whole number where a text belongs: nothing is lost, and `memory: 512` means what it says."""
    return str(value) if type(value) is int else value


Text = Annotated[str, BeforeValidator(_text)]


def _pattern(name: str) -> str:
    """A machine's name, or one with {index} in it; raises ValueError."""
    if not NAME.fullmatch(INDEX.sub("1", name)):
        raise ValueError(
            f"{name!r} is not a name of 1 to 63 letters, digits, dots and dashes, with {{index}} in a group"
        )
    return name


class SwarmNodes(BaseModel):
    """Which machines make up a Swarm, by name or by the name of their group."""

    model_config = STRICT
    managers: tuple[str, ...] = Field(min_length=1, description="1 to 7 machines that decide")
    workers: tuple[str, ...] = Field(default=(), description="machines that only run services")


def schema() -> dict[str, Any]:
    """The JSON Schema of a fleet file with every installed driver."""
    found = form(frozenset(drivers.names())).model_json_schema()
    found["$defs"]["RoleUse"] = _role_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "machinekit.yaml",
        **_or_variables(found),
    }


def _or_variables(part: Any) -> Any:
    """The schema where ${NAME} may stand for a value: an editor cannot know what it will be."""
    if isinstance(part, list):
        return [_or_variables(each) for each in part]
    if not isinstance(part, dict):
        return part
    part = {key: _or_variables(value) for key, value in part.items()}
    if part.get("type") == "string" and isinstance(part.get("pattern"), str):
        return {**part, "pattern": f"{part['pattern']}|{VARIABLE}"}
    if part.get("type") not in ("integer", "number", "boolean") and "enum" not in part:
        return part
    rules = {key: part.pop(key) for key in RULES if key in part}
    return {**part, "anyOf": [rules, {"type": "string", "pattern": VARIABLE}]}


def _role_schema() -> dict[str, Any]:
    """A role's options stand beside its name: one alternative for each built-in role, one for folders of one's own."""
    use = RoleUse.model_json_schema()["properties"]
    own = {"role": {"type": "string", "pattern": "/"}, "name": use["name"]}
    alternatives: list[dict[str, Any]] = [{"type": "object", "properties": own, "required": ["role"]}]
    for name in roles.names():
        options = roles.model(name).model_json_schema()
        options["properties"] |= {"role": {"const": name}, "name": use["name"]}
        alternatives.append({**options, "required": ["role", *options.get("required", ())]})
    return {"anyOf": alternatives}


@functools.cache
def form(used: frozenset[str]) -> type[BaseModel]:
    """The model of a file that has options of these drivers."""
    sections: dict[str, Any] = {
        name: (_section(name), Field(default=None, description=f"options of driver {name}")) for name in sorted(used)
    }
    common: dict[str, Any] = {
        "driver": (str, Field(default=str(DEFAULT), description="what makes the machine")),
        "engine": (_engine(), Field(default=None, description="how the engine is installed and configured")),
        "labels": (dict[str, Text], Field(default={}, description="labels of the engine, and of the node in a Swarm")),
        "files": (tuple[HostFile, ...], Field(default=(), description="files on the machine")),
        "roles": (tuple[RoleUse, ...], Field(default=(), description="what else is installed")),
        **sections,
    }
    defaults = create_model("Defaults", __config__=STRICT, **common)
    named: dict[str, Any] = {
        "name": (
            Annotated[str, AfterValidator(_pattern)],
            Field(description="the machine's name, with {index} in a group"),
        ),
        "count": (int | None, Field(default=None, ge=0, le=MOST, description="how many machines, numbered from 1")),
    }
    entry = create_model("MachineEntry", __config__=STRICT, **named, **common)
    return create_model(
        "FleetFile",
        __config__=STRICT,
        version=(Literal[1], Field(description="the version of this format: 1")),
        name=(
            Annotated[str, AfterValidator(_fleet_name)],
            Field(description="the fleet's name; its machines are marked with it"),
        ),
        defaults=(defaults, Field(default=defaults(), description="what each machine has unless it says otherwise")),
        machines=(tuple[entry, ...], Field(description="the machines")),  # type: ignore[valid-type]
        swarm=(SwarmNodes | None, Field(default=None, description="the machines that make up a Swarm")),
        registries=(tuple[Registry, ...], Field(default=(), description="registries that every machine pulls from")),
    )


def in_words_of_the_file(text: str, driver: str = "") -> str:
    """An error's text with the keys of the file where it names the engine's flags, and those of a driver."""
    keys = {field: f"engine.{'source' if field == 'engine' else field}" for field in Spec.model_fields}
    text = in_words_of(text, engine_flag, keys)
    options = drivers.load(driver).Options.infos() if driver else {}
    keys = {field: f"{driver}.{field}" for field in options}
    return in_words_of(text, lambda field: drivers.flag(driver, field), keys)


def _fleet_name(name: str) -> str:
    """The name, when a fleet can have it; raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of 1 to 63 letters, digits, dots and dashes")
    return name


@functools.cache
def _section(name: str) -> type[BaseModel]:
    """A driver's options, any of them; secrets have no place in a file."""
    kind = drivers.load(name)
    infos = kind.Options.infos()
    fields: dict[str, Any] = {}
    for field, info in model(kind.Options).model_fields.items():
        if not infos[field].secret:
            fields[field] = (_kind(info), Field(default=None, description=info.description))
    return create_model(f"{name}-options", __config__=STRICT, **fields)


@functools.cache
def _engine() -> type[BaseModel]:
    """The engine's settings, without what has a place of its own."""
    fields: dict[str, Any] = {}
    for field, info in Spec.model_fields.items():
        if field != "labels":
            fields["source" if field == "engine" else field] = (
                _kind(info),
                Field(default=None, description=info.description),
            )
    return create_model("Engine", __config__=STRICT, **fields)


def _kind(info: FieldInfo) -> Any:
    """The type of a field with its rules, to be used for another one."""
    kind = Text if info.annotation is str else info.annotation
    return Annotated[kind, *info.metadata] if info.metadata else kind
