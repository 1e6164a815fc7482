"""A past with nothing to install: compressed lines and small tables in SQLite files, one per day. docs/history.md tells more."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from zope.interface import implementer

from wafermon.backends.history.backend import HistoryBackend
from wafermon.backends.history.codec import has_zstd
from wafermon.backends.history.place import problem_of
from wafermon.interfaces import BackendContext, Duration, FilePath, IBackendFactory, Kind, Options, Size, Text
from wafermon.model.settings import BatchLimits


class HistoryOptions(Options):
    """The past of jobs, traces and events, in SQLite files that this sidecar keeps itself."""

    dir: FilePath = Field(
        description="Where the files are, one per day of receive time: a directory of its own, on a local disk.",
        examples=["/var/lib/wafermon/history"],
    )
    keep: Duration = Field(default=30 * 86_400.0, description="After this time a day's file is removed; 0 never.")
    max_bytes: Size = Field(
        default=10 << 30, description="Of all files: beyond it the oldest one is removed; 0 is no limit."
    )
    index: tuple[Text, ...] = Field(
        default=(),
        description="Keys of events' `context` whose values are looked up fast, such as `[wafer, lot]`.",
    )
    kinds: Annotated[Mapping[str, Text], Kind("names with a glob each")] = Field(
        default_factory=dict,
        description='Names for kinds of jobs, each with a glob over job ids: `{nightly: "load-*"}`. Others are named by their '
        "ids without digits and dates.",
    )
    compress: Literal["auto", "zlib", "zstd"] = Field(
        default="auto",
        description="How lines are compressed: `auto` is zstd where its package is installed, else zlib.",
    )

    @property
    def claims(self) -> tuple[str, ...]:
        """What all paths start with."""
        return (os.path.join(str(self.dir), ""),)

    @field_validator("index", mode="before")
    @classmethod
    def _index(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError("expected a list of context keys, such as [wafer, lot]")
        if len(value) > 16:
            raise ValueError(f"expected at most 16 keys, got {len(value)}: each costs space in every file")
        return tuple(value)

    @field_validator("max_bytes")
    @classmethod
    def _max_bytes(cls, value: int) -> int:
        if 0 < value < 1 << 20:
            raise ValueError("expected at least 1MiB, or 0 for no limit")
        return value

    @field_validator("compress")
    @classmethod
    def _installed(cls, value: str) -> str:
        if value == "zstd" and not has_zstd():
            raise ValueError("zstd needs a package that is not installed; pip install 'wafermon[zstd]'")
        return value


@implementer(IBackendFactory)
class HistoryFactory:
    """`plugin: history`"""

    name = "history"
    options = HistoryOptions

    batch = BatchLimits(messages=20_000, bytes=8 << 20, age=1.0)
    """What is summed up is written once per batch."""
    always = ("stats",)
    """Types of message that it gets whatever the rules say."""

    def examine(self, options: HistoryOptions) -> Sequence[str]:
        """What would keep it from working. Blocks, and changes nothing."""
        problem = problem_of(Path(options.dir))
        return [problem] if problem else []

    def build(self, options: HistoryOptions, context: BackendContext) -> HistoryBackend:
        return HistoryBackend(options, context)


history = HistoryFactory()
