"""How much is measured."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from suite.native import Load


@dataclass(frozen=True)
class Options:
    """`base` is what everything else is compared with: 240 bytes, eight connections, a service and a job each."""

    messages: int = 400_000
    seconds: float = 3.0
    """Of each point of a latency curve."""
    quick: bool = False
    backlog: int = 1 << 30
    """Bytes of the largest journal that waits."""
    resources: ExitStack = field(default_factory=ExitStack)
    """What sections share between their cases and that ends with the run."""

    @property
    def base(self) -> Load:
        return Load(messages=self.messages)
