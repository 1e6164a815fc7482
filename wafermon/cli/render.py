"""Plain objects, as the sidecar or a backend answers them -> lines for a terminal. Pure.

What came from clients is shown without control characters, so that no message can do anything to the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from wafermon.cli.layout import Sentence, Table, branches, cells, clip
from wafermon.cli.layout import colored as colored
from wafermon.cli.layout import cut as cut
from wafermon.cli.layout import table as table
from wafermon.model.messages import OWN_SERVICE

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_READERS = {
    "scanner": "the compiled scanner",
    "python": "Python alone: the scanner was not built, or WAFERMON_PURE is set",
}
BAR = "█"
NAME_WIDTH = 36
LEAST_BAR = 10
"""The columns that a waterfall's bars have at least."""
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


def problem(text: str) -> Sentence:
    """What is wrong, as a line of its own."""
    return Sentence(f"  {colored('!', 'failed')} {plain(text)}", 4)


def percent(value: float) -> str:
    """To a tenth, never more than it is: 99.97 is not done."""
    return f"{int(value * 10) / 10:g} %"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def number(value: float) -> str:
    """To six digits; whole ones to all."""
    return f"{value:.0f}" if isinstance(value, int) or 1e6 <= abs(value) < 1e15 else f"{value:.6g}"


def moment(microseconds: int, *, day: bool = True) -> str:
    """UTC, to the millisecond."""
    shown = datetime.fromtimestamp(microseconds / 1e6, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return shown if day else shown[11:]


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
            percent(job["percent"]),
            _job_status(job),
            plain(job["service"]),
            duration(max(0, _until(job, now) - job["first"]) / 1e6),
            duration(max(0, now - job["last_progress"]) / 1e6) + " ago",
            *([end] if any(ends) else []),
            *([trace] if any(traces) else []),
        ]
        for job, end, trace in zip(found, ends, traces, strict=True)
    ]
    hide = "---31-" + ("2" if any(ends) else "") + ("4" if any(traces) else "")
    return table(header, rows, right="-r--rr" + ("k" if any(ends) else ""), color=2, hide=hide)


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
    return [f"runs of {plain(found['kind'])}{middle}", *table(header, rows, right="--krrb", color=1, hide="--2-31")]


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
    return table(["KIND", "RUNS", "FAILED", "RUNNING", "LAST HEARD"], rows, right="-rrrr", hide="---21")


def _until(job: Mapping[str, Any], now: int) -> int:
    """What goes on has run until now; of the rest nobody knows more than when it was heard of last."""
    return max(now, job["last_progress"]) if job["state"] in ("running", "stalled") else int(job["last_progress"])


def _job_status(job: Mapping[str, Any]) -> str:
    return ", ".join([_own_status(job), *job.get("troubles", ())])


def _own_status(job: Mapping[str, Any]) -> str:
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
    lines: list[str] = [
        Sentence(
            f"{plain(run['trace_id'])} {colored(run['status'], run['status'])}, {duration(run['duration'] / 1e6)}, "
            f"beside {beside}, {duration(other['duration'] / 1e6)}: {_longer(run['duration'] - other['duration'])}",
            2,
        )
    ]
    if found["steps"]:
        lines += ["", *_steps(found["steps"])]
        lines += ["", Sentence(f"critical path  {_path(run)}", 15), Sentence(f"the other's    {_path(other)}", 15)]
    for title, key in (("COUNT", "counts"), ("METRIC", "metrics")):
        if found[key]:
            rows = [
                [
                    plain(one["name"]), plain(one["service"]), number(one["value"]), number(one["other"]),
                    "" if one["change"] is None else f"{one['change']:+.0%}",
                ]
                for one in found[key]
            ]  # fmt: skip
            lines += ["", *table([title, "SERVICE", "RUN", "OTHER", "CHANGE"], rows, right="--rrr", hide="-1---")]
    return lines


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    largest = max(1, *(abs(step["lost"]) for step in steps))
    rows = []
    for branch, step in zip(branches([step["depth"] for step in steps]), steps, strict=True):
        sign = "+" if step["lost"] > 0 else "-"
        rows.append(
            [
                branch + plain(step["name"]), plain(step["service"]), _took(step["duration"], step["count"]),
                _took(step["other_duration"], step["other_count"]), _signed(step["lost"]),
                {(True, True): "both", (True, False): "run", (False, True): "other"}.get(
                    (step["critical"], step["other_critical"]), ""
                ),
                sign * round(abs(step["lost"]) / largest * LOST_BAR),
            ]
        )  # fmt: skip
    return table(["STEP", "SERVICE", "RUN", "OTHER", "LOST", "CRITICAL", ""], rows, right="--rrr-b", hide="-3---21")


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


