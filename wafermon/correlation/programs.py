"""Which programs are connected, as the journal's groups say it, and which of them are gone. Pure; times are microseconds.

A program is a process (`journal.program_of`), or a stream where the process is not known: its SDKs and the spill files that it
sends have a connection each, and it is there as long as one of them is. One that ended all of them, and did not say so by a
closing stats line, is gone unless it comes back soon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from wafermon.journal import CAME, STARTED, WENT, Presence
from wafermon.model.messages import Stats

GONE_AFTER = 5_000_000
"""So long a program has to come back. An SDK tries within 0.1 s, and then a few times within seconds."""
GONE_AFTER_START = 60_000_000
"""The same after the sidecar itself was away: SDKs wait up to 30 s between two tries."""
PROGRAMS = 50_000
"""How many are followed."""


class Program(Struct, gc=False):
    """One of them."""

    id: str
    connected: dict[str, None] = field(default_factory=dict)
    """The clients of its connections."""
    due: int = 0
    """When it is gone; 0 as long as it is connected, has said that it ends, or is gone."""
    gone: bool = False
    traces: dict[str, int] = field(default_factory=dict)
    """Those in which it has jobs and open spans, and how many of these."""


class Programs:
    """All of them. What changed has to be asked for: `due` after each `take`, `close` and `release`."""

    def __init__(self, programs: Iterable[Program] = ()) -> None:
        self._programs = {one.id: one for one in programs}
        self._of_client: dict[object, str] = {
            client: one.id for one in self._programs.values() for client in one.connected
        }

    def __iter__(self) -> Iterator[Program]:
        return iter(self._programs.values())

    def get(self, program: str) -> Program | None:
        return self._programs.get(program)

    def of(self, client: object) -> str:
        """The program of a client that is connected; else empty."""
        return self._of_client.get(client, "")

    def is_gone(self, program: str) -> bool:
        found = self._programs.get(program)
        return found is not None and found.gone

    def take(self, presence: Presence, now: int) -> list[Program]:
        """What the journal says of a connection -> the programs of which something is other now."""
        if presence.what == STARTED:
            left = [one for one in self if one.connected]
            for one in left:
                self._disconnect(one, list(one.connected))
                one.due = now + GONE_AFTER_START
            return left
        if presence.what == CAME:
            return self._came(presence)
        program = self._programs.get(self.of(presence.client)) if presence.what == WENT else None
        if program is None:
            return []
        self._disconnect(program, [presence.client])
        if not program.connected:
            program.due = now + GONE_AFTER
        return [program]

    def _came(self, presence: Presence) -> list[Program]:
        program = self._programs.get(presence.program)
        if program is None:
            if len(self._programs) >= PROGRAMS:
                return []
            program = self._programs[presence.program] = Program(presence.program)
        program.connected[presence.client] = None
        self._of_client[presence.client] = program.id
        program.due, program.gone = 0, False
        return [program]

    def close(self, stats: Stats) -> list[Program]:
        """A stats line: its spill files are no programs, and after a final one its client may go."""
        clients = [stream.client for stream in stats.streams]
        if stats.final is True and isinstance(stats.client, str):
            clients.append(stats.client)
        closed = []
        for client in clients:
            program = self._programs.get(self.of(client))
            if program is not None:
                self._disconnect(program, [client])
                closed.append(program)
        return [one for one in closed if self._forget(one)]

    def serves(self, program: str, trace_id: str) -> None:
        """It has one more job or open span in this trace."""
        found = self._programs.get(program)
        if found is not None:
            found.traces[trace_id] = found.traces.get(trace_id, 0) + 1

    def release(self, program: str, trace_id: str) -> None:
        """It has one less."""
        found = self._programs.get(program)
        if found is None or trace_id not in found.traces:
            return
        found.traces[trace_id] -= 1
        if not found.traces[trace_id]:
            del found.traces[trace_id]
            self._forget(found)

    def lost(self, program: Program) -> None:
        """Its time is up."""
        program.due, program.gone = 0, True
        self._forget(program)

    def _disconnect(self, program: Program, clients: Iterable[str]) -> None:
        for client in clients:
            program.connected.pop(client, None)
            self._of_client.pop(client, None)

    def _forget(self, program: Program) -> bool:
        """Drop it where nothing is left to be known of it."""
        if program.connected or program.due or (program.gone and program.traces):
            return False
        return self._programs.pop(program.id, None) is not None
