"""One run of a command, without a process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fake_process import Process
from inline import Loop

from wafermon.alerts.command import KILL_SECONDS, LEFT_SECONDS, OUTPUT_BYTES, OUTPUT_SECONDS, TIMEOUT_SECONDS, Run


@pytest.fixture
def process() -> Process:
    """A command that runs."""
    loop, made = Loop(), list[Process]()

    def spawn(run: Run, path: str, words: Sequence[str], env: object) -> None:
        made.append(Process(run, words, loop))
        run.makeConnection(made[0])

    loop.spawnProcess = spawn  # type: ignore[attr-defined]
    run = Run(b"{}\n", loop)
    run.start(["tell", "me"])
    run.ended.addCallback(made[0].ended.append)
    return made[0]


def test_a_command_that_takes_too_long_is_asked_to_end_and_then_killed(process: Process) -> None:
    process.loop.pass_time(TIMEOUT_SECONDS - 0.1)
    assert process.asked == ["end of input"]
    process.loop.pass_time(0.1)
    assert process.asked == ["end of input", "TERM"]
    process.loop.pass_time(KILL_SECONDS)
    assert process.asked == ["end of input", "TERM", "KILL"]
    process.exit(signal=9)
    assert process.ended == ["it ran for more than 30 s"]
    assert len(process.ended) == 1
    process.loop.turn()
    assert process.loop.getDelayedCalls() == []


def test_one_that_exits_well_after_it_was_asked_to_end_took_too_long(process: Process) -> None:
    process.loop.pass_time(TIMEOUT_SECONDS)
    process.exit(0)
    assert process.ended == ["it ran for more than 30 s"]


def test_one_that_does_not_even_end_by_sigkill_is_not_waited_for(process: Process) -> None:
    process.loop.pass_time(TIMEOUT_SECONDS + KILL_SECONDS)
    assert process.ended == []
    process.loop.pass_time(KILL_SECONDS)
    assert process.ended == ["it ran for too long, and does not end by SIGKILL either"]
    assert len(process.ended) == 1
    process.exit(signal=9)
    assert len(process.ended) == 1


def test_one_that_runs_as_another_user_is_not_waited_for(process: Process) -> None:
    process.refuses = PermissionError(1, "Operation not permitted")
    process.loop.pass_time(TIMEOUT_SECONDS)
    assert process.ended == ["it ran for more than 30 s and can't be ended: [Errno 1] Operation not permitted"]


def test_one_that_exits_just_when_it_is_asked_to_end(process: Process) -> None:
    process.gone = True
    process.loop.pass_time(TIMEOUT_SECONDS)
    assert process.ended == []
    process.exit()
    assert len(process.ended) == 1


def test_one_that_leaves_something_in_the_background_is_done_when_it_exits(process: Process) -> None:
    process.exit(output=False)
    assert process.ended == [""]
    process.loop.pass_time(LEFT_SECONDS - 0.1)
    assert process.asked == ["end of input"]
    process.loop.pass_time(0.1)
    assert process.asked == ["end of input", "closed"], "its descriptors stay open"
    process.loop.turn()
    assert process.loop.getDelayedCalls() == []


def test_nothing_is_closed_where_all_of_the_output_has_come(process: Process) -> None:
    process.exit()
    process.loop.turn()
    assert process.loop.getDelayedCalls() == []
    assert process.asked == ["end of input"]


def test_the_output_of_one_that_failed_is_waited_for_a_moment(process: Process) -> None:
    process.exit(4, output=False)
    assert process.ended == []
    process.run.errReceived(b"nobody is on duty")
    process.loop.pass_time(OUTPUT_SECONDS)
    assert process.ended == ["it ended with status 4: nobody is on duty"]
    process.loop.pass_time(LEFT_SECONDS)
    assert process.asked[-1] == "closed"


def test_one_that_failed_is_told_as_soon_as_its_output_ends(process: Process) -> None:
    process.exit(4)
    assert len(process.ended) == 1
    process.loop.turn()
    assert process.loop.getDelayedCalls() == []


def test_one_that_a_signal_ended_says_which(process: Process) -> None:
    process.exit(signal=11)
    assert process.ended == ["it ended with signal 11"]


def test_only_the_end_of_what_it_says_is_kept(process: Process) -> None:
    for _ in range(100):
        process.run.outReceived(b"x" * 1_000)
    process.run.outReceived(b"the end \xff")
    assert len(process.run._said) == OUTPUT_BYTES
    process.exit(1)
    assert process.ended[0].endswith("the end \N{REPLACEMENT CHARACTER}")