def schedules(found: Sequence[Mapping[str, Any]], now: int) -> list[str]:
    """A line per expectation."""
    if not found:
        return ["no schedules; the config's `schedules` say what is expected"]
    rows = []
    for one in found:
        last = one["last_run"]
        took = duration(last["took"] / 1e6) if last else ""
        rows.append(
            [
                plain(one["schedule"]) + (f" on {plain(one['host'])}" if one["host"] else ""),
                one["state"],
                duration(max(0, now - one["changed"]) / 1e6) if one["changed"] else "",
                moment(one["last"])[:19] if one["last"] else "never",
                took,
                moment(one["next"])[:19] if one["next"] else "",
                _about(one),
            ]
        )
    header = ["SCHEDULE", "STATE", "FOR", "LAST (UTC)", "TOOK", "NEXT (UTC)", ""]
    return table(header, rows, right="--rkrk-", color=1, hide="--2413-")


def _about(one: Mapping[str, Any]) -> str:
    if one["paused"]:
        return f"until {moment(one['paused_until'])[:19]}" if one["paused_until"] else "until it is resumed"
    told = [f"{open_['state']} {plain(open_['run'])}".rstrip() for open_ in one["open"]]
    told += [f"{plain(run['run'])} {run['percent']:g} %" for run in one["runs"]]
    return ", ".join(told[:4]) + (f", {len(told) - 4} more" if len(told) > 4 else "")


def rehearsal(found: Mapping[str, Any], *, everything: bool) -> list[str]:
    """What a schedule would have said."""
    shown = [one for one in found["told"] if everything or one["level"] == "warning" or one["kind"] == "recovered"]
    rows = [[moment(one["ts"])[:19], one["kind"], plain(one["message"].partition(": ")[2])] for one in shown]
    lines = table(["TIME (UTC)", "STATE", ""], rows, color=1) if rows else ["it would have told nobody"]
    counts = ", ".join(f"{count:,} {state}" for state, count in found["counts"].items()) or "nothing"
    lines += [
        "",
        f"{found['runs']:,} jobs from {moment(found['begins'])[:19]} to {moment(found['until'])[:19]}: {counts}",
    ]
    return [*lines, *(f"note: {note}" for note in found["notes"])]


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
            plain(one["service"]), _client_state(one), plain(one["user"]), plain(one["address"]),
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
    return table(header, rows, right="------rrrr", hide="--3245--671")


def _client_state(one: Mapping[str, Any]) -> str:
    return "connected" if one["connected"] else "closed" if one["closed"] else "gone"


def forwarders(found: Sequence[Mapping[str, Any]], now: int) -> list[str]:
    """The sidecars that forward to this one."""
    if not found:
        return ["no sidecar forwards to this one"]
    rows = [
        [
            plain(one["name"]), "connected" if one["connected"] else "gone", plain(one["host"]), plain(one["version"]),
            plain(one["address"]), plain(one["journal"]), duration(max(0, now - one["last_heard"]) / 1e6) + " ago",
            "" if one["lag"] is None else duration(one["lag"]), "" if one["clock"] is None else f"{one['clock']:+.1f} s",
            f"{one['messages']:,}", f"{one['gaps']:,}", f"{one['refused_lines']:,}",
        ]
        for one in found
    ]  # fmt: skip
    header = [
        "NAME",
        "STATE",
        "HOST",
        "VERSION",
        "ADDRESS",
        "JOURNAL",
        "LAST HEARD",
        "LAG",
        "CLOCK",
        "MESSAGES",
        "GAPS",
        "REFUSED",
    ]
    return table(header, rows, right="------rrrrrr", color=1, hide="--637245-1-8")


