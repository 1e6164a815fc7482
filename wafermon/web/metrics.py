"""The figures in Prometheus's format. They are counted where they happen, and only read here, at a scrape.

No label takes a value that clients choose: a job or a trace is never one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from wafermon import __version__
from wafermon.alerts import hook_figures
from wafermon.journal.latency import BOUNDS, Latency
from wafermon.model.schedules import ALARMS, RECOVERED, STATES
from wafermon.web.delay import ReactorDelay
from wafermon.web.status import readiness
from wafermon.web.view import View

CODES = ("bad_json", "bad_message", "bad_utf8", "line_too_long", "unknown_type")
"""Shown from the start, at 0, so that an alarm sees the first one."""

KAFKA = {
    "messages": ("wafermon_kafka_messages", "Messages read from Kafka."),
    "rejected": ("wafermon_kafka_messages_rejected", "Lines from there that were refused."),
    "skipped": ("wafermon_kafka_skipped", "Records without a value."),
    "lost": ("wafermon_kafka_lost", "Offsets that a topic's retention took before they were read."),
}
"""What is counted of a topic -> the metric and its text."""
STATUSES = dict.fromkeys(("400", "401", "413", "415", "429"), 0)


def registry(view: View, delay: ReactorDelay) -> CollectorRegistry:
    """What `/metrics` shows: the sidecar's figures, and those of its process."""
    made = CollectorRegistry()
    made.register(Figures(view, delay))
    ProcessCollector(registry=made)
    return made


