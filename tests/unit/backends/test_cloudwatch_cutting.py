"""Whatever is to be sent, each request is within all limits, and nothing is missing, doubled or out of order."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from wafermon.backends.cloudwatch.cutting import EVENT_OVERHEAD, REQUEST_BYTES, REQUEST_EVENTS, SPAN_MS, Entry, cuts

DAY = 86_400_000
LINES = {size: b"x" * size for size in (1, 300, 65_536, 400_000, REQUEST_BYTES - EVENT_OVERHEAD)}
TIMES = st.one_of(st.integers(0, 40 * DAY), st.sampled_from([0, 1, DAY, DAY + 1, 2 * DAY]))
ENTRIES = st.lists(st.tuples(TIMES, st.sampled_from(sorted(LINES))), max_size=60)


def entries_of(made: list[tuple[int, int]]) -> list[Entry]:
    return [Entry(number, time, LINES[size]) for number, (time, size) in enumerate(made)]


@given(ENTRIES)
@example([(0, 1), (DAY, 1)])
@example([(0, 1), (DAY + 1, 1)])
@settings(max_examples=300)
def test_each_request_is_within_the_limits(made: list[tuple[int, int]]) -> None:
    entries = entries_of(made)
    requests = list(cuts(entries))
    for request in requests:
        times = [entry.time for entry in request]
        assert 0 < len(request) <= REQUEST_EVENTS
        assert sum(len(entry.line) + 26 for entry in request) <= 1_048_576
        assert times == sorted(times)
        assert times[-1] - times[0] <= 24 * 60 * 60 * 1000
    sent = [entry for request in requests for entry in request]
    assert sorted(sent) == entries


@given(ENTRIES)
def test_those_of_one_time_stay_in_their_order(made: list[tuple[int, int]]) -> None:
    seen: dict[int, list[int]] = defaultdict(list)
    for request in cuts(entries_of(made)):
        for entry in request:
            seen[entry.time].append(entry.number)
    assert all(numbers == sorted(numbers) for numbers in seen.values())


@given(ENTRIES)
def test_no_request_could_take_the_first_of_the_next(made: list[tuple[int, int]]) -> None:
    requests = list(cuts(entries_of(made)))
    for request, following in pairwise(requests):
        wider = [*request, following[0]]
        assert (
            len(wider) > REQUEST_EVENTS
            or sum(entry.size for entry in wider) > REQUEST_BYTES
            or wider[-1].time - wider[0].time > SPAN_MS
        )


def test_more_events_than_a_request_takes() -> None:
    sizes = [len(request) for request in cuts(Entry(number, 0, b"x") for number in range(25_001))]
    assert sizes == [10_000, 10_000, 5_001]


def test_the_largest_event_that_fits() -> None:
    assert Entry(0, 0, b"x" * 1_048_550).fits and not Entry(0, 0, b"x" * 1_048_551).fits
    assert not Entry(0, 0, "µ".encode() * 524_276).fits, "bytes count, not characters"
