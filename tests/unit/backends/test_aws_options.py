"""What a config may say of s3 and cloudwatch, and what is said of what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from wafermon.backends import find_plugins
from wafermon.backends.cloudwatch import cloudwatch
from wafermon.backends.s3 import s3
from wafermon.config import check
from wafermon.interfaces import configure
from wafermon.model.errors import ConfigError

ARN = "arn:aws:s3:eu-central-1:123456789012:accesspoint/fab"


def faults(factory: Any, **given: Any) -> dict[str, str]:
    try:
        configure(factory, given)
    except ConfigError as error:
        return {fault.path: fault.problem for fault in error.faults}
    return {}


@pytest.mark.parametrize("given", [
    {"bucket": "fab"},
    {"bucket": ARN, "prefix": "a/b/"},
    {"bucket": "fab", "endpoint_url": "https://s3.example.org:9000/", "region": "us-east-1", "ca_file": "/etc/ca.pem"},
    {"bucket": "fab", "encryption": "aws:kms", "kms_key": "alias/fab", "storage_class": "GLACIER_IR"},
    {"bucket": "fab", "compress": "zstd", "conditional": False, "checksum": "md5", "addressing": "virtual", "profile": "fab"},
])  # fmt: skip
def test_what_s3_takes(given: dict[str, Any]) -> None:
    assert faults(s3, **given) == {}


@pytest.mark.parametrize(("key", "value", "words"), [
    ("bucket", "s3://fab/x", "that is `prefix`"),
    ("bucket", None, "missing"),
    ("prefix", "/x/", "none at its beginning"),
    ("prefix", "wafermon", "with a slash at its end"),
    ("prefix", "a//b/", "with a slash at its end"),
    ("prefix", "../x/", "no . or .."),
    ("prefix", "x" * 900 + "/", "at most 800"),
    ("endpoint_url", "s3.example.org", "expected a URL such as"),
    ("endpoint_url", "ftp://s3.example.org", "expected a URL such as"),
    ("region", "EU Central", "such as eu-central-1"),
    ("storage_class", "DEEP_ARCHIVE", "lifecycle rule"),
    ("storage_class", "cheap one", "such as STANDARD_IA"),
    ("kms_key", "alias/fab", "needs `encryption: aws:kms`"),
    ("compress", "bzip2", "gzip, zstd or none"),
    ("conditional", "yes", "true or false"),
    ("compres", "gzip", "did you mean 'compress'?"),
])  # fmt: skip
def test_what_s3_does_not_take(key: str, value: Any, words: str) -> None:
    given = {"bucket": "fab", key: value}
    assert words in faults(s3, **{name: one for name, one in given.items() if one is not None})[key]


def test_a_ca_file_needs_a_url_with_a_certificate() -> None:
    assert "write https://" in faults(s3, bucket="fab", endpoint_url="http://fab:9000", ca_file="/x")["ca_file"]


@pytest.mark.parametrize(("key", "value", "words"), [
    ("log_group", "/fab logs", "such as /fab/wafermon"),
    ("log_stream", "{seq}", "{seq} is no field"),
    ("log_stream", "a:b", "without : and *"),
    ("log_stream", "a{b", "without : and *"),
    ("metrics", "api", "none or emf"),
    ("namespace", "AWS/EC2", "not AWS/"),
    ("dimensions", ["service", "service"], "each once"),
    ("dimensions", [":x"], "a tag's name"),
    ("dimensions", [f"d{n}" for n in range(29)], "at most 28"),
])  # fmt: skip
def test_what_cloudwatch_does_not_take(key: str, value: Any, words: str) -> None:
    assert words in faults(cloudwatch, **{"log_group": "/fab", key: value})[key]


def problems(text: str) -> list[str]:
    try:
        check(text.encode(), "w.yaml", find_plugins().factories, {})
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return []


def test_two_backends_with_one_prefix_are_refused() -> None:
    """The second would take what the first has stored for its own."""
    text = "backends:\n  a: {plugin: s3, bucket: fab, prefix: x/}\n  b: {plugin: s3, bucket: fab, prefix: x/y/}\n"
    [problem] = problems(text)
    assert problem.startswith(
        "w.yaml:3: backends.b.prefix: overlaps with the prefix of 'a', which begins with s3://fab/x/"
    )
    assert problem.endswith("give each backend a prefix of its own")
    assert problems(text.replace("x/y/", "y/")) == []
    assert problems(text.replace("bucket: fab, prefix: x/y/", "bucket: bay, prefix: x/y/")) == []


def batch_of(text: str) -> tuple[int, int, float]:
    config = check(text.encode(), "w.yaml", find_plugins().factories, {})
    [backend] = config.backends.values()
    return backend.batch.messages, backend.batch.bytes, backend.batch.age


def test_objects_are_large_where_the_config_says_nothing_else() -> None:
    assert batch_of("backends: {a: {plugin: s3, bucket: fab}}") == (0, 16 << 20, 60.0)
    assert batch_of("backends: {a: {plugin: s3, bucket: fab, batch: {age: 5m}}}") == (0, 16 << 20, 300.0)
    assert batch_of("backends: {a: {plugin: filesystem, path: x.jsonl}}") == (5000, 4 << 20, 0.2)
