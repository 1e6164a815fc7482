"""Alarms as webhooks write them. Pure.

What is known of them, and from where:

- PagerDuty: its own OpenAPI description of Events API v2 (`reference/events-v2/openapiv3.json` in PagerDuty/api-schema). It asks for `routing_key`
  and `event_action`; for `dedup_key` unless it is a trigger; in `payload` for `summary`, `source` and one of four severities. 202 is taken;
  429, any 5xx and no answer are to be tried again, 400 is not. It names no length: 255 characters for `dedup_key` and 1,024 for `summary` are what
  clients of it (InfluxDB, Kestra) document. Nothing here was sent to PagerDuty.
- Slack: incoming webhooks take `{"text": …}`; its changelog of 2016-05-17 has the statuses (400, 403, 404 and 410 say what is wrong with the
  request, 500 is its own fault), its page of rate limits one message per second, then 429 with Retry-After. What is longer than 40,000
  characters is cut there. Nothing here was sent to Slack.
- Alertmanager: its `api/v2/openapi.yaml`, and the program itself, in the tests.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from wafermon.interfaces import Alarm
from wafermon.model.kinds import kind_of

SEVERITIES = {"recovered": "info", "test": "info", "dropped": "warning", "late": "warning", "too_fast": "warning", "digest": "warning",
              "span_abandoned": "warning", "overlapping": "warning"}  # fmt: skip
"""PagerDuty knows critical, error, warning and info; kinds that are not here are an error."""


def as_json(alarm: Alarm) -> dict[str, Any]:
    """Everything."""
    return {
        "id": alarm.id,
        "dedup_key": alarm.key,
        "action": alarm.action,
        "kind": alarm.kind,
        "summary": alarm.summary,
        "source": alarm.source,
        "ts": alarm.ts,
        "event": dict(alarm.event),
    }


def as_slack(alarm: Alarm) -> dict[str, Any]:
    """Text alone, which Mattermost and others take too. `&`, `<` and `>` are Slack's own signs."""
    text = f"{'resolved: ' if alarm.action == 'resolve' else ''}{alarm.kind}: {alarm.summary}"
    more = alarm.event.get("summaries") if alarm.kind == "digest" else None
    lines = [text, *(f"- {one}" for one in more or ())]
    return {"text": "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


def as_pagerduty(alarm: Alarm, routing_key: str) -> dict[str, Any]:
    body: dict[str, Any] = {"routing_key": routing_key, "event_action": alarm.action, "dedup_key": alarm.key}
    if alarm.action == "trigger":
        body["payload"] = {
            "summary": alarm.summary,
            "source": alarm.source,
            "severity": SEVERITIES.get(alarm.kind, "error"),
            "timestamp": moment(alarm.ts),
            "class": alarm.kind,
            "custom_details": dict(alarm.event),
        }
    return body


def as_alertmanager(alarm: Alarm, now: float, lasts: float) -> list[dict[str, Any]]:
    """No label holds a job's id: each would be an alert of its own for ever. `lasts` seconds after `now` it counts as over unless it
    is sent again."""
    ended = alarm.action == "resolve"
    sort, _, rest = alarm.key.partition("/")
    if sort == "job":
        labels = {"alertname": "wafermon", "kind": alarm.kind, "service": alarm.source, "job": kind_of(rest)}
    else:
        labels = {"alertname": "wafermon", sort: rest}
    alert: dict[str, Any] = {
        "labels": labels,
        "annotations": {"summary": alarm.summary, "kind": alarm.kind, "id": alarm.id},
        "endsAt": moment(int((now if ended else now + lasts) * 1e6)),
    }
    if not ended:
        alert["startsAt"] = moment(min(alarm.ts or int(now * 1e6), int(now * 1e6)))
    return [alert]


def moment(ts: int) -> str:
    """Microseconds since the Unix epoch -> RFC 3339."""
    return datetime.fromtimestamp(ts / 1e6, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
