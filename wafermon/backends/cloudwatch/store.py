"""Batches to log streams. At least once: CloudWatch Logs knows no request again.

What of a batch was taken is remembered until the batch is: a try that fails halfway, and a batch that comes again without what was
refused, repeat nothing. Only a reply that is lost, or a kill before the position is written down, does: at most one batch is there twice.
All of it blocks, and runs in one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from wafermon.backends.aws.client import Client
from wafermon.backends.aws.failures import CallFailed
from wafermon.backends.cloudwatch.cutting import REQUEST_BYTES, Entry, cuts
from wafermon.backends.cloudwatch.metrics import embedded
from wafermon.backends.cloudwatch.options import CloudWatchOptions
from wafermon.backends.filesystem.names import safe
from wafermon.backends.threaded.record import Record
from wafermon.files import Files
from wafermon.interfaces import BackendContext, Batch, PermanentError, Position, Refused
from wafermon.model.messages import Message, Metric

OLDEST_MS = 14 * 86_400_000
NEWEST_MS = 2 * 3_600_000
PLACE_MOST = 120
"""Bytes of a value in a stream's name: with three of them it stays within 512."""
TOO_OLD = "its time is more than 14 days ago: CloudWatch Logs takes no such event"
EXPIRED = "its time is before what the log group's retention keeps"
TOO_NEW = "its time is more than 2 hours ahead: CloudWatch Logs takes no such event; look at that machine's clock"
TOO_LARGE = f"it has more than the {REQUEST_BYTES} bytes that CloudWatch Logs takes"
_CODES = {TOO_OLD: "too_old", EXPIRED: "expired", TOO_NEW: "too_new", TOO_LARGE: "too_large"}


