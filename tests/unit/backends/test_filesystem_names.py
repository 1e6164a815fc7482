"""Which file a message goes to: no value escapes, no name reads like another kind of name, all faults at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wafermon.backends.filesystem import filesystem
from wafermon.backends.filesystem.names import Parsed, Template, safe
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import Position, configure
from wafermon.model.errors import ConfigError
from wafermon.model.messages import loads

START = Position(JOURNAL, 1, 0)
HOUR = 498_750  # 2026-11-24 06:00 UTC
TEMPLATES = [
    "/log/{service}/{date}.jsonl",
    "/log/{service}.jsonl",
    "/log/{service}",
    "/log/{service}.{hour}.jsonl",
    "/log/{host}/{service}.{type}",
    "/log/{service}.{host}.jsonl",
    "/log/{date}/{hour}/x-{host}.json",
    "/log/{service}{host}{hour}.log",
]
values = st.text(min_size=1) | st.from_regex(r"[a-b0-9./%-]{1,12}", fullmatch=True) | st.sampled_from([".", "..", "/"])


def faults(**options: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        configure(filesystem, options)
    return {fault.path: fault.problem for fault in caught.value.faults}


def test_every_field_is_filled_in() -> None:
    names = Template("/log/{service}/{type}/{host}/{date}T{hour}.jsonl")
    path = names.path(HOUR, service="queue-service", type="metric", host="fab1")
    assert path == "/log/queue-service/metric/fab1/2026-11-24T06.jsonl"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("queue-service_1.A", "queue-service_1.A"),
        ("a:b", "a%3Ab"),
        ("../../etc", "..%2F..%2Fetc"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("/", "%2F"),
        ("nul\0", "nul%00"),
        ("ü", "%C3%BC"),
        ("\udc80", "%ED%B2%80"),
        ("a%2Fb", "a%252Fb"),
        ("10.0.0.1", "10.0.0.1"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_no_value_escapes(value: str | None, name: str) -> None:
    assert Template("/log/{host}/x.jsonl").path(0, host=value) == f"/log/{name}/x.jsonl"


def test_a_long_value_ends_in_a_hash() -> None:
    one, other = safe("x" * 5000), safe("x" * 4999 + "y")
    assert one != other and one[:200] == other[:200] == "x" * 200
    assert len(one) == len(other) == 217


@example("/log/{service}.{hour}.jsonl", "0.00", "h", 1, 1)
@given(
    template=st.sampled_from(TEMPLATES),
    service=values,
    host=values,
    hour=st.integers(0, 2_000_000),
    number=st.integers(1, 99),
)
def test_a_name_tells_what_the_file_is(template: str, service: str, host: str, hour: int, number: int) -> None:
    names = Template(template)
    path = names.path(hour, service=service, type="event", host=host)
    assert os.path.normpath(path) == path and path.startswith("/log/")
    assert len(path.split("/")) == len(template.split("/"))
    rotated = names.rotated(path, number)
    for name, kind in [(path, (0, "")), (rotated, (number, "")), (rotated + ".gz", (number, ".gz"))]:
        assert all(len(os.fsencode(part)) <= 255 for part in name.split("/"))
        parsed = names.parse(name)
        assert parsed is not None and (parsed.number, parsed.packed) == kind
        assert name.startswith(names.claims)


@pytest.mark.parametrize(
    ("template", "host", "name"),
    [
        ("/log/{host}.jsonl", "a.1", "a%2E1.jsonl"),
        ("/log/{host}.jsonl", "1", "1.jsonl"),
        ("/log/{host}/x.jsonl", "a.1", "a.1/x.jsonl"),
        ("/log/{host}.{hour}.jsonl", "a", "a.06.jsonl"),
        ("/log/{host}.{hour}.jsonl", "a.07", "a%2E07.06.jsonl"),
        ("/log/{host}.{date}.jsonl", "a.1", "a.1.2026-11-24.jsonl"),
    ],
)
def test_a_current_name_never_reads_like_a_rotated_one(template: str, host: str, name: str) -> None:
    assert Template(template).path(HOUR, host=host) == f"/log/{name}"


@pytest.mark.parametrize(
    "name", ["a.txt", "a.jsonl.gz", "a.jsonl.1", "sub/a.jsonl", "a.1.jsonl.bz2", "notes", ".jsonl"]
)
def test_files_of_others_are_not_ours(name: str) -> None:
    assert Template("/log/{service}.jsonl").parse(f"/log/{name}") is None


def test_a_dated_name_tells_when_it_is_over() -> None:
    assert Template("/log/{date}.jsonl").parse("/log/2026-11-24.2.jsonl.gz") == Parsed(2, ".gz", 1_795_564_800)
    assert Template("/log/{date}/{hour}.jsonl").parse("/log/2026-11-24/06.jsonl") == Parsed(0, "", 1_795_503_600)
    assert Template("/log/{hour}.jsonl").parse("/log/06.jsonl") == Parsed(0, "", float("inf"))


def test_lines_are_grouped_in_order_and_byte_for_byte() -> None:
    hour = 3_600_000_000
    lines = [
        line(seq, service=f"s{seq % 3}", ts=1_795_500_000_000_000 + seq * hour // 3, message="ü" * (seq % 5))
        for seq in range(1, 200)
    ]
    names = Template("/log/{service}/{date}T{hour}.jsonl")
    groups = names.group(batch(START, lines))
    expected: dict[str, bytes] = {}
    for text in lines:
        value = loads(text)
        path = names.path(value["ts"] // hour, service=value["service"])
        expected[path] = expected.get(path, b"") + text + b"\n"
    assert {path: b"".join(pieces) for path, pieces in groups.items()} == expected


def test_hours_do_not_divide_what_has_none() -> None:
    lines = [line(seq, ts=1_795_500_000_000_000 + seq * 3_600_000_000) for seq in range(1, 40)]
    assert len(Template("/log/{service}.jsonl").group(batch(START, lines))) == 1
    assert len(Template("/log/{date}.jsonl").group(batch(START, lines))) == 2
    assert len(Template("/log/{hour}.jsonl").group(batch(START, lines))) == 24


def test_every_fault_is_named() -> None:
    found = faults(path=7, rotate_bytes="12 parsecs", compress="zip", keep="soon", kepp="30d")
    assert set(found) == {"path", "rotate_bytes", "compress", "keep", "kepp"}
    assert "did you mean 'keep'?" in found["kepp"]
    assert "missing" in faults()["path"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/log/{serivce}.jsonl", "{serivce} is unknown; known are {service}, {date}, {type}, {host}, {hour}"),
        ("/log/{service.jsonl", "brace"),
        ("/log/{{service}}.jsonl", "brace"),
        ("~/log.jsonl", "~ is not expanded"),
        ("/log/", "names no file"),
        ("", "names no file"),
        ("/log/\0.jsonl", "control character"),
        ("/log/{service}.jsonl.gz", "compressed"),
        ("/log/{service}.1.jsonl", "rotated"),
        ("/log/" + "x" * 210 + "{service}.jsonl", "no room"),
    ],
)
def test_a_bad_template_is_refused(path: str, problem: str) -> None:
    assert problem in faults(path=path)["path"]


def test_what_two_backends_may_not_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configure(filesystem, {"path": "/log/{service}/{date}.jsonl"}).claims == ("/log/",)
    assert configure(filesystem, {"path": "/log/a-{date}.jsonl"}).claims == ("/log/a-",)
    assert configure(filesystem, {"path": "/log/../log/all.jsonl"}).claims == ("/log/all.",)
    assert configure(filesystem, {"path": "all/{date}"}).claims == (f"{tmp_path}/all/",)
