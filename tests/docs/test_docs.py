"""docs/protocol.md and its schema say what the code does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon import ROOT, Daemon, pages, read_lines, until
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from sent_lines import BAD, GOOD, NOW, ORIGIN, SHARED, event, nested, raw

from wafermon.model.errors import ProtocolError
from wafermon.model.messages import decode_stored
from wafermon.wire.hello import read_hello
from wafermon.wire.lines import LineError, LineReader

DOCS = ROOT / "docs"
SCHEMA = json.loads((DOCS / "protocol.schema.json").read_text())
DEFS = SCHEMA["$defs"]


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$defs": DEFS, "$ref": f"#/$defs/{name}"})


VALID = {name: validator(name) for name in DEFS}


def no_constant(name: str) -> Any:
    raise ValueError(name)


def parsed(data: bytes) -> Any:
    """What RFC 8259 says that a line is. Raises ValueError or RecursionError."""
    value = json.loads(data.decode(), parse_constant=no_constant)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def code_takes(data: bytes) -> bool:
    try:
        LineReader(ORIGIN).read_line(data, NOW)
    except LineError:
        return False
    return True


DIFFERENT = [
    ("a whole number written as a float", event(seq=3.0), True),
    ("an exponent in a whole number", event().replace(b'"seq": 7', b'"seq": 7e0'), True),
    ("a number out of range in a context", raw("1e999"), True),
    ("a number out of range in an unknown field", event(x="@").replace(b'"@"', b"-1e400"), True),
    ("nested deeper than 32", raw(nested(32)), True),
    ("a stream of another connection", event(client="0" * 16), True),
]
"""What a schema can't say: (what, line, the schema's verdict), each time the opposite of the code's."""


@pytest.mark.parametrize(("data", "schema"), [case[1:] for case in DIFFERENT], ids=[case[0] for case in DIFFERENT])
def test_the_differences_are_these(data: bytes, schema: bool) -> None:
    assert VALID["numbered"].is_valid(parsed(data)) is schema
    assert code_takes(data) is not schema


@pytest.mark.parametrize("what", [case[0] for case in DIFFERENT])
def test_the_page_names_each_difference(what: str) -> None:
    assert what in (DOCS / "protocol.md").read_text()


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for node in walk(SCHEMA):
        if isinstance(node, dict) and "$ref" in node:
            assert node["$ref"].removeprefix("#/$defs/") in DEFS


def walk(value: Any) -> Iterable[Any]:
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(inner)


@pytest.mark.parametrize("data", GOOD, ids=range(len(GOOD)))
def test_the_schema_takes_what_the_code_takes(data: bytes) -> None:
    assert not list(VALID["numbered"].iter_errors(parsed(data)))


SKIPPED = {"33 deep", "out of range", "another client", "seq a float"}
"""Those of `BAD` that are among the differences."""


@pytest.mark.parametrize("data", [case[1] for case in BAD], ids=[case[0] for case in BAD])
def test_the_schema_refuses_what_the_code_refuses(data: bytes, request: pytest.FixtureRequest) -> None:
    try:
        value = parsed(data)
    except (ValueError, RecursionError):
        return
    if request.node.callspec.id not in SKIPPED:
        assert not VALID["numbered"].is_valid(value)


