"""All streams of a journal by their numbers: how far each has come, what of it never came, and which are the spill files of which SDK.

The marks of a group say how far each stream is, its messages and rejected lines how many came. Only where these differ is it looked for
what is missing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from msgspec import UNSET

from wafermon.correlation.accounts import Account
from wafermon.correlation.stream import Said, Stream
from wafermon.journal import Group, Mark, Rejected

STREAMS = 50_000
DONE = 10_000
"""Streams that have said their last word, of which only the mark is remembered."""
GAPS = 16
"""Of one stream that are known one by one."""
ALL_FILES = 100_000
"""Spill files of all SDKs together that were named and are not there."""
FORGOTTEN = 30 * 86_400_000_000
"""So long, in microseconds, marks are remembered: a stream that comes again later begins anew."""


class Streams:
    def __init__(self) -> None:
        self.by_client: OrderedDict[str, Stream] = OrderedDict()
        """The one heard last comes last."""
        self.done: OrderedDict[str, int] = OrderedDict()
        self.expected: dict[str, str] = {}
        """The SDKs that named spill files of which nothing has come, by the file's client."""
        self.sure = 0
        """From here on a stream that is not known is new, and its first number is 1."""
        self.files = 0
        """How many spill files were named and are not there."""

    def restore(
        self,
        sure: int,
        streams: Iterable[tuple[str, Stream]],
        done: Iterable[tuple[str, int]],
        expected: dict[str, str],
    ) -> None:
        """As they were in a snapshot."""
        self.sure, self.by_client = sure, OrderedDict(streams)
        self.done, self.expected = OrderedDict(done), expected
        self.files = sum(len(stream.files) for stream in self.by_client.values())

    def begin_late(self, now: int) -> None:
        """Some that come now may have come before."""
        self.sure = max(self.sure, now + FORGOTTEN)

    def take_mark(self, mark: Mark, group: Group, now: int, came: int, refused: Sequence[Rejected]) -> None:
        """`came`: how many messages of it are in the group; `refused`: its lines that are none."""
        stream = self.by_client.get(mark.client)
        if stream is None:
            first = self.done.pop(mark.client, None)
            if first is None:
                unsure = now < self.sure
                first = min(_numbers(group, mark.client, refused), default=mark.seq) - 1 if unsure else 0
            stream = self.by_client[mark.client] = Stream(first, now)
        elif stream.heard != now:
            stream.heard = now
            self.by_client.move_to_end(mark.client)
        if mark.seq <= stream.mark:
            return
        if mark.seq - stream.mark != came + len(refused):
            _find_gaps(stream, mark, _numbers(group, mark.client, refused))
        stream.mark = mark.seq

    # -- an SDK and its spill files

    def root(self, client: str) -> str:
        """The stream of the SDK whose stream this is; itself where that is not known."""
        stream = self.by_client.get(client)
        return stream.owner if stream is not None and stream.owner in self.by_client else client

    def family(self, root: str) -> list[Stream]:
        """An SDK's stream, and those of its spill files."""
        return [self.by_client[client] for client in (root, *self.by_client[root].family) if client in self.by_client]

    def drop_files(self, stream: Stream) -> None:
        """What it named is not waited for any more."""
        for name in stream.files:
            if self.by_client.get(self.expected.get(name, "")) in (stream, None):
                self.expected.pop(name, None)
        self.files -= len(stream.files)
        stream.files, stream.more_files = {}, 0

    def name_file(self, client: str, stream: Stream, name: str, last: int) -> None:
        """An SDK has said that it has a spill file, up to a number."""
        file = self.by_client.get(name)
        there = file.mark if file is not None else self.done.get(name, -1)
        if there < last:
            if self.files >= ALL_FILES:
                stream.more_files += 1
                return
            self.files += name not in stream.files
            stream.files[name] = last
        if file is None:
            if there < last:
                self.expected.setdefault(name, client)
            return
        file.named = max(file.named, last)
        if not file.owner and file.said is None:
            file.owner = client
            stream.family.append(name)
            stream.traces.update(file.traces)
            file.traces = {}

    def look_at_file(self, client: str) -> str:
        """A spill file that was waited for may be there now -> its owner, which does not wait for it; else empty."""
        stream = self.by_client.get(client)
        expected = self.expected.pop(client, "")
        if stream is None:
            return ""
        if expected in self.by_client:
            self.name_file(expected, self.by_client[expected], client, self.by_client[expected].files.get(client, 0))
        owner = self.by_client.get(stream.owner)
        if owner is None or stream.mark < owner.files.get(client, 0):
            return ""
        if owner.files.pop(client, None) is not None:
            self.files -= 1
        return stream.owner

    def cover(self, members: Iterable[str], root: str, account: Account, said: Said) -> bool:
        """Whether a stats line of an SDK was said after all that these of its streams have of a trace."""
        return all(self._covers(name, root, account, said) for name in members)

    def _covers(self, name: str, root: str, account: Account, said: Said) -> bool:
        if name == root:
            return account.shares[name].order <= said.order
        stream = self.by_client.get(name)  # it may have been forgotten
        return stream is not None and stream.named >= stream.mark

    # -- the end

    def end(self, client: str) -> None:
        """Nothing is to be known of it any more, nor of its spill files, but how far it was."""
        stream = self.by_client.get(client)
        if stream is None or stream.traces:
            return
        self.drop_files(stream)
        for name in (client, *stream.family):
            ended = self.by_client.pop(name, None)
            if ended is not None:
                self.done[name] = ended.mark
        while len(self.done) > DONE:
            self.done.popitem(last=False)

    def forget(self, now: int) -> Iterator[tuple[str, Stream]]:
        """Those that are too many, one by one."""
        while len(self.by_client) > STREAMS:
            client, stream = self.by_client.popitem(last=False)
            self.begin_late(now)
            self.drop_files(stream)
            yield client, stream


def _find_gaps(stream: Stream, mark: Mark, numbers: Iterable[int]) -> None:
    at = stream.mark
    for number in [*sorted(n for n in set(numbers) if stream.mark < n <= mark.seq), mark.seq + 1]:
        if number > at + 1:
            if len(stream.gaps) < GAPS:
                stream.gaps.append((at + 1, number - 1))
            else:
                stream.more_gaps += number - 1 - at
        at = number


def _numbers(group: Group, client: str, refused: Sequence[Rejected]) -> list[int]:
    """Those of a client's lines in a group."""
    blocks = [block for _, block in group.blocks if any(tally.client == client for tally in block.tallies())]
    messages = chain.from_iterable(block.messages for block in blocks)
    numbers = [message.seq for message in messages if message.client == client and message.seq is not UNSET]
    return [*numbers, *(one.seq for one in refused)]
