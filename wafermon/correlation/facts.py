"""What the ledger answers of a trace, before anything is known of the backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wafermon.correlation.accounts import Account
from wafermon.correlation.stream import Stream
from wafermon.correlation.streams import Streams


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


def facts_of(trace_id: str, account: Account, streams: Streams) -> Facts:
    known, roots = streams.by_client, {streams.root(client): None for client in account.shares}
    gaps, unclosed, services = list[Gap](), list[str](), dict[str, str]()
    dropped, rejected, more_gaps = 0, account.rejected + account.near, 0
    for root in roots:
        stream = known.get(root)
        if stream is None or not _is_said(root, stream, account, streams):
            unclosed.append(root)
        if stream is None:
            continue
        family, shares = streams.family(root), account.shares_of(root, stream.family)
        alone = sum(account.shares[name].count for name in shares) == sum(one.messages for one in family)
        dropped += stream.dropped.since(account.begun)
        rejected += sum(one.rejected.since(account.begun) for one in family)
        more_gaps += sum(one.more_gaps for one in family)
        for name in (root, *stream.family):
            if name in known:
                gaps += [Gap(name, first, last, alone, False) for first, last in known[name].gaps]
        for name, last in stream.files.items():
            first = known[name].mark + 1 if name in known else 1
            gaps.append(Gap(name, first, last, alone, True))
        services |= dict.fromkeys((root, *(gap.client for gap in gaps)), stream.service) | services
    sent = account.sent if account.alone and not roots and account.closed else None
    return Facts(trace_id, account, sent, dropped, rejected, gaps, more_gaps, unclosed, services)


def _is_said(root: str, stream: Stream, account: Account, streams: Streams) -> bool:
    """Whether the SDK has said that nothing is unsent of a trace: what is missing then is known."""
    said = stream.said
    if said is None or said.unsent or not (said.final or (account.ended and said.order > account.ended)):
        return False
    return streams.cover(account.shares_of(root, stream.family), root, account, said)
