"""All backends' deliveries, as the config has them, and how they become others while messages come in.

Under one name at most one delivery works at a time. Whoever leaves does so at a batch boundary; who takes his place goes
on at the cursor that he left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from wafermon.delivery.delivery import Delivery
from wafermon.journal import Journal
from wafermon.model.changes import CannotChange, Change
from wafermon.model.settings import BackendConfig

BATCH_SECONDS = 30.0
"""How long a batch that a leaving backend has may take, before the backend is given up."""


class _Leaving:
    """A delivery that ends, and what comes after it."""

    def __init__(self, delivery: Delivery, successor: Delivery | None, on_remove: str) -> None:
        self.delivery = delivery
        self.successor = successor
        """Who takes its place; None where the backend is gone from the config."""
        self.on_remove = on_remove
        self.retire = False
        """Whether the successor has gone from the config meanwhile, and has only to drain."""
        self.draining: Deferred[None] | None = None
        self.drained = False
        self.done: Deferred[None]


class Deliveries(Mapping[str, Delivery]):
    """Those that work for the config in force, by the backend's name. One that is being replaced counts until the new
    one works."""

    log = Logger()

    def __init__(self, make: Callable[[BackendConfig], Delivery], journal: Journal) -> None:
        """`make` builds a delivery that is not started; it may raise anything."""
        self._make = make
        self._journal = journal
        self._configs: dict[str, BackendConfig] = {}
        self._working: dict[str, Delivery] = {}
        self._leaving: dict[str, _Leaving] = {}

    def __getitem__(self, name: str) -> Delivery:
        return self._working[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._working)

    def __len__(self) -> int:
        return len(self._working)

    @property
    def leaving(self) -> list[str]:
        """The names of backends that are gone from the config and still get what was meant for them."""
        return [name for name, one in self._leaving.items() if one.successor is None]

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
            self._leave(name, None, self._configs[name].on_remove)
        for name, delivery in made.items():
            if name in self._working or name in self._leaving:
                self._leave(name, delivery, "keep")
            else:
                self._begin(name, delivery)
        self._configs = wanted

    def _begin(self, name: str, delivery: Delivery) -> None:
        self._working[name] = delivery
        delivery.start()

    def _leave(self, name: str, successor: Delivery | None, on_remove: str) -> None:
        """End the delivery of that name; where it is ending already, let it end in another way."""
        leaving = self._leaving.get(name)
        if leaving is None:
            leaving = self._leaving[name] = _Leaving(self._working[name], successor, on_remove)
            leaving.done = Deferred.fromCoroutine(self._see_off(name, leaving))
        leaving.retire = successor is None and on_remove == "drain" and leaving.successor is not None
        if leaving.retire:
            return
        leaving.successor, leaving.on_remove = successor, on_remove
        leaving.drained = False
        if successor is None:
            self._working.pop(name, None)
        elif leaving.draining is not None:
            leaving.draining.cancel()

    async def _see_off(self, name: str, leaving: _Leaving) -> None:
        if leaving.successor is None and leaving.on_remove == "drain":
            leaving.drained = await self._drain(leaving)
        try:
            await leaving.delivery.stop(BATCH_SECONDS, deliver=False)
        except Exception:  # noqa: BLE001  # a plugin may raise anything
            self.log.failure("{name} did not close as it should", name=name)
        del self._leaving[name]
        if leaving.successor is not None:
            self._begin(name, leaving.successor)
            if leaving.retire:
                self._leave(name, None, "drain")
        elif leaving.drained or leaving.on_remove == "discard":
            self._journal.forget(name)
            self.log.info("{name} is gone, and its cursor with it", name=name)
        else:
            message = "{name} is gone; its cursor stays, and holds the journal from {position} on until it comes back"
            self.log.warn(message, name=name, position=str(self._journal.stored(name)))

    async def _drain(self, leaving: _Leaving) -> bool:
        """Deliver what was routed to it; whether that was everything."""
        try:
            leaving.draining = self._journal.settled()
            await leaving.draining
            leaving.draining = leaving.delivery.drain()
            await leaving.draining
        except CancelledError:
            return False
        finally:
            leaving.draining = None
        return True

    async def stop(self, grace: float) -> None:
        """Let all deliver what is there, for at most `grace` seconds, and end them."""
        for leaving in self._leaving.values():
            leaving.successor, leaving.retire = None, False
            if leaving.draining is not None:
                leaving.draining.cancel()
        stopping = [leaving.done for leaving in self._leaving.values()]
        gone = {leaving.delivery for leaving in self._leaving.values()}
        stopping += [Deferred.fromCoroutine(one.stop(grace)) for one in self._working.values() if one not in gone]
        await DeferredList(stopping, consumeErrors=True)
