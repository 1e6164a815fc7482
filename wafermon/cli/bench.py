"""``wafermon bench``: how much a running sidecar takes from this machine, and how soon it acknowledges."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from wafermon.cli.address import Address
from wafermon.cli.parameters import sidecar_options
from wafermon.cli.stream import Stream, Undelivered

SERVICE = "wafermon-bench"
WINDOW_BYTES = 256 << 10
"""Small enough that the latency is the sidecar's and not that of our own queue."""
PIECE_BYTES = 16 << 10
"""Lines are written by so many bytes; the latency of a piece is that of its last line."""


@click.command()
@click.option("--messages", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True, help="In all.")
@click.option("--connections", type=click.IntRange(1, 256), default=4, show_default=True)
@click.option("--size", type=click.IntRange(200, 65_000), default=250, show_default=True, help="Bytes of a message.")
@click.option("--yes", is_flag=True, help="Load a sidecar on another machine too.")
@sidecar_options
def command(messages: int, connections: int, size: int, yes: bool, url: Address, token: str | None) -> None:
    """Load a running sidecar and print its rates. Its backends get the messages, as service `wafermon-bench`.

    This program takes a processor of its own, so what it prints is what the sidecar takes at least.

    \b
    Example:
      wafermon bench --messages 100000 --connections 4
    """
    if not url.local and not yes:
        raise click.UsageError(f"{url} is not on this machine; --yes loads it all the same")
    shares = [messages // connections + (index < messages % connections) for index in range(connections)]
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(connections) as pool:
            results = list(pool.map(lambda share: _load(url, token, share, size), filter(None, shares)))
    except Undelivered as error:
        raise click.ClickException(str(error)) from None
    seconds = time.monotonic() - began
    waits = sorted(wait for result in results for wait in result)
    rate = messages / seconds
    click.echo(f"{messages} messages of {size} bytes over {len(results)} connections in {seconds:.2f} s")
    click.echo(f"rate  {rate:,.0f} messages/s, {rate * size / 1e6:,.1f} MB/s")
    click.echo(f"ack   p50 {_share(waits, 0.50):.1f} ms, p99 {_share(waits, 0.99):.1f} ms")


def _load(url: Address, token: str | None, count: int, size: int) -> list[float]:
    """Send so many messages over one connection; the seconds until each piece was acknowledged."""
    waits: list[float] = []
    sent: deque[tuple[int, float]] = deque()

    def acked(seq: int) -> None:
        now = time.monotonic()
        while sent and sent[0][0] <= seq:
            waits.append(now - sent.popleft()[1])

    def refused(seq: int, code: str, detail: str) -> None:
        raise Undelivered(f"the sidecar refuses a message: {code}: {detail}")

    origin: dict[str, Any] = {"service": SERVICE, "host": socket.gethostname(), "pid": os.getpid()}
    client = os.urandom(8).hex()
    with Stream(
        url, client, token=token, on_refused=refused, on_acked=acked, window_bytes=WINDOW_BYTES, first=0.0, **origin
    ) as stream:
        for last, piece in _pieces(client, origin, count, size):
            sent.append((last, time.monotonic()))
            stream.send(last, piece)
        stream.drain()
    return waits


def _pieces(client: str, origin: Mapping[str, Any], count: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The number of its last line, and some lines."""
    event = {"v": 2, "type": "event", "ts": time.time_ns() // 1000, **origin, "level": "debug"}
    head = json.dumps(event, separators=(",", ":")).encode()[:-1]
    tail = f'","client":"{client}","seq":'.encode()
    fill = b"x" * max(0, size - len(head) - len(tail) - len(',"message":"') - 8)
    start = head + b',"message":"' + fill + tail
    step = max(1, PIECE_BYTES // size)
    for first in range(1, count + 1, step):
        last = min(first + step - 1, count)
        yield last, b"".join([start + b"%d}\n" % seq for seq in range(first, last + 1)])


def _share(ordered: list[float], share: float) -> float:
    """That quantile, in milliseconds."""
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
