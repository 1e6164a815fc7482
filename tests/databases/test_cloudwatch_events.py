"""What the cloudwatch backend sends, and what becomes of what the service rejects, on moto's server and with a real sidecar."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, until
from moto_server import NOW, REGION, LogGroup
from proxy import Pair, Proxy
from s3_server import ENVIRONMENT
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from wafermon.backends.cloudwatch import cloudwatch
from wafermon.backends.cloudwatch.store import CloudWatchStore
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import BackendContext, Batch, PermanentError, Position, Refused, RetryableError, configure
from wafermon.model.blocks import Block

START = Position(JOURNAL, 1, 0)
NOW_US = int(NOW * 1e6)
DAY = 86_400_000_000
HOUR = DAY // 24


class Place:
    """A store, with the directory that outlives it."""

    def __init__(self, directory: Path, group: LogGroup, port: int) -> None:
        self.directory = directory
        self.group = group
        self.options = {"log_group": group.name, "endpoint_url": f"http://127.0.0.1:{port}", "region": REGION}

    def store(self, **options: Any) -> CloudWatchStore:
        context = BackendContext("cloud", self.directory, Clock(), ThreadPool(), wall=lambda: NOW)
        return CloudWatchStore(configure(cloudwatch, {**self.options, **options}), context)

    def stored(self) -> list[int]:
        """The seqs of all events, sorted; what is there twice, twice."""
        events = [event for stream in self.group.streams() for event in self.group.events(stream)]
        return sorted(json.loads(event["message"])["seq"] for event in events)


@pytest.fixture
def proxy(log_group: LogGroup) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", log_group.server.port)) as running:
        yield running


@pytest.fixture
def place(log_group: LogGroup, proxy: Proxy, tmp_path: Path) -> Place:
    return Place(tmp_path, log_group, proxy.port)


def times(*ages: int, **fields: Any) -> Batch:
    """Messages of these ages, in microseconds."""
    return batch(START, [line(seq, ts=NOW_US - age, **fields) for seq, age in enumerate(ages, 1)])


def without(whole: Batch, numbers: set[int]) -> Batch:
    """As the delivery makes it: the same stretch, and each message where it was."""
    kept = [index for index in range(whole.count) if index not in numbers]
    positions = [whole.position(index) for index in kept]
    return Batch(whole.start, whole.end, whole.block.pick(kept), find_positions=lambda: positions)


def test_events_go_to_the_streams_of_their_services(place: Place, log_group: LogGroup) -> None:
    lines = [line(1, service="a"), line(2, service="b:c"), line(3, service="a", host="../x")]
    place.store(log_stream="fab/{service}/{host}").write(batch(START, lines))
    assert sorted(log_group.streams()) == ["fab/a/..%2Fx", "fab/a/fab1", "fab/b%3Ac/fab1"]
    [event] = log_group.events("fab/b%3Ac/fab1")
    assert event["message"].encode() == lines[1]
    assert event["timestamp"] == 1_795_500_000_000


def test_messages_go_by_their_times(place: Place, log_group: LogGroup) -> None:
    """Whatever the order in which they came; over more than a day, in more requests than one."""
    store = place.store()
    store.write(times(0, 3 * DAY, 5 * DAY, HOUR))
    assert place.stored() == [1, 2, 3, 4]
    assert store.figures["requests"] == 3


def test_what_is_rejected_is_named_and_the_rest_is_stored_once(place: Place) -> None:
    store = place.store()
    whole = times(HOUR, 20 * DAY, 0, -3 * HOUR, 15 * DAY, 1)
    with pytest.raises(Refused) as caught:
        store.write(whole)
    reasons = caught.value.reasons
    assert {index: reason.partition(":")[0] for index, reason in reasons.items()} == {
        1: "its time is more than 14 days ago", 4: "its time is more than 14 days ago", 3: "its time is more than 2 hours ahead",
    }  # fmt: skip
    assert store.open() is None, "nothing counts as stored"
    store.write(without(whole, {1, 3, 4}))
    assert place.stored() == [1, 3, 6]
    assert store.open() == whole.end


def test_where_all_is_rejected_the_delivery_judges_by_one(place: Place) -> None:
    """It may be this machine's clock that is wrong."""
    store, whole = place.store(), times(20 * DAY, 21 * DAY, 22 * DAY)
    with pytest.raises(Refused) as caught:
        store.write(whole)
    assert set(caught.value.reasons) == {0, 1}
    with pytest.raises(Refused) as caught:
        store.write(without(whole, {0, 1}))
    assert set(caught.value.reasons) == {0} and caught.value.code == "too_old"


def test_an_event_that_is_too_large_is_named(place: Place) -> None:
    store = place.store()
    whole = batch(START, [line(1), line(2, message="x" * 1_048_576), line(3, message="x" * 1_000_000)])
    with pytest.raises(Refused) as caught:
        store.write(whole)
    assert list(caught.value.reasons) == [1] and caught.value.code == "too_large"
    store.write(without(whole, {1}))
    assert place.stored() == [1, 3]


def test_a_try_that_fails_halfway_repeats_nothing(place: Place, proxy: Proxy) -> None:
    store = place.store()
    whole = batch(START, [line(seq, service=f"s{seq % 3}") for seq in range(1, 31)])
    proxy.rule = lambda pair, chunk, from_client: "cut" if b'"logStreamName": "s0"' in chunk else "pass"
    for _ in range(3):
        with pytest.raises(RetryableError, match="connection was lost"):
            store.write(whole)
    assert len(place.stored()) == 20
    proxy.rule = lambda pair, chunk, from_client: "pass"
    store.write(whole)
    assert place.stored() == list(range(1, 31))


