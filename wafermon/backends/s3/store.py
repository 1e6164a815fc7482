"""One batch, one object, each once.

Before an object is stored, an intent is made durable in `state_dir`: where the batch begins, and under which key it goes. It stays
until the object is known to be there, or known never to come: a request whose answer was lost may be carried out at any time, even
after the next start. Each further try takes the same key, whatever the config says by then, and the server lets one of all tries be
stored (`If-None-Match`). Which one that was is asked for after a 412:

- the same batch: its reply was lost, and all is well;
- another cut of the same lines: `PositionMoved`, and the delivery goes on at that one's end;
- other lines: two sidecars run on copies of one journal, and nothing is stored until that is put right.

Where the delivery goes on elsewhere than at the intent's start (it had to skip), an empty object is put under the key first, so that
what is still on its way is refused. All of it blocks, and runs in one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from zlib import crc32

from twisted.logger import Logger

from wafermon.backends.aws.failures import CallFailed
from wafermon.backends.s3.bucket import Buckets, Exists
from wafermon.backends.s3.objects import Intent, Stored, beside, intent_of
from wafermon.backends.s3.options import S3Options
from wafermon.backends.threaded.record import Record
from wafermon.files import Files
from wafermon.interfaces import BackendContext, Batch, PermanentError, Position, PositionMoved, RetryableError

FENCES_MOST = 100
"""So many keys are tried for one beginning, should each be fenced off."""


class S3Store:
    """See the module."""

    log = Logger()

    def __init__(
        self, options: S3Options, context: BackendContext, files: Files | None = None, buckets: Buckets | None = None
    ) -> None:
        self.exactly_once = options.conditional
        self.figures: Mapping[str, float] = {"objects": 0, "stored_bytes": 0, "line_bytes": 0}
        self._options = options
        self._buckets = buckets or Buckets(options, context.timeout)
        self._record = Record(context.state_dir / "position.json", files or Files())
        self._position: Position | None = None
        self._intent: Intent | None = None
        self._sure = False
        """Whether the intent's object is known not to be there, nor on its way."""
        self._tried = False

    # -- what the backend calls

    def open(self) -> Position | None:
        """Where the next batch begins. Raises RetryableError or OSError."""
        self._load()
        intent = self._intent
        if intent is not None and self._is_there(intent):
            self._settle(Position.parse(intent.end))
        if not self._tried:
            if problem := self._buckets.try_out():
                raise RetryableError(problem)
            self._tried = True
        return self._position

    def _is_there(self, intent: Intent) -> bool:
        try:
            found = self._buckets.look(intent)
        except CallFailed as error:
            raise (error if self._buckets.is_configured(intent) else self._stuck(intent, error)) from error
        return found is not None and found.is_what(intent)

    def write(self, batch: Batch) -> None:
        """Raises RetryableError, PermanentError or OSError."""
        if self._intent is not None and not (batch.count and self._intent.start == str(batch.start)):
            self._withdraw(self._intent)
        if not batch.count:
            self._settle(batch.end)
            return
        if self._intent is None or not self._intent.conditional:
            self._position = batch.start
            self._sure = True
            self._keep(intent_of(batch, self._options))
        elif (self._intent.end, self._intent.crc) != (str(batch.end), crc32(batch.raw)):
            self._keep(replace(self._intent, end=str(batch.end), crc=crc32(batch.raw)))
        self._store(batch)

    def close(self) -> None:
        self._buckets.close()

    def abort(self) -> None:
        self._buckets.abort()

    # -- the object

    def _store(self, batch: Batch) -> None:
        intent = first = self._intent
        assert intent is not None and first is not None
        for number in range(1, FENCES_MOST):
            if self._put(intent, batch):
                self._settle(batch.end)
                return
            intent = replace(intent, key=beside(first, number))
            self._keep(intent)
        raise RetryableError(
            f"{self._options.place}: {FENCES_MOST} keys for one beginning are fenced off; look at what is there"
        )

    def _put(self, intent: Intent, batch: Batch) -> bool:
        """Whether the batch is stored; False: the key is fenced off."""
        try:
            size = self._buckets.put(intent, batch.raw, batch.count)
        except Exists:
            return self._compare(intent, batch.raw)
        except CallFailed as error:
            self._sure = self._sure and not error.may_be_done
            is_gone = error.code == "NoSuchBucket" and not self._buckets.is_configured(intent)
            if self._sure or is_gone:
                self._keep(None)
            if error.code == "EntityTooLarge":
                raise PermanentError(str(error), error.code) from error
            raise (error if is_gone or self._buckets.is_configured(intent) else self._stuck(intent, error)) from error
        before = self.figures
        self.figures = {
            "objects": before["objects"] + 1,
            "stored_bytes": before["stored_bytes"] + size,
            "line_bytes": before["line_bytes"] + len(batch.raw),
        }
        return True

    def _compare(self, intent: Intent, raw: bytes) -> bool:
        """Something is there under the intent's key. Whether that is what was to be stored; False: it is a fence."""
        self._sure = False
        place = self._buckets.place(intent)
        found = self._buckets.look(intent)
        if found is None:
            raise RetryableError(f"{place} was there and is gone; tried again")
        if found.fence:
            return False
        if found.is_what(intent):
            return True
        theirs = self._buckets.lines(intent) if found.end is not None else None
        if found.end is None or theirs is None or not _one_begins_the_other(raw, theirs):
            raise RetryableError(
                f"{place} holds something else than this journal: if two sidecars run on copies of one journal, give one of them a new "
                "journal.dir; if something else writes there, give this backend a `prefix` of its own"
            )
        self._settle(found.end)
        raise PositionMoved(f"{place} was stored by an earlier request, up to {found.end}")

    def _withdraw(self, intent: Intent) -> None:
        """The delivery does not go on at the intent's start: let nothing be stored there any more."""
        if intent.conditional and not self._sure:
            try:
                self._buckets.fence(intent)
            except Exists:
                found = self._buckets.look(intent)
                if found is not None and not found.fence:
                    self._found_late(intent, found)
            except CallFailed as error:
                if error.code != "NoSuchBucket":
                    raise self._stuck(intent, error) from error
        self._keep(None)

    def _found_late(self, intent: Intent, found: Stored) -> None:
        """It was stored after all, and the delivery is asked to look again."""
        if found.end is None:
            return
        self._settle(found.end)
        raise PositionMoved(f"{self._buckets.place(intent)} was stored by an earlier request, up to {found.end}")

    def _stuck(self, intent: Intent, error: CallFailed) -> RetryableError:
        return RetryableError(
            f"{error}. An object that was begun before may be on its way to {self._buckets.place(intent)}: let the sidecar reach that once "
            f"more, or remove {self._record.path}, by which the lines of that one object may be stored twice"
        )

    # -- what is written down

    def _load(self) -> None:
        found = self._record.load()
        try:
            self._position = Position.parse(found["position"]) if found.get("position") else None
        except (AttributeError, TypeError, ValueError):
            self._position = None
        self._intent = Intent.read(found["intent"]) if found.get("intent") else None
        self._sure = False

    def _keep(self, intent: Intent | None) -> None:
        """Make durable what is about to be stored, or that nothing is."""
        position = str(self._position) if self._position else None
        self._record.save({"position": position, "intent": intent.written() if intent else None})
        self._intent = intent

    def _settle(self, end: Position) -> None:
        """Make durable what is stored."""
        self._record.save({"position": str(end), "intent": None})
        self._position, self._intent = end, None


def _one_begins_the_other(one: bytes, other: bytes) -> bool:
    least = min(len(one), len(other))
    return one[:least] == other[:least]
