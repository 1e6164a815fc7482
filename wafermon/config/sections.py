"""Checks one mapping of a file against its section, and notes what is wrong with it where the file has it."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from wafermon.config.source import Source
from wafermon.model.checking import Path, problems
from wafermon.model.settings import Section

M = TypeVar("M", bound=Section)


def check_section(source: Source, section: type[M], given: Any, path: Path) -> M | None:
    """A mapping -> its section; None where it has faults, which are noted in the source."""
    try:
        return section.model_validate(given)
    except ValidationError as error:
        for at, problem in problems(section, error):
            source.fault((*path, *at), problem)
    return None
