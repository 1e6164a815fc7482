"""One answer for all who ask the same."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.server import Request

from wafermon.web import sharing
from wafermon.web.sharing import Lately, Reply, Shared, age_taken


class Asking:
    """Questions that are answered when the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.shared = Shared(self.clock)
        self.pending: list[Deferred[Reply]] = []

    def ask(self, key: object = "q", age: float = 1.0) -> Deferred[Reply]:
        async def answer() -> Reply:
            waiting: Deferred[Reply] = Deferred()
            self.pending.append(waiting)
            return await waiting

        return Deferred.fromCoroutine(self.shared.reply(key, age, answer))


def reply(number: int) -> Reply:
    return Reply(200, b"text/plain", b"%d" % number)


def result_of(asked: Deferred[Any]) -> Any:
    found: list[Any] = []
    asked.addBoth(found.append)
    return found[0] if found else None


def test_who_asks_meanwhile_gets_the_same_answer() -> None:
    asking = Asking()
    first, second = asking.ask(), asking.ask()
    assert len(asking.pending) == 1
    asking.pending[0].callback(reply(1))
    assert (result_of(first), result_of(second)) == (reply(1), reply(1))


@pytest.mark.parametrize("outcome", [reply(1), ZeroDivisionError()])
def test_many_who_waited_are_answered_over_several_turns(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    asking = Asking()
    calls: list[Any] = []
    monkeypatch.setattr(asking.clock, "callLater", lambda *call: calls.append(call))  # a clock has no turns
    asked = [asking.ask() for _ in range(2 * sharing.TURN + 2)]
    [pending] = asking.pending
    pending.errback(outcome) if isinstance(outcome, Exception) else pending.callback(outcome)
    answered = [sum(one.called for one in asked)]
    while calls:
        [(seconds, call, *given)], calls[:] = calls[:], []
        assert seconds == 0
        call(*given)
        answered.append(sum(one.called for one in asked))
    assert answered == [sharing.TURN + 1, 2 * sharing.TURN + 1, 2 * sharing.TURN + 2]
    results = [result_of(one) for one in asked]
    assert all(getattr(one, "value", one) is outcome for one in results)


def test_an_answer_is_given_again_as_long_as_it_is_young_enough_for_who_asks() -> None:
    asking = Asking()
    asking.ask()
    asking.pending[0].callback(reply(1))
    asking.clock.advance(0.9)
    assert result_of(asking.ask()) == reply(1)
    asking.clock.advance(0.2)
    assert result_of(asking.ask()) is None
    assert len(asking.pending) == 2


def test_who_takes_no_old_one_is_answered_anew_even_while_another_asks() -> None:
    asking = Asking()
    asking.ask()
    asking.ask(age=0)
    assert len(asking.pending) == 2


def test_other_questions_have_other_answers() -> None:
    asking = Asking()
    asking.ask("one")
    asking.ask("two")
    assert len(asking.pending) == 2


def test_a_fault_is_everybodys_and_is_not_kept() -> None:
    asking = Asking()
    first, second = asking.ask(), asking.ask()
    asking.pending[0].errback(ZeroDivisionError())
    assert isinstance(result_of(first).value, ZeroDivisionError)
    assert isinstance(result_of(second).value, ZeroDivisionError)
    asking.ask()
    assert len(asking.pending) == 2


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "KEPT_BYTES", 1_000)
    asking = Asking()
    for number in range(sharing.KEPT * 3):
        asking.ask(number)
        asking.pending[-1].callback(Reply(200, b"text/plain", b"x" * 100))
    assert len(asking.shared._known) <= 10
    assert asking.shared._bytes <= 1_000
    waiting = [asking.ask(("waiting", number)) for number in range(sharing.KEPT * 2)]
    for pending in asking.pending[-len(waiting) :]:
        pending.callback(reply(7))
    assert all(result_of(one) == reply(7) for one in waiting)


@pytest.mark.parametrize(("header", "seconds"), [
    (None, 0.0), ("max-age=1", 1.0), ("no-transform, Max-Age = 3", 3.0), ("max-age=99999999999", 10.0), ("max-age=-1", 0.0), ("max-age=x", 0.0), ("no-cache", 0.0),
])  # fmt: skip
def test_how_old_an_answer_may_be(header: str | None, seconds: float) -> None:
    class Asked:
        def getHeader(self, name: str) -> str | None:
            return header

    asked: Any = Asked()
    request: Request = asked
    assert age_taken(request) == seconds


class Given:
    """A request that takes an answer of some age."""

    def __init__(self, control: str) -> None:
        self.control = control

    def getHeader(self, name: str) -> str:
        return self.control

    def setHeader(self, name: bytes, value: bytes) -> None:
        assert (name, value) == (b"content-type", b"application/json")


def test_a_page_of_json_is_given_again_to_who_takes_an_older_one() -> None:
    clock, asked = Clock(), iter(range(9))
    page = Lately(lambda: next(asked), clock.seconds)

    def get(control: str) -> bytes:
        request: Any = Given(control)
        return page(request)

    assert [get("max-age=1"), get("max-age=1"), get(""), get("max-age=1")] == [b"0\n", b"0\n", b"1\n", b"1\n"]
    clock.advance(1.0)
    assert get("max-age=1") == b"2\n"
