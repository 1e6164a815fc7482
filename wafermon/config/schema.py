"""The config's JSON Schema, from the model, for editors and other checkers: ``wafermon config schema``.

It never refuses what `wafermon check` takes. It misses what takes more than one place of the file to see (two backends with one
path, a route to no backend), and what only a plugin knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge
from pydantic import BeforeValidator, PlainValidator
from pydantic.fields import FieldInfo

from wafermon.config.document import default_of
from wafermon.interfaces import IBackendFactory, IChannelFactory
from wafermon.model.alerts import AlertKeys
from wafermon.model.describe import choices_of, declared, keys, section_of
from wafermon.model.settings import BackendKeys, Kind, RouteKeys, Section, Settings
from wafermon.model.units import SIZE_UNITS, TIME_UNITS

Schema = dict[str, Any]
DRAFT = "http://json-schema.org/draft-07/schema#"
"""The newest that editors' YAML servers know all of."""
VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
"""A value that the environment gives."""
_TEXT: Schema = {"type": "string"}
_NUMBER = r"[0-9]{1,30}(\.[0-9]{1,30})? ?"
_SIZE: Schema = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": f"^{_NUMBER}({'|'.join(SIZE_UNITS)})?$"},
        VARIABLE,
    ]
}
_TIME: Schema = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": f"^{_NUMBER}({'|'.join(TIME_UNITS)})?$"},
        VARIABLE,
    ]
}
_RATE: Schema = {
    "anyOf": [
        {"const": 0},
        {"type": "string", "pattern": r"^([0-9]{1,15} ?/ ?([0-9]+(\.[0-9]+)?)? ?[a-z]+|0)$"},
        VARIABLE,
    ]
}
_KINDS: dict[str, Schema] = {
    "a size": _SIZE,
    "a time": _TIME,
    "a rate": _RATE,
    "a path": _TEXT,
    "a path or false": {"anyOf": [_TEXT, {"const": False}]},
    "a name or a number": {"type": ["string", "integer"]},
    "a command": _TEXT,
    "a connection string": _TEXT,
    "an endpoint": _TEXT,
    "a name": _TEXT,
    "text": _TEXT,
}
"""What is converted before it is checked -> what a config may write for it, by `Kind`."""
_PLAIN: dict[Any, Schema] = {
    str: _TEXT,
    bool: {"anyOf": [{"type": "boolean"}, VARIABLE]},
    int: {"anyOf": [{"type": "integer"}, VARIABLE]},
    float: {"anyOf": [{"type": "number"}, VARIABLE]},
}
_CONVERTS = ("before", "plain", "wrap")


def config_schema(
    plugins: Mapping[str, IBackendFactory], channels: Mapping[str, IChannelFactory] = MappingProxyType({})
) -> Schema:
    """The schema of a whole file, with the options of these kinds of backend and channel."""
    found = _section(Settings)
    found["properties"] |= {"backends": _backends(plugins), "routes": _routes(), "alerts": _alerts(channels)}
    return {
        "$schema": DRAFT,
        "title": "wafermon",
        "description": "The config of the wafermon sidecar.",
        **found,
        "required": ["backends"],
    }


def _section(section: type[Section], more: Schema | None = None) -> Schema:
    """A mapping. `more` are further properties."""
    found: Schema = {
        "type": "object",
        "properties": {key: _key(section, key, info) for key, info in keys(section).items()} | (more or {}),
        "additionalProperties": False,
    }
    if required := [key for key, info in keys(section).items() if info.is_required()]:
        found["required"] = required
    return found


