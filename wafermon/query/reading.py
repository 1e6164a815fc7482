"""Readers that block, as an `IHistory`: in threads of a backend, or at once where nothing else goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from wafermon.interfaces import (
    ErrorFilter,
    ErrorRecord,
    EventFilter,
    EventRecord,
    Found,
    IHistory,
    JobFilter,
    JobRecord,
    KindRecord,
    Page,
    RetryableError,
    ServiceRecord,
    TraceRecord,
)
from wafermon.model.asking import CannotAsk
from wafermon.model.kinds import Kinds

T = TypeVar("T")


class Reader(Protocol):
    """What `IHistory` promises, without Deferreds. Raises CannotAsk. One that can answer without a part of what is stored says in
    `unread` what the last answer is without, and why."""

    def jobs(self, wanted: JobFilter, page: Page) -> Found[JobRecord]: ...
    def kinds(self, since: int, until: int) -> list[KindRecord]: ...
    def find(self, prefix: str, limit: int) -> list[str]: ...
    def trace(self, trace_id: str, messages: int) -> TraceRecord | None: ...
    def events(self, wanted: EventFilter, page: Page) -> Found[EventRecord]: ...
    def errors(self, wanted: ErrorFilter, page: Page) -> Found[ErrorRecord]: ...
    def services(self, since: int, until: int) -> list[ServiceRecord]: ...


@implementer(IHistory)
class Asked:
    """`reader` says what is asked; `ask` runs what blocks, and its Deferred fails with RetryableError."""

    kinds: Kinds

    @property
    def reader(self) -> Reader:
        raise NotImplementedError

    @property
    def unread(self) -> Sequence[str]:
        """What the last answer is without, in words; see `IHistory`."""
        return getattr(self.reader, "unread", ())

    def ask(self, question: Callable[[], T]) -> Deferred[T]:
        raise NotImplementedError

    def jobs(self, wanted: JobFilter, page: Page) -> Deferred[Found[JobRecord]]:
        return self.ask(lambda: self.reader.jobs(wanted, page))

    def kinds_of_jobs(self, since: int, until: int) -> Deferred[list[KindRecord]]:
        return self.ask(lambda: self.reader.kinds(since, until))

    def find(self, prefix: str, limit: int) -> Deferred[list[str]]:
        return self.ask(lambda: self.reader.find(prefix, limit))

    def trace(self, trace_id: str, messages: int) -> Deferred[TraceRecord | None]:
        return self.ask(lambda: self.reader.trace(trace_id, messages))

    def events(self, wanted: EventFilter, page: Page) -> Deferred[Found[EventRecord]]:
        return self.ask(lambda: self.reader.events(wanted, page))

    def errors(self, wanted: ErrorFilter, page: Page) -> Deferred[Found[ErrorRecord]]:
        return self.ask(lambda: self.reader.errors(wanted, page))

    def services(self, since: int, until: int) -> Deferred[list[ServiceRecord]]:
        return self.ask(lambda: self.reader.services(since, until))


class Direct(Asked):
    """Answers at once: each question blocks, and its Deferred has fired already."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.kinds = Kinds()

    @property
    def reader(self) -> Reader:
        return self._reader

    def ask(self, question: Callable[[], T]) -> Deferred[T]:
        try:
            return succeed(question())
        except CannotAsk as error:
            failed: Deferred[Any] = fail(RetryableError(str(error)))
            return failed
