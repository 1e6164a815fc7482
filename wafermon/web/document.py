"""docs/json.md and its two schemas, from `wafermon.model.shapes`: ``python -m wafermon.web.document docs``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from wafermon.model.shapes import ANSWERS, Span, Time, TimeOrZero, fields

OPENING = """# JSON: what commands and HTTP answer

The commands print with `--json` what their HTTP route answers: the same fields, for both. Only times differ, as the table says. [http.md](http.md) has the routes with their
arguments, [commands.md](commands.md) the commands. Page and schemas are made of the types in `wafermon/model/shapes`, and the tests compare what a running sidecar answers, and
what each command prints, with the schemas.

| type | commands with `--json` | HTTP |
|---|---|---|
| time | ISO 8601, always UTC and with six digits: `"2026-11-29T16:00:00.123456Z"` | whole number: microseconds since the Unix epoch |
| time or 0 | as a time; null in place of 0 | as a time, or 0 |
| span | whole number: microseconds | whole number: microseconds |
| schema (JSON Schema 2020-12; `$defs` has one entry for each heading below) | [commands.schema.json](commands.schema.json) | [json.schema.json](json.schema.json) |

The texts of times have one length, so that they sort in the order of time: `wafermon jobs --json | jq 'sort_by(.first)'`. `date -d 2026-11-29T16:00:00.123456Z` reads one, and
`date -u -d @$((TIME / 1000000))` shows one of HTTP.

Fields may be added in later versions; none that is here goes away or changes its meaning before version 3. A field is always there, unless it is said to be optional; what is
not known is null or empty.

`wafermon tail --json` and `GET /api/tail` give messages as they are stored, with `ts` in microseconds, so that `wafermon replay` takes them:
[protocol.md](protocol.md) and [its schema](protocol.schema.json). `wafermon config show --json` prints the config: `wafermon config schema` prints its schema.
"""

ISO = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"}
"""A time as commands print it."""


SCHEMAS = {"json.schema.json": False, "commands.schema.json": True}
"""File -> whether it is that of the commands."""


def document() -> str:
    """The page."""
    return OPENING + "".join(_section(shape) for shape in _all())


def schema(*, strict: bool = False, of_commands: bool = False) -> dict[str, Any]:
    """The JSON Schema of every answer, as HTTP gives it or, `of_commands`, as commands print it. One for readers takes fields that a later
    version adds; a `strict` one takes no others."""
    _, defs = msgspec.json.schema_components(ANSWERS, ref_template="#/$defs/{name}")
    for shape in _all():
        entry = defs[shape.__name__]
        entry["description"] = _plain(_doc(shape))
        if not strict:
            entry.pop("additionalProperties", None)
        for name, (hint, text) in fields(shape).items():
            field = entry["properties"][name]
            if of_commands:
                field = entry["properties"][name] = _with_texts(hint, field)
            field.pop("default", None)  # what is left out, not what counts then
            if "$ref" not in field:
                field["description"] = _plain(text)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": dict(sorted(defs.items()))}


def _with_texts(hint: Any, field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field, its times as commands print them."""
    if get_origin(hint) is Annotated:
        if hint == TimeOrZero:
            return {"anyOf": [ISO, {"type": "null"}]}
        return dict(ISO) if hint == Time else field
    if get_origin(hint) in (Union, UnionType):
        return {**field, "anyOf": [*map(_with_texts, get_args(hint), field["anyOf"])]}
    if get_origin(hint) is list:
        return {**field, "items": _with_texts(get_args(hint)[0], field["items"])}
    if get_origin(hint) is dict:
        return {**field, "additionalProperties": _with_texts(get_args(hint)[1], field["additionalProperties"])}
    return field


def _all() -> list[type[msgspec.Struct]]:
    """The answers, each with what it holds behind it."""
    found: dict[type[msgspec.Struct], None] = {}

    def add(shape: type[msgspec.Struct]) -> None:
        if shape not in found:
            found[shape] = None
            for hint, _ in fields(shape).values():
                for inner in _structs(hint):
                    add(inner)

    for shape in ANSWERS:
        add(shape)
    return list(found)


def _structs(hint: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for inner in get_args(hint):
        yield from _structs(inner)


def _section(shape: type[msgspec.Struct]) -> str:
    optional = {field.name for field in msgspec.structs.fields(shape) if not field.required}
    rows = [
        f"| `{name}` | {_kind(hint)}{', optional' if name in optional else ''} | {text} |\n"
        for name, (hint, text) in fields(shape).items()
    ]
    return f"\n## {shape.__name__}\n\n{_doc(shape)}\n\n| field | type | |\n|---|---|---|\n" + "".join(rows)


def _doc(shape: type[msgspec.Struct]) -> str:
    return " ".join((shape.__doc__ or "").split())


def _plain(text: str) -> str:
    return text.replace("`", "")


def _kind(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return {Time: "time", TimeOrZero: "time or 0", Span: "span"}[hint]
    if hint in (Any, NoneType):
        return "any" if hint is Any else "null"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_kind(one) for one in get_args(hint))
    if get_origin(hint) is list:
        return f"list of {_kind(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"object of {_kind(get_args(hint)[1])}"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return words.get(hint) or f"[{hint.__name__}](#{hint.__name__.lower()})"


def write(directory: Path) -> None:
    (directory / "json.md").write_text(document(), encoding="utf-8")
    for name, of_commands in SCHEMAS.items():
        text = json.dumps(schema(of_commands=of_commands), indent=1, ensure_ascii=False) + "\n"
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