def test_halves_of_a_batch_repeat_nothing(place: Place, proxy: Proxy) -> None:
    """Where the service refuses a request as a whole the batch is halved."""
    store = place.store()
    lines = [line(seq, service=f"s{seq % 3}") for seq in range(1, 7)]
    whole = batch(START, lines)
    proxy.rule = lambda pair, chunk, from_client: "cut" if b'"logStreamName": "s0"' in chunk else "pass"
    with pytest.raises(RetryableError):
        store.write(whole)
    proxy.rule = lambda pair, chunk, from_client: "pass"
    middle = whole.position(3)
    store.write(Batch(whole.start, middle, Block.parse(b"".join(one + b"\n" for one in lines[:3]))))
    store.write(Batch(middle, whole.end, Block.parse(b"".join(one + b"\n" for one in lines[3:]))))
    assert place.stored() == [1, 2, 3, 4, 5, 6]


def test_a_lost_reply_repeats_one_batch_at_most(place: Place, proxy: Proxy) -> None:
    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        return "pass" if from_client else "cut"

    store = place.store(log_stream="all")
    store.write(times(0, 0, 0))
    proxy.rule = rule
    late = batch(times(0, 0, 0).end, [line(seq, ts=NOW_US) for seq in (4, 5)])
    with pytest.raises(RetryableError):
        store.write(late)
    proxy.rule = lambda pair, chunk, from_client: "pass"
    place.store(log_stream="all").write(late)
    assert place.stored() == [1, 2, 3, 4, 4, 5, 5]


def test_a_group_that_is_not_there(place: Place, log_group: LogGroup) -> None:
    store = place.store(log_group="/wafermon/absent")
    with pytest.raises(RetryableError, match="set `create_group: true`"):
        store.write(times(0))
    [problem] = cloudwatch.examine(configure(cloudwatch, {**place.options, "log_group": "/wafermon/absent"}))
    assert "create_group" in problem
    made = place.store(log_group=f"{log_group.name}-new", create_group=True)
    made.write(times(0))
    assert cloudwatch.examine(configure(cloudwatch, {**place.options, "log_group": f"{log_group.name}-new"})) == []


def test_what_the_service_finds_wrong_with_a_request_is_permanent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an order that it does not like: the batch is halved, so that no message waits for ever."""
    monkeypatch.setattr("wafermon.backends.cloudwatch.store.cuts", lambda entries: [list(entries)])
    with pytest.raises(PermanentError, match="chronological order"):
        place.store().write(times(0, HOUR))


def test_metrics_are_embedded(place: Place, log_group: LogGroup) -> None:
    plain = line(1, service="a")
    metric = {"type": "metric", "service": "a", "name": "rate", "value": 2.5, "unit": "1/s", "level": "info"}
    lines = [plain, line(2, **metric), line(3, **{**metric, "value": "NaN"})]
    store = place.store(metrics="emf", namespace="fab")
    store.write(batch(START, lines))
    messages = {json.loads(event["message"])["seq"]: event["message"] for event in log_group.events("a")}
    assert messages[1].encode() == plain and messages[3].encode() == lines[2]
    said = json.loads(messages[2])
    [directive] = said["_aws"]["CloudWatchMetrics"]
    assert directive["Metrics"] == [{"Name": "rate", "Unit": "Count/Second"}] and said["rate"] == 2.5
    assert store.figures["metrics"] == 1


CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1"]
http: false
reload: signal
journal: {{{{dir: journal, segment_bytes: 1MiB, max_bytes: 0, spill_dir: false}}}}
backends:
  cloud: {{{{plugin: cloudwatch, log_group: {group}, log_stream: all, endpoint_url: {url}, region: {region}, batch: {{{{age: 50ms}}}}, retry: {{{{max: 200ms}}}}}}}}
routes: [{{{{match: {{{{service: test}}}}, to: [cloud]}}}}, {{{{to: []}}}}]
dead_letters: {{{{dir: dead-letters}}}}
"""


@pytest.fixture
def sidecar(tmp_path: Path, log_group: LogGroup) -> Iterator[Daemon]:
    config = CONFIG.format(group=log_group.name, url=log_group.server.url, region=REGION)
    daemon = Daemon(tmp_path, config)
    daemon.environ = ENVIRONMENT
    with daemon:
        yield daemon


def test_kills_lose_nothing_and_repeat_a_batch_each_at_most(sidecar: Daemon, place: Place) -> None:
    kills, each = 3, 400
    client = sidecar.client()
    for number in range(kills):
        client.send(range(number * each + 1, (number + 1) * each + 1), ts=NOW_US)
        client.until_acked((number + 1) * each)
        sidecar.kill()
        client.drop()
        sidecar.start()
        client = sidecar.client(client=client.client)
    until(lambda: set(place.stored()) == set(range(1, kills * each + 1)), "all of it")
    assert max(Counter(place.stored()).values()) <= 1 + kills
    client.drop()


def test_what_is_rejected_becomes_dead_letters(sidecar: Daemon, place: Place) -> None:
    client = sidecar.client()
    for seq in range(1, 101):
        client.send([seq], ts=NOW_US - 30 * DAY if seq in (7, 50) else NOW_US)
    client.until_acked(100)
    until(lambda: len(sidecar.letters()) == 2, "dead letters")
    until(lambda: len(set(place.stored())) == 98, "the rest")
    letters = sidecar.letters()
    assert [letter["seq"] for letter in letters] == [7, 50]
    assert all("14 days ago" in letter["reason"] and letter["backend"] == "cloud" for letter in letters)
    assert place.stored() == [seq for seq in range(1, 101) if seq not in (7, 50)]
    client.drop()
