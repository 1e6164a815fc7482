"""What the s3 backend stores under which name, and what becomes of late requests, changed configs and other writers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from careless_server import CarelessServer
from certificates import Authority
from daemon import until
from lost_replies import lost_replies
from proxy import Pair, Proxy
from s3_server import Bucket, S3Server, unpacked
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from wafermon.backends.s3 import s3
from wafermon.backends.s3.store import S3Store
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import (
    BackendContext,
    Batch,
    PermanentError,
    Position,
    PositionMoved,
    RetryableError,
    configure,
)

START = Position(JOURNAL, 1, 4096)
RECEIVED = 1_795_503_600_000_000
"""2026-11-24 07:00 UTC; the lines say 06:00."""
FIRST_KEY = f"w/dt=2026-11-24/hour=07/{JOURNAL}-0000000001-000000004096.ndjson"


def some(start: Position, first: int, last: int) -> Batch:
    return replace(batch(start, map(line, range(first, last + 1))), received=(RECEIVED, RECEIVED + 1))


class Place:
    """A store, with the directory that outlives it."""

    def __init__(self, directory: Path, url: str, bucket: str) -> None:
        self.directory = directory
        self.options: dict[str, Any] = {"bucket": bucket, "prefix": "w/", "endpoint_url": url, "region": "us-east-1"}

    def store(self, timeout: float = 60.0, **options: Any) -> S3Store:
        """As after a start with another config."""
        self.options.update(options)
        context = BackendContext("archive", self.directory, Clock(), ThreadPool(), timeout=timeout)
        return S3Store(configure(s3, self.options), context)

    def opened(self, timeout: float = 60.0, **options: Any) -> S3Store:
        store = self.store(timeout, **options)
        store.open()
        return store

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "position.json").read_text())
        return found


@pytest.fixture
def place(bucket: Bucket, tmp_path: Path) -> Place:
    return Place(tmp_path, bucket.server.url, bucket.name)


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    with Proxy(bucket.server.socket) as running:
        yield running


@pytest.fixture
def far(proxy: Proxy, bucket: Bucket, tmp_path: Path) -> Place:
    """The same bucket, behind the proxy."""
    return Place(tmp_path, f"http://127.0.0.1:{proxy.port}", bucket.name)


def seqs(bucket: Bucket) -> list[int]:
    return sorted(seq for _, seq in bucket.stored())


def lose_the_reply(place: Place, proxy: Proxy, lost: Batch, **options: Any) -> None:
    """Whether the batch is there is not known, until the next start."""
    store = place.opened(**options)
    with lost_replies(proxy), pytest.raises(RetryableError, match="connection was lost"):
        store.write(lost)


@pytest.mark.parametrize(("compress", "suffix"), [("gzip", ".gz"), ("zstd", ".zst"), ("none", "")])
def test_an_object_has_the_lines_of_a_batch(place: Place, bucket: Bucket, compress: str, suffix: str) -> None:
    stored = some(START, 1, 50)
    place.opened(compress=compress).write(stored)
    assert bucket.all_keys() == [FIRST_KEY + suffix]
    assert unpacked(FIRST_KEY + suffix, bucket.body(FIRST_KEY + suffix)) == stored.raw
    said = bucket.metadata(FIRST_KEY + suffix)
    assert (said["wafermon-end"], said["wafermon-count"]) == (str(stored.end), "50")


def test_a_batch_without_messages_makes_no_object(place: Place, bucket: Bucket) -> None:
    empty = some(START, 1, 0)
    place.opened().write(empty)
    assert bucket.all_keys() == []
    assert place.store().open() == empty.end


def test_what_the_server_is_told_beside(place: Place, bucket: Bucket) -> None:
    place.opened(storage_class="STANDARD", checksum="md5", addressing="path").write(some(START, 1, 2))
    assert seqs(bucket) == [1, 2]


def test_a_late_request_of_a_shorter_cut_is_found(
    far: Place, proxy: Proxy, bucket: Bucket, s3_server: S3Server
) -> None:
    """As S3 has many servers: one hangs with the request, and another answers the next one."""
    other = S3Server(beside=s3_server)
    other.start()
    try:
        store, proxy.lingers = far.opened(timeout=1.0), True
        short, long = some(START, 1, 10), some(START, 1, 30)
        with s3_server.frozen():
            with pytest.raises(RetryableError, match="no answer in time"):
                store.write(short)
            proxy.target = other.socket
            again = far.store()
            assert again.open() == START, "nothing is there yet"
        until(bucket.all_keys, "the late object")
        with pytest.raises(PositionMoved):
            again.write(long)
        assert again.open() == short.end
        again.write(some(short.end, 11, 30))
        assert seqs(bucket) == list(range(1, 31))
    finally:
        other.kill()


def test_the_same_cut_again_is_a_lost_reply(far: Place, proxy: Proxy, bucket: Bucket) -> None:
    store, stored = far.opened(), some(START, 1, 10)
    with lost_replies(proxy), pytest.raises(RetryableError):
        store.write(stored)
    store.write(stored)
    assert seqs(bucket) == list(range(1, 11))
    assert far.store().open() == stored.end


def test_a_restart_finds_what_came_through(far: Place, proxy: Proxy, bucket: Bucket) -> None:
    lose_the_reply(far, proxy, some(START, 1, 10))
    assert far.store().open() == some(START, 1, 10).end


def test_without_the_directory_the_object_still_tells(far: Place, proxy: Proxy, bucket: Bucket) -> None:
    """As after a restore of the sidecar's disk: the delivery goes on at the journal's own mark."""
    far.opened().write(some(START, 1, 10))
    (far.directory / "position.json").unlink()
    store = far.opened()
    with pytest.raises(PositionMoved):
        store.write(some(START, 1, 30))
    assert store.open() == some(START, 1, 10).end
    assert seqs(bucket) == list(range(1, 11))


def test_an_intent_keeps_its_key_and_codec(far: Place, proxy: Proxy, bucket: Bucket) -> None:
    proxy.rule = lambda pair, chunk, from_client: "cut" if b"hour%3D07" in chunk else "pass"
    store, stored = far.opened(), some(START, 1, 10)
    with pytest.raises(RetryableError):
        store.write(stored)
    proxy.rule = lambda pair, chunk, from_client: "pass"
    changed = far.opened(compress="zstd", prefix="other/")
    changed.write(stored)
    assert bucket.all_keys() == [f"{FIRST_KEY}.gz"]
    changed.write(some(stored.end, 11, 20))
    [key] = {*bucket.all_keys()} - {f"{FIRST_KEY}.gz"}
    assert key.startswith("other/dt=2026-11-24/hour=07/") and key.endswith(".ndjson.zst")
    assert seqs(bucket) == list(range(1, 21))


def test_an_intent_keeps_its_bucket(far: Place, proxy: Proxy, bucket: Bucket, s3_server: S3Server) -> None:
    new = s3_server.create()
    lost = some(START, 1, 10)
    lose_the_reply(far, proxy, lost)
    store = far.store(bucket=new.name)
    assert store.open() == lost.end
    store.write(some(lost.end, 11, 20))
    assert (seqs(bucket), seqs(new)) == (list(range(1, 11)), list(range(11, 21)))


def test_an_intent_of_a_bucket_that_is_gone_is_given_up(
    far: Place, proxy: Proxy, bucket: Bucket, s3_server: S3Server
) -> None:
    new, lost = s3_server.create(), some(START, 1, 10)
    lose_the_reply(far, proxy, lost)
    client = s3_server.client()
    for one in client.list_objects_v2(Bucket=bucket.name)["Contents"]:
        client.delete_object(Bucket=bucket.name, Key=one["Key"])
    client.delete_bucket(Bucket=bucket.name)
    store = far.opened(bucket=new.name)
    with pytest.raises(RetryableError, match="create the bucket"):
        store.write(lost)
    store.write(lost)
    assert seqs(new) == list(range(1, 11))


def test_a_refused_request_leaves_no_intent(place: Place, bucket: Bucket, s3_server: S3Server) -> None:
    store, new = place.opened(), s3_server.create()
    s3_server.client().delete_object(Bucket=bucket.name, Key="w/_wafermon/conditional-writes")
    for key in ("w/_wafermon", "w"):
        (s3_server.root / bucket.name / key).rmdir() if (s3_server.root / bucket.name / key).exists() else None
    s3_server.client().delete_bucket(Bucket=bucket.name)
    with pytest.raises(RetryableError, match="create the bucket, or name another one"):
        store.write(some(START, 1, 10))
    assert place.record == {"position": str(START), "intent": None}
    other = place.opened(bucket=new.name)
    other.write(some(START, 1, 10))
    assert seqs(new) == list(range(1, 11))


def test_a_late_request_is_fenced_off_where_the_delivery_skips(
    far: Place, proxy: Proxy, bucket: Bucket, s3_server: S3Server
) -> None:
    other = S3Server(beside=s3_server)
    other.start()
    try:
        store, proxy.lingers = far.opened(timeout=1.0), True
        lost = some(START, 1, 10)
        with s3_server.frozen():
            with pytest.raises(RetryableError):
                store.write(lost)
            proxy.target = other.socket
            again = far.opened()
            again.write(some(START._replace(offset=9000), 11, 20))
            answers = heard(proxy)
        until(lambda: any(b"412" in answer for answer in answers), "the late request refused")
        assert unpacked(f"{FIRST_KEY}.gz", bucket.body(f"{FIRST_KEY}.gz")) == b""
        assert seqs(bucket) == list(range(11, 21))
        # Should the delivery ever come back there, another name is taken.
        again.write(some(START, 1, 10))
        assert f"{FIRST_KEY.removesuffix('.ndjson')}.1.ndjson.gz" in bucket.all_keys()
        assert sorted(seq for _, seq in bucket_of(bucket, s3_server).stored()) == list(range(1, 21))
    finally:
        other.kill()


def heard(proxy: Proxy) -> list[bytes]:
    """All that the servers say from now on."""
    answers: list[bytes] = []

    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        if not from_client:
            answers.append(chunk)
        return "pass"

    proxy.rule = rule
    return answers


def bucket_of(bucket: Bucket, server: S3Server) -> Bucket:
    """The same bucket, asked of another server, and nothing of it read yet."""
    return Bucket(server, bucket.name)


def test_what_came_through_is_no_matter_where_the_delivery_skips(far: Place, proxy: Proxy, bucket: Bucket) -> None:
    """Nothing is stored twice: the delivery is asked to look again."""
    lost = some(START, 1, 10)
    store = far.opened()
    with lost_replies(proxy), pytest.raises(RetryableError):
        store.write(lost)
    with pytest.raises(PositionMoved):
        store.write(some(START._replace(offset=5000), 8, 20))
    assert store.open() == lost.end
    assert seqs(bucket) == list(range(1, 11))


def test_what_another_journal_has_under_the_name_is_left_alone(place: Place, bucket: Bucket) -> None:
    """Two sidecars on copies of one journal."""
    theirs = batch(START, [line(seq, message="theirs") for seq in range(1, 11)])
    place.opened().write(replace(theirs, received=(RECEIVED, RECEIVED)))
    (place.directory / "position.json").unlink()
    store = place.opened()
    for _ in range(2):
        with pytest.raises(RetryableError, match="copies of one journal"):
            store.write(some(START, 1, 20))
    assert seqs(bucket) == list(range(1, 11))


def test_a_strangers_object_is_left_alone(place: Place, bucket: Bucket) -> None:
    bucket.put(f"{FIRST_KEY}.gz", b"theirs")
    with pytest.raises(RetryableError, match="`prefix` of its own"):
        place.opened().write(some(START, 1, 10))
    assert bucket.body(f"{FIRST_KEY}.gz") == b"theirs"


def test_a_server_that_overwrites_is_noticed(bucket: Bucket, tmp_path: Path) -> None:
    with CarelessServer() as server:
        place = Place(tmp_path, server.url, "careless")
        store = place.store()
        with pytest.raises(RetryableError, match="`conditional: false`"):
            store.open()
        [problem] = s3.examine(configure(s3, place.options))
        assert "ignores If-None-Match" in problem


def test_without_conditions_no_cut_overwrites_another(bucket: Bucket, tmp_path: Path) -> None:
    """A late request of a shorter cut must not take away what the longer one has."""
    with CarelessServer() as server:
        place = Place(tmp_path, server.url, "careless")
        store = place.opened(conditional=False)
        assert not store.exactly_once
        assert s3.examine(configure(s3, place.options)) == []
        store.write(some(START, 1, 10))
        (tmp_path / "position.json").unlink()
        again = place.opened()
        again.write(some(START, 1, 30))
        keys = [key for key in server.objects if "_wafermon" not in key]
        assert len(keys) == 2 and all(f"{JOURNAL}-0000000001-000000004096-0000000001-" in key for key in keys)
        assert place.store().open() == some(START, 1, 30).end


def test_what_is_too_large_for_a_server_is_halved(bucket: Bucket, tmp_path: Path) -> None:
    with CarelessServer(most=4000) as server:
        store = Place(tmp_path, server.url, "careless").opened(conditional=False, compress="none")
        with pytest.raises(PermanentError) as caught:
            store.write(some(START, 1, 40))
        assert caught.value.code == "EntityTooLarge"
        half = some(START, 1, 20)
        store.write(half)
        store.write(some(half.end, 21, 40))
        assert sum(body.count(b"wafer") for key, body in server.objects.items() if "/dt" in key) == 40


def test_doctor_finds_nothing_wrong(place: Place, bucket: Bucket) -> None:
    assert s3.examine(configure(s3, place.options)) == []
    assert bucket.all_keys() == []


@pytest.mark.parametrize(("options", "words"), [
    ({"bucket": "nobodys-bucket"}, "create the bucket, or name another one"),
    ({"endpoint_url": "http://127.0.0.1:9"}, "see that the server runs and listens there"),
    ({"profile": "nobody"}, "give credentials"),
])  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_do(place: Place, options: dict[str, Any], words: str) -> None:
    store = place.store(**options)
    with pytest.raises(RetryableError, match=words):
        store.open()
    [problem] = s3.examine(configure(s3, place.options))
    assert words in problem


def test_a_server_with_a_certificate_of_ones_own(
    place: Place, bucket: Bucket, s3_server: S3Server, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "fab")
    server = S3Server(beside=s3_server, certificate=authority.issue("server", server=True), ca_file=authority.path)
    server.start()
    try:
        with pytest.raises(RetryableError, match="see that `ca_file` names the authority"):
            place.store(endpoint_url=server.url).open()
        with pytest.raises(RetryableError, match="name a file that the sidecar can read"):
            place.store(ca_file=str(tmp_path / "absent.pem")).open()
        place.opened(ca_file=str(authority.path)).write(some(START, 1, 10))
        assert seqs(bucket) == list(range(1, 11))
    finally:
        server.kill()


def test_credentials_are_read_again(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = testkey\naws_secret_access_key = wrong\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        store = place.store(credentials_file=str(file))
        with pytest.raises(RetryableError, match="correct the credentials; they are read again"):
            store.open()
        file.write_text("[default]\naws_access_key_id = testkey\naws_secret_access_key = testsecret\n")
        assert store.open() is None


def test_a_damaged_record_is_set_aside(place: Place, bucket: Bucket) -> None:
    place.opened().write(some(START, 1, 10))
    (place.directory / "position.json").write_text('{"position": ')
    store = place.store()
    assert store.open() is None
    assert (place.directory / "position.json.damaged").exists()
    with pytest.raises(PositionMoved):
        store.write(some(START, 1, 10 + 1))
    assert store.open() == some(START, 1, 10).end


def test_a_record_that_cannot_be_written_stores_nothing(place: Place, bucket: Bucket) -> None:
    store = place.opened()
    (place.directory / "position.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        store.write(some(START, 1, 10))
    assert bucket.all_keys() == []
