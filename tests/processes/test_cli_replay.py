"""`wafermon replay`, against a real sidecar: every kind of file, and that twice counts once."""

from __future__ import annotations

import base64
import fcntl
import gzip
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import start, wafermon
from daemon import Daemon, until
from ports import free_port

CLIENT = "00c0ffee00c0ffee"
DEAD_PID = 2**22 + 1
"""Above what Linux gives to any process."""


def url(daemon: Daemon) -> str:
    return f"tcp://127.0.0.1:{daemon.port}"


def event(message: str, client: str | None = None, seq: int | None = None, **fields: Any) -> dict[str, Any]:
    line = {"type": "event", "ts": 1_790_000_000_000_000, "service": "svc", "level": "info", "message": message}
    return {**line, **fields, **({"client": client, "seq": seq} if client else {})}


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def spill_file(directory: Path, count: int = 5, *, first: int = 1, pid: int = DEAD_PID) -> Path:
    lines = [event(f"m{seq}", CLIENT, seq) for seq in range(first, first + count)]
    return write(directory / f"svc.{pid}.{CLIENT}.ldjson", lines)


def replay(daemon: Daemon, *arguments: object) -> tuple[int, str, str]:
    done = wafermon("replay", "--url", url(daemon), *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def stored(daemon: Daemon, count: int) -> list[dict[str, Any]]:
    """All of it, once it is so much; the sidecar's own messages apart."""

    def found() -> list[dict[str, Any]]:
        return [line for line in daemon.stored() if line["service"] != "wafermon"]

    until(lambda: len(found()) >= count, f"{count} messages")
    return found()


def settled(daemon: Daemon) -> list[dict[str, Any]]:
    """All of it, once a message that is sent now is there too: nothing else is on its way then."""
    client = daemon.client(service="marker")
    client.send([1], service="marker")
    client.until_acked(1)
    client.drop()
    until(lambda: any(line["client"] == client.client for line in daemon.stored("marker")))
    return [line for line in stored(daemon, 1) if line["service"] != "marker"]


# -- spill files


def test_a_spill_file_keeps_client_and_seq_and_goes(daemon: Daemon, tmp_path: Path) -> None:
    file = spill_file(tmp_path, first=7)
    assert replay(daemon, file) == (0, f"{file}: 5 messages acknowledged\n", "")
    assert not list(tmp_path.glob("*.ldjson*"))
    assert [(line["client"], line["seq"]) for line in stored(daemon, 5)] == [(CLIENT, seq) for seq in range(7, 12)]
    file = spill_file(tmp_path, first=7)
    assert replay(daemon, file) == (0, f"{file}: 0 messages acknowledged, 5 were there already\n", "")
    assert len(settled(daemon)) == 5


def test_one_that_was_taken_up_and_left_is_sent_too(daemon: Daemon, tmp_path: Path) -> None:
    file = spill_file(tmp_path)
    taken = file.rename(f"{file}.taken")
    assert replay(daemon, taken)[0] == 0
    assert not taken.exists()
    assert len(stored(daemon, 5)) == 5


def test_the_process_in_its_name_does_not_matter(daemon: Daemon, tmp_path: Path) -> None:
    file = spill_file(tmp_path, pid=os.getpid())
    assert replay(daemon, file)[0] == 0
    assert len(stored(daemon, 5)) == 5


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf])
def test_one_that_is_locked_is_left_alone(daemon: Daemon, tmp_path: Path, lock: Callable[[object, int], None]) -> None:
    file = spill_file(tmp_path)
    with file.open("rb+") as held:
        lock(held, fcntl.LOCK_EX)
        status, _, said = replay(daemon, file)
    assert status == 1
    assert "it is locked" in said
    assert file.exists()
    assert replay(daemon, file)[0] == 0


