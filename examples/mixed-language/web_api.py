"""A web API that takes lots: web_api.py PROGRAMS [PORT]

``POST /lots/NAME`` with a lot file as its body has a Perl script check it and C workers measure its wafers, one process
a wafer, and answers with what they found, as JSON. PROGRAMS is the folder of the compiled ``wafer-worker``.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from monitoring_sdk import MonitoringSDK

PARSER = Path(__file__).with_name("lot-parser")
MOST_BYTES = 16 << 20
BAD_DATA = 65
"""The parser's exit status for a lot that is faulty."""


class Refused(Exception):
    """The lot can't be measured; `status` is for HTTP."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def parse(sdk: MonitoringSDK, text: bytes) -> dict[str, list[bytes]]:
    """The rows of each wafer. A request has a thread, so what a child is to know of the trace is handed to it."""
    parser = subprocess.run([PARSER], input=text, stdout=subprocess.PIPE, env=sdk.child_env(), check=False)
    if parser.returncode:
        known = parser.returncode == BAD_DATA
        raise Refused(422, "the lot is faulty") if known else Refused(500, "the parser failed")
    wafers: dict[str, list[bytes]] = {}
    for line in parser.stdout.splitlines(keepends=True):
        wafer, row = line.split(b" ", 1)
        wafers.setdefault(wafer.decode(), []).append(row)
    return wafers


def measure(sdk: MonitoringSDK, job: str, programs: Path, wafers: dict[str, list[bytes]]) -> list[dict[str, Any]]:
    """What the workers say of the wafers. They run at the same time."""
    with sdk.span("measure", tags={"wafers": len(wafers)}):
        workers = []
        for wafer, rows in wafers.items():
            command, pipe = [programs / "wafer-worker", wafer], subprocess.PIPE
            worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=sdk.child_env())
            assert worker.stdin
            worker.stdin.write(b"".join(rows))
            worker.stdin.close()
            workers.append(worker)
        found = []
        for number, worker in enumerate(workers, 1):
            assert worker.stdout
            with worker:
                found.append(worker.stdout.read())
            sdk.log_progress(job, 40 + 55 * number / len(workers), "measuring")
    if any(worker.returncode for worker in workers):
        raise Refused(500, "a worker failed")
    return [json.loads(text) for text in found]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    sdk: MonitoringSDK
    programs: Path

    def do_POST(self) -> None:
        name = re.fullmatch(r"/lots/([\w.-]{1,64})", self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if not name or not 0 < length <= MOST_BYTES:
            self.answer(400, {"error": f"POST a lot of 1 to {MOST_BYTES} bytes to /lots/NAME"})
            return
        job = f"upload-{name[1]}"
        try:
            with self.sdk.span("upload", trace_id=job, tags={"lot": name[1], "bytes": length}):
                self.sdk.log_progress(job, 0, "received")
                wafers = parse(self.sdk, self.rfile.read(length))
                self.sdk.log_progress(job, 40, "parsed")
                found = measure(self.sdk, job, self.programs, wafers)
                self.sdk.log_event("info", "lot measured", {"lot": name[1], "wafers": len(found)})
            self.sdk.log_progress(job, 100, "done")
            self.answer(200, {"job": job, "wafers": found})
        except (Refused, OSError) as error:  # OSError: a program can't be started, or did not read what it was given
            self.sdk.log_progress(job, 0, "failed")
            self.answer(error.status if isinstance(error, Refused) else 500, {"job": job, "error": str(error)})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """What the base class would write to stderr."""
        self.sdk.log_event("debug", format % values)


def main(programs: str, port: str = "0") -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with MonitoringSDK("web-api") as sdk, ThreadingHTTPServer(("127.0.0.1", int(port)), Handler) as server:
        Handler.sdk, Handler.programs = sdk, Path(programs)
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        finally:
            sdk.log_resource()
            print(f"web-api: {sdk.get_stats()['called']} messages", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
