"""Plain objects, as the sidecar or a backend answers them -> lines for a terminal. Pure.

What came from clients is shown without control characters, so that no message can do anything to the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import click

from wafermon.model.messages import OWN_SERVICE

_COLORS = {
    "failed": "red", "failing": "red", "gone": "red", "error": "red", "critical": "red", "abandoned": "yellow", "stalled": "yellow",
    "unfinished": "yellow", "warning": "yellow", "done": "green", "ok": "green",
}  # fmt: skip
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_READERS = {
    "scanner": "the compiled scanner",
    "python": "Python alone: the scanner was not built, or WAFERMON_PURE is set",
}
BAR = "█"
LEFT = "├ "
NAME_WIDTH = 36
RUN_BAR = 30
"""The bar of the longest run, in columns."""
LOST_BAR = 20
"""That of the step where most was lost or gained."""


# -- words


def plain(value: object) -> str:
    """Text on one line, without what a terminal would obey."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text.replace("\n", " ⏎ "))


def size(count: float) -> str:
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """In at most two units."""
    if not seconds:
        return "0 s"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def moment(microseconds: int, *, day: bool = True) -> str:
    """UTC, to the millisecond."""
    shown = datetime.fromtimestamp(microseconds / 1e6, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return shown if day else shown[11:]


def colored(text: str, word: str) -> str:
    """`text` in the color of a status or level; `click.echo` leaves colors out where no terminal reads."""
    return click.style(text, fg=_COLORS[word]) if word in _COLORS else text


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: str = "", color: int = -1) -> list[str]:
    """Aligned columns. `right` has an ``r`` for each column that is aligned to the right; the column of number `color` holds
    words that may have one."""
    given = list(rows)
    widths = [max(len(row[at]) for row in [header, *given]) for at in range(len(header))]

    def line(row: Sequence[str], *, styled: bool) -> str:
        cells = []
        for at, cell in enumerate(row):
            padded = cell.rjust(widths[at]) if right[at : at + 1] == "r" else cell.ljust(widths[at])
            cells.append(colored(padded, cell) if styled and at == color else padded)
        return "  ".join(cells).rstrip()

    return [click.style(line(header, styled=False), dim=True), *(line(row, styled=True) for row in given)]


# -- jobs and traces


def jobs(found: Sequence[Mapping[str, Any]], now: int) -> list[str]:
    """A line per job. `now` is microseconds since the epoch."""
    if not found:
        return ["no jobs"]
    ends = [_end_of(job, now) for job in found]
    traces = ["" if job["trace_id"] == job["job_id"] else plain(job["trace_id"]) for job in found]
    header = ["JOB", "DONE", "STATUS", "SERVICE", "RUNS", "LAST HEARD"]
    header += ["ENDS"] if any(ends) else []
    header += ["TRACE"] if any(traces) else []
    rows = [
        [
            plain(job["job_id"]),
            f"{job['percent']:g} %",
            _job_status(job),
            plain(job["service"]),
            duration(max(0, _until(job, now) - job["first"]) / 1e6),
            duration(max(0, now - job["last_progress"]) / 1e6) + " ago",
            *([end] if any(ends) else []),
            *([trace] if any(traces) else []),
        ]
        for job, end, trace in zip(found, ends, traces, strict=True)
    ]
    return table(header, rows, right="-r--rr", color=2)


def runs(found: Mapping[str, Any], now: int) -> list[str]:
    """The runs of one kind of job, each with a bar as long as it took."""
    if not found["runs"]:
        return [f"no runs of {plain(found['kind'])}; `wafermon runs` shows the kinds that there are"]
    took = [max(0, _until(job, now) - job["first"]) for job in found["runs"]]
    longest = max(1, *took)
    rows = [
        [
            plain(job["job_id"]), _job_status(job), moment(job["first"])[:19], duration(long / 1e6), f"{job['errors']:,}",
            BAR * max(1, round(long / longest * RUN_BAR)),
        ]
        for job, long in zip(found["runs"], took, strict=True)
    ]  # fmt: skip
    middle = f", in the middle {duration(found['median'] / 1e6)}" if found["median"] is not None else ""
    header = ["JOB", "STATUS", "BEGAN (UTC)", "TOOK", "ERRORS", ""]
    return [f"runs of {plain(found['kind'])}{middle}", *table(header, rows, right="---rr", color=1)]


