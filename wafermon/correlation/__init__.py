"""Correlation: what the messages of one trace say together. Pure; the clock is handed in.

`Engine` observes the journal's groups in order and answers with the messages that the sidecar is to journal itself:
`trace` summaries, abandoned spans, stalled jobs (docs/correlation.md).
"""

from wafermon.correlation.correlator import Correlator
from wafermon.correlation.derived import Derived, key_of
from wafermon.correlation.engine import Engine
from wafermon.correlation.facts import Facts
from wafermon.correlation.ledger import Ledger
from wafermon.correlation.schedules import rules_of
from wafermon.correlation.snapshot import Settings
from wafermon.model.notable import Notable, notables

__all__ = [
    "Correlator",
    "Derived",
    "Engine",
    "Facts",
    "Ledger",
    "Notable",
    "Settings",
    "key_of",
    "notables",
    "rules_of",
]
