"""The parts of channels that are pure, and the outbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from wafermon.alerts import outbox
from wafermon.alerts.alarms import digest_of, short
from wafermon.alerts.channels import find_channels
from wafermon.alerts.channels.webhook import WebhookChannel, WebhookOptions, missing, wait_of
from wafermon.alerts.covered import Covered
from wafermon.alerts.outbox import Outbox
from wafermon.alerts.shapes import as_alertmanager, as_pagerduty, as_slack
from wafermon.config import check
from wafermon.interfaces import Alarm, ChannelContext, IChannelFactory, RetryableError
from wafermon.model.alerts import AlertConfig, quiet_left
from wafermon.model.checking import checked
from wafermon.model.errors import ConfigError
from wafermon.model.position import Position
from wafermon.model.schedules import PAST_SECONDS, Schedule

NOW = 1_764_400_000_000_000


def alarm(number: int = 1, **given: Any) -> Alarm:
    values = {
        "id": f"id-{number}",
        "key": f"schedule/s-{number}",
        "action": "trigger",
        "kind": "not_started",
        "summary": "<b> & more",
        "source": "etl",
        "ts": NOW,
        "event": {"kind": "not_started"},
    }
    return Alarm(**{**values, **given})


def test_pagerduty_gets_what_its_schema_asks_for() -> None:
    body = as_pagerduty(alarm(), "k" * 32)
    assert {key: body[key] for key in ("routing_key", "event_action", "dedup_key")} == {
        "routing_key": "k" * 32, "event_action": "trigger", "dedup_key": "schedule/s-1"}  # fmt: skip
    assert body["payload"]["severity"] in ("critical", "error", "warning", "info")
    assert body["payload"]["timestamp"] == "2025-11-29T07:06:40.000Z"
    assert as_pagerduty(alarm(action="resolve"), "k").keys() == {"routing_key", "event_action", "dedup_key"}
    assert len(short("x" * 1000)) <= 255
    assert short("x" * 1000) != short("x" * 1001)


def test_slack_and_alertmanager() -> None:
    assert as_slack(alarm()) == {"text": "not_started: &lt;b&gt; &amp; more"}
    (alert,) = as_alertmanager(alarm(), NOW / 1e6, 300)
    assert alert["labels"] == {"alertname": "wafermon", "schedule": "s-1"}
    assert alert["endsAt"] == "2025-11-29T07:11:40.000Z"
    (over,) = as_alertmanager(alarm(action="resolve"), NOW / 1e6, 300)
    assert over["labels"] == alert["labels"]
    assert over["endsAt"] == "2025-11-29T07:06:40.000Z"
    (job,) = as_alertmanager(alarm(key="job/load-4711", kind="job_failed"), NOW / 1e6, 300)
    assert "4711" not in str(job["labels"])


def test_a_digest_counts_all_and_names_some() -> None:
    found = digest_of([alarm(number) for number in range(50)], "hook")
    assert found.event["count"] == 50
    assert len(found.event["summaries"]) == 20


@pytest.mark.parametrize("minute, left", [(22 * 60, 480), (0, 360), (5 * 60 + 59, 1), (6 * 60, 0), (12 * 60, 0)])
def test_quiet_hours_go_over_midnight(minute: int, left: int) -> None:
    assert quiet_left("22:00-06:00", minute) == left
    assert quiet_left("", minute) == 0


def test_retry_after() -> None:
    assert wait_of("7", 0) == 7
    assert wait_of("999999", 0) == 3600
    assert wait_of("Thu, 01 Jan 1970 00:01:00 GMT", 20) == 40
    assert [wait_of(text, 0) for text in ("", "soon", "-1", "²")] == [0, 0, 0, 0]


def test_the_outbox_takes_nothing_twice_and_outlives_a_crash(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "alerts" / "a.db")
    assert box.open() == (0, 0)
    assert box.put([alarm(1), alarm(2)], Position("j", 0, 10)) == (2, 0)
    again = Outbox(tmp_path / "alerts" / "a.db")  # the first was never closed
    assert again.put([alarm(1), alarm(2)], Position("j", 0, 10)) == (2, 0)
    assert again.put([alarm(3)], Position("k", 0, 1)) == (3, 0)
    first = again.first()
    assert first is not None and first.alarm == alarm(1)
    again.done([first.id], first.alarm)
    assert again.is_open("schedule/s-1")
    assert again.opened() == [alarm(1)]
    again.hold(True)
    assert [one.alarm for one in again.held()] == [alarm(2), alarm(3)]
    again.done([], alarm(1, action="resolve"))
    assert not again.is_open("schedule/s-1")
    again.close()
    box.close()


def test_the_oldest_goes_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST", 3)
    box = Outbox(tmp_path / "alerts" / "a.db")
    box.put([alarm(number) for number in range(5)], Position("j", 0, 1))
    assert box.add([alarm(9)]) == (3, 3)
    first = box.first()
    assert first is not None and first.alarm.id == "id-3"
    box.close()


def test_faults_of_the_config_name_their_lines() -> None:
    text = """backends: {files: {plugin: filesystem, path: 'x/{service}.jsonl'}}
alerts:
  a: {plugin: webhok}
  b: {plugin: webhook}
  c: {plugin: webhook, url: 'ftp://x', on: [nothing]}
  d: {plugin: webhook, format: pagerduty}
  e: {plugin: email, to: [nobody]}
  f: {plugin: command, command: x, quiet: "22-6"}
