"""What is told of an expectation: each transition once, and that all is well again when nothing is open any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wafermon.correlation.schedules import said
from wafermon.correlation.schedules.clocks import Clocks
from wafermon.correlation.schedules.expectation import Expectation, Run
from wafermon.correlation.schedules.expectations import Expectations
from wafermon.model.messages import Event
from wafermon.model.schedules import RECOVERED


class Teller:
    """`journal_id` is the `client` of the events; `emit` is given each of them."""

    def __init__(
        self, clocks: Clocks, expectations: Expectations, journal_id: str, emit: Callable[[Event], None]
    ) -> None:
        self.told: dict[str, int] = {}
        """How often what was told."""
        self._clocks = clocks
        self._known = expectations
        self._journal_id = journal_id
        self._emit = emit

    def tell(
        self,
        one: Expectation,
        state: str,
        words: str,
        *,
        run: Run | None = None,
        due: int = 0,
        opens: bool = False,
        alone: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """A transition. `due`: the time that it is about, where that is not its run's; `opens`: it is an alarm, until it is closed;
        `alone`: whatever run it is of."""
        if one.name in self._known.paused and state != RECOVERED:
            return
        now, due = self._clocks.date, due if run is None else run.due
        one.times[state] = one.times.get(state, 0) + 1
        one.changed = now
        self.told[state] = self.told.get(state, 0) + 1
        if opens:
            key = state if alone or run is None else f"{state} {run.id}"
            since = one.open.pop(key, now)
            one.open[key] = since
            one.troubles.setdefault(state, now)
        client, more = self._journal_id, more or {}
        self._emit(said.event(state, one, words, alarm=opens, due=due, run=run, client=client, ts=now, more=more))

    def close(self, one: Expectation, keys: Iterable[str], why: str = "") -> None:
        """So much is over. Where nothing is left, that is told."""
        some = [key for key in keys if one.open.pop(key, None) is not None]
        if not some or one.open:
            return
        troubles, one.troubles = one.troubles, {}
        words = "all is well again after " + ", ".join(state.replace("_", " ") for state in troubles)
        if why:
            words = f"{', '.join(troubles)} is no longer followed: {why}".replace("_", " ")
        more = {"after": [*troubles], "since": min(troubles.values()), **({"reason": why} if why else {})}
        self.tell(one, RECOVERED, words, more=more)