def kinds(found: Sequence[Mapping[str, Any]], now: int) -> list[str]:
    """The kinds of jobs that there are."""
    if not found:
        return ["no jobs"]
    rows = [
        [
            plain(one["kind"]), f"{one['runs']:,}", f"{one['states'].get('failed', 0):,}",
            f"{one['states'].get('running', 0) + one['states'].get('stalled', 0):,}",
            duration(max(0, now - one["last"]) / 1e6) + " ago",
        ]
        for one in found
    ]  # fmt: skip
    return table(["KIND", "RUNS", "FAILED", "RUNNING", "LAST HEARD"], rows, right="-rrrr")


def _until(job: Mapping[str, Any], now: int) -> int:
    """What goes on has run until now; of the rest nobody knows more than when it was heard of last."""
    return max(now, job["last_progress"]) if job["state"] in ("running", "stalled") else int(job["last_progress"])


def _job_status(job: Mapping[str, Any]) -> str:
    if job["state"] in ("stalled", "gone", "unfinished"):
        return str(job["state"])
    return plain(job["status"]) if job["status"] else "running"


def _end_of(job: Mapping[str, Any], now: int) -> str:
    """When a job that runs will end, with the spread."""
    eta = job["eta"]
    if not eta or job["state"] not in ("running", "stalled"):
        return ""
    left, low, high = (max(0, eta[key] - now) / 1e6 for key in ("at", "earliest", "latest"))
    if not high:
        return "any moment"
    return f"in {duration(left)} ({duration(low)} to {duration(high)})"


def comparison(found: Mapping[str, Any]) -> list[str]:
    """Where two runs differ: the steps as a tree, with what each took and how much of that is lost or gained."""
    run, other = found["run"], found["other"]
    beside = plain(other["trace_id"]) if other["trace_id"] else f"the median of {found['runs']} runs"
    lines = [
        f"{plain(run['trace_id'])} {colored(run['status'], run['status'])}, {duration(run['duration'] / 1e6)}, "
        f"beside {beside}, {duration(other['duration'] / 1e6)}: {_longer(run['duration'] - other['duration'])}"
    ]
    if found["steps"]:
        lines += ["", *_steps(found["steps"])]
        lines += ["", f"critical path  {_path(run)}", f"the other's    {_path(other)}"]
    for title, key in (("COUNT", "counts"), ("METRIC", "metrics")):
        if found[key]:
            rows = [
                [
                    plain(one["name"]), plain(one["service"]), f"{one['value']:.6g}", f"{one['other']:.6g}",
                    "" if one["change"] is None else f"{one['change']:+.0%}",
                ]
                for one in found[key]
            ]  # fmt: skip
            lines += ["", *table([title, "SERVICE", "RUN", "OTHER", "CHANGE"], rows, right="--rrr")]
    return lines


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    largest = max(1, *(abs(step["lost"]) for step in steps))
    rows = []
    for step in steps:
        sign = "+" if step["lost"] > 0 else "-"
        rows.append(
            [
                _name(step), plain(step["service"]), _took(step["duration"], step["count"]),
                _took(step["other_duration"], step["other_count"]), _signed(step["lost"]),
                {(True, True): "both", (True, False): "run", (False, True): "other"}.get(
                    (step["critical"], step["other_critical"]), ""
                ),
                sign * round(abs(step["lost"]) / largest * LOST_BAR),
            ]
        )  # fmt: skip
    return table(["STEP", "SERVICE", "RUN", "OTHER", "LOST", "CRITICAL", ""], rows, right="--rrr")


def _took(microseconds: int | None, count: int | None) -> str:
    if microseconds is None:
        return "not there"
    return duration(microseconds / 1e6) + (f" in {count}" if count and count > 1 else "")


def _signed(microseconds: int) -> str:
    return f"{'+' if microseconds > 0 else '-' if microseconds < 0 else ''}{duration(abs(microseconds) / 1e6)}"


def _longer(microseconds: int) -> str:
    if not microseconds:
        return "as long"
    return f"{duration(abs(microseconds) / 1e6)} {'longer' if microseconds > 0 else 'shorter'}"


def _path(side: Mapping[str, Any]) -> str:
    return " > ".join(plain(one) for one in side["critical_path"]) or "none"


def _stream(client: Mapping[str, Any]) -> str:
    """What is known of whether all of it came."""
    if client.get("protocol") == "otlp":
        return "unnumbered"
    return "said all" if client["closed"] else "goes on" if client["connected"] else "not closed"


