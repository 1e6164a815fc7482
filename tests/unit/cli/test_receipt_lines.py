"""A receipt for a person: each thing that is missing is a sentence."""

from __future__ import annotations

from typing import Any

import click
import pytest

from wafermon.cli.receipt import is_final, lines

ONE = "1" * 16
WHOLE: dict[str, Any] = {
    "job": "lot-1", "complete": True, "running": False, "sent": 1_204, "received": 1_204, "rejected": 0, "dropped": 0, "gaps": [],
    "more_gaps": 0, "unclosed": [], "more_unclosed": 0, "closed": 2, "unjudged": 0, "unnumbered": 0, "no_route": 0,
    "begun_before": False, "services": {ONE: "loader"},
    "backends": {"db": {"routed": 1_204, "stored": 1_204, "dead": 0, "skipped": 0}},
}  # fmt: skip


def shown(**fields: Any) -> list[str]:
    return [click.unstyle(line) for line in lines({**WHOLE, **fields})]


def test_a_whole_one() -> None:
    assert shown() == [
        "lot-1  complete",
        "1,204 sent, 1,204 received; 2 of 2 programs have said that this is all",
        "",
        "BACKEND  ROUTED  STORED  DEAD LETTERS  SKIPPED",
        "db        1,204   1,204             0        0",
    ]
    assert shown(sent=None)[1].startswith("1,204 received of programs that served other jobs too; ")
    assert shown(sent=None, unclosed=[ONE])[1] == "1,204 received; 2 of 3 programs have said that this is all"
    assert shown(backends={}) == shown()[:2]


GAP = {"client": ONE, "first": 4, "last": 6, "job": "lot-1", "pending": False}
WAITS = {"db": {"routed": 3, "stored": None, "dead": 0, "skipped": 0}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"running": True}, "the job is not over"),
        ({"unclosed": [ONE]}, f"loader ({ONE}): not closed, so more may have been said than came"),
        ({"gaps": [GAP]}, f"loader ({ONE}): 3 messages (4 to 6) of this job never came"),
        ({"gaps": [{**GAP, "last": 4, "job": None}]}, f"loader ({ONE}): 1 message (4) of this job or another never came"),
        ({"gaps": [{**GAP, "pending": True}]}, f"loader ({ONE}): 3 messages (4 to 6) of this job, said to be in a spill file"),
        ({"more_gaps": 7}, "7 messages more never came"),
        ({"dropped": 1}, "1 message dropped by the programs' SDKs since the job began"),
        ({"rejected": 2}, "2 messages rejected: dead letters, `wafermon replay` sends them again"),
        ({"no_route": 2}, "2 messages that no rule of `routes` takes: dead letters"),
        ({"unnumbered": 2}, "2 messages without a number: nobody can say whether one is missing"),
        ({"unjudged": 2}, "2 clients more than are kept of one trace: these are not judged"),
        ({"begun_before": True}, "it may have begun before the sidecar kept receipts"),
        ({"backends": WAITS}, "db does not have everything yet"),
        ({"backends": {"db": {"routed": 3, "stored": 2, "dead": 1, "skipped": 0}}}, "db refused 1 message: dead letters"),
        ({"backends": {"db": {"routed": 3, "stored": 1, "dead": 0, "skipped": 2}}}, "db passed 2 messages undelivered"),
        ({"backends": {"db": {"routed": 3, "stored": None, "dead": 0, "skipped": 2}}}, "db passed up to 2 messages undelivered"),
    ],
)  # fmt: skip
def test_what_is_missing(fields: dict[str, Any], said: str) -> None:
    assert f"  ! {said}" in shown(complete=False, **fields)


def test_waiting_ends_where_nothing_changes_any_more() -> None:
    assert is_final({**WHOLE, "gaps": [GAP]})
    assert is_final({**WHOLE, "dropped": 1})
    assert not is_final({**WHOLE, "gaps": [{**GAP, "pending": True}]})
    assert not is_final({**WHOLE, "dropped": 1, "unclosed": [ONE]})
    assert not is_final({**WHOLE, "backends": WAITS})
