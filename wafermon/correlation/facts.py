"""What the ledger answers of a trace, before anything is known of the backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wafermon.correlation.accounts import Account


class Gap(NamedTuple):
    """Numbers of a stream that are not there."""

    client: str
    first: int
    last: int
    alone: bool
    """Whether the stream served this trace alone: else they may belong to something else."""
    pending: bool
    """Whether they may still come: they are said to lie in a spill file."""


class Facts(NamedTuple):
    """What is known of a trace, backends apart."""

    trace_id: str
    account: Account
    sent: int | None
    """None where some stream served more than this trace, or is not closed."""
    dropped: int
    rejected: int
    gaps: Sequence[Gap]
    more_gaps: int
    """Numbers in gaps that are not among them."""
    unclosed: Sequence[str]
    services: dict[str, str]
    """Of the clients named in gaps and unclosed."""
