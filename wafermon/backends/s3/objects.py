"""What an object is called, what is written down before it is stored, and what its metadata says. Pure.

    PREFIX dt=2026-11-24/hour=06/5af1c0de5af1c0de-0000000001-000000004096.ndjson.gz

The date and the hour are UTC, of when the first message was received; then come the journal, and where in it the batch begins. With
conditional writes the name holds no end: whatever cuts of the journal are tried from one beginning, one of them is stored. Without
them it holds the end and a checksum too: of two cuts both stay, since the later request must not overwrite more than it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import gmtime, strftime
from typing import Any
from zlib import crc32

from wafermon.backends.s3.codecs import CODECS
from wafermon.backends.s3.options import S3Options
from wafermon.interfaces import Batch, Position

END, COUNT, CRC, FENCE = "wafermon-end", "wafermon-count", "wafermon-crc", "wafermon-fence"
"""Keys of an object's metadata."""


@dataclass(frozen=True)
class Intent:
    """An object that is about to be stored, or may be there already. It keeps what the config said when it was begun."""

    endpoint_url: str | None
    region: str | None
    bucket: str
    key: str
    codec: str
    conditional: bool
    start: str
    end: str
    crc: int

    @classmethod
    def read(cls, found: Any) -> Intent | None:
        """What `asdict` wrote; None for anything else."""
        try:
            intent = cls(**found)
            Position.parse(intent.start)
            Position.parse(intent.end)
        except (AttributeError, TypeError, ValueError):
            return None
        return intent if intent.codec in CODECS else None

    def written(self) -> dict[str, Any]:
        return asdict(self)


def intent_of(batch: Batch, options: S3Options) -> Intent:
    """Where a batch goes, by the config."""
    received = batch.received[0] or batch.block.first
    when = gmtime(received / 1e6)
    name = _named(batch.start)
    crc = crc32(batch.raw)
    if not options.conditional:
        name += f"-{_named(batch.end) if batch.end.journal != batch.start.journal else _place(batch.end)}-{crc:08x}"
    key = f"{options.prefix}dt={strftime('%Y-%m-%d', when)}/hour={strftime('%H', when)}/{name}{CODECS[options.compress].suffix}"
    return Intent(
        endpoint_url=options.endpoint_url, region=options.region, bucket=options.bucket, key=key, codec=options.compress,
        conditional=options.conditional, start=str(batch.start), end=str(batch.end), crc=crc,
    )  # fmt: skip


def _named(position: Position) -> str:
    return f"{position.journal}-{_place(position)}"


def _place(position: Position) -> str:
    return f"{position.segment:010d}-{position.offset:012d}"


def beside(intent: Intent, number: int) -> str:
    """The key to take where the intent's own is fenced off, for the `number`th time."""
    suffix = CODECS[intent.codec].suffix
    return f"{intent.key.removesuffix(suffix)}.{number}{suffix}"


def metadata_of(intent: Intent, count: int) -> dict[str, str]:
    return {END: intent.end, COUNT: str(count), CRC: f"{intent.crc:08x}"}


@dataclass(frozen=True)
class Stored:
    """What an object's metadata says of it."""

    end: Position | None
    """None: it is no object of ours."""
    crc: str
    fence: bool
    """It keeps a late request from being stored, and holds nothing."""

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> Stored:
        known = {key.lower(): value for key, value in metadata.items()}
        try:
            end: Position | None = Position.parse(known[END])
        except (KeyError, ValueError):
            end = None
        return cls(end, known.get(CRC, ""), FENCE in known)

    def is_what(self, intent: Intent) -> bool:
        """Whether it is what was to be stored, to the byte."""
        return str(self.end) == intent.end and self.crc == f"{intent.crc:08x}" and not self.fence
