"""The conformance driver of the Python SDK: one JSON request per line on stdin, one JSON answer per line on stdout.

The protocol is in ../conformance/README.md.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parent))

from monitoring_sdk import MonitoringSDK  # noqa: E402

_NOTATIONS: Dict[str, Any] = {
    "$bytes": base64.b64decode,
    "$codes": lambda codes: "".join(map(chr, codes)),
    "$float": float,
    "$int": int,
    "$repeat": lambda repeat: repeat[0] * repeat[1],
    "$nest": lambda depth: _nested(depth),
    "$cycle": lambda _: _cycle(),
}
_SDK_CALLS = (
    "log_event log_metric log_progress log_resource start_span end_span set_trace_id get_stats flush close".split()
)


def _nested(depth: int) -> Any:
    return {"k": _nested(depth - 1)} if depth else "end"


def _cycle() -> Dict[str, Any]:
    cycle: Dict[str, Any] = {}
    cycle["self"] = cycle
    return cycle


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key.startswith("$"):
            if key not in _NOTATIONS:
                raise NotImplementedError
            return _NOTATIONS[key](inner)
    return {key: _value(item) for key, item in value.items()}


class Driver:
    """Carries out requests with the SDK opened last; earlier ones live on."""

    def __init__(self) -> None:
        self._sdks: List[MonitoringSDK] = []

    def answer(self, request: Dict[str, Any]) -> Dict[str, Any]:
        try:
            return {"ok": True, "result": self._carry_out(request["call"], request.get("args", {}))}
        except NotImplementedError:
            return {"ok": False, "error": "unsupported"}
        except Exception as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    def _carry_out(self, call: str, args: Dict[str, Any]) -> Any:
        own = getattr(self, "call_" + call, None)
        if own:
            return own(**args) if call in ("fork", "spawn") else own(**_value(args))
        if call not in _SDK_CALLS:
            raise NotImplementedError
        return getattr(self._sdks[-1], call)(**_value(args))

    def call_open(self, **args: Any) -> None:
        self._sdks.append(MonitoringSDK(**args))

    def call_burst(self, n: int, first: int = 0, size: int = 0) -> Dict[str, float]:
        log_event, clock = self._sdks[-1].log_event, time.perf_counter_ns
        message = "x" * size if size else "burst"
        took: List[int] = []
        began = clock()
        for i in range(first, first + n):
            before = clock()
            log_event("info", message, {"i": i, "file": "a.dat", "ok": True, "x": 1.5})
            took.append(clock() - before)
        elapsed = clock() - began
        took.sort()
        result = {f"p{name}": took[int(n * share)] / 1e3 for name, share in (("50", 0.5), ("99", 0.99), ("999", 0.999))}
        return {"elapsed": elapsed / 1e9, **result, "max": took[-1] / 1e3}

    def call_fork(self, calls: List[Dict[str, Any]]) -> Dict[str, Any]:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            with os.fdopen(writing, "w") as answers:
                json.dump([self.answer(request) for request in calls], answers)
            sys.exit(0)
        os.close(writing)
        with os.fdopen(reading) as answers:
            found = json.load(answers)
        status = os.waitpid(child, 0)[1]  # not waitstatus_to_exitcode, which Python 3.8 hasn't
        return {"answers": found, "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)}

    def call_spawn(self, argv: List[str], stdin: str) -> Dict[str, Any]:
        environ = self._sdks[-1].child_env() if self._sdks else None
        done = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, env=environ, text=True, check=False)
        return {"stdout": done.stdout, "status": done.returncode}

    def call_setenv(self, **variables: Any) -> None:
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def call_sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def call_pid(self) -> int:
        return os.getpid()

    def call_exit(self) -> None:
        sys.exit(0)

    def call_kill_self(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    driver = Driver()
    for line in sys.stdin:
        print(json.dumps(driver.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
