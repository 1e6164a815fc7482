"""Messages refused one after the other with nothing accepted between: is it they that are wrong, or the backend? Pure."""

from __future__ import annotations

from enum import Enum

MOST = 20
"""So many in a row with one code are believed."""


class Verdict(Enum):
    """What to do with a message that was refused."""

    SET_ASIDE = "set aside"
    """It becomes a dead letter."""
    WAIT = "wait"
    """The backend counts as failing: the message is tried again after a wait."""
    SET_ASIDE_AND_WAIT = "set aside and wait"
    """It becomes a dead letter, and the next one is not tried before a wait."""


class Refusals:
    """The row of one backend."""

    def __init__(self, give_up: float) -> None:
        """After `give_up` seconds of waiting messages are set aside again; 0: never."""
        self._give_up = give_up
        self._code = ""
        self._count = 0
        self._since: float | None = None
        """When the waiting began."""

    @property
    def suspect(self) -> bool:
        """Whether it is the backend that counts as failing."""
        return self._since is not None

    def judge(self, code: str, now: float) -> Verdict:
        """A single message was refused with this code."""
        if code != self._code or self._count < MOST:
            return Verdict.SET_ASIDE
        if self._since is None:
            self._since = now
        over = self._give_up and now - self._since >= self._give_up
        return Verdict.SET_ASIDE_AND_WAIT if over else Verdict.WAIT

    def set_aside(self, code: str, count: int = 1) -> None:
        """So many messages became dead letters."""
        if code != self._code:
            self._code, self._count, self._since = code, 0, None
        self._count += count

    def accepted(self) -> None:
        """The backend took a message."""
        self._code, self._count, self._since = "", 0, None
