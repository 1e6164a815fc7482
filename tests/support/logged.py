"""What is logged meanwhile, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher


@contextmanager
def said() -> Iterator[list[str]]:
    """The lines that were logged, each as ``level: text``."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]
