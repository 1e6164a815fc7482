"""The checks of every line: one precise error each, and what is stored is JSON that others read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sent_lines import BAD, GOOD, NOW, ORIGIN, event, raw

from wafermon.model.messages import Message, decode_stored
from wafermon.wire.lines import LineError, LineReader, Origin


def refused(data: bytes, origin: Origin = ORIGIN) -> LineError:
    with pytest.raises(LineError) as caught:
        LineReader(origin).read_line(data, NOW)
    return caught.value


def accepted(data: bytes, origin: Origin = ORIGIN) -> tuple[bytes, Message]:
    return LineReader(origin).read_line(data, NOW)


@pytest.mark.parametrize(("data", "code", "detail"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_line_gets_one_precise_error(data: bytes, code: str, detail: str) -> None:
    error = refused(data)
    assert error.code == code
    assert detail in error.detail


def test_the_error_names_the_seq_where_it_can_be_read() -> None:
    assert refused(event(level="loud")).seq == 7
    assert refused(raw(r'"\u0000"')).seq == 7
    assert refused(event()[:-1]).seq is None


@pytest.mark.parametrize("data", GOOD, ids=range(len(GOOD)))
def test_a_good_line_is_stored_as_it_came(data: bytes) -> None:
    stored, message = accepted(data)
    assert stored == data
    assert message.seq == 7


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    data = raw(r'"\\u0000"')
    assert accepted(data)[0] == data


def test_unknown_fields_are_kept_as_they_came() -> None:
    data = event(colour="blue", nested={"a": [1.50]})
    stored, message = accepted(data)
    assert stored == data
    assert decode_stored(stored) == message


def test_of_duplicate_keys_the_last_one_counts() -> None:
    data = b'{"level":"loud",' + event(level="error")[1:]
    stored, message = accepted(data)
    assert stored == data
    assert message.level == "error"


def test_missing_fields_are_spliced_in_front() -> None:
    origin = Origin(service="svc", host="h", pid=3)
    data = b' {"type":"progress", "job_id":"j\\u00e9" ,"percent":1}'
    with pytest.raises(LineError, match="trace_id"):
        accepted(data, origin)
    stored, message = accepted(data.replace(b"\\u00e9", b"1"), origin)
    assert json.loads(stored) == {
        "service": "svc", "host": "h", "pid": 3, "ts": NOW, "trace_id": "j1", "type": "progress", "job_id": "j1", "percent": 1
    }  # fmt: skip
    assert stored.endswith(b'"type":"progress", "job_id":"j1" ,"percent":1}')
    assert (message.service, message.host, message.pid, message.ts, message.trace_id) == ("svc", "h", 3, NOW, "j1")


def test_a_numbered_line_needs_client_and_seq() -> None:
    data = json.dumps({"type": "resource", "service": "s", "client": ORIGIN.client}).encode()
    assert "seq: missing" in refused(data).detail
    data = json.dumps({"type": "resource", "service": "s", "seq": 1}).encode()
    assert "client: missing" in refused(data).detail


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
json_values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=5), scalars, max_size=3)


@given(st.text(), json_values)
def test_what_is_stored_is_json_for_everybody(message: str, value: Any) -> None:
    data = json.dumps({"type": "event", "level": "info", "message": message, "context": {"k": value}}).encode()
    reader = LineReader(Origin(service="s"))
    try:
        stored, read = reader.read_line(data, NOW)
    except LineError:
        return
    assert json.loads(stored, parse_constant=lambda _: pytest.fail("a constant"))["message"] == message
    assert read.message == message  # type: ignore[attr-defined]
