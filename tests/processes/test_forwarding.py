"""Edges that forward to a central sidecar: each message once there, whatever fails between them."""

from __future__ import annotations

import json
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from central import CONFIG, TOKEN, Central
from certificates import Authority
from daemon import PATIENCE, Load, until
from edge import Edge
from exactly_once import check_exactly_once
from proxy import Pair, Proxy

from wafermon.wire.frames import Stretch, encode_frame

MARK = 1 << 31
"""Where the stretch of the first frame begins."""


@pytest.fixture
def central(tmp_path: Path) -> Iterator[Central]:
    with Central(tmp_path / "central", tokens=f"{TOKEN} +forward=edge\n{TOKEN}-2 +forward=edge-2 test load-*\n") as one:
        yield one


def forwarders(central: Central) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = central.ask("/api/forwarders")["forwarders"]
    return found


def is_there(central: Central, service: str, count: int) -> None:
    path = central.directory / "logs" / f"{service}.jsonl"
    until(
        lambda: path.exists() and path.read_bytes().count(b"\n") >= count, f"{count} messages of {service} at central"
    )


def has_more(central: Central, messages: int) -> bool:
    return bool(forwarders(central)[0]["messages"] > messages)


def send(edge: Edge, count: int, **fields: Any) -> None:
    client = edge.client(service=fields.get("service", "test"))
    client.send(range(1, count + 1), **fields)
    client.until_acked(count)
    client.socket.close()


def test_an_edge_s_messages_are_at_central_byte_for_byte(central: Central, tmp_path: Path) -> None:
    with Edge(tmp_path / "edge", central.forward_port) as edge:
        send(edge, 100, text="Größe µm")
        send(edge, 5, service="private-1")
        is_there(central, "test", 100)
        until(lambda: edge.backend()["lag_messages"] == 0, "an edge without a lag")
        both = [(one.directory / "logs" / "test.jsonl").read_bytes() for one in (edge, central)]
        assert both[0] == both[1]
        assert not (central.directory / "logs" / "private-1.jsonl").exists()
        backend = edge.backend()
        assert backend["state"] == "ok" and backend["exactly_once"]
        assert central.ask("/api/status")["journal"]["id"] in backend["detail"], "health says who is at the other side"
        assert 0 < backend["figures"]["wire_bytes"] < backend["figures"]["raw_bytes"]
        [one] = forwarders(central)
        assert (one["name"], one["journal"], one["connected"], one["messages"]) == ("edge", edge.id(), True, 100)
        until(lambda: forwarders(central)[0]["lag"] == 0.0, "a forwarder that says that nothing waits")
        assert abs(forwarders(central)[0]["clock"]) < 60
        assert one["gaps"] == 0
        assert central.ask("/api/status")["forwarders"]["connected"] == 1
    until(lambda: not forwarders(central)[0]["connected"], "a forwarder that is gone")


def test_restarts_at_either_end_and_a_bad_network(central: Central, tmp_path: Path) -> None:
    dice = random.Random(24)

    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        return dice.choice(["pass"] * 12 + ["cut", "pass and cut", "trickle"])

    with Proxy(("127.0.0.1", central.forward_port)) as proxy, Edge(tmp_path / "edge", proxy.port) as edge:
        proxy.rule = rule
        loads = [Load(edge, number) for number in range(3)]
        for round_ in range(4):
            time.sleep(1.0)
            victim = (edge, central)[round_ % 2]
            victim.kill()
            victim.start()
        for one in loads:
            one.join()
        proxy.rule = lambda pair, chunk, from_client: "pass"
        assert proxy.cuts
        check_exactly_once(central, loads)
        for one in loads:
            there = [(sidecar.directory / "logs" / f"{one.service}.jsonl").read_bytes() for sidecar in (edge, central)]
            assert there[0] == there[1]


