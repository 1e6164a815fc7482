"""Records of Python's logging become events."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import pickle
import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_sidecar import FakeSidecar

from monitoring_logging import MonitoringHandler
from monitoring_sdk import MonitoringSDK

NOBODY = "tcp://127.0.0.1:1"


def test_log_records_become_events(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    """Time, level, text and what `extra` brought; exception and stack."""
    logger = logging.getLogger("tests.records")
    logger.propagate = False
    logger.setLevel(1)
    handler = MonitoringHandler(sdk)
    logger.addHandler(handler)
    try:
        logger.log(5, "trace")
        logger.debug("debug")
        logger.warning("%s rows", 7, extra={"file": "mine", "job": "job-1", "rows": [1, 2]})
        logger.critical("critical")
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    assert sdk.flush()
    levels = [message["level"] for message in sidecar.messages]
    assert levels == ["debug", "debug", "warning", "critical", "error"]
    warning, failed = sidecar.messages[2], sidecar.messages[4]
    assert warning["message"] == "7 rows" and warning["context"]["job"] == "job-1"
    assert warning["context"]["logger"] == "tests.records" and warning["context"]["rows"] == [1, 2]
    assert "ValueError: bad" in failed["context"]["exception"]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.queued")
    logger.propagate = False
    logger.setLevel(1)
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def test_a_record_keeps_its_time(sidecar: FakeSidecar, sdk: MonitoringSDK, logger: logging.Logger) -> None:
    logger.addHandler(logging.handlers.MemoryHandler(100, target=MonitoringHandler(sdk)))
    before = time.time_ns() // 1000
    logger.debug("made")
    after = time.time_ns() // 1000
    time.sleep(0.05)
    logger.error("flushes")
    assert sdk.flush()
    made, flushed = sidecar.messages
    assert before - 1 <= made["ts"] <= after + 1 and flushed["ts"] - made["ts"] >= 50_000


def test_a_queued_record_keeps_its_scope(sidecar: FakeSidecar, sdk: MonitoringSDK, logger: logging.Logger) -> None:
    records: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(records, MonitoringHandler(sdk))
    logger.addHandler(logging.handlers.QueueHandler(records))
    sdk.set_trace_id("job-1")
    with sdk.span("s") as span:
        logger.info("inside", stack_info=True)
    logger.info("outside")
    while not records.empty():  # as if it had come from another process
        listener.handle(pickle.loads(pickle.dumps(records.get())))
    assert sdk.flush()
    inside, outside = [message for message in sidecar.messages if message["type"] == "event"]
    assert (inside["trace_id"], inside["span_id"]) == ("job-1", span)
    assert outside["trace_id"] == "job-1" and "span_id" not in outside
    assert "test_a_queued_record" in inside["message"] + inside["context"].get("stack", "")


def test_stack_info_joins_the_context(sidecar: FakeSidecar, sdk: MonitoringSDK, logger: logging.Logger) -> None:
    logger.addHandler(MonitoringHandler(sdk))
    logger.info("here", stack_info=True)
    assert sdk.flush()
    assert "test_stack_info_joins" in sidecar.messages[0]["context"]["stack"]


def test_a_handler_may_have_an_sdk_of_its_own(sidecar: FakeSidecar, logger: logging.Logger) -> None:
    """As logging.config.dictConfig makes one; its close delivers."""
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "wafermon": {
                "class": "monitoring_logging.MonitoringHandler",
                "service": "configured",
                "url": sidecar.url,
                "level": "INFO",
            }
        },
        "loggers": {"tests.queued": {"handlers": ["wafermon"], "level": "DEBUG"}},
    }
    logging.config.dictConfig(config)
    logger.debug("left out")
    logger.warning("taken", extra={"rows": 3})
    (handler,) = logger.handlers
    handler.close()
    (message,) = sidecar.messages
    assert (message["service"], message["level"], message["message"]) == ("configured", "warning", "taken")
    assert message["context"]["rows"] == 3
    with pytest.raises(TypeError, match="not both"):
        MonitoringHandler(MonitoringSDK("x", NOBODY), service="y")