class CloudWatchStore:
    """See the module."""

    exactly_once = False

    def __init__(self, options: CloudWatchOptions, context: BackendContext, files: Files | None = None) -> None:
        self.figures: Mapping[str, float] = {"requests": 0, "events": 0, "metrics": 0}
        self._options = options
        self._wall: Callable[[], float] = context.wall
        self._client = Client("logs", options, context.timeout, options.place)
        self._record = Record(context.state_dir / "position.json", files or Files())
        self._taken: set[Position] = set()
        """Where the journal holds the messages that were taken of a batch which is not stored as a whole."""

    def open(self) -> Position | None:
        """Raises OSError."""
        found = self._record.load()
        try:
            return Position.parse(found["position"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def write(self, batch: Batch) -> None:
        """Raises RetryableError, PermanentError, Refused or OSError."""
        if batch.count:
            self._send(batch)
        self._record.save({"position": str(batch.end)})
        end = batch.end
        self._taken = {one for one in self._taken if one.journal == end.journal and one >= end}

    def close(self) -> None:
        self._client.drop()

    def abort(self) -> None:
        self._client.abort()

    # -- one batch

    def _send(self, batch: Batch) -> None:
        taken = (
            {index for index in range(batch.count) if batch.position(index) in self._taken} if self._taken else set()
        )
        refused: dict[int, str] = {}
        try:
            for stream, entries in self._streams(batch, taken).items():
                refused.update({entry.number: TOO_LARGE for entry in entries if not entry.fits})
                for cut in cuts(entry for entry in entries if entry.fits):
                    rejected = self._put(stream, cut)
                    refused.update(rejected)
                    taken.update(entry.number for entry in cut if entry.number not in rejected)
        except BaseException:
            self._remember(batch, taken)
            raise
        if refused:
            self._remember(batch, taken)
            raise _refusal(refused, batch.count)

    def _remember(self, batch: Batch, taken: Iterable[int]) -> None:
        self._taken |= {batch.position(index) for index in taken}

    def _streams(self, batch: Batch, without: Collection[int]) -> dict[str, list[Entry]]:
        """What is to be sent, by stream."""
        streams: dict[str, list[Entry]] = {}
        names: dict[tuple[Any, ...], str] = {}
        as_metrics = 0
        for index, (message, line) in enumerate(zip(batch.messages, batch.lines, strict=True)):
            if index in without:
                continue
            if self._options.metrics == "emf" and isinstance(message, Metric):
                found = embedded(line, message, self._options.namespace, self._options.dimensions)
                as_metrics += found is not None
                line = found or line
            values = (message.service, message.host, message.type)
            if values not in names:
                names[values] = self._stream(message)
            streams.setdefault(names[values], []).append(Entry(index, int(message.ts or 0) // 1000, line))
        self._count(metrics=as_metrics)
        return streams

    def _stream(self, message: Message) -> str:
        text = self._options.log_stream
        for field, value in (("service", message.service), ("host", message.host), ("type", message.type)):
            text = text.replace(f"{{{field}}}", safe(str(value or "unknown"), PLACE_MOST))
        return text

    def _put(self, stream: str, cut: list[Entry]) -> dict[int, str]:
        """Send one request; answers with what was rejected, and why, by the messages' indices."""
        info = self._request(stream, cut)
        if not info:
            return {}
        if len(cut) == 1:
            return {cut[0].number: _reason(info)}
        rejected = _named(info, cut)
        # Where the ends of the stretches are one off, a rejected event would be lost: what could be one is sent once more, alone.
        for entry in self._doubtful(info, cut):
            if entry.number not in rejected and (alone := self._request(stream, [entry])):
                rejected[entry.number] = _reason(alone)
        return rejected

    def _doubtful(self, info: Mapping[str, int], cut: list[Entry]) -> list[Entry]:
        """What may have been rejected without being named: AWS does not say whether the end of what is expired counts."""
        now = self._wall() * 1000
        edge = info.get("expiredLogEventEndIndex", -1)
        return [
            entry
            for place, entry in enumerate(cut)
            if place == edge or not now - OLDEST_MS <= entry.time <= now + NEWEST_MS
        ]

    def _request(self, stream: str, cut: list[Entry]) -> Mapping[str, int]:
        """PutLogEvents; what it says of rejected events."""
        events = [{"timestamp": entry.time, "message": entry.line.decode()} for entry in cut]
        where = {"logGroupName": self._options.log_group, "logStreamName": stream}
        try:
            answer = self._client.call("put_log_events", logEvents=events, **where)
        except CallFailed as error:
            if error.code == "InvalidParameterException":
                raise PermanentError(str(error), error.code) from error
            if error.code != "ResourceNotFoundException":
                raise
            self._make(where)
            answer = self._client.call("put_log_events", logEvents=events, **where)
        self._count(requests=1, events=len(cut))
        info: Mapping[str, int] = answer.get("rejectedLogEventsInfo") or {}
        return info

    def _make(self, where: Mapping[str, str]) -> None:
        """The stream, and the group where that may be made."""
        try:
            self._create("create_log_stream", **where)
        except CallFailed as error:
            if error.code != "ResourceNotFoundException":
                raise
            if not self._options.create_group:
                text = f"{self._options.place} is not there; create it, or set `create_group: true`"
                raise CallFailed(text, code=error.code, status=error.status, may_be_done=False) from error
            self._create("create_log_group", logGroupName=where["logGroupName"])
            self._create("create_log_stream", **where)

    def _create(self, operation: str, **what: str) -> None:
        try:
            self._client.call(operation, **what)
        except CallFailed as error:
            if error.code != "ResourceAlreadyExistsException":
                raise

    def _count(self, **more: int) -> None:
        self.figures = {name: figure + more.get(name, 0) for name, figure in self.figures.items()}


def _named(info: Mapping[str, int], cut: list[Entry]) -> dict[int, str]:
    """By AWS's words: the ends of the old are exclusive, the start of the new is inclusive."""
    rejected = {entry.number: EXPIRED for entry in cut[: info.get("expiredLogEventEndIndex", 0)]}
    rejected.update({entry.number: TOO_OLD for entry in cut[: info.get("tooOldLogEventEndIndex", 0)]})
    rejected.update({entry.number: TOO_NEW for entry in cut[info.get("tooNewLogEventStartIndex", len(cut)) :]})
    return rejected


def _reason(info: Mapping[str, int]) -> str:
    """Of the one event of a request."""
    if "tooNewLogEventStartIndex" in info:
        return TOO_NEW
    return TOO_OLD if "tooOldLogEventEndIndex" in info else EXPIRED


def _refusal(refused: Mapping[int, str], count: int) -> Refused:
    """Where no message of a batch is taken, it may be this machine's clock that is wrong: one is left for the delivery to judge by."""
    named = dict(refused)
    if len(named) == count and count > 1:
        del named[max(named)]
    return Refused(named, _CODES[next(iter(named.values()))])
