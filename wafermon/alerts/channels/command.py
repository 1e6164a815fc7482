"""A command that is run for each alarm, with the alarm as JSON on its standard input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from wafermon.alerts.command import Run
from wafermon.alerts.shapes import as_json
from wafermon.interfaces import Alarm, ChannelContext, IChannel, IChannelFactory, Options, RetryableError
from wafermon.model.messages import dumps
from wafermon.model.settings import Command


class CommandOptions(Options):
    """A command that is run for each alarm. One that ends with another status than 0 is run again."""

    command: Command


class Runs:
    """Runs of one command, one at a time."""

    def __init__(self, command: Command, reactor: Any) -> None:
        self._command = command
        self._reactor = reactor
        self._run: Run | None = None

    def run(self, given: Mapping[str, Any]) -> Deferred[str]:
        """With that as JSON on its standard input. Fires with what went wrong; with an empty string where it ended with 0."""
        self._run = run = Run(dumps(dict(given)).encode() + b"\n", self._reactor)
        ended: Deferred[str] = Deferred(lambda _: run.terminate())
        run.ended.addCallback(lambda problem: None if ended.called else ended.callback(problem))
        run.start(self._command)
        return ended

    def close(self) -> Deferred[None]:
        """End one that runs. Does not wait for its end."""
        if self._run is not None:
            self._run.terminate()
        return succeed(None)


@implementer(IChannel)
class CommandChannel:
    resolves = True

    def __init__(self, options: CommandOptions, context: ChannelContext) -> None:
        self._runs = Runs(options.command, context.reactor)

    def send(self, alarm: Alarm) -> Deferred[None]:
        return Deferred.fromCoroutine(self._send(alarm))

    async def _send(self, alarm: Alarm) -> None:
        if problem := await self._runs.run(as_json(alarm)):
            raise RetryableError(f"the command failed: {problem}")

    def close(self) -> Deferred[None]:
        return self._runs.close()


@implementer(IChannelFactory)
class CommandFactory:
    """`plugin: command`."""

    name = "command"
    options = CommandOptions

    def build(self, options: CommandOptions, context: ChannelContext) -> IChannel:
        return CommandChannel(options, context)


command = CommandFactory()
