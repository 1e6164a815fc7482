"""The errors that cross module borders. Everything else stays inside its module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a config: where it stands, which key, what is wrong and what would be right."""

    path: str
    """The key, dotted: ``backends.files.path``. Empty for the file as a whole."""
    problem: str
    """What is wrong and what instead, in one sentence."""
    file: str = ""
    line: int = 0
    """1-based; 0 where the fault has no line."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{where}{self.path}: {self.problem}" if self.path else f"{where}{self.problem}"


class ConfigError(Exception):
    """A config that can't be used. Carries every fault that was found, not only the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class ProtocolError(Exception):
    """A line or a hello that the protocol refuses. `code` is one of the codes of docs/protocol.md."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class RetryableError(Exception):
    """A backend can't take this batch now: the same batch comes again after a backoff."""


class PositionMoved(RetryableError):
    """A backend stands elsewhere than the delivery believes, further or lower: `open` is asked again, and the delivery
    goes on at its answer."""


class Superseded(RetryableError):
    """This batch was dropped because an older one, given before it, failed: it comes again once that one is stored."""


class PermanentError(Exception):
    """A backend will never take this batch as it is: it is bisected down to the messages at fault."""

    def __init__(self, text: str = "", code: str = "refused") -> None:
        """`code` says in a word what kind of refusal it is, such as an SQLSTATE. Refusals of one code in a row, with
        nothing accepted between, make the backend count as failing."""
        self.code = code
        super().__init__(text)


class Refused(Exception):
    """A backend will never take some messages of this batch. Nothing of the batch counts as stored: it comes again, with
    the same `start` and `end`, without them."""

    def __init__(self, reasons: Mapping[int, str], code: str = "refused") -> None:
        """`reasons` says for each message at fault, by its index in the batch, why. `code` is as in PermanentError."""
        self.reasons = dict(reasons)
        self.code = code
        first = next(iter(self.reasons.values()), "no message named")
        super().__init__(f"{len(self.reasons)} messages refused: {first}")


class JournalFull(Exception):
    """The journal has reached its quota or its disk; receivers pause until space returns."""


class JournalLocked(Exception):
    """Another process has the journal's directory open."""


PRINTED_MAX = 1000


def printable(text: object) -> str:
    """What others have said, as it may stand in a log: of bounded length, and without a character that a terminal or a
    reader of lines could take for something else."""
    said = str(text)[: PRINTED_MAX + 1]
    cut = said if len(said) <= PRINTED_MAX else f"{said[:PRINTED_MAX]}…"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)