WORDS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["", "a" * 64, "a" * 65, "a" * 128, "a" * 129, "job-1", "a b", "a\n", "é", "\0", "wafermon", "0123456789abcdef",
     "0123456789ABCDEF", "0123456789abcdef\n", ORIGIN.client, "NaN", "-Infinity", "info", "counter", "done", "ok"]
)  # fmt: skip
WHOLE = st.integers(-(2**60), 2**60) | st.sampled_from(
    [-1, 0, 1, 2, 3, 2**53, 2**53 + 1, 946_684_800_000_000 - 1, NOW, 7_258_118_400_000_000, 7_258_118_400_000_001]
)
BROKEN = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not (x.is_integer() and abs(x) < 1e19))
"""Floats without the whole ones, which only the code can tell from integers."""
SCALARS = st.none() | st.booleans() | WHOLE | BROKEN | WORDS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)
TAGS = st.dictionaries(WORDS, SCALARS, max_size=2)
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "event": {"level": st.sampled_from(["debug", "critical", "loud"]), "message": WORDS, "context": VALUES},
    "metric": {"name": WORDS, "value": WHOLE | BROKEN | WORDS, "unit": WORDS, "tags": TAGS, "kind": WORDS},
    "progress": {"job_id": WORDS, "percent": st.integers(-1, 101) | BROKEN, "status": WORDS},
    "resource": dict.fromkeys(("cpu", "mem", "disk", "net"), WHOLE | BROKEN),
    "span_start": {"name": WORDS, "span_id": WORDS, "trace_id": WORDS, "parent_id": WORDS, "tags": TAGS},
    "span_end": {
        "name": WORDS, "span_id": WORDS, "trace_id": WORDS, "status": st.sampled_from(["ok", "error", "done"]),
        "start": WHOLE, "duration": WHOLE | BROKEN,
    },
    "log": {},
    "trace": {},
    "hello": {},
}  # fmt: skip
PLAIN: dict[str, dict[str, Any]] = {
    "event": {"level": "info", "message": "m"},
    "metric": {"name": "n", "value": 1},
    "progress": {"job_id": "job-1", "percent": 5},
    "resource": {},
    "span_start": {"name": "n", "span_id": "a" * 16, "trace_id": "t"},
    "span_end": {
        "name": "n", "span_id": "a" * 16, "trace_id": "t", "status": "ok", "start": NOW, "duration": 1,
    },
    "log": {},
    "trace": {},
    "hello": {},
}  # fmt: skip
EVERYWHERE = st.sampled_from(
    ["v", "ts", "service", "host", "pid", "trace_id", "span_id", "client", "seq", "truncated", "replay_to", "colour"]
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A good message of some type, of which a few fields are replaced, added or left out."""
    kind = draw(st.sampled_from(list(FIELDS)))
    message = {**SHARED, "type": kind, **PLAIN[kind]}
    for name in draw(st.lists(st.sampled_from([*FIELDS[kind], "type"]) | EVERYWHERE, max_size=2)):
        own = FIELDS[kind].get(name, WORDS | WHOLE)
        if draw(st.booleans()):
            message[name] = draw(own | VALUES)
        else:
            message.pop(name, None)
    if message.get("client") == "0123456789abcdef":  # a stream of another connection: see DIFFERENT
        message["client"] = ORIGIN.client
    return message


@settings(max_examples=1500)
@example({**SHARED, "type": "event", "level": "info", "message": "m", "x": {"\0": 1}})
@example({**SHARED, "type": "metric", "name": "n", "value": 10**400})
@example({**SHARED, "type": "resource", "trace_id": "t\n"})
@given(messages())
def test_schema_and_code_agree_on_any_message(message: dict[str, Any]) -> None:
    errors = [error.message for error in VALID["numbered"].iter_errors(message)]
    assert code_takes(json.dumps(message).encode()) is not bool(errors), errors


def hello_is_taken(hello: dict[str, Any]) -> bool:
    try:
        return read_hello(json.dumps(hello).encode()) is not None
    except ProtocolError as error:
        assert error.code == "bad_hello"
        return False


HELLO = {"v": 2, "type": "hello", "client": "9f2c9f2c9f2c9f2c", "service": "file-receiver", "ack": True}
HELLO_WORDS = WORDS.filter(lambda text: "\0" not in text)


@settings(max_examples=500)
@example({})
@example({"v": 3})
@example({"ack": False, "client": None})
@example({"ack": False, "client": ""})
@example({"client": ""})
@example({"service": "", "host": "", "sdk": "", "token": ""})
@example({"compress": ["zstd", "zlib"]})
@example({"compress": ["zlib", 7]})
@example({"compress": ""})
@example({"host": "h" * 256})
@example({"host": "h" * 255})
@example({"host": "a\tb"})
@example({"host": "a\n"})
@example({"sdk": "s" * 65})
@example({"token": "t" * 513})
@given(st.dictionaries(
    st.sampled_from(["v", "client", "service", "host", "pid", "sdk", "ack", "token", "compress", "colour"]),
    st.none() | st.booleans() | st.integers(-1, 2**53) | BROKEN.filter(lambda number: number % 1) | HELLO_WORDS, max_size=3,
))  # fmt: skip
def test_schema_and_code_agree_on_any_hello(changed: dict[str, Any]) -> None:
    for hello in ({**HELLO, **changed}, {k: v for k, v in HELLO.items() if k == "type" or k not in changed}):
        assert hello_is_taken(hello) is VALID["hello"].is_valid(hello), hello


def test_what_the_sidecar_says_fits_the_schema(daemon: Daemon) -> None:
    client = daemon.client()
    VALID["welcome"].validate(client.welcome)
    client.send([1, 2])
    client.send_line(client.line(3, level="loud"))
    client.send_line(b"{")
    replies = [client.reply() for _ in range(3)]
    while replies[-1] != {"type": "ack", "seq": 4}:
        replies.append(client.reply())
    assert [reply["seq"] for reply in replies if reply["type"] == "error"] == [3, 4]
    bare = daemon.bare()
    bare.sendall(b'{"type":"hello"}\n')
    for reply in [*replies, json.loads(bare.makefile("rb").readline())]:
        VALID[reply["type"]].validate(reply)
    bare.close()
    client.close()


def test_what_the_sidecar_derives_fits_the_schema(daemon: Daemon) -> None:
    client = daemon.client()
    client.send_line(client.line(1, trace_id="job-1"))
    client.send_line(client.line(2, trace_id="job-1", level="error"))
    client.send_line({"type": "progress", "job_id": "job-1", "percent": 100, "status": "done",
                      "client": client.client, "seq": 3})  # fmt: skip
    path = daemon.directory / "logs" / "wafermon.jsonl"
    until(lambda: path.exists() and path.read_bytes().endswith(b"\n"), "the trace's summary")
    [trace] = read_lines(path)
    VALID["trace"].validate(trace)
    assert trace["counts"] == {"event": 2, "level.info": 1, "level.error": 1, "progress": 1}
    client.close()


@pytest.mark.parametrize("name", ["part", "services", "counts", "first", "last", "errors", "status"])
def test_the_schema_of_a_trace_misses_what_the_code_misses(name: str) -> None:
    trace = {
        "v": 2, "type": "trace", "ts": NOW, "service": "wafermon", "client": "9f2c9f2c9f2c9f2c", "trace_id": "job-1",
        "first": NOW, "last": NOW, "services": ["a"], "counts": {"event": 1}, "errors": 0, "status": "done", "part": 1,
    }  # fmt: skip
    VALID["trace"].validate(trace)
    decode_stored(json.dumps(trace).encode())
    for broken in ({**trace, name: None}, {k: v for k, v in trace.items() if k != name}):
        assert not VALID["trace"].is_valid(broken)
        with pytest.raises(msgspec.ValidationError):
            decode_stored(json.dumps(broken).encode())


def session() -> list[str]:
    """The lines of the page's example session: what is sent after ``> ``, what comes back after ``< ``."""
    block = re.search(r"```session\n(.*?)```", (DOCS / "protocol.md").read_text(), re.DOTALL)
    assert block
    return block[1].splitlines()


def test_the_pages_session_runs_as_it_is_printed(daemon: Daemon) -> None:
    connection = daemon.bare()
    connection.settimeout(60)
    replies = connection.makefile("rb")
    for shown in session():
        if shown.startswith("> "):
            connection.sendall(shown[2:].encode() + b"\n")
            continue
        wanted = json.loads(shown[2:])
        reply = json.loads(replies.readline())
        while reply["type"] == "ack" and reply != wanted:  # an ack may come alone, or be repeated
            reply = json.loads(replies.readline())
        if wanted["type"] == "welcome":
            wanted["sidecar"] = reply["sidecar"]
        assert reply == wanted
    connection.close()


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links to them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
        if not target.startswith(("http", "mailto:")):
            aim = page.parent / target if target else page
            assert aim.exists(), target
            assert not anchor or anchor in anchors(aim), f"{target}#{anchor}"


def test_every_line_of_the_table_of_fields_is_in_the_schema() -> None:
    named = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (DOCS / "protocol.md").read_text(), re.MULTILINE)
    fields = {name for cell in named for name in re.findall(r"`(\w+)`", cell)}
    assert set(DEFS["shared"]["properties"]) - {"replay_to"} <= fields
    assert {"type"} <= fields
