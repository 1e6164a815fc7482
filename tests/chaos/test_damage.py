"""A segment cut at every byte, and with a bit flipped in every byte: what is read was written, and nothing near it is lost.
A segment, or all that is remembered beside them, taken away: it is said, and the rest is delivered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daemon import CONFIG, Daemon, until
from journals import NOW, line

from wafermon.journal.groups import Head, Mark, Stamp, encode_commit, scan


def segment() -> tuple[bytes, list[bytes]]:
    """Some groups, together and one by one."""
    groups = []
    for number in range(6):
        body = [line(number * 3 + i) + b"\n" for i in range(3)]
        if not number:
            body.insert(0, Head("5af1c0de5af1c0de", 1, 0).encode("[]"))
        groups.append(
            b"".join([*body, encode_commit(body, Stamp(NOW + number, number), [Mark("", "a" * 16, number * 3 + 3)])])
        )
    return b"".join(groups), groups


def whole(data: bytes) -> list[bytes]:
    """The groups that a reader takes."""
    return [data[span.start : span.end] for span in scan(data) if span.commit is not None]


def test_cut_at_every_byte() -> None:
    data, groups = segment()
    ends = [sum(map(len, groups[: n + 1])) for n in range(len(groups))]
    for length in range(len(data) + 1):
        assert whole(data[:length]) == groups[: sum(end <= length for end in ends)], length


def test_a_bit_flipped_in_every_byte() -> None:
    data, groups = segment()
    ends = [sum(map(len, groups[: n + 1])) for n in range(len(groups))]
    for at in range(len(data)):
        hit = sum(end <= at for end in ends)
        flipped = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        # The newline behind a commit: the line that follows it belongs to the group behind, which goes with it.
        lost = {hit, hit + 1} if at == ends[hit] - 1 else {hit}
        lines = [group.split(b"\n!commit ")[0] for group in whole(flipped)]
        others = [group.split(b"\n!commit ")[0] for n, group in enumerate(groups) if n not in lost]
        assert [one for one in lines if one in others] == others, at
        assert all(any(group.startswith(one) for group in groups) for one in lines), at


BLOCKED = CONFIG.replace('"logs/{{service}}.jsonl"', '"/dev/null/{{service}}.jsonl"')
SENT = 9000


def logged_after(directory: Path, damage: Callable[[Path], int]) -> str:
    """Messages wait in several segments for a backend that can't write; then comes damage, which says how many it takes away;
    then a backend that can. It gets all the others once."""
    with Daemon(directory, BLOCKED) as daemon:
        client = daemon.client()
        for first in range(1, SENT, 1000):
            client.send(range(first, first + 1000), context={"fill": "x" * 300})
            client.until_acked(first + 999)
        daemon.stop()
        expected = SENT - damage(directory / "journal")
        config = directory / "wafermon.yaml"
        config.write_text(config.read_text().replace("/dev/null", "logs"))
        before = len(daemon.log())
        daemon.start()
        until(lambda: len(daemon.stored("test")) >= expected, "what is left")
        client = daemon.client(client=client.client)
        assert client.welcome["acked"] == SENT
        client.send(range(SENT + 1, SENT + 101))
        until(lambda: len(daemon.stored("test")) >= expected + 100, "what comes after it")
        stored = [message["seq"] for message in daemon.stored("test")]
        assert stored == sorted(set(stored))
        assert len(stored) == expected + 100
        return daemon.log()[before:]


def test_a_missing_segment(tmp_path: Path) -> None:
    def damage(journal: Path) -> int:
        second = sorted(journal.glob("*.segment"))[1]
        count = second.read_bytes().count(b'"message":')
        second.unlink()
        return count

    log = logged_after(tmp_path, damage)
    assert "segment 2 is missing: what it held and was not delivered yet is lost" in log


def test_a_missing_state(tmp_path: Path) -> None:
    def damage(journal: Path) -> int:
        for path in journal.glob("state.db*"):
            path.unlink()
        return 0

    assert "state.db is gone" in logged_after(tmp_path, damage)
