"""The suite's tools: languages, their driver programs, and the comparison of messages with what a case expects."""

from __future__ import annotations

import base64
import fcntl
import functools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

import pytest

from fake_sidecar import Message

HERE = Path(__file__).resolve().parent
SDK = HERE.parent
PYTHON = os.environ.get("CONFORMANCE_PYTHON") or sys.executable  # the SDK is for older ones than the suite
NODE = os.environ.get("CONFORMANCE_NODE") or "node"
ANSWER_TIMEOUT = 60.0
LAW = ("acked", "rejected", "dropped", "waiting", "handed_over")
STATS = {"state", "called", "sent", "spilled", "resent", "reconnects", *LAW}
VARIABLES = (
    *(
        "WAFERMON_" + name
        for name in ("URL", "SERVICE", "TRACE_ID", "SPAN_ID", "SPILL_DIR", "BUFFER", "TOKEN", "DISABLED", "COMPRESS")
    ),
    "OTEL_SERVICE_NAME",
    "TRACEPARENT",
)


# What a language may be able to do, beside what every one does; a test or a case that needs it names it.
ABILITIES = {
    "fork": "forks, and the child goes on",
    "lock": "holds a lock on its spill files",
    "unix": "reaches Unix sockets",
    "ipv6": "reaches IPv6",
    "stats": "sends stats lines",
    "compress": "sends compressed frames",
    "levels": "takes the other names of levels",
    "traceparent": "gives children a TRACEPARENT",
    "shared_spill": "writes spill files of mode 0660, whatever the umask",
    "lookup": "looks a host up again at each attempt, and tries all its addresses",
    "readable": "has one statement a line",
}


@dataclass(frozen=True)
class Language:
    """An SDK, as the `conformance.json` in its folder describes it."""

    name: str
    argv: tuple[str, ...]  # the driver
    example: tuple[str, ...]
    core: tuple[Path, ...]  # the files that one must have to send
    threaded: bool  # sends by a thread of its own, also between calls
    can: frozenset[str]  # abilities
    needs: tuple[str, ...] = ()  # programs
    prepare: tuple[str, ...] = ()  # builds driver and example, or shows that the libraries are there

    @property
    def driver(self) -> Path:
        return Path(self.argv[-1])


def described(path: Path) -> Language:
    """The language of a `conformance.json`; `{here}` is its folder, `{python}` and `{node}` run it."""
    given = json.loads(path.read_text())

    def command(name: str) -> tuple[str, ...]:
        return tuple(word.format(here=path.parent, python=PYTHON, node=NODE) for word in given.get(name, ()))

    if unknown := set(given["can"]) - set(ABILITIES):
        raise ValueError(f"{path}: unknown abilities {sorted(unknown)}")
    return Language(
        name=path.parent.name,
        argv=command("driver"),
        example=command("example"),
        core=tuple(file for pattern in given["core"] for file in sorted(path.parent.glob(pattern))),
        threaded=given["threaded"],
        can=frozenset(given["can"]),
        needs=tuple(given.get("needs", ())),
        prepare=command("prepare"),
    )


# Python first, since it is what the others are compared with.
LANGUAGES = {
    language.name: language
    for language in sorted(
        map(described, SDK.glob("*/conformance.json")), key=lambda one: (one.name != "python", one.name)
    )
}


@functools.cache
def missing(language: Language) -> str | None:
    """Why this language can't be driven here, or None."""
    for program in language.needs:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if language.prepare:
        done = subprocess.run(language.prepare, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(language.prepare)}: {done.stderr.strip() or done.stdout.strip()}"
    if not language.driver.exists():
        return f"{language.driver} does not exist"
    return None


def lacking(language: Language, needed: Iterable[str]) -> str | None:
    """Which of these abilities the language has not, in words, or None."""
    absent = [ability for ability in needed if ability not in language.can]
    return f"{language.name} lacks {', '.join(absent)}" if absent else None


def not_for(language: Language, case: dict[str, Any]) -> str | None:
    """Why a case is not this language's, or None."""
    if reason := case.get("not", {}).get(language.name):
        return f"{language.name} {reason}"
    return lacking(language, case.get("needs", ()))


def available(name: str) -> Language:
    """The language, or a skip; in CI a toolchain that is not there is a failure."""
    reason = missing(LANGUAGES[name])
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name}: {reason}", pytrace=False)
        pytest.skip(f"{name}: {reason}")
    return LANGUAGES[name]


class DriverError(Exception):
    """The driver answered ok:false, or did not answer."""


