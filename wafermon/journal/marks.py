"""How far each client's stream is: the two marks that deduplication and acknowledgements look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wafermon.journal.groups import Mark


class Stream:
    """One client's stream, shared by its connections, one after the other."""

    __slots__ = ("appended", "client", "holders", "principal", "synced")

    def __init__(self, principal: str, client: str, seq: int) -> None:
        self.principal = principal
        self.client = client
        self.appended = seq
        """Everything up to here has been handed to the journal: what comes again is a duplicate."""
        self.synced = seq
        """Everything up to here is durable: what acks and welcomes say."""
        self.holders = 0
        """Connections that hold it."""

    def skip(self, seq: int) -> None:
        """What comes up to here is known from elsewhere."""
        self.appended = max(self.appended, seq)
        self.synced = max(self.synced, seq)

    def sync(self, seq: int) -> None:
        self.synced = max(self.synced, seq)


class Marks:
    """The streams in memory: those that are connected, and those that moved since the last checkpoint."""

    def __init__(self, load: Callable[[str, str], int]) -> None:
        """`load` knows what is on disk of a principal's client."""
        self._load = load
        self._streams: dict[tuple[str, str], Stream] = {}
        self._moved: set[Stream] = set()
        self._saves = 0

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def saves(self) -> int:
        """How often marks went to disk: what was read there before one of these may be old."""
        return self._saves

    def known(self, principal: str, client: str) -> bool:
        """Whether its stream is in memory, so that `hold` asks no disk."""
        return (principal, client) in self._streams

    def hold(self, principal: str, client: str, seq: int | None = None) -> Stream:
        """The stream of a client that has connected. `seq` is what the disk says of it, where that was asked already."""
        stream = self._streams.get((principal, client))
        if stream is None:
            stream = Stream(principal, client, self._load(principal, client) if seq is None else seq)
            self._streams[principal, client] = stream
        stream.holders += 1
        return stream

    def of_client(self, client: str, saved: Mapping[str, int]) -> dict[str, int]:
        """The synced marks of a client of this name, by principal. `saved` are those on disk."""
        found = dict(saved)
        for stream in self._streams.values():
            if stream.client == client and stream.synced:
                found[stream.principal] = stream.synced
        return found

    def connected(self, client: str, counts: Callable[[str], bool]) -> bool:
        """Whether a client of this name is held, of a principal that counts."""
        return any(
            stream.holders and stream.client == client and counts(stream.principal) for stream in self._streams.values()
        )

    def release(self, stream: Stream) -> None:
        """A connection of it ended."""
        stream.holders -= 1
        if stream.appended:
            self._moved.add(stream)
        self._forget(stream)

    def synced(self, stream: Stream, seq: int) -> None:
        stream.sync(seq)
        self._moved.add(stream)

    def recover(self, marks: Iterable[Mark]) -> None:
        """Take up what a commit line says that no checkpoint holds."""
        for mark in marks:
            key = (mark.principal, mark.client)
            stream = self._streams.get(key)
            if stream is None:
                stream = self._streams[key] = Stream(*key, self._load(*key))
            stream.appended = max(stream.appended, mark.seq)
            self.synced(stream, mark.seq)

    def pressing(self, limit: int) -> bool:
        """Whether so many have moved that a checkpoint is due."""
        return len(self._moved) > limit

    def moved(self) -> list[Mark]:
        """What a checkpoint has to write."""
        return [Mark(stream.principal, stream.client, stream.synced) for stream in self._moved]

    def saved(self, marks: Iterable[Mark]) -> None:
        """These are on disk: streams that are neither connected nor further by now leave the memory."""
        self._saves += 1
        for mark in marks:
            stream = self._streams[mark.principal, mark.client]
            if stream.synced == mark.seq:
                self._moved.discard(stream)
                self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if not stream.holders and stream not in self._moved and stream.appended == stream.synced:
            self._streams.pop((stream.principal, stream.client), None)