def _key(section: type[Section], key: str, info: FieldInfo) -> Schema:
    annotation = declared(section, key)
    converted = any(
        decorator.info.mode in _CONVERTS and (key in decorator.info.fields or "*" in decorator.info.fields)
        for decorator in section.__pydantic_decorators__.field_validators.values()
    )
    found = {} if converted else dict(_value(annotation))
    if minimum := [part.ge for part in info.metadata if isinstance(part, Ge)]:
        found = {"anyOf": [{"type": "integer", "minimum": minimum[0]}, VARIABLE]}
    if info.description:
        found["description"] = info.description
    if (default := default_of(section, key)) not in ("required", "none", ""):
        found["description"] = f"{found.get('description', '')}\n\nDefault: {default}".lstrip()
    if info.examples:
        found["examples"] = list(info.examples)
    return found


def _value(annotation: Any) -> Schema:
    """What a config may write for a value of that type. Where that can't be told, it is anything."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _annotated(*get_args(annotation))
    if origin in (Union, UnionType):
        choices = [_value(arg) for arg in get_args(annotation) if arg is not type(None)]
        return choices[0] if len(choices) == 1 else {"anyOf": choices}
    if origin is Literal:
        return {"anyOf": [{"enum": list(get_args(annotation))}, VARIABLE]}
    if origin is tuple or origin is list:
        return {"type": "array", "items": _value(get_args(annotation)[0])}
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _value(get_args(annotation)[1])}
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _section(annotation)
    return _PLAIN.get(annotation, {})


def _annotated(bare: Any, *metadata: Any) -> Schema:
    kind = next((part.name for part in metadata if isinstance(part, Kind)), None)
    if kind in _KINDS:
        return _KINDS[kind]
    if not any(isinstance(part, (BeforeValidator, PlainValidator)) for part in metadata):
        return _value(bare)
    entry = section_of(bare)
    if entry is None:
        return {}
    # An endpoint stands for a mapping of it alone; `http` is one of these, a list of them, or false.
    sections = [found for one in choices_of(bare).values() if (found := section_of(one))] or [entry]
    one = {"anyOf": [_TEXT, *map(_section, sections)]}
    if get_origin(bare) is not tuple:
        return one
    return {"anyOf": [_TEXT, {"const": False}, {"type": "array", "items": one, "minItems": 1}]}


def _alerts(channels: Mapping[str, IChannelFactory]) -> Schema:
    found = _plugins(channels, AlertKeys, "channel")
    found["description"] = (
        "Who is told of alarms: a name of your own for each channel, and its plugin with its options."
    )
    return found


def _backends(plugins: Mapping[str, IBackendFactory]) -> Schema:
    found = _plugins(plugins, BackendKeys, "backend")
    return {
        "type": "object",
        "description": "Where messages go: a name of your own for each, and its plugin with its options.",
        "minProperties": 1,
        **found,
    }


def _plugins(plugins: Mapping[str, Any], common: type[Section], what: str) -> Schema:
    """A mapping of names to what these plugins take beside the `common` keys."""
    names = sorted(plugins)
    branches = []
    for name in names:
        options: type[Section] | None = getattr(plugins[name], "options", None)
        if options is not None:
            chosen = {"properties": {"plugin": {"const": name}}, "required": ["plugin"]}
            branches.append({"if": chosen, "then": _section(common, _section(options)["properties"])})
            branches[-1]["then"]["required"] = ["plugin", *_section(options).get("required", ())]
    plugin = {"anyOf": [{"enum": names}, VARIABLE], "description": f"Which kind of {what} it is."}
    return {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z0-9_-]{1,64}$"},
        "additionalProperties": {
            "type": "object",
            "properties": {"plugin": plugin},
            "required": ["plugin"],
            **({"allOf": branches} if branches else {}),
        },
    }


def _routes() -> Schema:
    rule = _section(RouteKeys)
    globs = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
    rule["properties"]["match"] = {
        "type": "object",
        "description": rule["properties"]["match"]["description"],
        "properties": dict.fromkeys(("service", "type", "level", "host"), globs),
        "additionalProperties": False,
    }
    return {
        "type": "array",
        "description": "Rules; the first that matches a message decides where it goes.",
        "items": rule,
    }