def test_a_central_that_is_away_holds_up_nothing_at_the_edge(central: Central, tmp_path: Path) -> None:
    with Edge(tmp_path / "edge", central.forward_port) as edge:
        send(edge, 10)
        is_there(central, "test", 10)
        with central.down():
            send(edge, 50, service="meanwhile")
            until(lambda: len(edge.stored("meanwhile")) == 50, "the files of the edge")
            until(lambda: edge.backend()["state"] == "failing", "a backend that fails")
            assert edge.backend()["lag_messages"] >= 50
        is_there(central, "meanwhile", 50)
        until(lambda: edge.backend()["state"] == "ok", "a backend that works again")


def test_when_an_edge_s_quota_is_full_it_may_skip(central: Central, tmp_path: Path) -> None:
    with Edge(tmp_path / "edge", central.forward_port, quota="256KiB", more=", when_full: skip") as edge:
        send(edge, 10)
        is_there(central, "test", 10)
        with central.down():
            for _ in range(6):
                send(edge, 500, service="meanwhile", text="x" * 1000)
        until(lambda: edge.backend()["lag_messages"] == 0, "an edge without a lag")
        assert edge.backend()["skipped_messages"] > 0
        there, here = Counter(map(str, central.stored("meanwhile"))), Counter(map(str, edge.stored("meanwhile")))
        assert there <= here and set(there.values()) == {1}


