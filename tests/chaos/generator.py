"""Sends numbered messages and records what is acknowledged. It knows the wire protocol and an address, nothing else."""

from __future__ import annotations

import json
import random
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable

from claims import Claim, numbered

PATIENCE = 5.0
"""Seconds without a byte, while something is unacknowledged, after which a connection is dead: as the protocol says."""
WINDOW = 4 << 10
"""Messages sent ahead of their ack."""


def lines(service: str, client: str, first: int, last: int) -> bytes:
    """The messages `first` to `last` of a stream, which are a trace of their own."""
    start = f'{{"type":"event","ts":{time.time_ns() // 1000},"service":"{service}","trace_id":"{service}","level":"info","message":"'
    middle, end = '","context":{"i":', f'}},"client":"{client}","seq":'
    made = [f"{start}{numbered(service, i)}{middle}{i}{end}{i}}}\n" for i in range(first, last + 1)]
    return "".join(made).encode()


class Stream:
    """One acknowledged stream, through everything, as an SDK does: it reconnects, and sends again what is not acknowledged."""

    def __init__(self, address: Callable[[], tuple[str, int]], service: str, rate: float = 0, seed: int = 0) -> None:
        """`rate` is in messages per second; 0: bursts of random sizes at random times."""
        self.claim = Claim(service)
        self.connects = 0
        self.failure = ""
        """What the sidecar did that it must not do."""
        self._address = address
        self.client = secrets.token_hex(8)
        self._rate = rate
        self._dice = random.Random(seed)
        self._claiming = True
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def settled(self) -> bool:
        """Whether everything that it claimed is acknowledged."""
        return self.claim.acked == self.claim.claimed

    def finish(self) -> None:
        """Claim nothing more; what is claimed goes on to be sent until it is acknowledged."""
        self._claiming = False

    def stop(self) -> None:
        self._over = True
        self._thread.join(60)

    def _run(self) -> None:
        while not self._over and not self.failure:
            try:
                self._talk()
            except OSError:
                pass
            except Exception as error:  # noqa: BLE001  # told by whoever counts
                self.failure = repr(error)
            time.sleep(self._dice.uniform(0.01, 0.1))

    def _talk(self) -> None:
        with socket.create_connection(self._address(), timeout=PATIENCE) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hello = {"v": 2, "type": "hello", "client": self.client, "service": self.claim.service, "ack": True}
            connection.sendall(json.dumps(hello).encode() + b"\n")
            replies = connection.makefile("rb")
            welcome = replies.readline()
            if not welcome.endswith(b"\n"):
                return
            self._acknowledge(json.loads(welcome), "acked")
            self.connects += 1
            self._exchange(connection)

    def _exchange(self, connection: socket.socket) -> None:
        """Send what is due, take acks, until the connection fails or falls silent."""
        claim, sent, rest = self.claim, self.claim.acked, b""
        begun, heard = time.monotonic(), time.monotonic()
        base = claim.claimed
        replies = select.poll()  # `select.select` takes no descriptor above 1023
        replies.register(connection, select.POLLIN)
        while not self._over:
            now = time.monotonic()
            if self._claiming and sent == claim.claimed:
                due = base + int((now - begun) * self._rate) if self._rate else sent + self._dice.randrange(1, 300)
                claim.claimed = max(claim.claimed, min(due, claim.acked + WINDOW))
            last = min(claim.claimed, claim.acked + WINDOW, sent + 500)
            if last > sent:
                if claim.acked == sent:
                    heard = now
                connection.sendall(lines(claim.service, self.client, sent + 1, last))
                sent = last
            pause = 0.01 if self._rate else self._dice.uniform(0, 0.03)
            if replies.poll(pause * 1000):
                chunk = connection.recv(1 << 16)
                if not chunk:
                    return
                heard = time.monotonic()
                *whole, rest = (rest + chunk).split(b"\n")
                for reply in whole:
                    self._acknowledge(json.loads(reply), "seq")
                if self._rate:
                    time.sleep(0.005)
            elif claim.acked < sent and time.monotonic() - heard > PATIENCE:
                return

    def _acknowledge(self, reply: dict[str, object], name: str) -> None:
        acked = reply.get(name)
        if reply.get("type") not in ("welcome", "ack") or not isinstance(acked, int):
            if reply.get("type") == "error" and "seq" not in reply:  # a refusal: tried again
                raise ConnectionError(reply)
            raise AssertionError(f"{self.claim.service}: {reply} for a good message")
        if acked > self.claim.claimed or (name == "acked" and acked < self.claim.acked):
            raise AssertionError(f"{self.claim.service}: {reply} where {self.claim} is")
        self.claim.acked = max(self.claim.acked, acked)


def mark(address: tuple[str, int], service: str) -> None:
    """Have a single message acknowledged. Raises OSError where that fails."""
    client = secrets.token_hex(8)
    with socket.create_connection(address, timeout=30) as connection:
        hello = {"v": 2, "type": "hello", "client": client, "service": service, "ack": True}
        connection.sendall(json.dumps(hello).encode() + b"\n" + lines(service, client, 1, 1))
        replies = connection.makefile("rb")
        while json.loads(replies.readline() or b'{"type":"ack","seq":-1}') not in (
            {"type": "ack", "seq": 1},
            {"type": "ack", "seq": -1},
        ):
            pass
