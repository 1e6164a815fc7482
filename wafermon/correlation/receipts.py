"""What a receipt is computed from, as plain JSON values: asked of the ledger, and kept in the journal when a job has ended. Pure.

How far each backend is belongs to neither: that is asked when the receipt is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from wafermon.correlation.facts import Facts
from wafermon.correlation.ledger import RECEIPT

KIND = RECEIPT
"""Of the event that keeps it."""
KEPT = 32
"""So many gaps and clients are kept there."""


def record_of(facts: Facts, most: int | None = None, forwards: Collection[str] = ()) -> dict[str, Any]:
    """`most`: how many gaps and unclosed clients; None for all. `forwards`: the backends that forward to other sidecars, which are told
    how much that is."""
    account = facts.account
    gaps, unclosed = facts.gaps[:most], facts.unclosed[:most]
    shown = {*unclosed, *(gap.client for gap in gaps)}
    return {
        "received": account.received,
        "sent": facts.sent,
        "rejected": facts.rejected,
        "dropped": facts.dropped,
        "gaps": [list(gap) for gap in gaps],
        "more_gaps": facts.more_gaps + sum(gap.last - gap.first + 1 for gap in facts.gaps[len(gaps) :]),
        "unclosed": list(unclosed),
        "open": len(account.shares),
        "more_unclosed": len(facts.unclosed) - len(unclosed),
        "closed": account.closed,
        "unjudged": account.unjudged,
        "unnumbered": account.unnumbered,
        "no_route": account.no_route,
        "begun_before": account.before,
        "running": account.running,
        "services": {client: service for client, service in facts.services.items() if client in shown},
        "routed": {
            names: [one.count, one.segment, one.offset, {str(segment): n for segment, n in one.segments.items()}]
            for names, one in account.routed.items()
        },
        "dead": dict(account.dead),
        "forwarded": account.forwarded,
        "edges": {journal: msgspec.structs.asdict(edge) for journal, edge in account.edges.items()},
        "forwards": {
            name: sum(one.count for names, one in account.routed.items() if name in names.split(","))
            for name in forwards
        },
    }


def in_words(record: dict[str, Any]) -> str:
    """What the event says to a person."""
    unclosed = len(record["unclosed"]) + record["more_unclosed"]
    sent = "" if record["sent"] is None else f" of {record['sent']} sent"
    words = f"receipt: {record['received']} messages{sent} received"
    missing = [
        f"{unclosed} programs have not said that this is all" if unclosed else "",
        f"{len(record['gaps'])} gaps" if record["gaps"] else "",
        f"{record['dropped']} dropped" if record["dropped"] else "",
        f"{record['rejected']} rejected" if record["rejected"] else "",
    ]
    return "; ".join([words, *filter(None, missing)])
