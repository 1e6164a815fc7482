"""One entry of `listen` that reads from Kafka: what its client fetches goes into the journal, for as long as it is in the config.

- A record's mark is in the journal's group of its lines, so that it is there once, whatever is killed when.
- While the journal wants no more, partitions are paused, and the library is polled all the same.
- Whatever fails is said, and it begins again after a while from the marks.
- The library's calls are made in a thread of its own. One that hangs holds nothing else up.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from wafermon.journal import KAFKA, Journal, Stream
from wafermon.model.errors import printable
from wafermon.model.lograte import LogRate
from wafermon.model.settings import KafkaSource, Limits
from wafermon.receivers.kafka.partition import Figures, Partition, Place, State

if TYPE_CHECKING:
    from wafermon.receivers.kafka.client import Claim, Client, Fetched, Records, Topic

AGAIN_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""How long is waited after each failure in a row."""
POLL_SECONDS = 1.0
"""How often the library is polled while the journal wants no more."""
HANDOVER_SECONDS = 10.0
"""How long the group waits for the journal, where partitions are handed over."""
T = TypeVar("T")


class Source:
    """See the module. `start` it once; `stop` ends it."""

    log = Logger()

    def __init__(
        self,
        settings: KafkaSource,
        journal: Journal,
        limits: Callable[[], Limits],
        reactor: Any,
        thread: ThreadPool,
    ) -> None:
        """`thread` has one thread, which nobody else uses."""
        self.settings = settings
        self.cluster = ""
        """Its id, once known."""
        self.problem = ""
        """What keeps it from reading; else empty."""
        self.figures = {name: Figures() for name in settings.topics}
        self.partitions: dict[Place, Partition] = {}
        """Those that are read, and those that can't be read on."""
        self.missing: list[str] = []
        """Topics that are not there."""
        self._journal = journal
        self._limits = limits
        self._reactor = reactor
        self._thread = thread
        self._client: Client | None = None
        self._failures = 0
        self._stopping = False
        self._running: Deferred[None] | None = None
        self._nap: Deferred[None] | None = None
        self._about = LogRate(reactor.seconds)

    def start(self, after: Deferred[None] | None = None) -> None:
        """`after`: what has to have ended before."""
        self._running = Deferred.fromCoroutine(self._run(after))
        self._running.addErrback(lambda failure: self.log.failure("Internal error in the Kafka receiver", failure))

    def stop(self) -> Deferred[None]:
        """Read no more. Fires once nothing of it runs, and all that it has read is durable; that may never be where the library
        hangs."""
        self._stopping = True
        if self._client is not None:
            self._client.abort()
        if self._nap is not None:
            self._nap.cancel()
        done: Deferred[None] = Deferred()
        if self._running is None:
            done.callback(None)
        else:
            self._running.addBoth(lambda _: done.callback(None))
        return done

    # -- one try after the other

    async def _run(self, after: Deferred[None] | None) -> None:
        if after is not None:
            await after
        while not self._stopping:
            client: Client | None = None
            try:
                client = self._client = self._made()
                await self._read(client)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                if not self._stopping:
                    self._failed(error)
            await self._end(client)
            if not self._stopping:
                seconds = AGAIN_SECONDS[min(self._failures, len(AGAIN_SECONDS)) - 1]
                await self._pause(seconds)

    def _made(self) -> Client:
        from wafermon.receivers.kafka.client import Client

        return Client(self.settings, _Members(self, self._reactor), self._say)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        before, self.problem = self.problem, self._in_words(error)
        if self.problem != before:
            self._warn(self.problem)
        if not _is_kafkas(error) and not isinstance(error, OSError):
            failure = Failure(error)  # type: ignore[no-untyped-call]
            self._about.log(lambda: self.log.failure("Internal error while reading from Kafka", failure), self._tell)

    async def _end(self, client: Client | None) -> None:
        """Drop everything: the next try begins at the marks."""
        if client is not None:
            client.abort()
            try:
                await self._journal.settled()
                await self._in_thread(client.close)
            except Exception as error:  # noqa: BLE001  # it is not used any more
                self._warn(f"closing failed: {self._in_words(error)}")
        self._client = None
        for place in list(self.partitions):
            self._release(place)

    async def _pause(self, seconds: float) -> None:
        self._nap = self._journal.sleep(seconds)
        try:
            await self._nap
        except CancelledError:
            pass
        finally:
            self._nap = None

    # -- reading

    async def _read(self, client: Client) -> None:
        self.cluster = await self._in_thread(client.open)
        if not self.cluster:
            raise ValueError("the brokers say no cluster id")
        while not self._stopping:
            fetched = await self._in_thread(client.fetch)
            if fetched.topics is not None:
                self._failures, self.problem = 0, ""
                await self._compare(client, fetched, fetched.topics)
            elif client.unreachable is not None:
                self.problem = self._of_library(client.unreachable)
            await self._take(client, fetched)
            await self._commit(client)

    async def _compare(self, client: Client, fetched: Fetched, topics: Mapping[str, Topic]) -> None:
        """Read what is there: a topic that was made anew from its beginning, and partitions that are new."""
        missing = [name for name in self.settings.topics if name not in topics]
        for name in missing:
            if name not in self.missing:
                self._warn(f"the topic {name} is not there; it is read once it is")
        self.missing = missing
        gone = [
            place
            for place, one in self.partitions.items()
            if place.topic not in topics
            or topics[place.topic].id != one.topic_id
            or place.partition not in topics[place.topic].partitions
        ]
        if gone:
            for place in gone:
                self._warn(f"{place} was deleted" + (" and made anew" if place.topic in topics else ""))
                self._release(place)
            fetched.forget(gone)
            await self._in_thread(client.end, gone)
        if self.settings.group and gone:
            raise ConnectionResetError("a topic of the group was made anew; joining again")
        if self.settings.group:
            return
        begin: dict[Place, int | None] = {}
        for name, topic in topics.items():
            for number in sorted(topic.partitions):
                place = Place(name, number)
                wanted = self.settings.partitions is None or number in self.settings.partitions
                if wanted and place not in self.partitions:
                    held = await self._hold(place, topic.id)
                    if held.state is State.READING:
                        begin[place] = held.next
        if begin:
            await self._in_thread(client.begin, begin)

    async def _hold(self, place: Place, topic_id: str) -> Partition:
        stream: Stream = await self._journal.hold(f"{KAFKA}{self.cluster}", f"{topic_id}/{place.partition}")
        held = self.partitions[place] = Partition(place, topic_id, stream, self.figures[place.topic])
        if stream.holders > 1:
            self._stop_reading(held, f"{place} is read by another entry of `listen` already; leave one of them out")
        return held

    def _release(self, place: Place) -> None:
        held = self.partitions.pop(place, None)
        if held is not None:
            held.state = State.GONE
            self._journal.marks.release(held.stream)

    def _stop_reading(self, held: Partition, problem: str) -> None:
        held.state, held.problem = State.STOPPED, problem
        self._warn(problem)

    async def _take(self, client: Client, fetched: Fetched) -> None:
        for place, records in fetched.records.items():
            held = self.partitions.get(place)
            if held is not None and held.state is State.READING:
                held.problem = ""
                await self._append(client, held, records)
        for place, offset in fetched.ends.items():
            if place in self.partitions:
                self.partitions[place].ended(offset)
        for place, high in fetched.highs.items():
            if place in self.partitions:
                self.partitions[place].high = high
        for place, problem in fetched.problems.items():
            if place in self.partitions and self.partitions[place].problem != problem:
                self.partitions[place].problem = problem
                self._warn(problem)
        for place in fetched.absent:
            held = self.partitions.get(place)
            if held is not None and held.state is State.READING:
                await self._find(client, held)

    async def _append(self, client: Client, held: Partition, records: Records) -> None:
        most = self._limits().max_line_bytes
        for entry in held.entries(records.offsets, records.values, most, self._journal.now()):
            self._journal.append(entry)
            await self._relief(client)
            await self._journal.sleep(0)  # others have their turn

    async def _find(self, client: Client, held: Partition) -> None:
        """The brokers have not the offset that is to be read next."""
        low, high = await self._in_thread(client.watermarks, held.place)
        mark = held.stream.appended
        if mark > high:
            problem = (
                f"{held.place} ends at {high}, and was read up to {mark} already: it was cut off, or restored from a copy. It is not read "
                "on. Make the topic anew, which is then read from its beginning, or go on in a new journal.dir"
            )
            self._stop_reading(held, problem)
            return
        if mark < low:
            self._warn(f"{held.place}: retention took {low - mark} offsets before they were read, {mark} to {low - 1}")
            self._journal.append(held.skip(low))
        await self._in_thread(client.again, {held.place: held.next})

    async def _relief(self, client: Client) -> None:
        """Wait as long as the journal wants no more."""
        if not self._journal.congested:
            return
        relieved: Deferred[None] = Deferred()
        self._journal.on_relief(lambda: relieved.callback(None))
        idle = False
        while not relieved.called and not self._stopping:
            await self._either(relieved, POLL_SECONDS)
            if not relieved.called:
                idle = True
                await self._in_thread(client.idle)
        if idle and not self._stopping:
            await self._in_thread(client.resume)

    async def _either(self, event: Deferred[None], seconds: float) -> None:
        """Until then, or for so long."""
        nap = self._nap = self._journal.sleep(seconds)
        event.addCallback(lambda _: nap.cancel() if not nap.called else None)
        try:
            await nap
        except CancelledError:
            pass
        finally:
            self._nap = None

    # -- the group

    async def _commit(self, client: Client) -> None:
        """Tell the group what is durable."""
        if not self.settings.group:
            return
        durable = {
            place: (one.stream.synced, one.topic_id)
            for place, one in self.partitions.items()
            if one.stream.synced > one.committed
        }
        if not durable:
            return
        if not await self._in_thread(client.commit, durable):
            return  # with what comes
        for place, (at, _) in durable.items():
            if place in self.partitions:
                self.partitions[place].committed = at

    async def given(self, claims: Iterable[Claim]) -> dict[Place, int | None]:
        """See `Members`."""
        begin: dict[Place, int | None] = {}
        for claim in claims:
            self._release(claim.place)
            held = await self._hold(claim.place, claim.topic_id)
            held.stream.skip(max(0, claim.committed))
            held.committed = max(0, claim.committed)
            begin[claim.place] = held.next
        return begin

    async def taken(self, places: Iterable[Place], lost: bool) -> dict[Place, tuple[int, str]]:
        """See `Members`."""
        ours = {place: held for place in places if (held := self.partitions.get(place)) is not None}
        for held in ours.values():
            held.state = State.GONE
        if not lost:
            await self._journal.settled()
        durable = {
            place: (held.stream.synced, held.topic_id)
            for place, held in ours.items()
            if held.stream.synced > held.committed
        }
        for place, held in ours.items():
            if self.partitions.get(place) is held:
                self._release(place)
        return durable

    # -- what is said

    def _in_words(self, error: Exception) -> str:
        if _is_kafkas(error):
            return self._of_library(error.args[0])
        return f"{self.settings.place}: {error or type(error).__name__}"

    def _of_library(self, error: Any) -> str:
        from wafermon.net.kafka import in_words

        return in_words(error, self.settings.place)

    def _warn(self, problem: str) -> None:
        shown = printable(problem)
        self._about.log(lambda: self.log.warn("Kafka: {problem}", problem=shown), self._tell)

    def _say(self, level: str, text: str) -> None:
        """In the client's thread."""
        self._reactor.callFromThread(self._hand_on, level, text)

    def _hand_on(self, level: str, text: str) -> None:
        write = self.log.warn if level == "warn" else self.log.info
        place = self.settings.place
        self._about.log(lambda: write("{place}: librdkafka: {text}", place=place, text=text), self._tell)

    def _tell(self, what: str) -> None:
        self.log.warn("About Kafka: {what}", what=what)

    def _in_thread(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._thread, call, *args)


class _Members:
    """See `client.Members`: asks the source, and waits."""

    def __init__(self, source: Source, reactor: Any) -> None:
        self._source = source
        self._reactor = reactor

    def given(self, claims: list[Claim]) -> Mapping[Place, int | None]:
        return self._ask(partial(self._source.given, claims))

    def taken(self, places: list[Place], *, lost: bool) -> Mapping[Place, tuple[int, str]]:
        return self._ask(partial(self._source.taken, places, lost))

    def _ask(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        answers: SimpleQueue[T | Failure] = SimpleQueue()

        def ask() -> None:
            Deferred.fromCoroutine(call()).addBoth(answers.put)

        self._reactor.callFromThread(ask)
        try:
            answer = answers.get(timeout=HANDOVER_SECONDS)
        except Empty:
            raise TimeoutError(f"the journal has not answered for {HANDOVER_SECONDS:g} s") from None
        if isinstance(answer, Failure):
            answer.raiseException()
        return answer


def _is_kafkas(error: Exception) -> bool:
    """Whether the library has raised it."""
    return type(error).__name__ == "KafkaException"
