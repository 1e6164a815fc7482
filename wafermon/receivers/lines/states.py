"""The states of a connection, and the one table that says which follows which."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a connection is."""

    __hash__ = object.__hash__  # Enum's own is a call of Python for each look into a set

    WAITING = "no first line has come"
    ASKING = "its first line was accepted, and the journal is asked how far its stream is: what comes meanwhile waits"
    ENDING_ASKING = "the same, and the client has ended its side"
    READING = "lines are taken as they come"
    HELD = "lines wait: for the journal, for the client to read its errors, for the rate limit, or for a frame to be opened"
    ENDING = "the client has ended its side: what it sent is taken and answered, then all is closed"
    ENDING_HELD = "the same, and lines wait"
    STOPPING = "the sidecar takes nothing more: what was taken is answered"
    PARTING = (
        "nothing is taken and nothing more is answered: what comes is dropped, until the client goes or time is up"
    )
    GONE = "the connection is closed"


class Input(Enum):
    """What happens to a connection."""

    __hash__ = object.__hash__

    ASK = "its first line was accepted, and names a stream"
    BEGIN = "lines may be taken"
    HOLD = "nothing can be taken now"
    RELEASE = "lines may be taken again"
    END = "the client ended its side"
    STOP = "the sidecar stops"
    PART = "it is refused, or ended"
    LOST = "it is closed"


TABLE: dict[State, dict[Input, State]] = {
    State.WAITING: {
        Input.ASK: State.ASKING,
        Input.BEGIN: State.READING,
        Input.END: State.ENDING,
        Input.STOP: State.STOPPING,
        Input.PART: State.PARTING,
        Input.LOST: State.GONE,
    },
    State.ASKING: {
        Input.BEGIN: State.READING,
        Input.END: State.ENDING_ASKING,
        Input.STOP: State.STOPPING,
        Input.PART: State.PARTING,
        Input.LOST: State.GONE,
    },
    State.ENDING_ASKING: {
        Input.BEGIN: State.ENDING,
        Input.STOP: State.STOPPING,
        Input.PART: State.PARTING,
        Input.LOST: State.GONE,
    },
    State.READING: {
        Input.HOLD: State.HELD,
        Input.END: State.ENDING,
        Input.STOP: State.STOPPING,
        Input.PART: State.PARTING,
        Input.LOST: State.GONE,
    },
    State.HELD: {
        Input.RELEASE: State.READING,
        Input.END: State.ENDING_HELD,
        Input.STOP: State.STOPPING,
        Input.PART: State.PARTING,
        Input.LOST: State.GONE,
    },
    State.ENDING: {
        Input.HOLD: State.ENDING_HELD,
        Input.STOP: State.STOPPING,
        Input.PART: State.PARTING,
        Input.LOST: State.GONE,
    },
    State.ENDING_HELD: {
        Input.RELEASE: State.ENDING,
        Input.STOP: State.STOPPING,
        Input.PART: State.PARTING,
        Input.LOST: State.GONE,
    },
    State.STOPPING: {Input.PART: State.PARTING, Input.LOST: State.GONE},
    State.PARTING: {Input.LOST: State.GONE},
    State.GONE: {},
}
"""What is not named changes nothing."""

TAKING = frozenset({State.READING, State.ENDING})
"""Lines are taken."""
WAITS = frozenset({State.HELD, State.ENDING_HELD})
"""Lines wait, and are taken again by themselves."""
ASKS = frozenset({State.ASKING, State.ENDING_ASKING})
"""The answer about its stream is awaited."""
PAUSED = WAITS | ASKS
"""Reading is paused, and goes on by itself."""
ANSWERED = frozenset({*TAKING, *WAITS, State.STOPPING})
"""Acks and errors are sent."""


def after(state: State, happened: Input) -> State:
    """The state that follows."""
    return TABLE[state].get(happened, state)