"""
    from wafermon.backends import find_plugins

    with pytest.raises(ConfigError) as caught:
        check(text.encode(), "f.yaml", find_plugins().factories, {}, find_channels())
    faults = str(caught.value)
    for line in range(3, 9):
        assert f"f.yaml:{line}: " in faults
    assert "did you mean 'webhook'?" in faults


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "http://",
        "http://[::1",
        "http://h:99999/",
        "http://h:0/",
        "http://h/ x",
        "http://user:pw@h/",
    ],
)
def test_a_url_that_can_not_be_posted_to_is_a_fault_and_is_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a URL such as|can't hold a user") as caught:
        checked(WebhookOptions, {"url": url})
    assert "pw" not in str(caught.value)
    (tmp_path / "url").write_text(url)
    channel = WebhookChannel(
        checked(WebhookOptions, {"url_file": str(tmp_path / "url")}), ChannelContext("hook", Clock())
    )
    failed = channel.send(alarm())
    with pytest.raises(RetryableError, match=r"expected a URL such as|can't hold a user"):
        raise failed.result.value  # type: ignore[attr-defined]
    failed.addErrback(lambda _: None)


def test_https_needs_what_is_not_installed_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.alerts.channels.webhook.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="wafermon\\[tls\\]"):
        checked(WebhookOptions, {"url": "https://example.org/"})
    assert "wafermon[tls]" in missing(checked(WebhookOptions, {"format": "pagerduty", "routing_key": "k"}))
    assert not missing(checked(WebhookOptions, {"format": "pagerduty", "routing_key": "k", "url": "http://h/"}))


def test_every_plugin_provides_the_interface() -> None:
    for name, factory in find_channels().items():
        verifyObject(IChannelFactory, factory)
        assert factory.name == name


def schedules(**given: Any) -> dict[str, Schedule]:
    made = {"match": {"job": "load-*", "host": "fab1"}, "every": "1h", "silent": "5m"}
    return {"nightly": checked(Schedule, {**made, **given})}


def channel(**given: Any) -> AlertConfig:
    return AlertConfig(plugin="webhook", name="hook", **given)


def failed_job(job: str = "load-1", host: str = "fab1", ts: int = NOW, **given: Any) -> Alarm:
    event = {"kind": "job_failed", "job_id": job, "service": "etl", "host": host, **given}
    return alarm(kind="job_failed", key=f"job/{job}", event=event, ts=ts)


def derived_alarm(kind: str, *names: str) -> Alarm:
    context = {"job_id": "load-1", "service": "etl", **({"schedules": [*names]} if names else {})}
    return alarm(kind=kind, event={"kind": kind, "context": context})


def test_what_a_schedule_tells_of_a_job_is_not_told_a_second_time() -> None:
    covered = Covered(schedules())
    assert covered.tells(failed_job(), channel(), NOW)
    assert covered.tells(failed_job(ts=NOW - PAST_SECONDS * 1_000_000), channel(), NOW)
    assert covered.tells(derived_alarm("gone", "nightly"), channel(), NOW)
    assert covered.tells(derived_alarm("job_stalled", "other", "nightly"), channel(), NOW)
    assert covered.tells(failed_job(), channel(match={"schedule": "night*"}), NOW)


@pytest.mark.parametrize(
    ("told", "config", "expected"),
    [
        (failed_job("other-1"), channel(), schedules()),
        (failed_job(host="fab2"), channel(), schedules()),
        (failed_job(ts=NOW - PAST_SECONDS * 1_000_000 - 1), channel(), schedules()),
        (failed_job(replay_to="files"), channel(), schedules()),
        (derived_alarm("gone"), channel(), schedules()),
        (derived_alarm("gone", "gone-from-the-config"), channel(), schedules()),
        (derived_alarm("dropped"), channel(), schedules()),
        (alarm(kind="failed"), channel(), schedules()),
        (failed_job(), channel(on=["job_failed", "silent"]), schedules()),
        (failed_job(), channel(match={"schedule": "weekly*"}), schedules()),
        (derived_alarm("job_stalled", "nightly"), channel(), schedules(silent=0)),
        (failed_job(), channel(), {"intake": checked(Schedule, {"match": {"service": "etl"}, "every": "1h"})}),
        (failed_job(), channel(), {}),
    ],
)
def test_what_no_schedule_tells_the_channel_is_told(
    told: Alarm, config: AlertConfig, expected: dict[str, Schedule]
) -> None:
    assert not Covered(expected).tells(told, config, NOW)


def test_what_is_held_and_over_since_is_marked_so(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "hook.db")
    box.put([alarm(1), alarm(2)], Position("j", 1, 10))
    box.hold(True)
    box.over("schedule/s-1")
    assert [(one.held, one.over) for one in box.held()] == [(True, True), (True, False)]
    box.over("schedule/s-3")
    assert [one.over for one in box.held()] == [True, False]
    assert digest_of([one.alarm for one in box.held()], "hook", 1).summary == (
        "2 alarms were held back: 2 not_started; 1 is over by now"
    )
    box.close()


def test_what_resolves_an_alarm_is_dropped_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST", 2)
    box = Outbox(tmp_path / "hook.db")
    box.put([alarm(1, action="resolve"), alarm(2)], Position("j", 1, 10))
    assert box.put([alarm(3)], Position("j", 1, 20)) == (2, 1)
    first = box.first()
    assert first is not None and first.alarm.action == "resolve"
    assert box.put([alarm(4, action="resolve"), alarm(5, action="resolve")], Position("j", 1, 30)) == (2, 3)
    box.close()
