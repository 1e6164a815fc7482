"""All backends' deliveries, as the config has them, and how they become others while messages come in.

Under one name at most one delivery works at a time. One that leaves does so at a batch boundary; its successor goes on at its
cursor, and begins only once nothing of its backend runs any more, however long that takes: only the process's stop gives up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.logger import Logger

from wafermon.delivery.delivery import Delivery
from wafermon.delivery.patience import at_most
from wafermon.delivery.supervisor import Supervisor
from wafermon.journal import CursorInUse, Held, Journal, Stretch
from wafermon.model.changes import CannotChange, Change
from wafermon.model.settings import BackendConfig


class State(Enum):
    """What is under one name."""

    WORKING = "working"
    DRAINING = "draining"
    """It is gone from the config, and still gets what was meant for it."""
    ENDING = "ending"
    """It gets nothing more, and its backend is being closed."""
    GONE = "gone"


class Event(Enum):
    """What happens under one name."""

    REPLACE = "replace"
    """Another config, or the name is back in the config."""
    REMOVE = "remove"
    DRAIN = "drain"
    """Removed, once it has been delivered what was meant for it."""
    DRAINED = "drained"
    ENDED = "ended"
    """Nothing of the backend runs any more, and nothing comes after it."""
    TAKEN_OVER = "taken over"
    """Nothing of the backend runs any more, and its successor works."""


NEXT: Mapping[tuple[State, Event], State] = {
    (State.WORKING, Event.REPLACE): State.ENDING,
    (State.WORKING, Event.REMOVE): State.ENDING,
    (State.WORKING, Event.DRAIN): State.DRAINING,
    (State.DRAINING, Event.REPLACE): State.ENDING,
    (State.DRAINING, Event.REMOVE): State.ENDING,
    (State.DRAINING, Event.DRAIN): State.DRAINING,
    (State.DRAINING, Event.DRAINED): State.ENDING,
    (State.ENDING, Event.REPLACE): State.ENDING,
    (State.ENDING, Event.REMOVE): State.ENDING,
    (State.ENDING, Event.DRAIN): State.ENDING,
    (State.ENDING, Event.ENDED): State.GONE,
    (State.ENDING, Event.TAKEN_OVER): State.WORKING,
}
"""All transitions; no other is possible."""


class Fate(Enum):
    """What becomes of the cursor of a name under which nothing comes any more."""

    KEEP = "keep"
    FORGET = "forget"


@dataclass(eq=False)
class _Slot:
    """What is under one name."""

    delivery: Delivery
    state: State = State.WORKING
    successor: Delivery | None = None
    drain_successor: bool = False
    """Whether the successor has gone from the config meanwhile, and has only to drain."""
    fate: Fate = Fate.KEEP
    draining: Deferred[Any] | None = None
    ended: Deferred[None] | None = None
    """Fires once it is gone or taken over; None while it works."""

    def go(self, event: Event) -> None:
        self.state = NEXT[self.state, event]

    @property
    def shown(self) -> bool:
        """Whether the config names it."""
        return self.state is State.WORKING or (self.successor is not None and not self.drain_successor)


class Deliveries(Mapping[str, Delivery]):
    """Those of the config in force, by the backend's name. One that is being replaced counts until the new one works."""

    log = Logger()

    def __init__(
        self, make: Callable[[BackendConfig], Delivery], journal: Journal, supervisor: Supervisor, reactor: Any
    ) -> None:
        """`make` builds a delivery that is not started; it may raise anything."""
        self._make = make
        self._journal = journal
        self._supervisor = supervisor
        self._reactor = reactor
        self._configs: dict[str, BackendConfig] = {}
        self._slots: dict[str, _Slot] = {}
        self._past: dict[str, Delivery] = {}
        """The last delivery of each name that has gone: its counters go on where the name comes back."""

    def __getitem__(self, name: str) -> Delivery:
        slot = self._slots[name]
        if not slot.shown:
            raise KeyError(name)
        return slot.delivery

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, slot in self._slots.items() if slot.shown])

    def __len__(self) -> int:
        return sum(slot.shown for slot in self._slots.values())

    @property
    def leaving(self) -> Mapping[str, Delivery]:
        """Those that are gone from the config and not yet gone: they still get what was meant for them, or are waited for."""
        return {name: slot.delivery for name, slot in self._slots.items() if not slot.shown}

    @property
    def orphans(self) -> Mapping[str, Held]:
        """The cursors that nobody reads with and that no backend of the config will: they hold the journal for nobody."""
        known = self._journal.known_cursors()
        return {name: one for name, one in known.items() if not one.attached and name not in self._slots}

    async def forget(self, name: str) -> Stretch:
        """Remove a cursor that no backend has; answers with what it held. Raises UnknownCursor, CursorInUse, OSError or
        sqlite3.Error."""
        slot = self._slots.get(name)
        if slot is not None and slot.shown:
            raise CursorInUse(f"{name} is a backend of the config: take it out there first, with `on_remove: discard`")
        if slot is not None:
            raise CursorInUse(f"{name} is gone from the config, and still ending: try again once that is over")
        held = await self._journal.discard(name)
        self._past.pop(name, None)
        self._supervisor.forget(name)
        return held

    def prepare(self, wanted: Mapping[str, BackendConfig]) -> Change:
        """Build what is new or other than before. Raises CannotChange."""
        made: dict[str, Delivery] = {}
        for name, config in wanted.items():
            if self._configs.get(name) != config:
                try:
                    made[name] = self._make(config)
                except Exception as error:
                    raise CannotChange(f"backends.{name}: the backend can't be built: {error}") from error
        return Change(partial(self._commit, dict(wanted), made))

    def _commit(self, wanted: dict[str, BackendConfig], made: dict[str, Delivery]) -> None:
        for name in self._configs.keys() - wanted.keys():
            self._remove(self._slots[name], self._configs[name].on_remove)
        for name, delivery in made.items():
            slot = self._slots.get(name)
            if slot is None:
                self._begin(name, delivery, self._past.pop(name, None))
            else:
                self._replace(slot, delivery)
        self._configs = wanted

    def _begin(self, name: str, delivery: Delivery, predecessor: Delivery | None) -> _Slot:
        slot = self._slots[name] = _Slot(delivery)
        delivery.start(predecessor)
        self._supervisor.start(delivery)
        return slot

    def _remove(self, slot: _Slot, on_remove: str) -> None:
        if on_remove == "drain" and slot.successor is not None:
            slot.go(Event.DRAIN)
            slot.drain_successor = True
            return
        slot.successor = None
        slot.fate = Fate.KEEP if on_remove == "keep" else Fate.FORGET
        slot.go(Event.DRAIN if on_remove == "drain" else Event.REMOVE)
        self._leave(slot)

    def _replace(self, slot: _Slot, successor: Delivery) -> None:
        slot.successor, slot.drain_successor, slot.fate = successor, False, Fate.KEEP
        slot.go(Event.REPLACE)
        if slot.draining is not None:
            slot.draining.cancel()
        self._leave(slot)

    def _leave(self, slot: _Slot) -> None:
        if slot.ended is None:
            slot.ended = Deferred()
            leaving = Deferred.fromCoroutine(self._see_off(slot))
            leaving.addErrback(lambda failure: self.log.failure("Internal error in the deliveries", failure))

    async def _see_off(self, slot: _Slot) -> None:
        name, delivery = slot.delivery.name, slot.delivery
        if slot.state is State.DRAINING:
            await self._drain(slot)
        await self._end(delivery)
        if slot.successor is not None:
            slot.go(Event.TAKEN_OVER)
            taken_over = self._begin(name, slot.successor, delivery)
            if slot.drain_successor:
                self._remove(taken_over, "drain")
        else:
            slot.go(Event.ENDED)
            del self._slots[name]
            self._past[name] = delivery
            self._let_go(name, slot.fate)
        assert slot.ended is not None
        slot.ended.callback(None)

    async def _drain(self, slot: _Slot) -> None:
        """Deliver what was routed to it."""
        try:
            slot.draining = self._journal.settled()
            await slot.draining
            slot.draining = slot.delivery.drain()
            await slot.draining
        except CancelledError:
            if slot.successor is None:
                slot.fate = Fate.KEEP
        finally:
            slot.draining = None
        if slot.state is State.DRAINING:
            slot.go(Event.DRAINED)

    async def _end(self, delivery: Delivery) -> None:
        """However long that takes."""
        await delivery.end()
        await self._supervisor.stop(delivery.name)
        await delivery.close()

    def _let_go(self, name: str, fate: Fate) -> None:
        if fate is Fate.FORGET:
            self._journal.forget(name)
            self._supervisor.forget(name)
            self.log.info("{name} is gone, and its cursor with it", name=name)
        else:
            message = (
                "{name} is gone; its cursor stays, and holds the journal from {position} on until it comes back, or "
                "until `wafermon journal forget {name}`"
            )
            self.log.warn(message, name=name, position=str(self._journal.stored(name)))

    # -- the stop

    async def stop(self, grace: float, ending: float) -> None:
        """Let all deliver what is there, for at most `grace` seconds, and end them, each in at most `ending` seconds more. What has
        not ended then is named in the log and left. A backend that has not answered for its `timeout` gets no grace."""
        slots = list(self._slots.values())
        for slot in slots:
            slot.successor, slot.drain_successor = None, False
            if slot.draining is not None:
                slot.draining.cancel()
        await DeferredList([Deferred.fromCoroutine(self._stop(slot, grace, ending)) for slot in slots])

    async def _stop(self, slot: _Slot, grace: float, ending: float) -> None:
        name, delivery = slot.delivery.name, slot.delivery
        ended = slot.ended
        if ended is None:
            if not delivery.late:
                await self._deliver_rest(delivery, grace)
            slot.go(Event.REMOVE)
            ended = Deferred.fromCoroutine(self._ended(slot))
            ended.addErrback(lambda failure: self.log.failure("{name} did not end", failure, name=name))
        await at_most(self._reactor, ending, ended)
        if self._slots.get(name) is slot:
            self.log.error("{name} is left running: {why}", name=name, why=delivery.awaited or "it does not end")
            delivery.leave()

    async def _deliver_rest(self, delivery: Delivery, grace: float) -> None:
        try:
            await delivery.drain().addTimeout(grace, self._reactor)
        except (CancelledError, TimeoutError):
            self.log.info("{name} keeps what is pending for the next start", name=delivery.name)

    async def _ended(self, slot: _Slot) -> None:
        await self._end(slot.delivery)
        slot.go(Event.ENDED)
        del self._slots[slot.delivery.name]
