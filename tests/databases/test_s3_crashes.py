"""Whoever fails under load, the sidecar, the S3 server or the network between them: every acknowledged message is in the objects
once. `WAFERMON_TEST_ROUNDS` says how often they fail."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import wafermon
from daemon import Daemon, Load, until
from proxy import Pair, Proxy, at_random
from s3_server import ENVIRONMENT, Bucket

ROUNDS = int(os.environ.get("WAFERMON_TEST_ROUNDS", "3"))
CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1"]
http: false
reload: signal
journal: {{{{dir: journal, segment_bytes: 1MiB, max_bytes: 0, spill_dir: false}}}}
backends:
  archive:
    plugin: s3
    bucket: {bucket}
    prefix: wafermon/
    endpoint_url: {url}
    region: us-east-1
    compress: {compress}
    timeout: 1s
    batch: {{{{age: 50ms, bytes: 64KiB}}}} # what a socket takes whose reader stands still
    retry: {{{{max: 200ms}}}}
routes: [{{{{to: [archive]}}}}]
dead_letters: {{{{dir: dead-letters}}}}
"""


def sidecar(directory: Path, bucket: Bucket, url: str = "", compress: str = "gzip") -> Daemon:
    config = CONFIG.format(bucket=bucket.name, url=url or bucket.server.url, compress=compress)
    daemon = Daemon(directory, config)
    daemon.environ = ENVIRONMENT
    return daemon


@contextmanager
def loaded(daemon: Daemon, bucket: Bucket) -> Iterator[list[Load]]:
    """Under load; at the end of it, what was acknowledged must be stored, each once."""
    loads = [Load(daemon, number) for number in range(1, 4)]
    try:
        until(lambda: all(load.acked for load in loads), "some load")
        yield loads
        before = [load.acked for load in loads]
        until(lambda: all(load.acked > acked for load, acked in zip(loads, before, strict=True)), "load after it all")
    finally:
        for load in loads:
            load.join()
    check(bucket, {load.name: load.acked for load in loads})
    assert daemon.letters() == []
    log = daemon.log()
    assert "Traceback" not in log, log


def check(bucket: Bucket, acked: dict[str, int]) -> None:
    """Over all objects: of each client every seq once, and without a gap all that was acknowledged."""

    def is_all_there() -> bool:
        found = bucket.counted()
        return all(name in found and found[name][seq] for name, seq in acked.items())

    until(is_all_there, "everything in the bucket", patience=300)
    found = bucket.counted()
    assert set(found) == set(acked)
    for client, counts in found.items():
        twice = sorted(seq for seq, count in counts.items() if count > 1)
        missing = sorted(set(range(1, acked[client] + 1)) - set(counts))
        assert (twice, missing) == ([], []), f"{client}: twice {twice[:10]}, missing {missing[:10]}, of {acked[client]}"


def test_sigkill_of_the_sidecar(tmp_path: Path, bucket: Bucket) -> None:
    with sidecar(tmp_path, bucket) as daemon, loaded(daemon, bucket):
        for _ in range(ROUNDS):
            time.sleep(random.uniform(0.05, 0.8))
            daemon.kill()
            daemon.start()


def test_crashes_of_the_server(tmp_path: Path, bucket: Bucket) -> None:
    with sidecar(tmp_path, bucket, compress="zstd") as daemon, loaded(daemon, bucket):
        for _ in range(ROUNDS):
            time.sleep(random.uniform(0.05, 0.6))
            bucket.server.restart()
        assert daemon.process is not None and daemon.process.poll() is None


def test_a_server_that_stands_still_and_answers_late(tmp_path: Path, bucket: Bucket) -> None:
    """Requests time out, the sidecar is killed, and what was on its way is carried out when the server goes on."""
    with Proxy(bucket.server.socket) as proxy:
        proxy.lingers = True
        with sidecar(tmp_path, bucket, f"http://127.0.0.1:{proxy.port}") as daemon, loaded(daemon, bucket):
            for number in range(ROUNDS):
                left = proxy.left
                with bucket.server.frozen():
                    until(lambda left=left: proxy.left > left, "a request that is given up")  # type: ignore[misc]
                    if number % 2:
                        daemon.kill()
                        daemon.start()
        assert bucket.server.process is not None


