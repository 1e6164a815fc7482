"""Log records as events of wafermon: `logging.getLogger().addHandler(MonitoringHandler(service="file-receiver"))`.

A record keeps the time at which it was made and, however many queues it passes, the trace and span it was made in.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any, Optional

from monitoring_sdk import MonitoringSDK
from monitoring_sdk.trace import Scope

_SCOPES = "wafermon_scopes"


class _Stamp:
    """A factory of log records that also notes trace and span of each SDK that has a handler."""

    def __init__(self) -> None:
        self.sdks: weakref.WeakSet[MonitoringSDK] = weakref.WeakSet()
        self._factory = logging.getLogRecordFactory()

    def __call__(self, *args: Any, **named: Any) -> logging.LogRecord:
        record = self._factory(*args, **named)
        scopes = {}
        for sdk in list(self.sdks):
            scope = sdk._current()
            scopes[sdk._sender.service] = (scope.trace_id, scope.span_id)  # plain, since a queue may pickle it
        setattr(record, _SCOPES, scopes)
        return record

    @classmethod
    def of_process(cls) -> _Stamp:
        """The one that makes the records now, installed where there is none yet."""
        factory = logging.getLogRecordFactory()
        if not isinstance(factory, cls):
            factory = cls()
            logging.setLogRecordFactory(factory)
        return factory


class MonitoringHandler(logging.Handler):
    """Sends the standard library's log records as events.

    What `extra` brought along joins the context, as do `exception` and `stack` where a record has them. A formatter is
    not used: what it would put into the text is in the event's own fields.

    :param sdk: what to send them with; else an SDK of the handler's own, which its `close` closes
    :param level: records below it are left out, as in every handler
    :param service: of the own SDK; `options` are its other arguments: url, trace_id, buffer, spill_dir, token
    :raises TypeError: both an SDK and what one would be opened with
    """

    _USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", _SCOPES}

    def __init__(
        self,
        sdk: Optional[MonitoringSDK] = None,
        level: int | str = logging.NOTSET,
        service: Optional[str] = None,
        **options: Any,
    ) -> None:
        super().__init__(level)
        if sdk is not None and (service is not None or options):
            raise TypeError("give an SDK, or a service and options to open one with, not both")
        self._own = sdk is None
        self._sdk = MonitoringSDK(service, **options) if sdk is None else sdk
        self._formatter = logging.Formatter()
        _Stamp.of_process().sdks.add(self._sdk)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = ("debug", "info", "warning", "error", "critical")[min(max(record.levelno // 10, 1), 5) - 1]
            made = int(record.created * 1e9)
            self._sdk._log(level, record.getMessage(), self._context(record), made, self._scope(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the SDK too, where it is the handler's own."""
        if self._own:
            self._sdk.close()
        super().close()

    def _context(self, record: logging.LogRecord) -> dict[str, Any]:
        context: dict[str, Any] = {"logger": record.name, "file": record.filename, "line": record.lineno}
        context.update((key, value) for key, value in record.__dict__.items() if key not in self._USUAL)
        if record.exc_info and record.exc_info[0]:
            context["exception"] = self._formatter.formatException(record.exc_info)
        elif record.exc_text:
            context["exception"] = record.exc_text
        if record.stack_info:
            context["stack"] = self._formatter.formatStack(record.stack_info)
        return context

    def _scope(self, record: logging.LogRecord) -> Optional[Scope]:
        """That in which the record was made; None, which means the current one, where nobody has noted it."""
        noted = getattr(record, _SCOPES, {}).get(self._sdk._sender.service)
        return Scope(*noted) if noted else None