class Driver:
    """One driver process; `driver("log_event", level="info", …)` is a call and its result."""

    def __init__(self, language: Language, folder: Path, command: tuple[str, ...] = (), **env: str) -> None:
        """`command` starts the driver in some other way than by itself."""
        self.language = language
        self.spill = folder / "spill"
        self.spill.mkdir(exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        self._stderr = (folder / f"stderr-{language.name}-{time.monotonic_ns()}").open("w+b")
        self.process = subprocess.Popen(
            command or language.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**inherited, "WAFERMON_SPILL_DIR": str(self.spill), **env},
            cwd=folder,
        )
        self.pid = self.process.pid
        self._answers: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __call__(self, call: str, **args: Any) -> Any:
        self.post(call, **args)
        return self.answer(call)

    def post(self, call: str, **args: Any) -> None:
        """Send a request without waiting for its answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"call": call, "args": args}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise DriverError(f"{call}: the driver has gone: {self.stderr()}") from None

    def answer(self, call: str = "") -> Any:
        try:
            line = self._answers.get(timeout=ANSWER_TIMEOUT)
        except queue.Empty:
            self.kill()
            raise DriverError(f"{call}: no answer within {ANSWER_TIMEOUT:.0f} s: {self.stderr()}") from None
        if not line:
            self._answers.put(b"")
            raise DriverError(f"{call}: the driver ended with {self.process.wait(5)}: {self.stderr()}")
        answer = json.loads(line)
        if answer["ok"] is not True:
            raise DriverError(str(answer["error"]))
        return answer.get("result")

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self("get_stats")
        assert set(stats) == STATS, sorted(set(stats) ^ STATS)
        assert stats["state"] in ("connected", "disconnected", "overflow")
        return stats

    def until(self, condition: Callable[[dict[str, Any]], Any], timeout: float = 10.0) -> dict[str, Any]:
        """The first stats for which the condition holds; the last ones if none do in time."""
        deadline = time.monotonic() + timeout
        while not condition(stats := self.stats()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return stats

    def stderr(self) -> str:
        self._stderr.flush()
        return Path(self._stderr.name).read_text(errors="replace")

    def warnings(self) -> list[str]:
        """What the SDK said on stderr."""
        return [line for line in self.stderr().splitlines() if line.startswith("wafermon: ")]

    def exit(self, timeout: float = 10.0) -> int:
        """End normally, without close."""
        if self.process.poll() is None:
            self.post("exit")
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def done(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout, self._stderr):
            try:
                stream.close()  # type: ignore[union-attr]
            except BrokenPipeError:
                pass

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put(b"")


# -- children


def request(call: str, **args: Any) -> dict[str, Any]:
    return {"call": call, "args": args}


def child_request(language: Language, opening: dict[str, Any], *calls: dict[str, Any]) -> dict[str, Any]:
    """A request that has a child of the driver's own kind do this and end normally.

    It is forked where the language can; where it can't, it is the program anew, which opens an SDK first.
    """
    if "fork" in language.can:
        return request("fork", calls=list(calls))
    requests = [request("open", **opening), *calls]
    return request("spawn", argv=list(language.argv), stdin="".join(json.dumps(one) + "\n" for one in requests))


def in_child(driver: Driver, opening: dict[str, Any], *calls: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers to what a child did before it ended normally."""
    wanted = child_request(driver.language, opening, *calls)
    done = driver(wanted["call"], **wanted["args"])
    assert done["status"] == 0, done
    if wanted["call"] == "fork":
        return list(done["answers"])
    opened, *answers = [json.loads(line) for line in done["stdout"].splitlines()]
    assert opened["ok"] is True, opened
    return answers


def assert_law(stats: dict[str, Any]) -> None:
    """The conservation law, which holds whenever nothing moves."""
    assert stats["called"] == sum(stats[name] for name in LAW), stats


# -- spill files

SPILL_NAME = re.compile(r"(?P<service>.+)\.(?P<pid>\d+)\.(?P<client>[0-9a-f]{16})\.ldjson")


def spill_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(".ldjson"))


def read_spill(path: Path, most: int = 1 << 20, *, killed: bool = False) -> list[Message]:
    """The messages of a spill file of at most so many bytes, after a check of all that the protocol says of it.

    Of a program that was `killed` in a write the kernel may have written its beginning alone, to the end of a page."""
    name = SPILL_NAME.fullmatch(path.name.removesuffix(".taken"))
    assert name, path.name
    data = path.read_bytes()
    assert len(data) <= most, f"{path.name} has {len(data)} bytes"
    cut_off = killed and len(data) % PAGESIZE == 0
    assert not data or data.endswith(b"\n") or cut_off, f"{path.name} ends within a line: {data[-80:]!r}"
    messages = [json.loads(line) for line in data.split(b"\n")[:-1]]
    for earlier, later in zip(messages, messages[1:]):
        assert later["seq"] == earlier["seq"] + 1, path.name
    for message in messages:
        assert message["client"] == name["client"]
        assert message["service"] == name["service"]
        assert message["pid"] == int(name["pid"])
    return messages


