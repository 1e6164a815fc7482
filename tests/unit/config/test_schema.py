"""The JSON Schema takes what `check` takes, and finds what an editor can find."""

from __future__ import annotations

import re
from typing import Any

import pytest
from daemon import ROOT
from jsonschema import Draft7Validator

from wafermon.backends import find_plugins
from wafermon.config import check, default_text
from wafermon.config.schema import config_schema
from wafermon.config.source import read
from wafermon.model.errors import ConfigError

PLUGINS = find_plugins().factories
SCHEMA = config_schema(PLUGINS)
VALIDATOR = Draft7Validator(SCHEMA)
FILES = "backends: {f: {plugin: filesystem, path: 'logs/{service}.jsonl'}}\n"


def faults(text: str) -> list[str]:
    """Where the schema finds a fault; what has variables is read as an editor reads it, with the variables in it."""
    value: Any = read(text.replace("${", "$${").encode(), "c.yaml", {}).value
    return [".".join(map(str, error.absolute_path)) for error in VALIDATOR.iter_errors(value)]


def configs() -> list[Any]:
    """Every whole config of the tree's pages and examples."""
    found = {"default": default_text()}
    found |= {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("deploy/*/wafermon.yaml")}
    found["deploy/wafermon.yaml"] = (ROOT / "deploy/wafermon.yaml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
            text = block if "backends:" in block else FILES + block
            if re.search(
                r"^(listen|http|journal|limits|backends|routes|hooks|correlation|dead_letters):", block, re.MULTILINE
            ):
                found[f"{page.name}-{number}"] = text
    return [pytest.param(text, id=name) for name, text in found.items()]


def is_good(text: str) -> bool:
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)", text), "1GiB")
    try:
        check(text.encode(), "c.yaml", PLUGINS, environ)
    except ConfigError:
        return False
    return True


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", configs())
def test_it_takes_what_check_takes(text: str) -> None:
    if is_good(text):
        assert faults(text) == []


def test_the_default_and_the_shipped_configs_are_among_them() -> None:
    assert is_good(default_text()) and is_good((ROOT / "deploy/wafermon.yaml").read_text())


@pytest.mark.parametrize("more", [
    "http: false",
    "http: [{endpoint: 'tcp:7412', serve: [health]}, 'tcp:7414']",
    "listen: ['tcp:7411', {endpoint: 'unix:/run/w.sock', owner: 4711, allow_users: [root, 0]}]",
    "journal: {max_bytes: 1.5GiB, spill_dir: false, sync: never}",
    "journal: {max_bytes: 4294967296, spill_owners: {etl: ['load-*'], 4711: [a]}}",
    "journal: {max_bytes: '${QUOTA}'}",
    "limits: {max_connections: 0, first_line: 1.5h, idle_timeout: 30}",
    "limits:\n  messages_per_second: ${RATE:-5}",
    "hooks: {command: /bin/true -x 'a b', at_most: 100/24h, on: [gone]}",
    "hooks: {command: /bin/true, at_most: 0}",
    "routes: [{match: {service: a, type: [event, metric], level: '>=warning'}, to: [f]}, {to: []}]",
    "reload: signal",
])  # fmt: skip
def test_every_way_to_write_a_value_is_taken(more: str) -> None:
    text = f"{FILES}{more}\n"
    environ = {"QUOTA": "1GiB"}
    check(text.encode(), "c.yaml", PLUGINS, environ)
    assert faults(text) == []


@pytest.mark.parametrize(("text", "at"), [
    ("listn: [tcp:1]\n" + FILES, ""),
    ("journal: {max_byte: 1GiB}\n" + FILES, "journal"),
    ("journal: {max_bytes: 1GB}\n" + FILES, "journal.max_bytes"),
    ("journal: {sync: sometimes}\n" + FILES, "journal.sync"),
    ("limits: {first_line: soon}\n" + FILES, "limits.first_line"),
    ("limits: {max_connections: -1}\n" + FILES, "limits.max_connections"),
    ("hooks: {on: [gone]}\n" + FILES, "hooks"),
    ("hooks: {command: x, at_most: often}\n" + FILES, "hooks.at_most"),
    ("http: [{serve: [health]}]\n" + FILES, "http"),
    ("listen: [{endpoint: 'tcp:1', ownr: a}]\n" + FILES, "listen.0"),
    ("routes: [{match: {sevice: a}, to: []}]\n" + FILES, "routes.0.match"),
    ("routes: [{match: {service: a}}]\n" + FILES, "routes.0"),
    ("backends: {}\n", "backends"),
    ("backends: {F: {plugin: filesystem, path: a}}\n", "backends"),
    ("backends: {f: {path: a}}\n", "backends.f"),
    ("backends: {f: {plugin: filesystm, path: a}}\n", "backends.f.plugin"),
    ("backends: {f: {plugin: filesystem}}\n", "backends.f"),
    ("backends: {f: {plugin: filesystem, path: a, rotate: 1}}\n", "backends.f"),
    ("backends: {f: {plugin: filesystem, path: a, compress: xz}}\n", "backends.f.compress"),
    ("backends: {f: {plugin: filesystem, path: a, batch: {age: never}}}\n", "backends.f.batch.age"),
    ("reload: never\n" + FILES, "reload"),
    ("reload: watch\n", ""),
])  # fmt: skip
def test_it_finds_what_check_finds(text: str, at: str) -> None:
    assert not is_good(text)
    assert at in faults(text)


def test_each_key_says_what_it_means() -> None:
    silent = [
        f"{section}.{key}"
        for section, mapping in SCHEMA["properties"].items()
        for key, value in mapping.get("properties", {}).items()
        if not value.get("description")
    ]
    assert silent == []
