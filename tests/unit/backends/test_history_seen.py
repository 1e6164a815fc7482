"""What is seen in lines, by the pass in C and without it: the same."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from wafermon.backends.history.seen import HOUR, Seen, by_messages, see
from wafermon.contract import one_of_each
from wafermon.model.blocks import Block
from wafermon.wire.lines import Origin
from wafermon.wire.scanned import PURE, reader
from wafermon.wire.sums import Summer, summer

T0 = 1_795_500_000_000_000
KEYS = ("wafer", "lot")


@pytest.fixture(name="summing")
def _summing() -> Summer:
    found = summer()
    if found is None:
        pytest.skip("the pass in C was not built")
    return found


def line(**fields: Any) -> bytes:
    fields = {"v": 2, "type": "event", "ts": T0, "service": "etl", "client": "00000000000000aa", "seq": 1, **fields}
    if fields["type"] == "event":
        fields = {"level": "info", "message": "x", **fields}
    return json.dumps(fields, ensure_ascii=False).encode()


def metric(value: Any, **fields: Any) -> bytes:
    return line(**{"type": "metric", "trace_id": "t", "name": "n", "value": value, **fields})


def both(lines: Sequence[bytes], summing: Summer, keys: Sequence[str] = KEYS) -> tuple[Seen, Seen]:
    raw = b"".join(one + b"\n" for one in lines)
    return see(Block.parse(raw), keys, summing), by_messages(Block.parse(raw), keys)


def same(lines: Sequence[bytes], summing: Summer, keys: Sequence[str] = KEYS) -> Seen:
    ours, right = both(lines, summing, keys)
    for name in ("counted", "traces", "context", "followed"):
        assert getattr(ours, name) == getattr(right, name), name
    assert ours.series.keys() == right.series.keys()
    for key, values in right.series.items():
        assert ours.series[key] == pytest.approx(values, rel=1e-12)

    def told(seen: Seen) -> list[Any]:
        return [one for one in seen.events if one.level in ("error", "critical") or one.service == "wafermon"]

    assert told(ours) == told(right)
    return ours


def test_one_of_each(summing: Summer) -> None:
    same([one.removesuffix(b"\n") for one in one_of_each(1)], summing)


@pytest.mark.parametrize("value", [
    0, -0.0, 5, -17, 0.1, -0.1, 1.5e300, -2e-5, 1e22, 9007199254740993, 123456789012345678, 0.1 + 0.2, 1 / 3, 2.0**-30,
    0.000000000000000001, 4.35, "NaN", "Infinity",
])  # fmt: skip
def test_a_number_is_what_python_reads(value: Any, summing: Summer) -> None:
    lines = [metric(value), metric(1), metric(value, trace_id="u")]
    raw = b"".join(one + b"\n" for one in lines)
    assert see(Block.parse(raw), (), summing).series == by_messages(Block.parse(raw), ()).series


def test_sums_of_many_numbers_are_the_same_to_the_last_bit(summing: Summer) -> None:
    chance = random.Random(7)
    lines = [
        metric(chance.choice([chance.random(), round(chance.gauss(0, 1e5), 3), chance.randint(-9, 9)]))
        for _ in range(500)
    ]
    ours, right = both(lines, summing)
    assert ours.series == right.series
    assert next(iter(right.series.values()))[0] == 500


def test_names_that_are_no_plain_ascii(summing: Summer) -> None:
    seen = same(
        [
            metric(1, unit="µm"),
            metric(2, unit="\\"),
            metric(3, name='a"b'),
            metric(4, name="x" * 200),
            metric(5, unit=""),
        ],
        summing,
    )
    assert {unit for _, _, _, unit in seen.series} == {"µm", "\\", ""}
    assert {len(name) for _, _, name, _ in seen.series} == {1, 3, 128}


def test_metrics_of_no_trace_are_counted_and_not_summed_up(summing: Summer) -> None:
    seen = same([line(type="metric", name="n", value=1), metric(2)], summing)
    assert sum(seen.counted.values()) == 2
    assert list(seen.series) == [("t", "etl", "n", "")]


def test_values_in_a_context(summing: Summer) -> None:
    contexts: list[Any] = [
        {"wafer": "W1"}, {"wafer": 7, "lot": None}, {"lot": {"a": [1, "}"]}}, {"lot": "L\"1\\"}, {"wafer": "Ω"}, {},
        {"other": {"wafer": "inner"}}, {"wafer": "x" * 500}, {"wafer": "W1", "lot": True}, {"lot": 1.50},
    ]  # fmt: skip
    seen = same([line(context=one) for one in contexts], summing)
    assert ("wafer", "W1") in seen.context
    assert ("wafer", "inner") not in seen.context
    spaced = (
        b'{"type":"event","ts":%d,"service":"s","level":"info","message":"m","context": { "wafer" : "A" , "lot":"B" } }'
        % T0
    )
    twice = (
        b'{"type":"event","ts":%d,"service":"s","level":"info","message":"m","context":{"wafer":"A","wafer":"B"}}' % T0
    )
    escaped = b'{"type":"event","ts":%d,"service":"s","level":"info","message":"m","context":{"w\\u0061fer":"C"}}' % T0
    assert same([spaced, twice, escaped], summing).context == {
        ("wafer", "A"),
        ("wafer", "B"),
        ("wafer", "C"),
        ("lot", "B"),
    }


def test_what_is_odd_keeps_its_place(summing: Summer) -> None:
    lines = [
        line(type="progress", job_id="j", trace_id="j", percent=percent, **({"x\n": 1} if percent % 3 == 0 else {}))
        for percent in range(20)
    ]
    lines += [line(level="error", message=f"m{n}", **({"x\t": 1} if n % 2 else {})) for n in range(20)]
    seen = same(lines, summing)
    assert [one.percent for one in seen.followed] == list(range(20))
    assert [one.message for one in seen.events] == [f"m{n}" for n in range(20)]


def test_lines_that_are_nearly_all_odd(summing: Summer) -> None:
    same([line(**{"x\n": n, "trace_id": f"t{n}"}) for n in range(30)] + [line()], summing)


def test_hours_and_services_and_traces(summing: Summer) -> None:
    chance = random.Random(3)
    lines = [
        line(
            ts=T0 + chance.randrange(5 * HOUR),
            service=f"s{chance.randrange(900)}",
            trace_id=f"t{chance.randrange(2000)}",
        )
        for _ in range(5000)
    ]
    seen = same(lines, summing)
    assert len(seen.traces) > 1500
    assert len({hour for hour, *_ in seen.counted}) >= 5


def test_what_the_sidecar_says_is_looked_at(summing: Summer) -> None:
    seen = same([line(service="wafermon", context={"kind": "gone", "job_id": "j"}, trace_id="t"), line()], summing, ())
    assert [one.service for one in seen.events] == ["wafermon"]


def test_what_is_no_block_is_refused(summing: Summer) -> None:
    with pytest.raises(ValueError, match="whole lines"):
        summing(b"{}", HOUR, ())
    with pytest.raises(ValueError, match="at most 16 keys"):
        summing(b"{}\n", HOUR, [f"k{n}" for n in range(17)])
    assert summing(b"", HOUR, ()).odd == []


def mutated(chance: random.Random, raw: bytes) -> bytes:
    """A line of which a few bytes, or pieces, are others."""
    found = bytearray(raw)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(found))
        piece = chance.choice([
            b"", b'"', b"\\", b"{", b"}", b" ", b",", b"0", b"-", b"e5", b".5", b"\\u0061", b"\xce\xa9", b"null", b'"wafer":{"lot":1}', b'"level":"error"',
        ])  # fmt: skip
        found[at : at + chance.randrange(3)] = piece
    return bytes(found).replace(b"\n", b"")


def test_mutated_lines_that_the_sidecar_takes(summing: Summer) -> None:
    """What is stored was taken by the reader: all of that, however odd, adds up to the same."""
    chance = random.Random(11)
    whole = [one.removesuffix(b"\n") for one in one_of_each(1)]
    whole += [
        metric(1.5, unit="um"),
        line(context={"wafer": "W1", "lot": [1, {"a": "b"}]}, level="error", trace_id="t"),
    ]
    taken = 0
    for _ in range(60):
        lines = [mutated(chance, chance.choice(whole)) for _ in range(100)]
        block = reader(Origin(forwarded=True)).read(b"".join(one + b"\n" for one in lines if one), T0).block
        if block.count:
            same(block.raw.splitlines(), summing)
            taken += block.count
    assert taken > 500


def test_it_is_done_without_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PURE, "1")
    assert summer() is None