def clients(found: Sequence[Mapping[str, Any]], now: int) -> list[str]:
    """Who is connected or was. What an SDK has not said of itself is left blank."""
    if not found:
        return ["no clients"]
    rows = [
        [
            plain(one["service"]), "connected" if one["connected"] else "gone", plain(one["user"]), plain(one["address"]),
            plain(one["host"]) + ("" if one["pid"] is None else f":{one['pid']}"), plain(one["sdk"]),
            duration(max(0, now - one["last_heard"]) / 1e6) + " ago", f"{one['messages']:,}",
            *("" if one[key] is None else f"{one[key]:,}" for key in ("dropped", "spilled")),
            _stream(one),
        ]
        for one in found
    ]  # fmt: skip
    header = [
        "SERVICE",
        "STATE",
        "USER",
        "ADDRESS",
        "PROCESS",
        "SDK",
        "LAST HEARD",
        "MESSAGES",
        "DROPPED",
        "SPILLED",
        "STREAM",
    ]
    return table(header, rows, right="------rrrr", color=-1)


def top(
    status: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    running: Mapping[str, Any],
    failed: Sequence[Mapping[str, Any]],
) -> list[str]:
    """One screen: rates, backends, what runs with its bars, what went wrong of late."""
    messages, now = status["messages"], status["now"]
    ready = colored("ready", "ok") if status["ready"] else colored("NOT READY", "failed")
    lines = [
        f"wafermon {status['version']}: {ready}   {messages['accepted']:,} messages{_rate(status, before)}   "
        f"{status['connections']:,} connections   {status['correlation']['live_traces']:,} live traces   "
        f"journal {size(status['journal']['bytes'])}"
    ]
    lines += [f"  {colored('!', 'failed')} {plain(problem)}" for problem in status["problems"]]
    rows = [
        [
            name,
            one["state"],
            f"{one['lag_messages']:,}",
            duration(one["lag_seconds"]),
            f"{one['delivered']:,}",
            _per_second(name, status, before),
        ]
        for name, one in status["backends"].items()
    ]
    lines += ["", *table(["BACKEND", "STATE", "LAG", "AGE", "DELIVERED", "PER SECOND"], rows, right="--rrrr", color=1)]
    bars = [
        [
            plain(job["job_id"]), _job_status(job), f"{job['percent']:g} %",
            (BAR * round(job["percent"] / 100 * RUN_BAR)).ljust(RUN_BAR, "·"),
            duration(max(0, now - job["first"]) / 1e6), _end_of(job, now), plain(job["service"]), f"{job['errors']:,}",
        ]
        for job in running["jobs"]
    ]  # fmt: skip
    lines += [
        "",
        *table(["JOB", "STATUS", "DONE", "", "RUNS", "ENDS", "SERVICE", "ERRORS"], bars, right="--r-r--r", color=1),
    ]
    if running.get("left_out"):
        lines.append(f"{running['left_out']:,} more jobs run")
    if failed:
        lines += ["", *errors(failed, now)]
    return lines


def _per_second(name: str, status: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    known = before["backends"].get(name) if before else None
    if before is None or known is None or status["now"] <= before["now"] or before["started"] != status["started"]:
        return ""
    return f"{max(0, status['backends'][name]['delivered'] - known['delivered']) / (status['now'] - before['now']) * 1e6:,.0f}"


def errors(found: Sequence[Mapping[str, Any]], now: int) -> list[str]:
    """Kinds of errors, the latest first."""
    if not found:
        return ["no errors"]
    rows = [
        [
            f"{one['count']:,}", plain(one["service"]), duration(max(0, now - one["last"]) / 1e6) + " ago",
            plain(one["trace_id"]), plain(one["message"]),
        ]
        for one in found
    ]  # fmt: skip
    return table(["COUNT", "SERVICE", "LAST", "TRACE", "MESSAGE"], rows, right="r-r")


def cut(lines: Iterable[str], width: int) -> list[str]:
    """Lines that are no wider than `width` columns; 0 is no limit."""
    return [
        line if not width or len(click.unstyle(line)) <= width else click.unstyle(line)[: width - 1] + "…"
        for line in lines
    ]


def trace(found: Mapping[str, Any], now: int, width: int) -> list[str]:
    """Everything known of a trace, with its spans as a waterfall `width` columns wide."""
    part = f"  part {found['part']}" if found["part"] > 1 else ""
    took = duration((found["last"] - found["first"]) / 1e6)
    counts = ", ".join(f"{count} {name}" for name, count in found["counts"].items() if not name.startswith("level."))
    lines = [
        f"trace {plain(found['trace_id'])}  {colored(found['status'], found['status'])}{part}",
        f"from {moment(found['first'])} UTC, {took}",
        f"services {', '.join(map(plain, found['services']))}",
        f"messages {counts or 'none'}; errors {found['errors']}",
    ]
    if found["jobs"]:
        lines += ["", *jobs(found["jobs"], now)]
    if found["spans"]:
        lines += ["", *waterfall(found["spans"], max(found["last"], found["first"] + 1), width)]
    if found.get("series"):
        lines += ["", *_series(found["series"])]
    left_out = found.get("left_out", {})
    if left_out.get("spans"):
        lines.append(
            f"{left_out['spans']:,} more spans that ended are left out: these are the {len(found['spans']):,} that came first"
        )
    events = [event for event in found["events"] if not _is_receipt(event)]
    if events:
        lines += ["", *map(message, events)]
    if left_out.get("events"):
        lines.append(
            f"{left_out['events']:,} earlier events are left out: these are the latest {len(found['events']):,}"
        )
    return lines


def _is_receipt(event: Mapping[str, Any]) -> bool:
    """What the sidecar keeps for `wafermon receipt`, which shows it in words."""
    return event["service"] == OWN_SERVICE and (event.get("context") or {}).get("kind") == "receipt"


def _series(series: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            plain(one["name"]), plain(one["service"]), f"{one['count']:,}", f"{one['mean']:.6g}", f"{one['least']:.6g}",
            f"{one['greatest']:.6g}", plain(one["unit"]),
        ]
        for one in series
    ]  # fmt: skip
    return table(["METRIC", "SERVICE", "VALUES", "MEAN", "LEAST", "GREATEST", "UNIT"], rows, right="--rrrr")


