"""Batches as requests. At least once: OTLP knows no request again.

A batch is up to three signals, of one or more requests each. After each request that was taken it is written down, durably, how far its
signal is; so where another one fails, for however long and over restarts, nothing of it is sent again. Only a reply that is lost, or a
kill between a reply and that note, repeats a request.
All of it blocks, and runs in one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.logger import Logger

from wafermon.backends.otlp.mapping import Item, items_of
from wafermon.backends.otlp.options import OtlpOptions
from wafermon.backends.otlp.requests import Counters, Made, request_of
from wafermon.backends.otlp.sending import Sender, Sent, TooLarge
from wafermon.backends.threaded.record import Record
from wafermon.files import Files
from wafermon.interfaces import BackendContext, Batch, Position, Refused
from wafermon.model.errors import printable
from wafermon.model.lograte import LogRate
from wafermon.wire.otlp.shapes import SIGNALS, Signal

REQUEST_BYTES = 16 << 20
"""The largest request before it is packed: receivers refuse those above 20 MiB."""
LEAST_BYTES = 64 << 10
"""Whatever a receiver calls too large, requests are not made smaller on purpose than this."""


class OtlpStore:
    """See the module."""

    log = Logger()
    exactly_once = False

    def __init__(self, options: OtlpOptions, context: BackendContext, files: Files | None = None) -> None:
        self.figures: Mapping[str, float] = dict.fromkeys(("requests", "bytes", "rejected", *SIGNALS), 0)
        """`bytes` as sent; `rejected` and the signals in records."""
        self._options = options
        self._wall: Callable[[], float] = context.wall
        self._name = context.name
        self._as_now = context.as_now
        self._sender = Sender(options, context.timeout, context.reactor.seconds, context.wall)
        self._record = Record(context.state_dir / "position.json", files or Files())
        self._position: Position | None = None
        self._ahead: dict[Signal, Position] = {}
        """How far a signal is, where that is further than all of them are."""
        self._counters = Counters(options.temporality == "cumulative", self._now())
        self._request_bytes = REQUEST_BYTES
        self._about_rejected = LogRate(context.reactor.seconds)

    def open(self) -> Position | None:
        """Raises OSError."""
        found = self._record.load()
        try:
            position = Position.parse(found["position"]) if found.get("position") else None
            places = {signal: Position.parse(found["ahead"][signal]) for signal in SIGNALS if signal in found["ahead"]}
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        self._position = position
        self._ahead = {signal: self._as_now(place) for signal, place in places.items()}
        return position

    def write(self, batch: Batch) -> None:
        """Raises RetryableError, PermanentError, Refused or OSError."""
        if batch.count:
            self._send(batch)
        ahead = {signal: at for signal, at in self._ahead.items() if at.journal == batch.end.journal and at > batch.end}
        self._save(batch.end, ahead)

    def close(self) -> None:
        self._sender.close()

    def abort(self) -> None:
        self._sender.abort()

    # -- one batch

    def _send(self, batch: Batch) -> None:
        pending = [(signal, found) for signal in self._options.signals if (found := self._items(signal, batch))]
        for place, (signal, items) in enumerate(pending):
            self._send_signal(signal, batch, items, is_last=place == len(pending) - 1)

    def _items(self, signal: Signal, batch: Batch) -> list[Item]:
        """What of a batch is still to be sent of a signal."""
        ahead, start = self._ahead.get(signal), batch.start
        known = ahead if ahead is not None and ahead.journal == start.journal and ahead > start else None
        items: list[Item] = []
        for index, message in enumerate(batch.messages):
            if known is None or batch.position(index) >= known:
                items += items_of(signal, message, index, batch.received[1], progress=self._options.progress)
        return items

    def _send_signal(self, signal: Signal, batch: Batch, items: list[Item], *, is_last: bool) -> None:
        pending = [items]
        while pending:
            part = pending.pop(0)
            made = request_of(signal, part, self._options.resource, self._counters)
            body = self._sender.encode(signal, made.request)
            parts = _halves(part)
            if len(body) > self._request_bytes and parts:
                pending[:0] = parts
                continue
            try:
                sent = self._sender.send(signal, body)
            except TooLarge:
                if not parts:
                    raise
                self._request_bytes = max(LEAST_BYTES, min(self._request_bytes, len(body)) // 2)
                pending[:0] = parts
                continue
            self._taken(signal, part, made, sent)
            if pending or not is_last:
                self._note(signal, batch.position(pending[0][0].number) if pending else batch.end)

    def _taken(self, signal: Signal, items: Sequence[Item], made: Made, sent: Sent) -> None:
        """Raises Refused where the receiver has taken none of it."""
        rejected = min(sent.rejected, made.records)
        more = {"requests": 1, "bytes": sent.bytes, signal: made.records - rejected, "rejected": rejected}
        self.figures = {name: figure + more.get(name, 0) for name, figure in self.figures.items()}
        reason = printable(sent.reason) or "the receiver rejects it and does not say why"
        if rejected and rejected == made.records:
            raise Refused({item.number: reason for item in items}, "rejected")
        self._counters.keep(made.changes, self._now())
        if not rejected:
            return
        self._about_rejected.log(lambda: self._complain(signal, rejected, made.records, reason), self._tell)

    def _complain(self, signal: Signal, rejected: int, records: int, reason: str) -> None:
        self.log.warn(
            "Backend {name}: {rejected} of {records} {signal} were rejected, and it was not said which: {reason}",
            name=self._name, rejected=rejected, records=records, signal=signal, reason=reason,
        )  # fmt: skip

    def _tell(self, what: str) -> None:
        self.log.warn("Backend {name}: about what is rejected: {what}", name=self._name, what=what)

    def _now(self) -> int:
        return int(self._wall() * 1_000_000) * 1000

    # -- what is written down

    def _note(self, signal: Signal, at: Position) -> None:
        self._save(self._position, {**self._ahead, signal: at})

    def _save(self, position: Position | None, ahead: Mapping[Signal, Position]) -> None:
        said = {signal: str(at) for signal, at in ahead.items()}
        self._record.save({"position": str(position) if position else None, "ahead": said})
        self._position, self._ahead = position, dict(ahead)


def _halves(items: list[Item]) -> list[list[Item]]:
    """Two parts of what is to be sent, no message in both; none where it is of one message."""
    first, last = items[0].number, items[-1].number
    if first == last:
        return []
    middle = items[len(items) // 2].number
    if middle == first:
        middle = next(item.number for item in items if item.number > first)
    at = next(place for place, item in enumerate(items) if item.number >= middle)
    return [items[:at], items[at:]]
