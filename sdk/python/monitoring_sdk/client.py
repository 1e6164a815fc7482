"""The SDK as programs see it: the calls, and the current span."""

from __future__ import annotations

import contextvars
import os
import re
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import ContextDecorator
from typing import Any, Callable, Optional, TypeVar, Union

from .checks import LEVELS, SERVICE, level_named, name_of, number_of, trace_id_of
from .encoding import EVENT, METRIC, PROGRESS, RESOURCE, SPAN_END, SPAN_START, as_text, copied, copied_tags
from .peer import Peer
from .process import PROCESS
from .sender import BUFFER, Sender
from .trace import OpenSpan, Scope

_Fields = Optional["Mapping[str, Any]"]
_Number = Optional[float]
_Text = Optional[str]
_Level = Union[str, int]
_Function = TypeVar("_Function", bound="Callable[..., Any]")


class BlockSpan(ContextDecorator):
    """A span of a block; as a decorator, one of its own for every call."""

    def __init__(self, sdk: MonitoringSDK, *given: Any) -> None:
        self._sdk = sdk
        self._given = given

    def __enter__(self) -> str:
        self._id = self._sdk.start_span(*self._given)
        return self._id

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._id in self._sdk._spans:
            # closing a generator that is left early is no failure
            self._sdk.end_span(self._id, "ok" if kind in (None, GeneratorExit) else "error")

    def _recreate_cm(self) -> BlockSpan:
        return BlockSpan(self._sdk, *self._given)

    def __call__(self, function: _Function) -> _Function:
        # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR: what these return runs later
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & 0x2A0:
            from .decorated import spanned  # costs as much as half of the rest

            around: _Function = spanned(self._recreate_cm, self._sdk, function)
            return around
        return super().__call__(function)


