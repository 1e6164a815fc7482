"""docs/json.md and docs/json.schema.json, from `shapes`: ``python -m wafermon.web.document docs``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from wafermon.web.shapes import ANSWERS, Span, Time

OPENING = """# JSON: what commands and HTTP answer

The commands print with `--json` what their HTTP route answers: one shape for both. [http.md](http.md) has the routes with their arguments, [commands.md](commands.md) the commands.
[json.schema.json](json.schema.json) has the same as a JSON Schema (2020-12): `$defs` has one entry for each heading below. Page and schema are made of the
types in `wafermon/web/shapes.py`, and the tests compare what a running sidecar answers with the schema.

A *time* is a whole number of microseconds since the Unix epoch, a *span* a number of microseconds: as in the messages themselves, so that programs can compare and subtract them.
`date -u -d @$((TIME / 1000000))` shows one. Fields may be added in later versions; none that is here goes away or changes its meaning before version 3. A field is always there,
unless it is said to be optional; what is not known is null or empty.

`wafermon tail --json` and `GET /api/tail` give messages as they are stored: [protocol.md](protocol.md) and [its schema](protocol.schema.json).
`wafermon config show --json` prints the config: `wafermon config schema` prints its schema.
"""


def document() -> str:
    """The page."""
    return OPENING + "".join(_section(shape) for shape in _all())


def schema(*, strict: bool = False) -> dict[str, Any]:
    """The JSON Schema of every answer. One for readers takes fields that a later version adds; a `strict` one takes no others."""
    _, defs = msgspec.json.schema_components(ANSWERS, ref_template="#/$defs/{name}")
    for shape in _all():
        entry = defs[shape.__name__]
        entry["description"] = _plain(_doc(shape))
        if not strict:
            entry.pop("additionalProperties", None)
        for name, (_, text) in _fields(shape).items():
            field = entry["properties"][name]
            field.pop("default", None)  # what is left out, not what counts then
            if "$ref" not in field:
                field["description"] = _plain(text)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": dict(sorted(defs.items()))}


def _all() -> list[type[msgspec.Struct]]:
    """The answers, each with what it holds behind it."""
    found: dict[type[msgspec.Struct], None] = {}

    def add(shape: type[msgspec.Struct]) -> None:
        if shape not in found:
            found[shape] = None
            for hint, _ in _fields(shape).values():
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


def _fields(shape: type[msgspec.Struct]) -> dict[str, tuple[Any, str]]:
    """Name -> its type without the words, and the words."""
    hints = get_type_hints(shape, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(shape):
        hint = hints[field.name]
        kind, *words = get_args(hint)
        named = [one for one in (Time, Span) if words[0] == get_args(one)[1]]
        found[field.name] = (named[0] if named else kind, words[-1])
    return found


def _section(shape: type[msgspec.Struct]) -> str:
    optional = {field.name for field in msgspec.structs.fields(shape) if not field.required}
    rows = [
        f"| `{name}` | {_kind(hint)}{', optional' if name in optional else ''} | {text} |\n"
        for name, (hint, text) in _fields(shape).items()
    ]
    return f"\n## {shape.__name__}\n\n{_doc(shape)}\n\n| field | type | |\n|---|---|---|\n" + "".join(rows)


def _doc(shape: type[msgspec.Struct]) -> str:
    return " ".join((shape.__doc__ or "").split())


def _plain(text: str) -> str:
    return text.replace("`", "")


def _kind(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return "time" if hint == Time else "span"
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
    text = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    (directory / "json.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