def test_a_slow_server_whose_answers_are_lost(tmp_path: Path, bucket: Bucket) -> None:
    dice = random.Random(3)

    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        if from_client or b"100 Continue" in chunk:
            return dice.choice(["pass", "pass", "trickle"]) if len(chunk) < 2000 else "pass"
        time.sleep(dice.uniform(0, 0.02))
        return "cut" if dice.random() < 0.3 else "pass"

    with Proxy(bucket.server.socket) as proxy:
        proxy.rule = rule
        with sidecar(tmp_path, bucket, f"http://127.0.0.1:{proxy.port}") as daemon, loaded(daemon, bucket):
            until(lambda: proxy.cuts >= 4 * ROUNDS, "lost answers", patience=300)
            proxy.rule = lambda pair, chunk, from_client: "pass"


def test_everything_at_once(tmp_path: Path, bucket: Bucket) -> None:
    with Proxy(bucket.server.socket) as proxy:
        proxy.rule, proxy.lingers = at_random(0.02, seed=2), True
        with sidecar(tmp_path, bucket, f"http://127.0.0.1:{proxy.port}") as daemon, loaded(daemon, bucket):
            for _ in range(ROUNDS):
                time.sleep(random.uniform(0.05, 0.3))
                bucket.server.restart()
                time.sleep(random.uniform(0.05, 0.3))
                with bucket.server.frozen():
                    time.sleep(random.uniform(0.05, 1.5))
                daemon.kill()
                daemon.start()
            proxy.rule = lambda pair, chunk, from_client: "pass"


def test_an_outage_from_before_the_start(tmp_path: Path, bucket: Bucket) -> None:
    """It is told in one line, costs nobody anything, and ends by itself."""
    with sidecar(tmp_path, bucket) as daemon:
        with bucket.server.down():
            daemon.stop()
            (tmp_path / "daemon.log").write_text("")
            daemon.start()
            client = daemon.client()
            client.send(range(1, 20_001))
            client.until_acked(20_000)
            until(lambda: "archive can't be opened" in daemon.log(), "what is wrong")
        check(bucket, {client.client: 20_000})
        client.drop()
    told = [line for line in daemon.log().splitlines() if "archive can't" in line or "archive works again" in line]
    assert len([line for line in told if "see that the server runs" in line]) == 1, told
    assert "works again" in told[-1]


def test_another_config_while_a_request_is_on_its_way(tmp_path: Path, bucket: Bucket) -> None:
    """The intent keeps its key and codec; what comes after it has the new ones."""
    with Proxy(bucket.server.socket) as proxy:
        proxy.lingers = True
        url = f"http://127.0.0.1:{proxy.port}"
        with sidecar(tmp_path, bucket, url) as daemon, loaded(daemon, bucket):
            assert daemon.process is not None
            config = tmp_path / "wafermon.yaml"
            for compress, prefix in [("zstd", "a/"), ("none", "b/"), ("gzip", "wafermon/")] * 2:
                left = proxy.left
                with bucket.server.frozen():
                    until(lambda left=left: proxy.left > left, "a request that is given up")  # type: ignore[misc]
                    text = config.read_text().splitlines()
                    changed = {"compress:": f"    compress: {compress}", "prefix:": f"    prefix: {prefix}"}
                    config.write_text(
                        "\n".join(changed.get(line.split()[0] if line.split() else "", line) for line in text) + "\n"
                    )
                    daemon.process.send_signal(signal.SIGHUP)
                until(lambda prefix=prefix: any(key.startswith(prefix) for key in bucket.all_keys()), "the new prefix")  # type: ignore[misc]
    assert len({key.partition("/")[0] for key in bucket.all_keys()}) == 3


def test_status_says_how_often_a_message_is_stored(tmp_path: Path, bucket: Bucket) -> None:
    with sidecar(tmp_path, bucket) as daemon:
        config = tmp_path / "wafermon.yaml"
        config.write_text(config.read_text().replace("http: false", "http: unix:http.sock:mode=600"))
        assert said_after_a_start(daemon) == (True, False)
        config.write_text(config.read_text().replace("    prefix:", "    conditional: false\n    prefix:"))
        assert said_after_a_start(daemon) == (False, True)


def said_after_a_start(daemon: Daemon) -> tuple[bool, bool]:
    """What `status` says for programs, and whether it says "at least once" to people."""
    daemon.stop()
    daemon.start()
    url = f"unix://{daemon.directory}/http.sock"
    backend = json.loads(wafermon("status", "--json", "--http", url).stdout)["backends"]["archive"]
    return backend["exactly_once"], "(at least once)" in wafermon("status", "--http", url).stdout