def everything(folder: Path, ending: str = ".ldjson") -> list[Message]:
    """The messages of all spill files in a folder."""
    return [message for path in sorted(folder.iterdir()) if path.name.endswith(ending) for message in read_spill(path)]


def is_locked(path: Path) -> bool:
    """By flock or by fcntl: a Java program has only the second."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# -- what the messages of a test are known by


def without_stats(messages: list[Message]) -> list[Message]:
    """What calls have sent."""
    return [message for message in messages if message.get("type") != "stats"]


def only_stats(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message.get("type") == "stats"]


def numbers(messages: list[Message]) -> list[int]:
    """The `i` of what `burst` sent."""
    return [message["context"]["i"] for message in messages if "i" in message.get("context", {})]


def dropped(messages: list[Message]) -> int:
    """The sum of what was reported as dropped."""
    return sum(
        message["context"]["count"] for message in messages if message.get("context", {}).get("kind") == "dropped"
    )


# -- cases


def expand(value: Any, saved: dict[str, Any], url: str = "$url") -> Any:
    """The notations that are the suite's own, before a request goes to the driver."""
    if isinstance(value, dict):
        if "$saved" in value:
            return saved[value["$saved"]]
        if "$times" in value:
            item, count = value["$times"]
            return [item] * count
        return {key: expand(item, saved, url) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, saved, url) for item in value]
    return url if value == "$url" else value


def plain(value: Any) -> Any:
    """An expected value without the notations of the driver's requests."""
    if isinstance(value, dict):
        if "$repeat" in value:
            text, count = value["$repeat"]
            return text * count
        if "$nest" in value:
            nested: Any = "end"
            for _ in range(value["$nest"]):
                nested = {"k": nested}
            return nested
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"]).decode()
    return value


KINDS: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None,
    "trace": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None,
    "string": lambda value: isinstance(value, str),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}
ABSENT = object()


def differences(expected: Any, actual: Any, context: dict[str, Any], path: str = "") -> Iterator[str]:
    """What is not as expected, a line each. `context` has `saved` results and the `messages` of the case."""
    expected = plain(expected)
    key = next(iter(expected), "") if isinstance(expected, dict) else ""
    if key.startswith("$"):
        operand = expected[key]
        if key == "$maybe":
            if actual is not ABSENT:
                yield from differences(operand, actual, context, path)
            return
        if key == "$saved":
            good = actual == context["saved"][operand]
        elif key == "$field":
            good = actual == context["messages"][operand[0]].get(operand[1])
        elif key == "$is":
            good = KINDS[operand](actual)
        elif key == "$between":
            good = KINDS["number"](actual) and operand[0] <= actual <= operand[1]
        elif key == "$text":
            good = isinstance(actual, str) and re.sub("\ufffd+", "\ufffd", actual) == operand
        elif key == "$prefix":
            good = isinstance(actual, str) and plain(operand).startswith(actual) and len(actual) >= expected["min"]
        elif key == "$has":
            good = isinstance(actual, dict)
            if good:
                for name, item in operand.items():
                    yield from differences(item, actual.get(name, ABSENT), context, f"{path}.{name}")
        else:
            raise ValueError(f"unknown matcher {key}")
        if not good:
            yield f"{path}: {shorten(actual)}, expected {shorten(expected)}"
    elif isinstance(expected, dict) and isinstance(actual, dict):
        for name in [*expected, *(name for name in actual if name not in expected)]:
            yield from differences(expected.get(name, ABSENT), actual.get(name, ABSENT), context, f"{path}.{name}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, pair in enumerate(zip(expected, actual)):
            yield from differences(*pair, context, f"{path}[{index}]")
    elif isinstance(expected, bool) != isinstance(actual, bool) or expected != actual:
        yield f"{path}: {shorten(actual)}, expected {shorten(expected)}"


def shorten(value: Any) -> str:
    text = "nothing" if value is ABSENT else repr(value)
    return text if len(text) <= 200 else f"{text[:150]}…{text[-40:]} ({len(text)} characters)"


def load_cases() -> list[dict[str, Any]]:
    cases = [case for path in sorted((HERE / "cases").glob("*.json")) for case in json.loads(path.read_text())["cases"]]
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names), "two cases of one name"
    return cases
