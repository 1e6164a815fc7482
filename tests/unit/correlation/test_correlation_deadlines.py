"""Deadlines beside the simplest thing that could be right: a list that is sorted each time."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from wafermon.correlation.deadlines import SECOND, Deadlines

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcdef"), st.integers(0, 12 * SECOND)),
        st.tuples(st.just("remove"), st.sampled_from("abcdef"), st.just(0)),
        st.tuples(st.just("pop"), st.just(""), st.integers(0, 4 * SECOND)),
    ),
    max_size=60,
)


@given(steps=STEPS, start=st.sampled_from([0, 1_795_500_000 * SECOND]))
def test_what_is_due_comes_once_and_in_order(steps: list[tuple[str, str, int]], start: int) -> None:
    deadlines, expected, now = Deadlines(), dict[str, int](), start
    for step, trace_id, time in [*steps, ("pop", "", 100 * SECOND)]:
        if step == "pop":
            now += time
            found = []
            while due := deadlines.pop(now):
                if expected.get(due[1]) == due[0]:  # one that was removed in its own second may come still
                    found.append(due)
                    del expected[due[1]]
            assert found == sorted(found)
            assert all(at > now for at in expected.values())
        else:
            if trace_id in expected:
                deadlines.remove(trace_id, expected.pop(trace_id))
            if step == "put":
                deadlines.put(trace_id, start + time)
                expected[trace_id] = start + time
    assert not expected
    assert len(deadlines) == 0


def test_what_was_removed_takes_no_memory() -> None:
    deadlines = Deadlines()
    for second in range(600):
        for n in range(1_000):
            deadlines.put(f"t{n}", second * SECOND)
        for n in range(1, 1_000):
            deadlines.remove(f"t{n}", second * SECOND)
    deadlines.pop(-1)
    assert len(deadlines) == 600
    assert sum(map(sys.getsizeof, deadlines._later.values())) < 600 * 2_048
