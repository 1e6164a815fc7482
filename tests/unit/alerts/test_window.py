"""How often something may happen."""

from __future__ import annotations

from wafermon.alerts.window import Window


def test_a_window_lets_so_many_through_in_any_stretch_of_time() -> None:
    window = Window(2, 60.0)
    allowed = set()
    for at in (0, 1, 2, 59, 60, 60.5, 61, 62):
        if window.is_free(at):
            window.note(at)
            allowed.add(at)
    assert allowed == {0, 1, 60, 61}


def test_none_is_no_limit() -> None:
    window = Window(0, 60.0)
    for _ in range(1_000):
        assert window.is_free(0)
        window.note(0)
    assert not window._times, "it remembers what it need not"
