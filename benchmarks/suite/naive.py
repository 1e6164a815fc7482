"""The server to compare with: LineReceiver, ujson.loads a line, a buffered write to a file for each service. It
acknowledges what it has written to the kernel, without any durability.

python naive.py PORT DIRECTORY
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, BinaryIO

import ujson
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

reactor: Any = _reactor


class Files(defaultdict[str, BinaryIO]):
    """An open file for each service."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __missing__(self, service: str) -> BinaryIO:
        self[service] = (self.directory / f"{service}.jsonl").open("ab")
        return self[service]


class Naive(LineReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 65536
    seq = acked = 0
    files: Files

    def lineReceived(self, line: bytes) -> None:
        message = ujson.loads(line)
        if message["type"] == "hello":
            self.reply(b'{"v":2,"type":"welcome","sidecar":"naive","acked":0,"max_line":65536}')
            reactor.callLater(0.01, self.acknowledge)
            return
        self.files[message["service"]].write(line + b"\n")
        self.seq = message["seq"]

    def reply(self, line: bytes) -> None:
        self.sendLine(line)  # type: ignore[no-untyped-call]

    def acknowledge(self) -> None:
        if self.connected:
            reactor.callLater(0.01, self.acknowledge)
            if self.seq > self.acked:
                for file in self.files.values():
                    file.flush()
                self.acked = self.seq
                self.reply(b'{"type":"ack","seq":%d}' % self.seq)


if __name__ == "__main__":
    Naive.files = Files(Path(sys.argv[2]))
    reactor.listenTCP(int(sys.argv[1]), Factory.forProtocol(Naive), interface="127.0.0.1")
    reactor.run()