class MonitoringSDK:
    """One application's line to its sidecar.

    :param service: who is speaking: 1-128 of A-Z a-z 0-9 . _ - : (else WAFERMON_SERVICE, OTEL_SERVICE_NAME)
    :param url: tcp://host:port, unix:///path or tls://host:port (else WAFERMON_URL, else tcp://127.0.0.1:7411)
    :param trace_id: the trace of everything that names no other (else WAFERMON_TRACE_ID, TRACEPARENT)
    :param buffer: how many messages may wait in memory (else WAFERMON_BUFFER, else 1000)
    :param spill_dir: where messages go that find no room there (else WAFERMON_SPILL_DIR, else a default)
    :param token: what the sidecar's listener asks for (else WAFERMON_TOKEN)
    :raises ValueError: no service, or one of these that can't be right

    It can be pickled: what is unpickled, in a spawned child for instance, is an SDK of its own, opened with the same
    arguments and in the same trace.
    """

    def __init__(
        self,
        service: _Text = None,
        url: _Text = None,
        trace_id: _Text = None,
        buffer: int | None = None,
        spill_dir: _Text = None,
        token: _Text = None,
    ) -> None:
        env = os.environ.get
        name = str(service or env("WAFERMON_SERVICE") or env("OTEL_SERVICE_NAME") or "")
        if not SERVICE.fullmatch(name):
            raise ValueError(f"a service is 1 to 128 of A-Z a-z 0-9 . _ - : and not wafermon: {name!r}")
        if buffer is not None and (type(buffer) is not int or buffer < 1):
            raise ValueError(f"a buffer holds at least one message: {buffer!r}")
        self._root = Scope.inherited(None if trace_id is None else trace_id_of(trace_id))
        self._given = (service, url, buffer, spill_dir, token)
        room = re.fullmatch(r"0*[1-9]\d{0,8}", env("WAFERMON_BUFFER", ""))
        self._sender = Sender(
            name,
            Peer(name, url, token or env("WAFERMON_TOKEN")),
            buffer or int(room[0] if room else BUFFER),
            os.fspath(spill_dir) if spill_dir else env("WAFERMON_SPILL_DIR"),
        )
        # what calls touch, at hand: these two stay the same for ever, in a forked child too
        self._inbox = self._sender.inbox
        self._here = self._sender.here
        # one per handle, not one per module: two SDKs in one process have spans of their own
        self._scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("wafermon_scope", default=None)
        self._spans: dict[str, OpenSpan] = {}
        PROCESS.add(self._sender)
        weakref.finalize(self, self._sender.abandon).atexit = False
        self._enter(None)

    def __reduce__(self) -> tuple[Any, ...]:
        service, url, *rest = self._given
        return type(self), (service, url, self._root.trace_id, *rest)

    # -- calls --

    def log_event(self, level: _Level, message: str, context: _Fields = None) -> None:
        """Something happened.

        :param level: debug, info, warning, error or critical; in upper case, as warn, err or fatal, and logging's
            numbers from 10 to 50 too
        :param context: any JSON-like values; other objects are sent as text
        """
        level = LEVELS.get(level) or level_named(level)  # type: ignore[arg-type]
        if message is None:
            raise ValueError("an event has a message")
        if type(message) is not str:
            message = as_text(message)
        # as in _put, spelled out for speed
        if not self._here[0]:
            self._sender.begin_in_child()
        scope = self._scope.get()
        if scope is None:
            scope = self._root
        elif scope.span.over:
            scope = self._current()
        inbox = self._inbox
        inbox.append((EVENT, time.time_ns(), scope, level, message, copied(context)))
        if len(inbox) > self._sender.mark:
            self._sender.attend()

    def log_metric(self, name: str, value: float, unit: _Text = None, tags: _Fields = None, kind: _Text = None) -> None:
        """A measured number. `unit` is UCUM where there is one; `kind` is gauge (default) or counter (an increment)."""
        if kind not in (None, "gauge", "counter"):
            raise ValueError(f"a metric is a gauge or a counter: {kind!r}")
        unit = None if unit is None else as_text(unit)
        kind = "counter" if kind == "counter" else None
        self._put(METRIC, name_of(name), number_of(value), unit, kind, copied_tags(tags))

    def log_progress(self, job_id: str, percent: float, status: str | None = "running") -> None:
        """How far a job is, 0 to 100; `status` done, failed and cancelled end it."""
        try:
            share = number_of(percent)
        except (TypeError, ValueError):
            share = ""
        if isinstance(share, str) or not 0 <= share <= 100:
            raise ValueError(f"a percent is a number from 0 to 100, not {percent!r}")
        status = "running" if status is None else as_text(status)
        if not 1 <= len(status) <= 64:
            raise ValueError(f"a status has 1 to 64 characters: {status!r}")
        self._put(PROGRESS, trace_id_of(job_id), share, status)

    def log_resource(self, cpu: _Number = None, mem: _Number = None, disk: _Number = None, net: _Number = None) -> None:
        """Percent of one core, resident bytes, bytes of disk and of network; without arguments, of this process."""
        fields = [None if value is None else number_of(value) for value in (cpu, mem, disk, net)]
        measured = self._sender.usage.measure() if fields == [None] * 4 else fields
        self._put(RESOURCE, *[None if isinstance(value, str) else value for value in measured])

    def start_span(self, name: str, trace_id: _Text = None, tags: _Fields = None) -> str:
        """Open a span inside the current one; its id, which `end_span` takes."""
        outer = self._current()
        name = name_of(name)
        trace = trace_id_of(trace_id) if trace_id is not None else outer.trace_id or os.urandom(16).hex()
        span_id = os.urandom(8).hex()
        scope = self._alive(self._scope.get())
        span = OpenSpan(trace, span_id, scope, name, outer.span_id, copied_tags(tags))
        self._spans[span_id] = span
        self._enter(span)
        self._put(SPAN_START, span.name, span.parent_id, span.tags, ts=span.ts, scope=span)
        return span_id

    def end_span(self, span_id: str, status: str = "ok", tags: _Fields = None) -> None:
        """Close a span; `tags` join those of its start. Ending a span that a parent process opened sends nothing."""
        if status not in ("ok", "error"):
            raise ValueError(f"a span ends ok or error, not {status!r}")
        merged = copied_tags(tags)
        span = self._spans.pop(span_id, None)
        if span is None:
            raise ValueError(f"no such span is open: {span_id!r}")
        span.over = True
        self._enter(self._alive(self._scope.get()))
        if os.environ.get("WAFERMON_SPAN_ID") == span_id:  # the main thread's, and this is another one
            self._export(self._alive(span.outer))
        if span.pid == os.getpid():
            merged = {**(span.tags or {}), **(merged or {})} or None
            duration = (time.monotonic_ns() - span.started) // 1000
            self._put(SPAN_END, status, span.name, span.ts // 1000, duration, span.parent_id, merged, scope=span)

    def span(self, name: str, trace_id: _Text = None, tags: _Fields = None) -> BlockSpan:
        """A span as `with sdk.span("name") as span_id:`, or as `@sdk.span("name")` around every call of a function.

        It ends with status error when an exception leaves it. Around a coroutine function it ends with the coroutine;
        around a generator it lasts from the first item to the end and is current only while the generator's own code
        runs.
        """
        return BlockSpan(self, name, trace_id, tags)

    def set_trace_id(self, trace_id: str) -> None:
        """From here on, what is logged belongs to this trace; a span that is open ends in its own."""
        self._root = Scope(trace_id_of(trace_id), self._root.span_id)
        inner = self._alive(self._scope.get())
        self._enter(Scope(trace_id, inner.span_id, inner) if inner else None)

    def child_env(self) -> dict[str, str]:
        """The environment for a child process, so that it falls into the current trace, under the current span."""
        variables = self._current().variables()
        # name by name: another thread may take one away meanwhile
        environ = {name: os.environ.get(name) for name in os.environ}
        environ.update({name: value or None for name, value in variables.items()})
        return {name: value for name, value in environ.items() if value is not None}

    def get_stats(self) -> dict[str, Any]:
        """The state and the counts; called = acked + rejected + dropped + waiting + handed_over."""
        return self._sender.stats()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until nothing is waiting; False when that takes longer than `timeout` seconds."""
        return self._sender.flush(timeout)

    def close(self, timeout: float = 2.0) -> None:
        """Deliver what is waiting within `timeout` seconds and leave the rest in a spill file for the sidecar."""
        self._sender.close(timeout)

    def __enter__(self) -> MonitoringSDK:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what they have in common --

    def _put(self, kind: tuple[str, ...], *values: Any, ts: int = 0, scope: Scope | None = None) -> None:
        if not self._here[0]:
            self._sender.begin_in_child()
        self._inbox.append((kind, ts or time.time_ns(), scope or self._current(), *values))
        if len(self._inbox) > self._sender.mark:
            self._sender.attend()

    def _log(self, level: str, message: str, context: _Fields, ts: int, scope: Scope | None) -> None:
        """An event of another time, in nanoseconds since the epoch, and of another scope: for handlers of records."""
        self._put(EVENT, level_named(level), as_text(message), copied(context), ts=ts, scope=scope)

    def _alive(self, scope: Scope | None) -> Scope | None:
        """The innermost scope from this one outwards whose span has not ended, wherever that was."""
        while scope and scope.span.over:
            scope = scope.outer
        return scope

    def _current(self) -> Scope:
        scope = self._scope.get()
        return self._root if scope is None else self._alive(scope) or self._root

    def _enter(self, scope: Scope | None) -> None:
        """From here on, calls are made in it; child processes inherit it from the main thread, which alone exports."""
        self._scope.set(scope)
        if threading.current_thread() is threading.main_thread():
            self._export(scope)

    def _export(self, scope: Scope | None) -> None:
        """Into the environment; nothing is ever taken from it, since other threads may be copying it."""
        for name, value in (scope or self._root).variables().items():
            if os.environ.get(name, "") != value:
                os.environ[name] = value