def waterfall(spans: Sequence[Mapping[str, Any]], last: int, width: int) -> list[str]:
    """A line per span, in their order: name (by depth), service, status, start, duration, and when it ran between the first
    start and the last end. One that is open reaches to `last`, as it is known so far."""
    first = min(span["start"] for span in spans)
    ends = [span["start"] + span["duration"] if span["duration"] is not None else last for span in spans]
    whole = max(1, max(ends) - first)
    texts = [
        [
            _name(span),
            plain(span["service"]),
            span["status"] or "open",
            "+" + duration(max(0, span["start"] - first) / 1e6),
            duration(span["duration"] / 1e6) if span["duration"] is not None else "-",
        ]
        for span in spans
    ]
    lines = table(["SPAN", "SERVICE", "STATUS", "START", "TOOK"], texts, right="---rr", color=2)
    used = max(len(click.unstyle(line)) for line in lines)
    room = max(10, width - used - 4)
    shown = [f"{lines[0]}"]
    for line, span, end in zip(lines[1:], spans, ends, strict=True):
        begin = round((span["start"] - first) / whole * room)
        length = max(1, round((end - span["start"]) / whole * room))
        begin = min(begin, room - 1)
        bar = BAR * min(length, room - begin)
        pad = " " * (used - len(click.unstyle(line)))
        shown.append(f"{line}{pad}  {' ' * begin}{colored(bar, span['status'] or '')}".rstrip())
    return shown


def _name(span: Mapping[str, Any]) -> str:
    depth = min(span["depth"], 10)
    name: str = "  " * (depth - 1) + (LEFT if depth else "") + plain(span["name"])
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"


# -- messages


def message(found: Mapping[str, Any]) -> str:
    """One message of any type on one line; an event of a trace needs no type."""
    kind = found.get("type", "event")
    head = f"{moment(found['ts'], day=False)}  "
    level = found.get("level", kind)
    return f"{head}{colored(level.ljust(8), level)}  {plain(found.get('service', ''))}  {_SAYS[kind](found)}".rstrip()


def _event(found: Mapping[str, Any]) -> str:
    return plain(found["message"]) + _pairs(found.get("context"))


def _metric(found: Mapping[str, Any]) -> str:
    return plain(f"{found['name']} = {found['value']} {found.get('unit', '')}".rstrip()) + _pairs(found.get("tags"))


def _progress(found: Mapping[str, Any]) -> str:
    return plain(f"{found['job_id']}  {found['percent']:g} % {found.get('status', '')}".rstrip())


def _resource(found: Mapping[str, Any]) -> str:
    return _pairs({name: found[name] for name in ("cpu", "mem", "disk", "net") if name in found}).lstrip()


def _span_start(found: Mapping[str, Any]) -> str:
    return f"{plain(found['name'])} begins" + _pairs(found.get("tags"))


def _span_end(found: Mapping[str, Any]) -> str:
    return f"{plain(found['name'])} {found['status']}, {duration(found['duration'] / 1e6)}" + _pairs(found.get("tags"))


def _trace(found: Mapping[str, Any]) -> str:
    services = ", ".join(map(plain, found["services"]))
    return f"{plain(found['trace_id'])} {found['status']}, errors {found['errors']}, services {services}"


def _pairs(given: Mapping[str, Any] | None) -> str:
    return "".join(f"  {plain(key)}={plain(value)}" for key, value in (given or {}).items())


