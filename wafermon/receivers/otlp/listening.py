"""What an open listener for OTLP gives its connections to."""

from __future__ import annotations

from typing import Any

from wafermon.receivers.lines.listeners import OpenListener
from wafermon.receivers.otlp.intake import Intake
from wafermon.receivers.otlp.site import OtlpFactory


class OtlpPort:
    """Requests, each of which is asked for what the listener asks."""

    def __init__(self, intake: Intake, reactor: Any, listener: OpenListener) -> None:
        self.factory = OtlpFactory(intake, listener, reactor)

    def clear(self) -> None:
        """The next request of a client that is connected is refused."""

    def end(self) -> None:
        self.factory.end()
