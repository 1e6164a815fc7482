"""A receiver of OTLP that answers as it is told: what a collector does not do on demand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request that came."""

    signal: str
    headers: Mapping[str, str]
    body: bytes
    """Unpacked."""

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    def records(self) -> list[dict[str, Any]]:
        """Its log records, metrics or spans."""
        kinds = {
            "logs": ("resourceLogs", "scopeLogs", "logRecords"),
            "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
        }
        outer, inner, records = kinds.get(self.signal, ("resourceSpans", "scopeSpans", "spans"))
        return [record for one in self.said.get(outer, []) for scope in one[inner] for record in scope[records]]


class Reply(NamedTuple):
    """What is answered."""

    status: int = 200
    body: bytes = b'{"partialSuccess":{}}'
    media_type: str = "application/json"
    headers: Mapping[str, str] = {}


class AnsweringServer:
    """`rule` says what each request is answered with."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.rule: Callable[[Asked], Reply] = lambda asked: Reply()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                asked = Asked(self.path.rpartition("/")[2], dict(self.headers), body)
                server.asked.append(asked)
                reply = server.rule(asked)
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.media_type)
                self.send_header("Content-Length", str(len(reply.body)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, signal: str) -> list[Asked]:
        return [one for one in self.asked if one.signal == signal]

    @contextmanager
    def running(self) -> Iterator[AnsweringServer]:
        self._thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            self._thread.join(10)
