"""Log records as events of wafermon: `logging.getLogger().addHandler(MonitoringHandler(sdk))`."""

from __future__ import annotations

import logging

from monitoring_sdk import MonitoringSDK


class MonitoringHandler(logging.Handler):
    """Sends the standard library's log records as events; what `extra` brought along joins the context."""

    _USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

    def __init__(self, sdk: MonitoringSDK, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._sdk = sdk

    def emit(self, record: logging.LogRecord) -> None:
        try:
            context = {"logger": record.name, "file": record.filename, "line": record.lineno}
            context.update((key, value) for key, value in record.__dict__.items() if key not in self._USUAL)
            if record.exc_info:
                context["exception"] = logging.Formatter().formatException(record.exc_info)
            level = ("debug", "info", "warning", "error", "critical")[min(max(record.levelno // 10, 1), 5) - 1]
            self._sdk.log_event(level, record.getMessage(), context)
        except Exception:
            self.handleError(record)