def test_a_copy_of_an_edge_is_refused_until_its_journal_is_renewed(central: Central, tmp_path: Path) -> None:
    with Edge(tmp_path / "edge", central.forward_port) as edge:
        send(edge, 10)
        is_there(central, "test", 10)
        until(lambda: edge.backend()["lag_messages"] == 0, "an edge without a lag")
    shutil.copytree(edge.directory / "journal", tmp_path / "journal-copy")
    with edge:
        send(edge, 10, service="later")
        is_there(central, "later", 10)
        copy = Edge(tmp_path / "copy", central.forward_port)
        shutil.copytree(tmp_path / "journal-copy", copy.directory / "journal")
        with copy:
            send(copy, 5, service="of-the-copy")
            until(lambda: "copy" in copy.backend()["detail"], "a copy that is refused")
            assert copy.backend()["state"] == "failing"
            assert edge.backend()["state"] == "ok", "the one that was there stays"
            assert central.ask("/api/status")["forwarders"]["copies_refused"] > 0
    # Nobody else is connected now, and still it sends nothing: what is at these places is not the same.
    with copy:
        send(copy, 200, service="of-the-copy")
        until(lambda: "wafermon journal renew" in copy.backend()["detail"], "a copy that says what to do")
    assert not (central.directory / "logs" / "of-the-copy.jsonl").exists()
    renewed = subprocess.run(
        [sys.executable, "-m", "wafermon", "journal", "renew", str(copy.directory / "journal")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "from now on" in renewed.stdout
    with copy:
        is_there(central, "of-the-copy", 205)
        until(lambda: copy.backend()["state"] == "ok", "a copy that forwards")
        assert len(forwarders(central)) == 2
    with edge:
        send(edge, 10, service="in-the-end")
        is_there(central, "in-the-end", 10)
    assert set(Counter(central.drained()).values()) == {1}
    check = [sys.executable, "-m", "wafermon", "journal", "check", str(copy.directory / "journal")]
    assert subprocess.run(check, capture_output=True, timeout=60).returncode == 0


def test_an_edge_with_a_new_disk_is_a_new_client(central: Central, tmp_path: Path) -> None:
    with Edge(tmp_path / "edge", central.forward_port) as edge:
        send(edge, 10)
        is_there(central, "test", 10)
    shutil.rmtree(edge.directory / "journal")
    with edge:
        send(edge, 10)
        is_there(central, "test", 20)
    assert [one["connected"] for one in forwarders(central)] in ([True, False], [False, False])


def test_what_central_does_not_take_is_a_dead_letter_there(central: Central, tmp_path: Path) -> None:
    """The edge's token is for some services alone; what is of others does not hold the rest up."""
    with Edge(tmp_path / "edge", central.forward_port, token=f"{TOKEN}-2") as edge:
        send(edge, 5, service="other")
        send(edge, 10)
        is_there(central, "test", 10)
        letters = until(lambda: central.letters() if len(central.letters()) == 5 else None, "five dead letters")
        assert {one["code"] for one in letters} == {"unauthorized"}
        assert all(edge.id() in one["peer"] and "forwards as edge-2" in one["peer"] for one in letters)
        assert sorted(one["seq"] for one in letters) == [1, 2, 3, 4, 5]
        assert edge.backend()["state"] == "ok"
        until(lambda: forwarders(central)[0]["refused_lines"] == 5, "a count of them")


def test_a_line_that_no_frame_of_central_s_can_hold_is_a_dead_letter_of_the_edge(
    central: Central, tmp_path: Path
) -> None:
    edge = Edge(tmp_path / "edge", central.forward_port)
    path = edge.directory / "wafermon.yaml"
    text = path.read_text().replace("segment_bytes: 64KiB", "segment_bytes: 8MiB")
    path.write_text(text + "limits: {max_line_bytes: 512KiB}\n")
    with edge:
        client = edge.client(service="test")
        client.send(range(1, 20))
        client.send_line(
            {**client.line(20), "message": "m" * 400_000}
        )  # central's journal has segments of 1 MiB: frames of a quarter
        client.send(range(21, 40))
        client.until_acked(39)
        is_there(central, "test", 38)
        [letter] = until(edge.letters, "a dead letter")
        assert "longer than a frame" in json.dumps(letter)[-2_000:] + json.dumps(letter)[:2_000]
        until(lambda: edge.backend()["state"] == "ok", "an edge that forwards")
        assert central.ask("/api/forwarders")["forwarders"][0]["gaps"] == 0
        assert [one["seq"] for one in central.stored("test")] == [*range(1, 20), *range(21, 40)]


@pytest.mark.parametrize(("token", "said"), [("nobody", "not known here"), (f"{TOKEN}-3", "+forward=NAME")])
def test_who_may_not_forward_is_told_so(tmp_path: Path, token: str, said: str) -> None:
    tokens = f"{TOKEN} +forward=edge\n{TOKEN}-3\n"
    central = Central(tmp_path / "central", tokens=tokens)
    edge = Edge(tmp_path / "edge", central.forward_port, token=token)
    with central, edge:
        until(lambda: said in edge.backend()["detail"], "what central says")
        (central.directory / "tokens").write_text(tokens + f"{token}-new +forward=edge\n")
        (edge.directory / "token").write_text(f"{token}-new\n")
        until(lambda: edge.backend()["state"] == "ok", "an edge with another token")
        send(edge, 3)
        is_there(central, "test", 3)


def test_tokens_that_are_replaced_during_frames_lose_and_double_nothing(central: Central, tmp_path: Path) -> None:
    """By turns the edge's token goes, and comes again under the same name, while its frames are on the way in pieces."""
    dice = random.Random(25)
    tokens = central.directory / "tokens"

    def write(path: Path, text: str) -> None:
        new = path.with_name("new")
        new.write_text(text)
        new.chmod(0o600)
        new.replace(path)

    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        return dice.choice(["pass", "trickle"]) if from_client else "pass"

    with Proxy(("127.0.0.1", central.forward_port)) as proxy, Edge(tmp_path / "edge", proxy.port) as edge:
        proxy.rule = rule
        loads = [Load(edge, number) for number in range(3)]
        for round_ in range(3):
            until(lambda: forwarders(central) and forwarders(central)[0]["connected"], "an edge that forwards")
            before = forwarders(central)[0]["messages"]
            until(partial(has_more, central, before), "messages")
            write(tokens, f"{TOKEN}-{round_} +forward=edge\n")
            until(lambda: not forwarders(central)[0]["connected"], "a connection that is closed")
            write(edge.directory / "token", f"{TOKEN}-{round_}\n")
        for one in loads:
            one.join()
        proxy.rule = lambda pair, chunk, from_client: "pass"
        check_exactly_once(central, loads)
        assert "it would not be admitted any more" in central.log()
        assert forwarders(central)[0]["gaps"] == 0


class RawEdge:
    """A sidecar that forwards, byte by byte as a test wants it."""

    def __init__(self, port: int, token: str = "", tls: ssl.SSLContext | None = None, **fields: str) -> None:
        """`fields`: more of the hello."""
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket = tls.wrap_socket(plain, server_hostname="localhost") if tls is not None else plain
        self._replies = self.socket.makefile("rb")
        hello = {
            "v": 2,
            "type": "hello",
            "forward": True,
            "client": "e" * 16,
            "instance": "one",
            "token": token,
            "compress": ["zlib"],
            **fields,
        }
        self.socket.sendall(json.dumps(hello).encode() + b"\n")
        self.welcome = self.next()

    def next(self) -> dict[str, Any]:
        """The next that it is told; nothing where it is closed."""
        said = self._replies.readline()
        found: dict[str, Any] = json.loads(said) if said else {}
        return found

    def until_acked(self, mark: int) -> None:
        while (said := self.next())["type"] == "ack" and said["seq"] < mark:
            pass
        assert said["type"] == "ack" and said["seq"] == mark, said


def frames(count: int) -> list[bytes]:
    """So many of 50 messages each; the one after the other."""
    made = []
    for number in range(count):
        seqs = range(50 * number + 1, 50 * number + 51)
        said = {
            "type": "event",
            "ts": 1_795_500_000_000_000,
            "service": "test",
            "level": "info",
            "message": "m",
            "client": "a" * 16,
        }
        raw = b"".join(json.dumps({**said, "seq": seq}).encode() + b"\n" for seq in seqs)
        made.append(encode_frame("zlib", raw, 50, Stretch(MARK + number, MARK + number + 1)))
    return made


def test_a_certificate_that_is_replaced_within_a_frame_costs_nothing(tmp_path: Path) -> None:
    """Who is connected goes on where it is, in the middle of a frame; who comes next is shown the new one."""
    authority, others = Authority(tmp_path, "fab"), Authority(tmp_path, "other")
    server, newer = authority.issue("server", server=True), others.issue("newer", server=True)
    config = CONFIG.replace("tcp:%(port)d", "tls:%(port)d").replace(
        "token_file", f"certificate: {server}, key: {server.with_suffix('.key')}, token_file"
    )
    with Central(tmp_path / "central", config) as central:
        edge = RawEdge(central.forward_port, TOKEN, authority.context())
        first, second, third = frames(3)
        edge.socket.sendall(first + second[: len(second) // 2])
        edge.until_acked(MARK + 1)
        newer.with_suffix(".key").replace(server.with_suffix(".key"))
        newer.replace(server)
        until(lambda: "new connections get the new certificate" in central.log(), "the new certificate")
        edge.socket.sendall(second[len(second) // 2 :] + third[:10])
        edge.until_acked(MARK + 2)
        edge.socket.close()
        again = RawEdge(central.forward_port, TOKEN, ssl.create_default_context(cafile=str(others.path)))
        assert again.welcome["acked"] == MARK + 2, "half a frame is none"
        again.socket.sendall(third)
        again.until_acked(MARK + 3)
        assert central.drained() == [("a" * 16, seq) for seq in range(1, 151)]


def test_a_token_that_is_replaced_within_a_frame_loses_and_doubles_nothing(central: Central) -> None:
    """Who has the old one is closed, and what it had sent of its frame is none of central's; who keeps its own goes on."""
    old, other = RawEdge(central.forward_port, TOKEN), RawEdge(central.forward_port, f"{TOKEN}-2")
    first, second = frames(2)
    for edge in (old, other):
        edge.socket.sendall(first + second[:-10])
        edge.until_acked(MARK + 1)
    new = central.directory / "new"
    new.write_text(f"{TOKEN}-new +forward=edge\n{TOKEN}-2 +forward=edge-2 test load-*\n")
    new.chmod(0o600)
    new.replace(central.directory / "tokens")
    while old.next():
        pass
    with suppress(OSError):
        old.socket.sendall(second[-10:])
    other.socket.sendall(second[-10:])
    other.until_acked(MARK + 2)
    again = RawEdge(central.forward_port, f"{TOKEN}-new")
    assert again.welcome["acked"] == MARK + 1
    again.socket.sendall(second)
    again.until_acked(MARK + 2)
    assert Counter(central.drained()) == {("a" * 16, seq): 2 for seq in range(1, 101)}, "once of each edge"


def test_mutual_tls_and_a_certificate_that_is_replaced(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "fab")
    server, client, other = (
        authority.issue("server", server=True),
        authority.issue("edge-1"),
        authority.issue("toolbox"),
    )
    config = """
listen:
  - tcp:{port}:interface=127.0.0.1
  - {{endpoint: "tls:%(port)d:interface=127.0.0.1", certificate: SERVER, key: SERVERKEY, client_ca: CA, forward: ["edge-*"]}}
http: tcp:%(http)d:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}
{limits}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
dead_letters: {{dir: dead-letters}}
"""
    for name, path in (("SERVERKEY", server.with_suffix(".key")), ("SERVER", server), ("CA", authority.path)):
        config = config.replace(name, str(path))
    with Central(tmp_path / "central", config) as central:
        more = f", ca_file: {authority.path}, certificate: edge.pem, key: edge.key"
        (tmp_path / "edge").mkdir()

        def show(certificate: Path) -> None:
            for suffix in (".pem", ".key"):
                shutil.copy(certificate.with_suffix(suffix), tmp_path / "edge" / f"edge{suffix}")

        show(client)
        with Edge(tmp_path / "edge", central.forward_port, scheme="tls", more=more) as edge:
            send(edge, 3)
            is_there(central, "test", 3)
            assert forwarders(central)[0]["name"] == "edge-1"
            show(other)
            with central.down():
                pass
            until(lambda: "'toolbox' may not forward" in edge.backend()["detail"], "a certificate that is refused")
            show(client)
            send(edge, 3, service="later")
            is_there(central, "later", 3)


def test_one_job_over_two_hosts_has_one_receipt(central: Central, tmp_path: Path) -> None:
    edges = [
        Edge(tmp_path / "edge-1", central.forward_port), Edge(tmp_path / "edge-2", central.forward_port, token=f"{TOKEN}-2")
    ]  # fmt: skip
    with edges[0], edges[1]:
        for number, edge in enumerate(edges):
            client = edge.client(service="test")
            trace = {"trace_id": "job-1", "span_id": f"{number + 1:016x}"}
            lines = [
                {**client.line(1), "type": "span_start", "name": "step", **trace},
                client.line(2, trace_id="job-1"),
                {**client.line(3), "type": "span_end", "name": "step", "status": "ok", "start": 1_795_500_000_000_000, "duration": 5, **trace},
                {**client.line(4), "type": "progress", "job_id": "job-1", "percent": 100, "status": "done"},
            ]  # fmt: skip
            lines = lines if number == 0 else lines[:3]
            last = len(lines)
            final = {"called": last, "dropped": 0, "unsent": 0, "last": last, "streams": [], "final": True}
            client.send_all([*lines, {**client.line(last + 1), "type": "stats", **final}])
            client.until_acked(last + 1)

        def receipt() -> dict[str, Any]:
            found: dict[str, Any] = central.ask("/api/traces/job-1/receipt")
            return found

        until(lambda: central.ask("/api/jobs")["jobs"], "the job")

        def whole() -> dict[str, Any] | None:
            """It is complete also while only one edge has told of the job."""
            found = receipt()
            return found if found["complete"] and len(found["edges"]) == 2 and found["received"] == 7 else None

        found = until(whole, "a receipt of both edges")
        assert (found["received"], found["sent"], found["forwarded"], found["edge_unknown"]) == (7, 7, 7, 0)
        assert {journal: one["forwarded"] for journal, one in found["edges"].items()} == {
            edges[0].id(): 4,
            edges[1].id(): 3,
        }
        assert len(central.ask("/api/jobs")["jobs"]) == 1
        # Derived at central alone.
        until(lambda: [one for one in central.stored("wafermon") if one["type"] == "trace"], "a summary")
        for edge in edges:
            assert {one["type"] for one in edge.stored("wafermon")} <= {"event"}
        assert len([one for one in central.stored("wafermon") if one["type"] == "trace"]) == 1


def renew(sidecar: Central) -> None:
    subprocess.run(
        [sys.executable, "-m", "wafermon", "journal", "renew", str(sidecar.directory / "journal")],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip


def test_central_put_back_from_a_backup_gives_nothing_to_what_has_more_until_its_journal_is_renewed(
    tmp_path: Path,
) -> None:
    """The edge sends again what is not in the journal that was put back, and nothing is missing; a history of its own has more than that
    journal."""
    config = CONFIG.replace(
        "routes: [{{to: [files]}}]",
        "  past: {{plugin: history, dir: past, batch: {{age: 50ms}}}}\nroutes: [{{to: [files, past]}}]",
    )
    central = Central(tmp_path / "central", config)

    def past() -> dict[str, Any]:
        found: dict[str, Any] = central.ask("/api/status")["backends"]["past"]
        return found

    with central, Edge(tmp_path / "edge", central.forward_port) as edge:
        send(edge, 20)
        is_there(central, "test", 20)
        with central.down():
            shutil.copytree(central.directory / "journal", tmp_path / "backup")
        send(edge, 30)
        is_there(central, "test", 50)
        central.drained()
        with central.down():
            shutil.rmtree(central.directory / "journal")
            shutil.copytree(tmp_path / "backup", central.directory / "journal")
        until(lambda: "wafermon journal renew" in past()["detail"], "a backend that says what to do")
        send(edge, 5)
        is_there(central, "test", 55)
        assert "wafermon journal renew" in past()["detail"], "however long the journal is meanwhile"
        with central.down():
            renew(central)
        until(lambda: past()["state"] == "ok" and past()["lag_messages"] == 0, "a backend that goes on")
        counts = Counter(central.drained())
        assert sorted(counts.values()) == [1] * 25 + [2] * 30, (
            "all is there; files got a second time what they had got since"
        )


def test_clocks_that_differ_by_minutes_matter_to_nobody(central: Central) -> None:
    """An edge whose clock is ten minutes ahead, and has held a message for two minutes."""
    edge = RawEdge(central.forward_port, TOKEN, host="ahead")
    with edge.socket:
        assert edge.welcome["acked"] == 0
        ahead = int((time.time() + 600) * 1e6)
        said = {
            "type": "event",
            "ts": ahead,
            "service": "test",
            "level": "info",
            "message": "m",
            "client": "a" * 16,
            "seq": 1,
            "trace_id": "t",
        }
        raw = json.dumps(said).encode() + b"\n"
        place = {"start": 1 << 31, "end": (1 << 31) + 100, "received": ahead - 120_000_000, "now": ahead}
        head = {"type": "frame", "codec": "none", "bytes": len(raw), "raw": len(raw), "lines": 1, **place}
        edge.socket.sendall(json.dumps(head).encode() + b"\n" + raw)
        edge.until_acked(place["end"])
        is_there(central, "test", 1)
        [one] = central.ask("/api/clients")["forwarders"]
        assert 590 < one["clock"] < 610 and 119 < one["lag"] < 121 and one["host"] == "ahead"
        assert central.ask("/api/status")["ready"]
        assert central.stored("test")[0]["ts"] == ahead, "what a program says is not changed"
