"""A config with its defaults filled in, and where two differ."""

from __future__ import annotations

import pytest

from wafermon.backends import find_plugins
from wafermon.config import check, default_text
from wafermon.config.effective import ABSENT, HIDDEN, differences, effective
from wafermon.model.units import parse_duration, parse_size

PLUGINS = find_plugins().factories
SMALL = b"backends: {f: {plugin: filesystem, path: 'logs/{service}.jsonl', keep: 24h}}\n"


def test_what_is_left_out_has_its_default() -> None:
    found = effective(SMALL, PLUGINS)
    assert found["listen"] == ["tcp:7411:interface=127.0.0.1"] and found["http"] == "tcp:7412:interface=127.0.0.1"
    assert found["journal"]["max_bytes"] == "1GiB" and found["limits"]["max_connections"] == 10_000
    assert found["backends"]["f"]["retry"] == {"initial": "100ms", "max": "30s", "give_up": "15m"}
    assert found["backends"]["f"]["keep"] == "24h" and found["backends"]["f"]["rotate_bytes"] == "128MiB"
    assert found["routes"] == [{"to": ["f"]}]
    assert "hooks" not in found


def test_a_plugins_own_batch_counts() -> None:
    own = b"backends: {h: {plugin: s3, bucket: bucket, batch: {messages: 7}}}\n"
    checked = check(own, "c.yaml", PLUGINS, {}).backends["h"].batch
    found = effective(own, PLUGINS)["backends"]["h"]["batch"]
    assert found["messages"] == 7
    assert (parse_size(found["bytes"]), parse_duration(found["age"])) == (checked.bytes, checked.age)


def test_variables_stay_and_passwords_are_hidden() -> None:
    text = (
        b"backends:\n"
        b"  a: {plugin: timescaledb, dsn: 'postgresql://u:s3cret@db/w'}\n"
        b"  b: {plugin: timescaledb, dsn: 'host=db password=s3cret dbname=w', schema: two}\n"
        b"  c: {plugin: timescaledb, dsn: '${DSN:-postgresql://x:s3cret@y/z}', schema: three}\n"
    )
    check(text, "c.yaml", PLUGINS, {})
    found = effective(text, PLUGINS)["backends"]
    assert found["a"]["dsn"] == f"postgresql://u:{HIDDEN}@db/w"
    assert found["b"]["dsn"] == f"host=db password={HIDDEN} dbname=w"
    assert found["c"]["dsn"] == "${DSN}"
    assert "s3cret" not in str(found)


def test_one_that_says_the_defaults_is_the_same() -> None:
    one = effective(default_text().encode(), PLUGINS)
    assert differences(one, one) == []
    other = effective(default_text().replace("trace_max: 24h", "trace_max: 1d").encode(), PLUGINS)
    assert differences(one, other) == []


@pytest.mark.parametrize(("before", "after", "found"), [
    ("max_bytes: 1GiB", "max_bytes: 2GiB", ("journal.max_bytes", "1GiB", "2GiB")),
    ("sync: always", "sync: never", ("journal.sync", "always", "never")),
    ("max_connections: 10000", "max_connections: 5", ("limits.max_connections", 10_000, 5)),
    ("reload: watch", "hooks: {command: /bin/true}", ("hooks", ABSENT, {"command": "/bin/true"})),
])  # fmt: skip
def test_differences_have_both_values(before: str, after: str, found: tuple[str, object, object]) -> None:
    one = effective(default_text().encode(), PLUGINS)
    other = effective(default_text().replace(before, after).encode(), PLUGINS)
    [(path, first, second)] = differences(one, other)
    assert (path, first) == found[:2]
    assert second == found[2] or (
        isinstance(second, dict) and isinstance(found[2], dict) and found[2].items() <= second.items()
    )


def test_a_backend_that_one_lacks_is_one_difference() -> None:
    one, other = effective(default_text().encode(), PLUGINS), effective(SMALL, PLUGINS)
    paths = [path for path, _, second in differences(one, other) if second == ABSENT]
    assert paths == ["backends.files", "backends.history"]
