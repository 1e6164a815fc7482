"""What a call costs, beside the standard library's logging to a file in the same run.

    python bench.py [seconds]

Each way gets the same four-key context at 5,000 calls per second from one thread, timed call by call. The sidecar is a
process of its own that welcomes and acknowledges, or one that never answers, or none at all.
"""

from __future__ import annotations

import functools
import gc
import logging
import multiprocessing
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parent))

from monitoring_sdk import MonitoringSDK  # noqa: E402

_RATE = 5_000
_CONTEXT = {"file": "lot-4711.dat", "rows": 1250, "ratio": 0.75, "ok": True}


def _serve(listener: socket.socket, answers: bool) -> None:
    """A sidecar just good enough to be fast: every client's lines are counted and acknowledged."""

    def talk(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            if not answers:
                time.sleep(3600)
            connection.sendall(b'{"type":"welcome","v":2,"sidecar":"bench","acked":0,"max_line":65536}\n')
            seq = 0
            while True:
                data = connection.recv(1 << 20)
                if not data:
                    return
                seq += data.count(b"\n")
                connection.sendall(b'{"type":"ack","seq":%d}\n' % seq)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=talk, args=(connection,), daemon=True).start()


def _paced(call: Callable[[], Any], seconds: float) -> List[int]:
    clock, took = time.perf_counter_ns, []
    step = 1_000_000_000 // _RATE
    due = clock()
    for _ in range(int(seconds * _RATE)):
        while clock() < due:
            time.sleep(0.00005)
        due += step
        before = clock()
        call()
        took.append(clock() - before)
    return took


def _tight(call: Callable[[], Any], count: int) -> List[int]:
    clock, took = time.perf_counter_ns, []
    for _ in range(count):
        before = clock()
        call()
        took.append(clock() - before)
    return took


def _report(name: str, took: List[int]) -> float:
    took = sorted(took)
    mean = sum(took) / len(took) / 1e3
    p50, p99, p999 = (took[int(len(took) * share)] / 1e3 for share in (0.5, 0.99, 0.999))
    worst = took[-1] / 1e3
    print(f"{name:34} p50 {p50:6.2f}  p99 {p99:7.2f}  p99.9 {p999:7.2f}  max {worst:8.1f}  mean {mean:6.2f} us")
    return p50


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with tempfile.TemporaryDirectory() as folder:
        logger = logging.getLogger("bench")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        file = logging.FileHandler(f"{folder}/bench.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        logger.addHandler(file)
        text = "file=%(file)s rows=%(rows)d ratio=%(ratio)f ok=%(ok)s"
        logged = _report("logging.FileHandler", _paced(functools.partial(logger.info, text, _CONTEXT), seconds))
        servers = []
        urls: Dict[str, str] = {"down": "tcp://127.0.0.1:1"}
        for name, answers in (("up", True), ("hung", False)):
            listener = socket.create_server(("127.0.0.1", 0))
            urls[name] = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
            server = multiprocessing.Process(target=_serve, args=(listener, answers), daemon=True)
            server.start()
            servers.append(server)
            listener.close()
        for name in ("up", "down", "hung"):
            sdk = MonitoringSDK("bench", url=urls[name], spill_dir=f"{folder}/{name}")
            call = functools.partial(sdk.log_event, "info", "file read", _CONTEXT)
            call()
            time.sleep(0.2)
            gc.collect()
            p50 = _report(f"log_event, sidecar {name}", _paced(call, seconds))
            took = _tight(call, 10_000)
            stats = sdk.get_stats()
            _report(f"  a burst of 10,000, sidecar {name}", took)
            spilled = "spilled" if stats["spilled"] else "nothing spilled"
            print(f"  {p50 / logged:.3f} of logging to a file; {spilled}; dropped {stats['dropped']}")
            sdk.close()
        for server in servers:
            server.terminate()


if __name__ == "__main__":
    main()