def top(
    status: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    running: Mapping[str, Any],
    failed: Sequence[Mapping[str, Any]],
) -> list[str]:
    """One screen: rates, backends, what runs with its bars, what went wrong of late."""
    messages, now = status["messages"], status["now"]
    ready = colored("ready", "ok") if status["ready"] else colored("NOT READY", "failed")
    lines: list[str] = [
        f"wafermon {status['version']}: {ready}",
        Sentence(
            f"{messages['accepted']:,} messages{_rate(status, before)}   "
            f"{_counted(status['connections'], 'connection')}   {_counted(status['correlation']['live_traces'], 'live trace')}   "
            f"journal {size(status['journal']['bytes'])}",
            2,
        ),
    ]
    lines += [problem(one) for one in status["problems"]]
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
    lines += [
        "",
        *table(
            ["BACKEND", "STATE", "LAG", "AGE", "DELIVERED", "PER SECOND"], rows, right="--rrrr", color=1, hide="---1-2"
        ),
    ]
    bars = [
        [
            plain(job["job_id"]), _job_status(job), percent(job["percent"]),
            (BAR * round(job["percent"] / 100 * RUN_BAR)).ljust(RUN_BAR, "·"),
            duration(max(0, now - job["first"]) / 1e6), _end_of(job, now), plain(job["service"]), f"{job['errors']:,}",
        ]
        for job in running["jobs"]
    ]  # fmt: skip
    lines += [
        "",
        *table(
            ["JOB", "STATUS", "DONE", "", "RUNS", "ENDS", "SERVICE", "ERRORS"],
            bars,
            right="--rbrk-r",
            color=1,
            hide="---24315",
        ),
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
    return table(["COUNT", "SERVICE", "LAST", "TRACE", "MESSAGE"], rows, right="r-r", hide="--21-")


def trace(found: Mapping[str, Any], now: int, width: int) -> list[str]:
    """Everything known of a trace, with its spans as a waterfall `width` columns wide."""
    part = f"  part {found['part']}" if found["part"] > 1 else ""
    took = duration((found["last"] - found["first"]) / 1e6)
    counts = ", ".join(f"{count} {name}" for name, count in found["counts"].items() if not name.startswith("level."))
    lines = [
        f"trace {plain(found['trace_id'])}  {colored(found['status'], found['status'])}{part}",
        f"from {moment(found['first'])} UTC, {took}",
        Sentence(f"services {', '.join(map(plain, found['services']))}", 9),
        Sentence(f"messages {counts or 'none'}; errors {found['errors']}", 9),
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
            plain(one["name"]), plain(one["service"]), f"{one['count']:,}", number(one["mean"]), number(one["least"]),
            number(one["greatest"]), plain(one["unit"]),
        ]
        for one in series
    ]  # fmt: skip
    return table(
        ["METRIC", "SERVICE", "VALUES", "MEAN", "LEAST", "GREATEST", "UNIT"], rows, right="--rrrr", hide="-1-----"
    )


def waterfall(spans: Sequence[Mapping[str, Any]], last: int, width: int) -> list[str]:
    """A line per span, in their order: name (by depth), service, status, start, duration, and when it ran between the first
    start and the last end. One that is open reaches to `last`, as it is known so far."""
    first = min(span["start"] for span in spans)
    ends = [span["start"] + span["duration"] if span["duration"] is not None else last for span in spans]
    whole = max(1, max(ends) - first)
    texts = [
        [
            clip(branch + plain(span["name"]), NAME_WIDTH),
            plain(span["service"]),
            span["status"] or "open",
            "+" + duration(max(0, span["start"] - first) / 1e6),
            duration(span["duration"] / 1e6) if span["duration"] is not None else "-",
        ]
        for branch, span in zip(branches([span["depth"] for span in spans]), spans, strict=True)
    ]
    header = ["SPAN", "SERVICE", "STATUS", "START", "TOOK"]
    lines = Table(header, texts, right="---rr", color=2, hide="-321-").lines(max(1, width - LEAST_BAR - 2))
    used = max(map(cells, lines))
    room = max(LEAST_BAR, width - used - 2)
    shown = [lines[0]]
    for line, span, end in zip(lines[1:], spans, ends, strict=True):
        begin = round((span["start"] - first) / whole * room)
        length = max(1, round((end - span["start"]) / whole * room))
        begin = min(begin, room - 1)
        bar = BAR * min(length, room - begin)
        pad = " " * (used - cells(line))
        shown.append(f"{line}{pad}  {' ' * begin}{colored(bar, span['status'] or '')}".rstrip())
    return shown


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
    return plain(f"{found['name']} = {number(found['value'])} {found.get('unit', '')}".rstrip()) + _pairs(
        found.get("tags")
    )


