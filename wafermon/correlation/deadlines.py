"""One deadline for each trace, in order of time.

A heap alone keeps what was ended early or moved until its time comes; a flood of short traces makes more rubbish of it than
deadlines, and a long pause of clearing it away. Here a deadline waits among those of its second, where it can be found again
and removed; only the second that has begun is a heap.
"""

from __future__ import annotations

import heapq

SECOND = 1_000_000


class Deadlines:
    """Times are microseconds since the epoch, and `pop` is asked with ones that never go back."""

    def __init__(self) -> None:
        self._begun = -1
        """The second whose deadlines are in the heap, with all that were put there when it was later already."""
        self._heap: list[tuple[int, str]] = []
        self._later: dict[int, dict[str, int]] = {}
        """By second, then by trace id; no second is empty."""
        self._removed: dict[int, int] = {}
        """How many of a second were removed since its dictionary, which does not shrink by itself, was last copied."""

    def __len__(self) -> int:
        return len(self._heap) + sum(map(len, self._later.values()))

    def put(self, trace_id: str, at: int) -> None:
        second = at // SECOND
        if second <= self._begun:
            heapq.heappush(self._heap, (at, trace_id))
        else:
            waiting = self._later.get(second)
            if waiting is None:
                waiting = self._later[second] = {}
            waiting[trace_id] = at

    def remove(self, trace_id: str, at: int) -> None:
        """What is in the second that has begun stays, and `pop` gives it still."""
        second = at // SECOND
        waiting = self._later.get(second)
        if waiting is None or waiting.pop(trace_id, None) is None:
            return
        removed = self._removed.get(second, 0) + 1
        if not waiting:
            self._take(second)
        elif removed > len(waiting) + 16:
            self._later[second], self._removed[second] = dict(waiting), 0
        else:
            self._removed[second] = removed

    def pop(self, now: int) -> tuple[int, str] | None:
        """The first deadline up to `now` and its trace; of two at once the one whose id is less."""
        this = now // SECOND
        while not self._heap and self._begun < this:
            self._begun = self._next(this)
            self._heap = [(at, trace_id) for trace_id, at in self._take(self._begun).items()]
            heapq.heapify(self._heap)
        return heapq.heappop(self._heap) if self._heap and self._heap[0][0] <= now else None

    def _next(self, this: int) -> int:
        """The second to begin now, up to `this`; over a long time in which nothing was due it goes in one step."""
        if this - self._begun > len(self._later):
            return min((second for second in self._later if second <= this), default=this)
        return self._begun + 1

    def _take(self, second: int) -> dict[str, int]:
        self._removed.pop(second, None)
        return self._later.pop(second, {})
