"""What the model declares, in the words of the manual and of the faults."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Tag
from pydantic.fields import FieldInfo

from wafermon.model.settings import Kind, Section


def declared(section: type[Section], key: str) -> Any:
    """The annotation of a key, with all that its Annotated says; Any where there is no such key."""
    names = {info.alias or name: name for name, info in section.model_fields.items()}
    return get_type_hints(section, include_extras=True).get(names.get(key, key), Any)


def keys(section: type[Section]) -> dict[str, FieldInfo]:
    """What a section declares, by the name that a config has for it."""
    return {info.alias or name: info for name, info in section.model_fields.items()}


def declared_at(section: type[Section], path: tuple[str | int, ...]) -> Any:
    """The annotation of what a path below a section leads to. The path may name what one of several sections is called."""
    found: Any = section
    for step in path:
        if step in (choices := choices_of(found)):
            found = choices[str(step)]
            continue
        inner = section_of(found)
        found = item_of(found) if isinstance(step, int) else declared(inner, step) if inner else Any
    return found


def without_choices(section: type[Section], path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A path as a config has it: pydantic's says which of several sections was meant."""
    return tuple(
        step for number, step in enumerate(path) if step not in choices_of(declared_at(section, path[:number]))
    )


def choices_of(annotation: Any) -> dict[str, Any]:
    """Where a value may be one of several sections, those by what they are called; else nothing."""
    if get_origin(annotation) is Annotated:
        return choices_of(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, UnionType):
        return {}
    return {
        mark.tag: member
        for member in get_args(annotation)
        if get_origin(member) is Annotated
        for mark in get_args(member)[1:]
        if isinstance(mark, Tag)
    }


def section_of(annotation: Any) -> type[Section] | None:
    """The section that an annotation holds, be it as an item or optional."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) is Literal:
        return None
    return next((found for arg in get_args(annotation) if (found := section_of(arg))), None)


def item_of(annotation: Any) -> Any:
    """What a list holds."""
    return get_args(_bare(annotation))[0]


def wording(annotation: Any) -> str:
    """``a size``, ``a list of …``, ``pause or skip``."""
    if get_origin(annotation) is Annotated:
        bare, *metadata = get_args(annotation)
        return next((kind.name for kind in metadata if isinstance(kind, Kind)), None) or wording(bare)
    if get_origin(annotation) in (Union, UnionType):
        return wording(_without_none(annotation))
    if get_origin(annotation) is Literal:
        *first, last = get_args(annotation)
        return f"{', '.join(first)} or {last}"
    if get_origin(annotation) is tuple:
        item = section_of(annotation)
        return "a list" if item else f"a list of {wording(item_of(annotation)).removeprefix('a ')}"
    return _PLAIN.get(annotation, "a mapping")


_PLAIN = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _bare(annotation: Any) -> Any:
    """An annotation without what wraps it."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _bare(_without_none(annotation))
    return annotation


def _without_none(union: Any) -> Any:
    return next(arg for arg in get_args(union) if arg is not type(None))
