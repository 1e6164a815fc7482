"""The `hooks` of a config: a channel whose command gets the event itself on its standard input, and no digest.

A command that fails is run again a few times. What is beyond `at_most` is counted, and not told later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from wafermon.alerts.channel import Channel
from wafermon.alerts.channels.command import Runs
from wafermon.interfaces import Alarm, IChannel, PermanentError, RetryableError
from wafermon.model.alerts import AlertConfig
from wafermon.model.checking import checked
from wafermon.model.settings import Command, Hooks

CURSOR = "!hooks"
TRIES = 3
"""So often a command is run for one event, where it fails."""


@implementer(IChannel)
class Hook:
    """The operator's command."""

    digests = False

    def __init__(self, command: Command, reactor: Any) -> None:
        self._runs = Runs(command, reactor)
        self._failed = ("", 0)
        """The alarm's id for which it failed last, and how often in a row."""

    def send(self, alarm: Alarm) -> Deferred[None]:
        return Deferred.fromCoroutine(self._send(alarm))

    async def _send(self, alarm: Alarm) -> None:
        problem = await self._runs.run(alarm.event)
        if not problem:
            return
        tries = self._failed[1] + 1 if self._failed[0] == alarm.id else 1
        self._failed = alarm.id, tries
        raise (PermanentError if tries >= TRIES else RetryableError)(problem)

    def close(self) -> Deferred[None]:
        return self._runs.close()


def channel_config(hooks: Hooks) -> AlertConfig:
    """What the channel of `hooks` is told of, and how often."""
    given = {"plugin": "command", "name": "hooks", "on": hooks.on, "at_most": str(hooks.at_most)}
    return checked(AlertConfig, given)


def hook_figures(hooks: Channel) -> Mapping[str, int | str]:
    """What is shown of it: events that were told, runs that failed, events beyond `at_most` or beyond what the outbox holds, and
    what was wrong with the latest run."""
    return {
        "told": hooks.sent,
        "failed": hooks.failed + hooks.refused,
        "skipped": hooks.skipped + hooks.dropped,
        "error": hooks.error,
    }
