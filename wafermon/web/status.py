"""How the sidecar is doing, as plain JSON values. Sizes are bytes; times are microseconds since the Unix epoch where they are moments, and
seconds where they are durations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wafermon import __version__
from wafermon.alerts import hook_figures
from wafermon.delivery import Delivery, FollowerState
from wafermon.receivers.kafka.source import Source
from wafermon.web.delay import ReactorDelay
from wafermon.web.view import View

TROUBLED = 20
"""So many schedules that are not as they should be are named."""
_IN_WORDS = {
    "!correlation": "the correlation fails",
    "!dead-letters": "dead letters can't be written",
    "!hooks": "the hooks fail",
}
"""Followers, as problems name them."""


def status(view: View, delay: ReactorDelay, started: int, viewers: int) -> dict[str, Any]:
    """Everything that `wafermon status` shows. `started` is when the sidecar started, `viewers` how many streams of changes are open."""
    receiver, journal = view.receiver.figures, view.journal
    rejected = sum(receiver.rejected.values())
    return {
        "version": __version__,
        "now": journal.now(),
        "started": started,
        **readiness(view),
        "reads_with": view.receiver.reads_with,
        "connections": view.receiver.connections,
        "connections_total": receiver.connections,
        "connections_refused": receiver.refused,
        "messages": {
            "received": receiver.messages + receiver.duplicates + rejected,
            "accepted": receiver.messages,
            "duplicate": receiver.duplicates,
            "rejected": dict(receiver.rejected),
            "gaps": receiver.gaps,
            "journalled": journal.figures.messages,
            "from_spill": view.spills.messages if view.spills else 0,
            "sdk_dropped": view.live.sdk_dropped,
        },
        "forwarders": _forwarders(view),
        "otlp": {
            "senders": len(view.otlp.senders),
            "connected": view.otlp.senders.connected,
            "requests": view.otlp.figures.requests,
            "repeated": view.otlp.figures.repeated,
            "refused": sum(view.otlp.figures.refused.values()),
            "messages": view.otlp.figures.messages,
            "rejected": view.otlp.figures.rejected,
        },
        "spill": {
            "files": view.spills.files if view.spills else 0,
            "stuck": dict(view.spills.stuck) if view.spills else {},
        },
        "correlation": {
            "error": _problem_of(view, "!correlation"),
            "live_traces": view.live.traces,
            **view.live.counters,
        },
        "schedules": _schedules(view),
        "dead_letters": {
            "error": _problem_of(view, "!dead-letters"),
            "dir": str(view.dead_letters.dir),
            "bytes": view.dead_letters.size,
            "written": view.dead_letters.written,
            "dropped_files": view.dead_letters.dropped_files,
        },
        "followers": {name: _follower(state) for name, state in view.supervisor.states.items()},
        "kafka": [_source(source) for source in view.sources.open],
        "hooks": hook_figures(view.hooks) if view.hooks is not None else None,
        "alerts": {name: channel.figures() for name, channel in view.channels.items()},
        "http": [
            {"endpoint": one.endpoint, "address": address, "serve": list(one.serve)}
            for one, address in view.http_listeners()
        ],
        "viewers": viewers,
        "reactor_delay": round(delay.seconds, 6),
    }


FORWARDERS_SHOWN = 20


def _forwarders(view: View) -> dict[str, Any]:
    """The sidecars that forward to here: how many, and the ones that lag most."""
    forwarders = view.receiver.forwarders
    known = forwarders.known()
    by_lag = sorted(known, key=lambda one: (one.connected, one.lag or 0.0), reverse=True)
    shown = (
        "name",
        "journal",
        "host",
        "version",
        "connected",
        "last_heard",
        "lag",
        "clock",
        "messages",
        "gaps",
        "refused_lines",
    )
    return {
        "connected": forwarders.connected,
        "known": len(known),
        "copies_refused": forwarders.refused,
        "lag_seconds": round(max((one.lag or 0.0 for one in known if one.connected), default=0.0), 3),
        "shown": [{name: getattr(one, name) for name in shown} for one in by_lag[:FORWARDERS_SHOWN]],
    }


def _schedules(view: View) -> dict[str, Any] | None:
    """None where the config has none."""
    if not view.config.schedules:
        return None
    found = view.live.schedules
    troubled = [name for name, count in found.troubled().items() if count]
    return {
        "count": len(view.config.schedules),
        "states": found.states(),
        "troubled": troubled[:TROUBLED],
        "more_troubled": max(0, len(troubled) - TROUBLED),
        "told": dict(found.told),
        **found.counters,
    }


def _source(source: Source) -> dict[str, Any]:
    """One entry of `listen` that reads from Kafka."""
    return {
        "brokers": list(source.settings.brokers),
        "cluster": source.cluster,
        "topics": {name: asdict(figures) for name, figures in source.figures.items()},
        "missing": list(source.missing),
        "group": source.settings.group,
        "exactly_once": source.settings.group is None,
        "problem": source.problem,
        "partitions": [
            {
                "topic": place.topic,
                "partition": place.partition,
                "state": one.state.value,
                "problem": one.problem,
                "next": one.stream.synced,
                "lag": one.lag,
            }
            for place, one in sorted(source.partitions.items())
        ],
    }


def readiness(view: View) -> dict[str, Any]:
    """``ready``, and why not: ``problems``, sentences; then ``listeners``, ``journal``, ``backends`` and ``refused_config``."""
    listeners = [
        {"endpoint": one.endpoint, "listening": bool(one.address), "address": one.address, "error": one.error}
        for one in view.listeners()
    ]
    backends = {name: _backend(view, delivery) for name, delivery in view.deliveries.items()}
    problems = _problems(view, listeners, backends)
    refused = view.refused
    return {
        "ready": not problems,
        "problems": problems,
        "listeners": listeners,
        "journal": _journal(view),
        "backends": backends,
        "cursors_without_backend": orphans_of(view),
        "refused_config": {"at": refused.at, "faults": list(refused.faults)} if refused else None,
    }


def _problems(view: View, listeners: list[dict[str, Any]], backends: dict[str, dict[str, Any]]) -> list[str]:
    problems = ["the sidecar is stopping"] if view.stopping else []
    for source in view.sources.open:
        problems += [source.problem] if source.problem else []
        problems += [f"{source.settings.place}: the topic {name} is not there" for name in source.missing]
        problems += [one.problem for one in source.partitions.values() if one.problem]
    for one in listeners:
        if not one["listening"]:
            problems.append(f"{one['endpoint']} does not listen" + (f": {one['error']}" if one["error"] else ""))
    if view.journal.failing:
        problems.append(f"the journal {view.journal.failing}")
    if view.journal.full:
        problems.append("the journal is full, the receivers pause")
        problems += [
            f"the cursor {name} has no backend and holds {one['bytes']} bytes of the full journal: bring its backend back, or "
            f"forget it with `wafermon journal forget {name}`"
            for name, one in orphans_of(view).items()
        ]
    for name, backend in backends.items():
        if backend["state"] == "failing":
            problems.append(f"the backend {name} fails: {backend['error'] or backend['detail']}")
    for name, state in view.supervisor.states.items():
        if state.problem and name not in backends:
            problems.append(f"{_IN_WORDS.get(name, name)}: {state.problem}")
    return problems


def _problem_of(view: View, name: str) -> str:
    state = view.supervisor.states.get(name)
    return state.problem if state else ""


def _follower(state: FollowerState) -> dict[str, Any]:
    return {
        "state": state.state.value,
        "problem": state.problem,
        "restarts": state.restarts,
        "last_error": state.last_error,
        "last_error_at": state.last_error_at or None,
        "stepped_over": state.stepped_over,
        "positions": [str(position) for position in state.positions],
    }


def orphans_of(view: View) -> dict[str, dict[str, int]]:
    """``cursors_without_backend``: the cursors that hold the journal for a backend which is not in the config any more, by name,
    with the ``segments``, ``bytes`` and ``messages`` that are kept for it (and perhaps for others too)."""
    return {name: one.holds._asdict() for name, one in view.deliveries.orphans.items()}


def _journal(view: View) -> dict[str, Any]:
    journal = view.journal
    most = journal.settings.max_bytes
    return {
        "id": journal.id,
        "dir": str(journal.dir),
        "bytes": journal.size,
        "max_bytes": most,
        "fill": round(journal.size / most, 4) if most else 0.0,
        "full": journal.full,
        "failing": journal.failing,
        "failures": journal.figures.failures,
        "damaged": journal.damaged,
        "sync": journal.settings.sync,
    }


def _backend(view: View, delivery: Delivery) -> dict[str, Any]:
    health, lag, figures = delivery.health(), delivery.lag, delivery.figures
    config = view.config.backends.get(delivery.name)
    return {
        "plugin": config.plugin if config else "",
        "exactly_once": delivery.exactly_once,
        "state": health.state,
        "detail": health.detail,
        "error": delivery.error,
        "error_since": figures.error_since if delivery.error else None,
        "last_error": figures.last_error,
        "last_error_at": figures.last_error_at or None,
        "lag_messages": lag.messages,
        "lag_bytes": lag.bytes,
        "lag_seconds": round(lag.seconds, 3),
        "delivered": figures.messages,
        "batches": figures.batches,
        "retries": figures.retries,
        "dead_letters": figures.dead_letters,
        "skipped_segments": view.journal.figures.skipped_segments.get(delivery.name, 0),
        "skipped_messages": view.journal.figures.skipped_messages.get(delivery.name, 0),
        "figures": dict(health.figures),
    }