class Figures(Collector):
    """Everything that is counted anywhere in the sidecar."""

    def __init__(self, view: View, delay: ReactorDelay) -> None:
        self._view = view
        self._delay = delay

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        view = self._view
        info = GaugeMetricFamily("wafermon_build_info", "Always 1.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield _gauge("wafermon_ready", "1 where /health/ready answers 200.", readiness(view)["ready"])
        yield _gauge("wafermon_config_refused", "1 from a refused reload to the next accepted one.", bool(view.refused))
        yield from self._receiver()
        yield from self._kafka()
        yield from self._journal()
        yield from self._backends()
        yield from self._rest()

    def _receiver(self) -> Iterator[Metric]:
        receiver = self._view.receiver
        figures = receiver.figures
        received = figures.messages + figures.duplicates + sum(figures.rejected.values())
        yield _gauge("wafermon_connections", "Open connections of clients.", receiver.connections)
        yield _counter("wafermon_connections_opened", "Connections that clients opened.", figures.connections)
        yield _counter("wafermon_connections_refused", "Connections refused, with an error line.", figures.refused)
        yield _counter("wafermon_messages_received", "Lines that came over connections.", received)
        yield _counter("wafermon_messages_accepted", "Lines that were accepted.", figures.messages)
        rejected = {**dict.fromkeys(CODES, 0), **figures.rejected}
        yield _counters(
            "wafermon_messages_rejected", "Lines that were refused, by the protocol's code.", "code", rejected
        )
        yield _counter("wafermon_messages_duplicate", "Lines dropped because they had come before.", figures.duplicates)
        yield _counter("wafermon_messages_missing", "Numbers that clients left out.", figures.gaps)
        yield from self._forwarders()
        otlp = self._view.otlp.figures
        yield _counter("wafermon_otlp_requests", "Requests of OTLP that were taken.", otlp.requests)
        yield _counter("wafermon_otlp_requests_repeated", "Those that had come before.", otlp.repeated)
        refused = {str(status): count for status, count in otlp.refused.items()}
        yield _counters(
            "wafermon_otlp_requests_refused",
            "Those that were not taken, by HTTP's status.",
            "status",
            {**STATUSES, **refused},
        )
        yield _counter("wafermon_otlp_messages", "Messages that they gave.", otlp.messages)
        yield _counter("wafermon_otlp_messages_rejected", "Lines of theirs that were refused.", otlp.rejected)
        spills = self._view.spills
        yield _counter("wafermon_spill_messages", "Messages of spill files taken up.", spills.messages if spills else 0)
        yield _counter("wafermon_spill_files", "Spill files taken up.", spills.files if spills else 0)
        stuck = GaugeMetricFamily(
            "wafermon_spill_files_stuck",
            "Spill files that can't be taken up, by the user that they belong to; 50 users at most.",
            labels=["owner"],
        )
        for owner, count in ((spills.stuck if spills else None) or {"": 0}).items():
            stuck.add_metric([owner], count)
        yield stuck

    def _forwarders(self) -> Iterator[Metric]:
        """By the names that tokens and certificates give them: the operator's words, not a client's."""
        forwarders = self._view.receiver.forwarders
        known = forwarders.known()
        yield _counter(
            "wafermon_forwarders_refused", "Sidecars refused, since another has their journal's id.", forwarders.refused
        )
        connected = GaugeMetricFamily(
            "wafermon_forwarders", "Sidecars that forward to here and are connected.", labels=["name"]
        )
        lag = GaugeMetricFamily(
            "wafermon_forwarder_lag_seconds",
            "How long what came last had waited at the other end, the most by name.",
            labels=["name"],
        )
        messages = CounterMetricFamily(
            "wafermon_forwarder_messages", "Messages that were forwarded to here.", labels=["name"]
        )
        refused = CounterMetricFamily(
            "wafermon_forwarder_lines_refused", "Lines of these that are dead letters here.", labels=["name"]
        )
        gaps = CounterMetricFamily(
            "wafermon_forwarder_gaps", "Frames before which something was left out.", labels=["name"]
        )
        for name in sorted({one.name for one in known}):
            some = [one for one in known if one.name == name]
            connected.add_metric([name], sum(one.connected for one in some))
            lag.add_metric([name], max((one.lag or 0.0 for one in some if one.connected), default=0.0))
            messages.add_metric([name], sum(one.messages for one in some))
            refused.add_metric([name], sum(one.refused_lines for one in some))
            gaps.add_metric([name], sum(one.gaps for one in some))
        yield from (connected, lag, messages, refused, gaps)

    def _kafka(self) -> Iterator[Metric]:
        sources = self._view.sources.open
        topics: Counter[tuple[str, str]] = Counter()
        lags = GaugeMetricFamily(
            "wafermon_kafka_lag", "Offsets that are there and were not read yet.", labels=["topic", "partition"]
        )
        failing = GaugeMetricFamily(
            "wafermon_kafka_failing", "1 while a topic or some of its partitions can't be read.", labels=["topic"]
        )
        for source in sources:
            stopped = {place.topic for place, one in source.partitions.items() if one.problem} | set(source.missing)
            for topic, figures in source.figures.items():
                failing.add_metric([topic], float(bool(source.problem) or topic in stopped))
                topics.update({(name, topic): count for name, count in asdict(figures).items()})
            for place, one in source.partitions.items():
                if one.lag is not None:
                    lags.add_metric([place.topic, str(place.partition)], one.lag)
        for name, (shown, text) in KAFKA.items():
            found = {topic: count for (figure, topic), count in topics.items() if figure == name}
            yield _counters(shown, text, "topic", found)
        yield from (lags, failing)

    def _journal(self) -> Iterator[Metric]:
        journal = self._view.journal
        figures = journal.figures
        yield _counter("wafermon_messages_journalled", "Messages written to the journal.", figures.messages)
        yield _counter("wafermon_journal_groups", "Groups written; each is one sync.", figures.groups)
        yield _counter("wafermon_journal_written_bytes", "Bytes written to the journal.", figures.bytes)
        yield _counter("wafermon_journal_failures", "Writes and syncs that failed.", figures.failures)
        yield _counter("wafermon_journal_damaged", "Stretches that could not be read.", journal.damaged)
        yield _gauge("wafermon_journal_failing", "1 while the journal can't be written.", bool(journal.failing))
        yield _gauge("wafermon_journal_bytes", "Bytes in all segments.", journal.size)
        yield _gauge("wafermon_journal_max_bytes", "The journal's quota; 0 is none.", journal.settings.max_bytes)
        yield _histogram(
            "wafermon_ack_seconds", "For each group, from its oldest line until all of it was durable.", figures.ack
        )

    def _backends(self) -> Iterator[Metric]:
        deliveries = self._view.deliveries
        figures = {name: one.figures for name, one in deliveries.items()}
        lags = {name: one.lag for name, one in deliveries.items()}
        journal = self._view.journal.figures

        def counters(name: str, text: str, values: Mapping[str, float]) -> CounterMetricFamily:
            return _counters(name, text, "backend", values)

        def gauges(name: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
            family = GaugeMetricFamily(name, text, labels=["backend"])
            for backend, value in values.items():
                family.add_metric([backend], value)
            return family

        failing = {name: one.health().state == "failing" for name, one in deliveries.items()}
        yield gauges("wafermon_backend_failing", "1 as long as the last try failed.", failing)
        own = GaugeMetricFamily(
            "wafermon_backend_figure", "What a backend tells of itself.", labels=["backend", "figure"]
        )
        for name, one in deliveries.items():
            for figure, value in one.health().figures.items():
                own.add_metric([name, figure], value)
        yield own
        delivered = {name: one.messages for name, one in figures.items()}
        yield counters("wafermon_messages_delivered", "Messages that a backend has durably.", delivered)
        batches = {name: one.batches for name, one in figures.items()}
        yield counters("wafermon_delivery_batches", "Batches that a backend took.", batches)
        retries = {name: one.retries for name, one in figures.items()}
        yield counters("wafermon_delivery_retries", "Batches that were tried again.", retries)
        letters = {name: one.dead_letters for name, one in figures.items()}
        yield counters("wafermon_dead_letters", "Messages that a backend refused for good.", letters)
        segments = {name: journal.skipped_segments.get(name, 0) for name in deliveries}
        yield counters("wafermon_delivery_skipped_segments", "Segments that were skipped: `when_full: skip`.", segments)
        skipped = {name: journal.skipped_messages.get(name, 0) for name in deliveries}
        yield counters("wafermon_skipped_messages", "Messages in them that were not delivered.", skipped)
        messages = {name: lag.messages for name, lag in lags.items()}
        yield gauges("wafermon_delivery_lag_messages", "Messages that a backend does not have yet.", messages)
        sizes = {name: lag.bytes for name, lag in lags.items()}
        yield gauges("wafermon_delivery_lag_bytes", "Bytes of journal from its oldest such message on.", sizes)
        ages = {name: lag.seconds for name, lag in lags.items()}
        yield gauges("wafermon_delivery_lag_seconds", "Since its oldest such message came.", ages)
        orphans = GaugeMetricFamily(
            "wafermon_cursor_without_backend_bytes",
            "Bytes of journal that are held for a backend which is not in the config any more.",
            labels=["cursor"],
        )
        for name, held in deliveries.orphans.items():
            orphans.add_metric([name], held.holds.bytes)
        yield orphans

    def _rest(self) -> Iterator[Metric]:
        view = self._view
        followers = view.supervisor.states
        restarts = {name: state.restarts for name, state in followers.items()}
        text = "How often what follows the journal has failed and was begun again."
        yield _counters("wafermon_follower_restarts", text, "follower", restarts)
        passed = {name: state.stepped_over for name, state in followers.items()}
        text = "Groups of messages that it failed at three times and stepped over."
        yield _counters("wafermon_follower_stepped_over", text, "follower", passed)
        yield _counter(
            "wafermon_dead_letters_written", "Letters written, refused lines too.", view.dead_letters.written
        )
        yield _counter(
            "wafermon_dead_letter_files_dropped", "Files gone because of the quota.", view.dead_letters.dropped_files
        )
        yield _counter("wafermon_sdk_dropped", "Messages that SDKs say they had to drop.", view.live.sdk_dropped)
        yield _gauge("wafermon_traces_live", "Traces that are followed.", view.live.traces)
        yield _counter(
            "wafermon_traces_evicted", "Traces ended early: `max_traces`.", view.live.counters["evicted_traces"]
        )
        yield _counter(
            "wafermon_jobs_gone", "Jobs whose program ended without saying so.", view.live.counters["jobs_gone"]
        )
        over = {
            name.removesuffix("_over"): count for name, count in view.live.counters.items() if name.endswith("_over")
        }
        yield _counters("wafermon_trace_limits", "Messages whose service, span or job was one too many.", "limit", over)
        if view.config.schedules:
            yield from self._schedules()
        if view.hooks is not None:
            runs = {name: value for name, value in hook_figures(view.hooks).items() if isinstance(value, int)}
            yield _counters("wafermon_hooks", "What became of the events for the hook.", "outcome", runs)
        waiting = GaugeMetricFamily(
            "wafermon_alerts_pending", "Alarms that a channel has not sent.", labels=["channel"]
        )
        outcomes = CounterMetricFamily("wafermon_alerts", "What became of alarms.", labels=["channel", "outcome"])
        for name, channel in view.channels.items():
            waiting.add_metric([name], channel.pending)
            for outcome in ("sent", "failed", "refused", "dropped"):
                outcomes.add_metric([name, outcome], getattr(channel, outcome))
        yield waiting
        yield outcomes
        yield _gauge("wafermon_reactor_delay_seconds", "The longest delay of the last 30 s.", self._delay.seconds)

    def _schedules(self) -> Iterator[Metric]:
        """A label is a name of the config's, as those of backends are."""
        schedules = self._view.live.schedules
        states = GaugeMetricFamily("wafermon_schedules", "Schedules, and hosts of them, by state.", labels=["state"])
        for state, count in {**dict.fromkeys(STATES, 0), **schedules.states()}.items():
            states.add_metric([state], count)
        yield states
        troubled = GaugeMetricFamily(
            "wafermon_schedule_troubled",
            "How many of a schedule's hosts, or whether it itself, is not as it should be.",
            labels=["schedule"],
        )
        for name, count in schedules.troubled().items():
            troubled.add_metric([name], count)
        yield troubled
        told = {**dict.fromkeys((*ALARMS, RECOVERED), 0), **schedules.told}
        yield _counters("wafermon_schedule_transitions", "What was told of schedules.", "state", told)
        text = "Runs and hosts that were not followed, and messages of runs that were long over."
        yield _counters("wafermon_schedule_limits", text, "limit", schedules.counters)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    """`_total` comes by itself."""
    return CounterMetricFamily(name, text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _histogram(name: str, text: str, latency: Latency) -> HistogramMetricFamily:
    total, buckets = 0, []
    for bound, count in zip([*map(str, BOUNDS), "+Inf"], latency.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=latency.seconds)