@pytest.mark.parametrize("damage", ["cut off", "damaged"])
def test_of_a_broken_gzip_file_what_it_holds_is_sent(daemon: Daemon, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "archive.jsonl.gz"
    lines = b"".join(json.dumps(event(os.urandom(100).hex())).encode() + b"\n" for _ in range(5_000))
    data = bytearray(gzip.compress(lines))
    if damage == "cut off":
        data = data[: len(data) // 2]
    else:
        data[-8:-4] = b"nope"  # the checksum
    file.write_bytes(data)
    status, out, said = replay(daemon, file)
    assert status == 1
    assert f"{file}: it is {damage}" in said
    count = int(out.split()[1])
    assert count == 5_000 if damage == "damaged" else 1_000 < count < 5_000
    assert replay(daemon, file)[1].startswith(f"{file}: 0 messages acknowledged, {count} were there already")


def test_a_line_that_was_cut_off_is_left_out_and_said(daemon: Daemon, tmp_path: Path) -> None:
    file = spill_file(tmp_path)
    with file.open("ab") as end:
        end.write(b'{"type":"event","mess')
    status, out, said = replay(daemon, file)
    assert (status, out) == (0, f"{file}: 5 messages acknowledged\n")
    assert ":6: unfinished" in said
    assert len(settled(daemon)) == 5


def test_lines_of_another_stream_are_told_and_the_file_stays(daemon: Daemon, tmp_path: Path) -> None:
    file = spill_file(tmp_path)
    write(file, [event("m1", CLIENT, 1), event("other", "ff" * 8, 2), event("none"), event("m2", CLIENT, 2)])
    status, out, said = replay(daemon, file)
    assert status == 1
    assert out == f"{file}: 2 messages acknowledged, 2 refused\n"
    assert [line.split(": ")[0] for line in said.splitlines()] == [f"{file}:2", f"{file}:3"]
    assert file.exists()
    assert [line["message"] for line in settled(daemon)] == ["m1", "m2"]


def test_what_the_sidecar_refuses_is_named_by_its_line(daemon: Daemon, tmp_path: Path) -> None:
    file = spill_file(tmp_path)
    lines = [event("m1", CLIENT, 1), event("m2", CLIENT, 2, level="loud"), event("m3", CLIENT, 3)]
    write(file, lines)
    status, out, said = replay(daemon, file)
    assert (status, out) == (1, f"{file}: 2 messages acknowledged, 1 refused\n")
    assert said.startswith(f"{file}:2: bad_message: level: ")
    assert [line["message"] for line in settled(daemon)] == ["m1", "m3"]
    assert [letter["seq"] for letter in until(daemon.letters)] == [2]


# -- dead letters


def letter(number: int, line: bytes, **fields: Any) -> dict[str, Any]:
    made = {"id": f"{number:016x}", "code": "refused", "reason": "why not", "time": 1_790_000_000_000_000, **fields}
    try:
        return {**made, "line": line.decode()}
    except UnicodeDecodeError:
        return {**made, "line_base64": base64.b64encode(line).decode()}


def test_dead_letters_count_once_each_and_go_to_the_backend_that_refused_them(daemon: Daemon, tmp_path: Path) -> None:
    lines = [json.dumps(event(f"m{seq}", CLIENT, seq)).encode() for seq in (1, 2, 3)]
    letters = [
        letter(1, lines[0], backend="files", client=CLIENT, seq=1),
        letter(2, lines[1], client=CLIENT, seq=2),
        letter(3, lines[2], backend="gone", client=CLIENT, seq=3),
    ]
    file = write(tmp_path / "00000001.jsonl", letters)
    assert replay(daemon, file) == (0, f"{file}: 3 messages acknowledged\n", "")
    some = write(tmp_path / "some.jsonl", [letters[1], letters[0]])
    assert replay(daemon, some) == (0, f"{some}: 0 messages acknowledged, 2 were there already\n", "")
    found = {line["message"]: line for line in settled(daemon)}
    assert sorted(found) == ["m1", "m2"]
    assert found["m1"]["replay_to"] == "files"
    assert "replay_to" not in found["m2"]
    assert [found[message]["replay_of"]["seq"] for message in ("m1", "m2")] == [1, 2]
    assert len({line["client"] for line in found.values()} | {CLIENT}) == 3


def test_letters_that_can_not_be_messages_are_told(daemon: Daemon, tmp_path: Path) -> None:
    good = letter(4, json.dumps(event("good")).encode())
    letters = [letter(1, b"\xff\xfe"), letter(2, b"no json"), {"id": "x"}, good, letter(5, b'{"type":"nope"}')]
    file = write(tmp_path / "letters", letters)
    status, out, said = replay(daemon, file)
    assert (status, out) == (1, f"{file}: 1 messages acknowledged, 4 refused\n")
    told = [line.split(": ")[:2] for line in said.splitlines()]
    codes = ["bad_utf8", "bad_json", "bad_message", "unknown_type"]
    assert sorted(told) == [[f"{file}:{n}", code] for n, code in zip((1, 2, 3, 5), codes, strict=True)]
    assert [line["message"] for line in settled(daemon)] == ["good"]


def test_what_the_daemon_set_aside_is_read_and_a_mended_line_goes(daemon: Daemon, tmp_path: Path) -> None:
    client = daemon.client()
    client.send([1], level="loud")
    client.until_acked(1)
    client.drop()
    (letter,) = until(daemon.letters)
    (file,) = (tmp_path / "dead-letters").iterdir()
    status, _, said = replay(daemon, file)
    assert status == 1
    assert said.startswith(f"{file}:1: bad_message: level: ")
    fixed = {**letter, "line": letter["line"].replace("loud", "info")}
    assert replay(daemon, write(tmp_path / "fixed", [fixed]))[0] == 0
    (line,) = stored(daemon, 1)
    assert (line["level"], line["replay_of"]) == ("info", {"client": client.client, "seq": 1})


def test_a_refused_line_goes_as_that_of_the_service_that_its_connection_named(daemon: Daemon, tmp_path: Path) -> None:
    client = daemon.client(service="etch", host="fab7", pid=4321)
    client.send_line({"type": "event", "level": "loud", "message": "m", "client": client.client, "seq": 1})
    client.until_acked(1)
    client.drop()
    (written,) = until(daemon.letters)
    assert (written["service"], written["host"], written["pid"]) == ("etch", "fab7", 4321)
    fixed = write(tmp_path / "fixed", [{**written, "line": written["line"].replace("loud", "info")}])
    assert replay(daemon, fixed) == (0, f"{fixed}: 1 messages acknowledged\n", "")
    (line,) = until(lambda: daemon.stored("etch"))
    assert (line["service"], line["host"], line["pid"], line["level"]) == ("etch", "fab7", 4321, "info")
    assert replay(daemon, "--service", "other", fixed)[1] == f"{fixed}: 0 messages acknowledged, 1 were there already\n"


# -- any other file


def test_lines_of_many_streams_count_once_whatever_the_file_is_called(daemon: Daemon, tmp_path: Path) -> None:
    lines = [event("m1", CLIENT, 9), event("m2", "11" * 8, 1), event("m3"), event("m4", CLIENT, 10)]
    file = write(tmp_path / "archive.jsonl", lines)
    assert replay(daemon, file) == (0, f"{file}: 4 messages acknowledged\n", "")
    copy = tmp_path / "copy.gz"
    copy.write_bytes(gzip.compress(file.read_bytes()))
    assert replay(daemon, copy) == (0, f"{copy}: 0 messages acknowledged, 4 were there already\n", "")
    found = settled(daemon)
    assert [line["message"] for line in found] == ["m1", "m2", "m3", "m4"]
    assert [line["seq"] for line in found] == [1, 2, 3, 4]
    assert len({line["client"] for line in found}) == 1
    assert [line.get("replay_of") for line in found] == [
        {"client": CLIENT, "seq": 9}, {"client": "11" * 8, "seq": 1}, None, {"client": CLIENT, "seq": 10},
    ]  # fmt: skip


def test_a_line_s_own_bytes_travel(daemon: Daemon, tmp_path: Path) -> None:
    odd = rb'{"type":"event","service":"svc","level":"info","message":"\u00e9/\/","context":{"x":1.50e2,"n":12345678901234567890}}'
    file = tmp_path / "odd"
    file.write_bytes(odd)  # without a newline at the end, too
    assert replay(daemon, file)[0] == 0
    stored(daemon, 1)
    assert odd[1 : odd.index(b'"level"')] in (tmp_path / "logs/svc.jsonl").read_bytes()
    assert odd[odd.index(b'"context"') : -1] in (tmp_path / "logs/svc.jsonl").read_bytes()


def test_bad_lines_are_told_and_do_not_keep_the_others(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "mixed"
    good = [json.dumps(event(f"m{number}")).encode() for number in range(3)]
    long = json.dumps(event("x" * 70_000)).encode()
    bad = [b"not json", b'{"type":"nope","service":"s"}', b'{"type":"event"}', b"[1]", long, b"\xff"]
    file.write_bytes(b"\n".join([good[0], *bad[:3], b"", good[1], *bad[3:], good[2], b""]))
    status, out, said = replay(daemon, file)
    assert (status, out) == (1, f"{file}: 3 messages acknowledged, 6 refused\n")
    told = [line.split(": ")[:2] for line in said.splitlines()]
    codes = ["bad_json", "unknown_type", "bad_message", "bad_message", "line_too_long", "bad_utf8"]
    places = (2, 3, 4, 7, 8, 9)
    assert [place for place, _ in told] == [f"{file}:{number}" for number in places]
    assert [code for _, code in told][1:3] == codes[1:3]
    assert told[4][1] == codes[4]
    assert [line["message"] for line in settled(daemon)] == ["m0", "m1", "m2"]


def test_an_archive_leaves_out_what_the_sidecar_derives_itself(daemon: Daemon, tmp_path: Path) -> None:
    own = event("derived", CLIENT, 1) | {"service": "wafermon"}
    file = write(tmp_path / "archive", [own, event("m1"), own])
    assert replay(daemon, file) == (0, f"{file}: 1 messages acknowledged, 2 of the sidecar's own left out\n", "")


def test_lines_without_a_service_need_one(daemon: Daemon, tmp_path: Path) -> None:
    line = event("m1")
    del line["service"]
    file = write(tmp_path / "lines", [line])
    status, _, said = replay(daemon, file)
    assert status == 1
    assert "--service" in said
    assert replay(daemon, "--service", "given", file)[0] == 0
    assert stored(daemon, 1)[0]["service"] == "given"


def test_several_files_and_one_that_is_empty(daemon: Daemon, tmp_path: Path) -> None:
    files = [write(tmp_path / name, [event(name)] if name != "b" else []) for name in "abc"]
    status, out, _ = replay(daemon, *files)
    assert status == 0
    assert out.splitlines() == [f"{file}: {int(file.name != 'b')} messages acknowledged" for file in files]


# -- trouble


def test_without_a_sidecar_nothing_is_touched(tmp_path: Path) -> None:
    file = spill_file(tmp_path)
    before = file.read_bytes()
    done = wafermon("replay", "--url", f"tcp://127.0.0.1:{free_port()}", file)
    assert done.returncode == 1
    assert "can't be reached" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_bytes() == before


@pytest.mark.parametrize("spilled", [True, False])
def test_a_sidecar_that_is_killed_meanwhile_gets_the_rest_once(tmp_path: Path, spilled: bool) -> None:
    count = 150_000
    with Daemon(tmp_path) as daemon:
        own = {"client": CLIENT} if spilled else {}
        name = f"svc.{DEAD_PID}.{CLIENT}.ldjson" if spilled else "big"
        lines = [event(f"m{seq}", **own, seq=seq if spilled else None) for seq in range(1, count + 1)]
        file = write(tmp_path / name, lines)
        process = start("replay", "--url", url(daemon), file)
        until(lambda: daemon.stored("svc"), "the first messages")
        daemon.kill()
        assert process.poll() is None, "it was too fast for this test"
        daemon.start()
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert f"{file}: {count} messages acknowledged" in out
        found = stored(daemon, count)
        assert [line["message"] for line in found] == [f"m{seq}" for seq in range(1, count + 1)]


def test_a_replay_that_is_stopped_is_gone_on_with(daemon: Daemon, tmp_path: Path) -> None:
    count = 100_000
    file = write(tmp_path / "big", [event(f"m{seq}") for seq in range(1, count + 1)])
    process = start("replay", "--url", url(daemon), file)
    until(lambda: daemon.stored("svc"), "the first messages")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    status, out, _ = replay(daemon, file)
    assert (status, "were there already" in out) == (0, True)
    assert [line["message"] for line in stored(daemon, count)] == [f"m{seq}" for seq in range(1, count + 1)]