def _progress(found: Mapping[str, Any]) -> str:
    return plain(f"{found['job_id']}  {percent(found['percent'])} {found.get('status', '')}".rstrip())


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
    lines += [problem(one) for one in found["problems"]]
    if found["refused_config"]:
        lines.append(f"  {colored('!', 'failed')} refused the config of {moment(found['refused_config']['at'])} UTC:")
        lines += [Sentence(f"    {plain(fault)}", 6) for fault in found["refused_config"]["faults"]]
    lines += [
        "",
        f"journal      {size(journal['bytes'])}{quota} in {plain(journal['dir'])}, sync {journal['sync']}",
        f"connections  {found['connections']} open, {found['connections_total']} since the start",
        Sentence(
            f"messages     {messages['accepted']:,} accepted{_rate(found, before)}, {messages['duplicate']:,} duplicate, "
            f"{rejected:,} rejected{_codes(messages['rejected'])}",
            13,
        ),
        *_otlp(found.get("otlp")),
        f"read with    {_READERS[found['reads_with']]}",
        f"correlation  {_counted(found['correlation']['live_traces'], 'live trace')}, {found['correlation']['evicted_traces']:,} evicted",
        f"dead letters {found['dead_letters']['written']:,} since the start, {size(found['dead_letters']['bytes'])}",
    ]
    forwarders = found.get("forwarders", {})
    if forwarders.get("known"):
        lines.append(
            Sentence(
                f"forwarders   {forwarders['connected']:,} sidecars of {forwarders['known']:,} connected, lag up to "
                f"{duration(forwarders['lag_seconds'])}: wafermon clients --forwarders",
                13,
            )
        )
    if found["schedules"]:
        lines.append(Sentence(f"schedules    {_schedules(found['schedules'])}", 13))
    if messages["sdk_dropped"]:
        lines.append(f"dropped      {messages['sdk_dropped']:,} messages by SDKs, as they report")
    if found["hooks"]:
        hooks = found["hooks"]
        why = f": {plain(hooks['error'])}" if hooks["error"] else ""
        lines.append(
            Sentence(
                f"hook         told {hooks['told']}, failed {hooks['failed']}, skipped {hooks['skipped']}{why}", 13
            )
        )
    for name, one in found.get("alerts", {}).items():
        why = f": {plain(one['error'])}" if one["error"] else ""
        wait = f", next try {moment(one['next_try'])} UTC" if one["next_try"] else ""
        lines.append(
            Sentence(
                f"alert        {plain(name)} ({plain(one['plugin'])}): sent {one['sent']}, pending {one['pending']}, "
                f"dropped {one['dropped']}, refused {one['refused']}{wait}{why}",
                13,
            )
        )
    lines += ["", *_listeners(found["listeners"]), "", *_backends(found["backends"])]
    lines += ["", *_kafka(found["kafka"])] if found.get("kafka") else []
    lines += ["", *orphans(found["cursors_without_backend"])] if found["cursors_without_backend"] else []
    return lines


def _schedules(found: Mapping[str, Any]) -> str:
    troubled = found["troubled"]
    more = f" and {found['more_troubled']:,} more" if found["more_troubled"] else ""
    return f"{found['count']:,}, " + (f"not as they should be: {', '.join(troubled)}{more}" if troubled else "all well")


def _otlp(found: Mapping[str, int] | None) -> list[str]:
    """Where something came by it."""
    if not found or not (found["requests"] or found["refused"]):
        return []
    counts = f"{found['messages']:,} messages in {found['requests']:,} requests, {found['refused']:,} refused"
    return [f"otlp         {found['connected']} of {found['senders']} programs connected; {counts}"]


def orphans(found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Cursors without a backend."""
    return [
        Sentence(
            f"the cursor {plain(name)} has no backend and holds {size(one['bytes'])} of the journal, about {one['messages']:,} "
            f"messages: bring its backend back, or `wafermon journal forget {plain(name)}`"
        )
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
    return table(["LISTENER", "ADDRESS", ""], rows, color=1, hide="1--")


def _kafka(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """The topics that are read."""
    rows = []
    for source in sources:
        for topic, one in source["topics"].items():
            ours = [partition for partition in source["partitions"] if partition["topic"] == topic]
            stopped = [partition["problem"] for partition in ours if partition["problem"]]
            missing = "it is not there" if topic in source["missing"] else ""
            problem = source["problem"] or missing or (stopped[0] if stopped else "")
            lag = sum(partition["lag"] or 0 for partition in ours)
            rows.append(
                [
                    f"{source['brokers'][0]} {topic}", "failing" if problem else "ok", str(len(ours)), f"{lag:,}",
                    *(f"{one[key]:,}" for key in ("messages", "rejected", "skipped", "lost")),
                    plain(problem) + ("" if source["exactly_once"] else f" (group {source['group']}: at least once)"),
                ]
            )  # fmt: skip
    header = ["TOPIC", "STATE", "PARTITIONS", "LAG", "READ", "REJECTED", "SKIPPED", "LOST", ""]
    return table(header, rows, right="--rrrrrr", color=1)


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
    return table(header, rows, right="--rrrrrr", color=1, hide="---2-134-")