_SAYS = {
    "event": _event,
    "metric": _metric,
    "progress": _progress,
    "resource": _resource,
    "span_start": _span_start,
    "span_end": _span_end,
    "trace": _trace,
}


# -- the sidecar


def status(found: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> list[str]:
    """How a sidecar is doing; with what it said `before`, rates too."""
    ready = colored("ready", "ok") if found["ready"] else colored("NOT READY", "failed")
    up = duration((found["now"] - found["started"]) / 1e6)
    journal, messages = found["journal"], found["messages"]
    quota = f" of {size(journal['max_bytes'])} ({journal['fill']:.0%})" if journal["max_bytes"] else ""
    rejected = sum(messages["rejected"].values())
    lines = [f"wafermon {found['version']}: {ready}, up {up}"]
    lines += [f"  {colored('!', 'failed')} {plain(problem)}" for problem in found["problems"]]
    if found["refused_config"]:
        lines.append(f"  {colored('!', 'failed')} refused the config of {moment(found['refused_config']['at'])} UTC:")
        lines += [f"    {plain(fault)}" for fault in found["refused_config"]["faults"]]
    lines += [
        "",
        f"journal      {size(journal['bytes'])}{quota} in {plain(journal['dir'])}, sync {journal['sync']}",
        f"connections  {found['connections']} open, {found['connections_total']} since the start",
        f"messages     {messages['accepted']:,} accepted{_rate(found, before)}, {messages['duplicate']:,} duplicate, "
        f"{rejected:,} rejected{_codes(messages['rejected'])}",
        *_otlp(found.get("otlp")),
        f"read with    {_READERS[found['reads_with']]}",
        f"correlation  {found['correlation']['live_traces']:,} live traces, {found['correlation']['evicted_traces']:,} evicted",
        f"dead letters {found['dead_letters']['written']:,} since the start, {size(found['dead_letters']['bytes'])}",
    ]
    if messages["sdk_dropped"]:
        lines.append(f"dropped      {messages['sdk_dropped']:,} messages by SDKs, as they report")
    if found["hooks"]:
        hooks = found["hooks"]
        problem = f": {plain(hooks['error'])}" if hooks["error"] else ""
        lines.append(
            f"hook         told {hooks['told']}, failed {hooks['failed']}, skipped {hooks['skipped']}{problem}"
        )
    lines += ["", *_listeners(found["listeners"]), "", *_backends(found["backends"])]
    lines += ["", *orphans(found["cursors_without_backend"])] if found["cursors_without_backend"] else []
    return lines


def _otlp(found: Mapping[str, int] | None) -> list[str]:
    """Where something came by it."""
    if not found or not (found["requests"] or found["refused"]):
        return []
    counts = f"{found['messages']:,} messages in {found['requests']:,} requests, {found['refused']:,} refused"
    return [f"otlp         {found['connected']} of {found['senders']} programs connected; {counts}"]


def orphans(found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Cursors without a backend."""
    return [
        f"the cursor {plain(name)} has no backend and holds {size(one['bytes'])} of the journal, about {one['messages']:,} "
        f"messages: bring its backend back, or `wafermon journal forget {plain(name)}`"
        for name, one in found.items()
    ]


def _rate(found: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    if before is None or found["now"] <= before["now"] or found["started"] != before["started"]:
        return ""
    more = found["messages"]["accepted"] - before["messages"]["accepted"]
    return f" ({more / (found['now'] - before['now']) * 1e6:,.0f}/s)"


def _codes(rejected: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{count} {code}' for code, count in sorted(rejected.items()))})" if rejected else ""


def _listeners(listeners: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [[one["endpoint"], one["address"] or "failing", one["error"]] for one in listeners]
    return table(["LISTENER", "ADDRESS", ""], rows, color=1)


def _backends(backends: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = []
    for name, one in backends.items():
        since = f" since {moment(one['error_since'])[:19]}" if one["error_since"] else ""
        skipped = f" (skipped {one['skipped_messages']:,})" if one.get("skipped_messages") else ""
        rows.append(
            [
                name, one["state"], f"{one['lag_messages']:,}", size(one["lag_bytes"]), duration(one["lag_seconds"]),
                f"{one['delivered']:,}", f"{one['retries']:,}", f"{one['dead_letters']:,}",
                plain(one["error"] or one["detail"]) + since + skipped + ("" if one["exactly_once"] else " (at least once)"),
            ]
        )  # fmt: skip
    header = ["BACKEND", "STATE", "LAG", "BYTES", "AGE", "DELIVERED", "RETRIES", "DEAD LETTERS", ""]
    return table(header, rows, right="--rrrrrr", color=1)
