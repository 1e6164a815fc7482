"""An S3 server that knows no conditional writes: it overwrites whatever is there, as old ones do."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit


class CarelessServer:
    """Use it as a context manager; `objects` are what it holds, by bucket and key. It takes no object of more than `most` bytes."""

    def __init__(self, most: int = 1 << 30) -> None:
        objects = self.objects = dict[str, bytes]()
        metadata = dict[str, dict[str, str]]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                key = urlsplit(self.path).path.lstrip("/")
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if len(body) > most:
                    self._answer(400, body=b"<Error><Code>EntityTooLarge</Code><Message>Too large</Message></Error>")
                    return
                objects[key] = body
                metadata[key] = {k: v for k, v in self.headers.items() if k.lower().startswith("x-amz-meta-")}
                self._answer(200)

            def do_HEAD(self) -> None:
                key = urlsplit(self.path).path.lstrip("/")
                self._answer(200 if key in objects else 404, metadata.get(key, {}))

            def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> CarelessServer:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
