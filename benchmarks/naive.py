"""The server to compare with: LineReceiver, ujson.loads per line, buffered write. Acknowledges without any durability.

python benchmarks/naive.py PORT FILE
"""

from __future__ import annotations

import sys
from typing import Any

import ujson
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

reactor: Any = _reactor


class Naive(LineReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 65536
    seq = acked = 0
    file: Any

    def lineReceived(self, line: bytes) -> None:
        message = ujson.loads(line)
        if message["type"] == "hello":
            self.sendLine(b'{"v":2,"type":"welcome","sidecar":"naive","acked":0,"max_line":65536}')
            reactor.callLater(0.01, self.acknowledge)
            return
        self.file.write(line + b"\n")
        self.seq = message["seq"]

    def acknowledge(self) -> None:
        if self.connected:
            reactor.callLater(0.01, self.acknowledge)
            if self.seq > self.acked:
                self.acked = self.seq
                self.sendLine(b'{"type":"ack","seq":%d}' % self.seq)


if __name__ == "__main__":
    Naive.file = open(sys.argv[2], "wb")  # noqa: SIM115  # the process's life
    factory = Factory.forProtocol(Naive)
    reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
    reactor.run()
