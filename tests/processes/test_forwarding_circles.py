"""Sidecars that forward in a circle: it is refused where it closes, said with its names, and nothing goes round or is lost."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from central import TOKEN, Central
from daemon import until

CONFIG = """
listen:
  - tcp:{port}:interface=127.0.0.1
  - {{endpoint: "tcp:%(port)d:interface=127.0.0.1", token_file: tokens, forward: true}}
http: tcp:%(http)d:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, sync: always, spill_dir: spill}}
{limits}
backends:
  next: {{plugin: forward, url: "tcp://127.0.0.1:NEXT", token_file: token, batch: {{age: 20ms}}}}
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 20ms}}}}
routes: [{{to: [next, files]}}]
dead_letters: {{dir: dead-letters}}
"""


class Ring:
    """Sidecars of which each forwards to the next, and the last to the first."""

    def __init__(self, directory: Path, size: int) -> None:
        self.sidecars = [Central(directory / str(number), CONFIG) for number in range(size)]
        for number, one in enumerate(self.sidecars):
            self.lead(number, self.sidecars[(number + 1) % size].forward_port)
            (one.directory / "token").write_text(f"{TOKEN}\n")

    def lead(self, number: int, port: int | None) -> None:
        """From its next start on this one forwards to that port; None: nowhere."""
        path = self.sidecars[number].directory / "wafermon.yaml"
        text = path.read_text()
        if port is None:
            lines = [line for line in text.splitlines() if "next: {" not in line]
            text = "\n".join(lines).replace("to: [next, files]", "to: [files]")
        path.write_text(text.replace("NEXT", str(port)))

    def details(self) -> list[str]:
        """Of those that forward nothing because of a circle: what they say, in order."""
        backends = [one.ask("/api/status")["backends"].get("next", {}) for one in self.sidecars]
        return [
            one["detail"] for one in backends if one.get("state") == "failing" and "a circle of sidecars" in one["detail"]
        ]  # fmt: skip

    def ids(self) -> list[str]:
        return [one.ask("/api/status")["journal"]["id"] for one in self.sidecars]


def send(sidecar: Central, service: str, count: int) -> None:
    client = sidecar.client(service=service)
    client.send(range(1, count + 1), service=service)
    client.until_acked(count)
    client.drop()


def counts(sidecar: Central) -> dict[str, int]:
    sidecar.ask("/api/drain?backend=files", post=True)
    return dict(Counter(one["service"] for one in sidecar.stored() if one["service"] != "wafermon"))


def has(sidecar: Central, service: str, count: int) -> bool:
    return counts(sidecar).get(service) == count


def all_is_gone(sidecar: Central) -> bool:
    return bool(sidecar.ask("/api/status")["backends"]["next"]["lag_messages"] == 0)


@pytest.mark.parametrize("size", [2, 3])
def test_a_circle_is_refused_where_it_closes_and_nothing_goes_round(tmp_path: Path, size: int) -> None:
    ring = Ring(tmp_path, size)
    with ExitStack() as running:
        for one in ring.sidecars:
            running.enter_context(one)
        [detail] = until(lambda: len(ring.details()) == 1 and ring.details(), "one that refuses the circle")
        assert all(journal in detail for journal in ring.ids()), "the circle is named"
        assert detail.count("forwards to ") == size and "which forwards to this one" in detail
        for number, one in enumerate(ring.sidecars):
            send(one, f"from-{number}", 20)
        [closes] = [
            number for number, one in enumerate(ring.sidecars) if "circle" in one.ask("/api/status")["backends"]["next"]["detail"]
        ]  # fmt: skip
        # Each one's messages go along the ring, up to the one that does not go on.
        for steps in range(size):
            at = (closes - steps) % size
            for start in range(steps, size):
                until(
                    partial(has, ring.sidecars[at], f"from-{(closes - start) % size}", 20), "what comes along the ring"
                )
        for number, one in enumerate(ring.sidecars):
            if number != closes:
                until(partial(all_is_gone, one), "all of it on its way")
        assert sum(sum(counts(one).values()) for one in ring.sidecars) == 20 * size * (size + 1) // 2, "each once"
        with pytest.raises(HTTPError, match="503"):
            urlopen(f"http://127.0.0.1:{ring.sidecars[closes].http_port}/health/ready")
        # The circle is opened elsewhere: what was kept goes on.
        opened = (closes + 1) % size
        ring.sidecars[opened].stop()
        ring.lead(opened, None)
        path = ring.sidecars[opened].directory / "wafermon.yaml"
        assert "next" not in path.read_text()
        ring.sidecars[opened].start()
        until(partial(has, ring.sidecars[opened], f"from-{closes}", 20), "what was kept")
        assert ring.details() == []


def test_a_circle_that_starts_at_once_is_refused_too(tmp_path: Path) -> None:
    ring = Ring(tmp_path, 3)
    for one in ring.sidecars:
        one.__enter__()
    try:
        until(ring.details, "one that refuses the circle")
        for one in ring.sidecars:
            one.kill()
        for one in ring.sidecars:
            one.start()
        until(ring.details, "one that refuses it after the start")
    finally:
        for one in ring.sidecars:
            one.__exit__()
