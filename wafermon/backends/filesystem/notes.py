"""What was found amiss at the files and goes on without a person, said so that nothing floods: neither the log nor health."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

WINDOW = 3600
"""Seconds in which the same thing is logged once."""
MOST_LINES = 20
"""Log lines in a window, whatever happens in it."""
MOST_TEXTS = 5
"""What health shows."""
LONGEST = 300
"""Characters of one text in health."""


class Notes:
    """Each note is about one path, and is one kind of thing. May be used from any thread."""

    log = Logger()

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` tells seconds since the Unix epoch; it may be set."""
        self._now = now
        self._since = now()
        self._said: set[tuple[str, str]] = set()
        self._unsaid = 0
        self._texts: dict[tuple[str, str], str] = {}

    @property
    def texts(self) -> list[str]:
        """For health: the newest last."""
        return list(self._texts.values())

    def warn(self, path: str, what: str, figures: str = "") -> None:
        """Log it and show it in health. `figures` may differ each time: they do not make it another thing."""
        key = (path, what)
        texts = dict(self._texts)
        texts.pop(key, None)
        texts[key] = _cut(f"{path} {what}{figures}")
        while len(texts) > MOST_TEXTS:
            del texts[next(iter(texts))]
        self._texts = texts
        if self._is_new(key):
            self.log.warn("Filesystem backend: {path} {what}{figures}", path=path, what=what, figures=figures)

    def mention(self, path: str, what: str) -> None:
        """Log it alone."""
        if self._is_new((path, what)):
            self.log.info("Filesystem backend: {path} {what}", path=path, what=what)

    def _is_new(self, key: tuple[str, str]) -> bool:
        now = self._now()
        if abs(now - self._since) > WINDOW:
            if self._unsaid:
                self.log.warn("Filesystem backend: {count} more such notes were left out", count=self._unsaid)
            self._since, self._said, self._unsaid = now, set(), 0
        if key in self._said:
            return False
        if len(self._said) >= MOST_LINES:
            self._unsaid += 1
            return False
        self._said.add(key)
        return True


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
