"""A command that is run for each alarm, with the alarm as JSON on its standard input."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import implementer

from wafermon.alerts.command import Run
from wafermon.alerts.shapes import as_json
from wafermon.interfaces import Alarm, ChannelContext, IChannel, IChannelFactory, Options, RetryableError
from wafermon.model.messages import dumps
from wafermon.model.settings import Command


class CommandOptions(Options):
    """A command that is run for each alarm. One that ends with another status than 0 is run again."""

    command: Command


@implementer(IChannel)
class CommandChannel:
    resolves = True

    def __init__(self, options: CommandOptions, context: ChannelContext) -> None:
        self._options = options
        self._context = context
        self._run: Run | None = None

    def send(self, alarm: Alarm) -> Deferred[None]:
        return Deferred.fromCoroutine(self._send(alarm))

    async def _send(self, alarm: Alarm) -> None:
        self._run = run = Run(dumps(as_json(alarm)).encode() + b"\n", self._context.reactor)
        ended: Deferred[str] = Deferred()
        run.ended.addCallback(ended.callback)
        run.start(self._options.command)
        if problem := await ended:
            raise RetryableError(f"the command failed: {problem}")

    def close(self) -> Deferred[None]:
        if self._run is not None:
            self._run.terminate()
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done


@implementer(IChannelFactory)
class CommandFactory:
    """`plugin: command`."""

    name = "command"
    options = CommandOptions

    def build(self, options: CommandOptions, context: ChannelContext) -> IChannel:
        return CommandChannel(options, context)


command = CommandFactory()
