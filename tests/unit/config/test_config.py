"""A config file is checked whole: every fault at once, each with its line."""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.plugin import IPlugin
from zope.interface import implementer
from zope.interface.verify import verifyClass, verifyObject

from wafermon.alerts.channels import find_channels
from wafermon.backends import find_plugins
from wafermon.config import BatchLimits, Config, Hooks, HttpListener, Listener, Retry, check, default_text, load
from wafermon.config.document import document
from wafermon.interfaces import BackendContext, IBackend, IBackendFactory
from wafermon.model.errors import ConfigError, Fault
from wafermon.model.units import (
    SIZE_UNITS,
    TIME_UNITS,
    Rate,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)
from wafermon.routing import Rule, compile_routes

MiB = 1 << 20


@dataclass(frozen=True)
class Options:
    given: Mapping[str, Any]
    claims: tuple[str, ...] = ()


@implementer(IPlugin, IBackendFactory)
class Plugin:
    """Knows some keys and needs one of them, as the real ones do."""

    def __init__(self, name: str, needed: str, known: tuple[str, ...] = (), *, without: tuple[str, ...] = ()) -> None:
        self.name = name
        self.without = without
        self.needed = needed
        self.known = (needed, *known)

    def configure(self, options: Mapping[str, Any]) -> Options:
        faults = [Fault(key, f"unknown key; expected {self.needed}") for key in options if key not in self.known]
        if self.needed not in options:
            faults.append(Fault(self.needed, "missing"))
        elif not isinstance(options[self.needed], str):
            faults.append(Fault(self.needed, "expected text"))
        if any(value is None for value in options.values()):
            raise TypeError("a value that is none")
        if isinstance(options.get("pool"), dict) and options["pool"]["sizes"][0] < 0:
            faults.append(Fault("pool.sizes[0]", "too small"))
        if faults:
            raise ConfigError(faults)
        claims = (options["path"].partition("{")[0],) if "path" in options else ()
        return Options(options, claims)

    def build(self, options: Any, context: BackendContext) -> IBackend:
        raise NotImplementedError("a config builds nothing")


class Broken(Plugin):
    def configure(self, options: Mapping[str, Any]) -> Options:
        raise KeyError("oops")


PLUGINS = {
    "filesystem": Plugin("filesystem", "path", ("rotate_bytes", "compress", "keep")),
    "timescaledb": Plugin("timescaledb", "dsn", ("pool",), without=("stats",)),
    "history": Plugin("history", "dir", ("keep", "max_bytes")),
    "broken": Broken("broken", "x"),
}
FILES = "backends: {files: {plugin: filesystem, path: '/logs/{service}.jsonl'}}\n"


def read(text: str | bytes, **environ: str) -> Config:
    return check(text.encode() if isinstance(text, str) else text, "w.yaml", PLUGINS, environ)


def faults(text: str | bytes, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    assert str(caught.value).splitlines() == [str(fault) for fault in caught.value.faults]
    return [str(fault).removeprefix("w.yaml:") for fault in caught.value.faults]


def test_the_plugins_of_these_tests_are_plugins() -> None:
    for plugin in PLUGINS.values():
        verifyObject(IBackendFactory, plugin)
    verifyClass(IBackendFactory, Plugin)


# Types of message that only some backends have a place for


STATS = """
backends:
  files: {plugin: filesystem, path: '/logs/{service}.jsonl'}
  db: {plugin: timescaledb, dsn: x}
routes:
  - {to: [db]}
  - {match: {type: stats}, to: [files]}
"""


def test_a_rule_for_stats_may_follow_one_that_takes_everything_else() -> None:
    assert read(STATS).routes[1].type == ("stats",)


def test_stats_go_to_no_backend_that_has_no_place_for_them() -> None:
    assert faults(STATS.replace("to: [files]", "to: [files, db]"))[0].endswith(
        "routes[1].to[1]: 'db' has no place for messages of type stats; send them to another backend"
    )


# What a good config becomes


def test_the_default_config_is_the_defaults() -> None:
    config = load(None, plugins=PLUGINS, environ={})
    path = "wafermon-data/files/{service}/{date}.jsonl"
    history = "{plugin: history, dir: wafermon-data/history, keep: 30d, max_bytes: 10GiB, batch: {messages: 20000, bytes: 8MiB, age: 1s}}"
    assert config == read(f"backends: {{files: {{plugin: filesystem, path: '{path}'}}, history: {history}}}")
    assert config.listen == (Listener(endpoint="tcp:7411:interface=127.0.0.1"),)
    assert config.http == (HttpListener(endpoint="tcp:7412:interface=127.0.0.1"),)
    assert config.journal.dir == Path("wafermon-data/journal")
    assert config.dead_letters.dir == Path("wafermon-data/dead-letters")
    assert (config.journal.max_bytes, config.journal.segment_bytes) == (1 << 30, 64 * MiB)
    assert config.limits.max_line_bytes == 65_536
    assert config.hooks is None
    assert config.reload == "watch"
    assert list(config.backends) == ["files", "history"]
    assert config.backends["files"].name == "files"
    assert config.backends["files"].options == Options({"path": path}, ("wafermon-data/files/",))
    assert config.backends["files"].batch == BatchLimits(messages=5000, bytes=4 * MiB, age=0.2)
    assert config.backends["files"].retry == Retry(initial=0.1, max=30.0)
    assert config.routes == (Rule(("files", "history")),)


def test_the_sample_of_the_manual() -> None:
    config = read(
        """\
listen:
  - tcp:7411:interface=127.0.0.1
  - unix:/run/wafermon/wafermon.sock:mode=660
  - endpoint: tls:7413                # certificate, key, client_ca (mutual TLS), token_file
    certificate: /etc/wafermon/server.pem
    key: /etc/wafermon/server.key
    client_ca: /etc/wafermon/clients.pem
    token_file: /etc/wafermon/tokens
http: false
journal:
  dir: /var/lib/wafermon/journal
  max_bytes: 1GiB
  segment_bytes: 64MiB
  sync: interval
  spill_dir: /var/spool/wafermon
limits: {max_line_bytes: 65536, max_connections: 10000, partial_bytes: 64MiB, first_line: 30s, idle_timeout: 1h,
         messages_per_second: 0}
correlation: {stalled_after: 5m, trace_idle: 10m, trace_max: 24h, max_traces: 20000}
backends:
  files:
    plugin: filesystem
    path: /var/log/wafermon/{service}/{date}.jsonl
    rotate_bytes: 128MiB
    compress: gzip
    keep: 30d
    when_full: skip
    on_remove: drain
  db:
    plugin: timescaledb
    dsn: postgresql://wafermon@localhost/wafermon
    batch: {messages: 5000, bytes: 4MiB, age: 200ms}
routes:
  - match: {service: queue-service, type: [metric, progress]}
    to: [db, files]
  - match: {service: "config-*", level: ">=warning"}
    to: [files]
  - to: [db, files]
dead_letters: {dir: /var/lib/wafermon/dead-letters, max_bytes: 256MiB}
hooks: {command: /usr/local/bin/page-me --team 'fab 1', on: [job_stalled, job_failed, dropped], at_most: 10/m}
reload: signal
"""
    )
    tls = config.ports[2]
    assert [listener.tls for listener in config.ports] == [False, False, True]
    assert (tls.certificate, tls.token_file) == (Path("/etc/wafermon/server.pem"), Path("/etc/wafermon/tokens"))
    assert config.http == ()
    assert (config.journal.sync, config.journal.spill_dir) == ("interval", Path("/var/spool/wafermon"))
    assert (config.limits.first_line, config.limits.idle_timeout) == (30.0, 3600.0)
    assert config.correlation.trace_max == 86_400.0
    assert list(config.backends) == ["files", "db"]
    files, db = config.backends.values()
    assert (files.when_full, files.on_remove, db.when_full, db.on_remove) == ("skip", "drain", "pause", "keep")
    assert files.options.given == {
        "path": "/var/log/wafermon/{service}/{date}.jsonl",
        "rotate_bytes": "128MiB",
        "compress": "gzip",
        "keep": "30d",
    }
    assert db.options.given == {"dsn": "postgresql://wafermon@localhost/wafermon"}
    assert config.routes == (
        Rule(("db", "files"), service=("queue-service",), type=("metric", "progress")),
        Rule(("files",), service=("config-*",), level=(">=warning",)),
        Rule(("db", "files")),
    )
    assert compile_routes(config.routes, config.backends).backends == {"db", "files"}
    assert config.hooks == Hooks(
        command=("/usr/local/bin/page-me", "--team", "fab 1"),
        on=("job_stalled", "job_failed", "dropped"),
        at_most=Rate(10, 60.0),
    )


def test_a_config_can_not_be_changed() -> None:
    config = read(FILES)
    with pytest.raises(ValueError, match="frozen"):
        config.journal.max_bytes = 7
    with pytest.raises(ValueError, match="frozen"):
        config.http = ()
    assert isinstance(config.backends, MappingProxyType)


def test_configs_are_equal_where_they_say_the_same() -> None:
    assert read(FILES) == read(
        FILES + "reload: watch\njournal: {segment_bytes: 65536KiB}\nlimits: {first_line: 0.5m}\n"
    )
    assert read(FILES) != read(FILES + "reload: signal\n")
    assert read(FILES) != read(FILES.replace("/logs/", "/log/"))
    assert read(FILES) != read(FILES + "routes: []\n")


def test_dead_letters_lie_beside_the_journal() -> None:
    assert read(FILES + "journal: {dir: /data/j}").dead_letters.dir == Path("/data/dead-letters")
    assert read(FILES + "journal: {dir: .}").dead_letters.dir == Path("../dead-letters")
    assert read(FILES + "journal: {dir: /data/j}\ndead_letters: {dir: d}").dead_letters.dir == Path("d")


def test_spill_files_are_looked_for_where_sdks_write_them() -> None:
    assert read(FILES, WAFERMON_SPILL_DIR="/spill").journal.spill_dir == Path("/spill")
    assert read(FILES + "journal: {spill_dir: /s}", WAFERMON_SPILL_DIR="/spill").journal.spill_dir == Path("/s")
    assert read(FILES + "journal: {spill_dir: false}").journal.spill_dir is None
    spool = Path("/var/spool/wafermon")
    writable = os.access(spool, os.W_OK | os.X_OK)
    assert read(FILES).journal.spill_dir == (spool if writable else Path(f"/tmp/wafermon-{os.getuid()}"))


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp:0", "tcp:65535:backlog=100", "tcp:port=7411:interface=10.0.0.1", "tcp:7411:10.0.0.1", "tcp6:7411",
        "tcp:7411:interface=fe80\\:\\:1", "unix:/run/w.sock", "unix:w.sock:mode=0660:lockfile=0",
        "unix:/run/a\\:b\\=c", "systemd:domain=INET:index=0", "haproxy:tcp\\:7411",
    ],
)  # fmt: skip
def test_endpoints(endpoint: str) -> None:
    config = read(FILES + f"listen: ['{endpoint}']")
    assert config.ports[0].endpoint == endpoint


def test_the_system_may_choose_several_ports() -> None:
    assert len(read(FILES + "listen: ['tcp:0', 'tcp:0']\nhttp: tcp:0").ports) == 2


# Variables


def test_variables_are_filled_in_after_parsing() -> None:
    config = read(
        """\
http: ${HTTP:-false}
listen: ["tcp:${PORT}:interface=${HOST:-127.0.0.1}"]
limits:
  max_connections: ${COUNT}0
  idle_timeout: "${EMPTY:-2h}"
journal: {dir: "${DIR}/journal"}
backends: {db: {plugin: timescaledb, dsn: "a$b$$c$${d}${EMPTY}${PASSWORD}"}}
""",
        PORT="7000",
        COUNT="50",
        EMPTY="",
        DIR="/data, x: [1]",
        PASSWORD="x: {y}\n${PORT}",
    )
    assert config.http == ()
    assert config.ports[0].endpoint == "tcp:7000:interface=127.0.0.1"
    assert config.limits.max_connections == 500
    assert config.limits.idle_timeout == 7200
    assert config.journal.dir == Path("/data, x: [1]/journal")
    assert config.backends["db"].options.given == {"dsn": "a$b$$c${d}x: {y}\n${PORT}"}


def test_a_variable_in_quotes_is_text() -> None:
    assert faults(FILES + 'limits: {max_connections: "${N}"}', N="5") == [
        "2: limits.max_connections: expected a whole number, got '5'"
    ]


def test_variables_that_are_none() -> None:
    text = FILES + 'http: ${HTTP}\njournal: {dir: "${1X}", sync: "${A-b}"}\nreload: ${OPEN\n'
    wanted = "expected ${NAME} or ${NAME:-default}, or $${ for ${"
    assert faults(text) == [
        "2: http: the variable HTTP is not set; set it, or write ${HTTP:-default}",
        f"3: journal.dir: '${{1X}}' is no variable; {wanted}",
        f"3: journal.sync: '${{A-b}}' is no variable; {wanted}",
        f"4: reload: '${{OPEN' is no variable; {wanted}",
    ]


def test_a_plugin_is_spared_what_has_a_fault_already() -> None:
    assert faults("backends:\n  a:\n    plugin: filesystem\n    path: ${NONE}\n    keep:\n") == [
        "4: backends.a.path: the variable NONE is not set; set it, or write ${NONE:-default}",
        "5: backends.a.keep: has no value; give one, or leave the key out for its default",
    ]


# Faults


def test_all_faults_at_once_in_the_order_of_their_lines() -> None:
    assert faults(
        """\
reload: never
backends:
  db:
    plugin: timescale
    batch: {messages: -1, bytes: 4MB}
  files:
    plugin: filesystem
    paht: /logs
    when_ful: skip
  more: {plugin: timescaledb, dsn: x, pool: {sizes: [-1]}}
routes:
  - match: {service: 4711, levle: error}
    to: [fils]
  - to: [db]
  - to: [files]
journal:
  max_bytes: 100MiB
  sync: allways
jurnal: {}
"""
    ) == [
        "1: reload: expected watch or signal, got 'never'",
        "4: backends.db.plugin: no plugin 'timescale' is installed; did you mean 'timescaledb'? "
        "expected one of broken, filesystem, history, timescaledb",
        "5: backends.db.batch.messages: expected a whole number of at least 0, got -1",
        "5: backends.db.batch.bytes: expected a size such as 64MiB (units KiB MiB GiB; bytes without one), got '4MB'",
        "6: backends.files.path: missing",
        "8: backends.files.paht: unknown key; expected path",
        "9: backends.files.when_ful: unknown key; did you mean 'when_full'?",
        "10: backends.more.pool.sizes[0]: too small",
        "12: routes[0].match.service: expected a glob in quotes or a list of such globs, got 4711",
        "12: routes[0].match.levle: a message can't be matched by this; expected one of service, type, level, host",
        "13: routes[0].to[0]: no backend 'fils'; did you mean 'files'?",
        "15: routes[2]: never reached: the rule in line 14 takes everything; move this one above it",
        "17: journal.max_bytes: 100MiB is under 4 segments of 64MiB; expected at least 256MiB, "
        "or a smaller segment_bytes",
        "18: journal.sync: expected always, interval or never, got 'allways'",
        "19: jurnal: unknown key; did you mean 'journal'?",
    ]


ENDPOINT = "expected an endpoint such as tcp:7411:interface=127.0.0.1 or unix:/run/wafermon/wafermon.sock:mode=660"
SUCH_AS = "such as files: {plugin: filesystem, path: 'wafermon-data/files/{service}/{date}.jsonl'}"
KEYS = (
    "listen, http, journal, limits, correlation, dead_letters, hooks, reload, stop_within, backends, routes, schedules, "
    "alerts"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the whole
        ("", f"1: backends: expected at least one backend, {SUCH_AS}"),
        ("backends: {}", f"1: backends: expected at least one backend, {SUCH_AS}"),
        ("backends: [files]", f"1: backends: expected at least one backend, {SUCH_AS}"),
        ("- backends", "1: expected a mapping of keys such as listen, journal and backends"),
        (FILES + "colour: red", f"2: colour: unknown key; expected one of {KEYS}"),
        (FILES + "journal:\n", "2: journal: has no value; give one, or leave the key out for its default"),
        (FILES + "journal: ~\n", "2: journal: has no value; give one, or leave the key out for its default"),
        (FILES + "journal: 7\n", "2: journal: expected a mapping, got 7"),
        (FILES + "reload: watch\n\nreload: signal\n", "4: reload: given twice; see line 2"),
        (FILES + "[a]: 7\n", "2: a key is a single word"),
        (FILES + "journal: {dir: !!python/name:os.system x}\n",
         "2: journal.dir: the tag tag:yaml.org,2002:python/name:os.system means nothing here; leave it out"),
        # listeners
        (FILES + "listen: tcp:7411", "2: listen: expected a list, got 'tcp:7411'"),
        (FILES + "listen: []", "2: listen: expected at least one endpoint, or leave the key out for its default"),
        (FILES + "listen: [7411]", "2: listen[0]: expected an endpoint, or a mapping with one, got 7411"),
        (FILES + "listen:\n  - tcp:0\n  - tpc:7411", f"4: listen[1]: {ENDPOINT}, got 'tpc:7411'"),
        (FILES + "listen: ['7411']", f"2: listen[0]: {ENDPOINT}, got '7411'"),
        (FILES + "listen: ['10.0.0.1:7411']",
         f"2: listen[0]: {ENDPOINT}, got '10.0.0.1:7411'; did you mean 'tcp:7411:interface=10.0.0.1'?"),
        (FILES + "listen: ['[::1]:7411']",
         f"2: listen[0]: {ENDPOINT}, got '[::1]:7411'; did you mean 'tcp:7411:interface=\\:\\:1'?"),
        (FILES + "listen: ['tcp:99999']", "2: listen[0]: 'tcp:99999': expected 0 to 65535 as port, got '99999'"),
        (FILES + "listen: ['tcp:interface=::1']",
         "2: listen[0]: 'tcp:interface=::1': '1' is out of place; tcp takes port, interface, backlog"),
        (FILES + "listen: ['tcp:interface=localhost']",
         f"2: listen[0]: 'tcp:interface=localhost': the port is missing; {ENDPOINT}"),
        (FILES + "listen: ['unix:/s:mode=999']",
         "2: listen[0]: 'unix:/s:mode=999': expected three octal digits such as 660 as mode, got '999'"),
        (FILES + "listen: [{endpoint: 'tls:1', certificate: c}]",
         "2: listen[0].key: missing; 'tls:1' needs a certificate and a key"),
        (FILES + "listen: [{endpoint: 'tcp:1', client_ca: c}]",
         "2: listen[0].client_ca: only a tls: endpoint takes this, not 'tcp:1'; write tls:PORT there"),
        (FILES + "listen: [{token_file: t}]", "2: listen[0].endpoint: missing; expected an endpoint"),
        (FILES + "listen: ['tcp:7412:interface=127.0.0.1']\nhttp: tcp:7412:interface=127.0.0.1",
         "3: http: listen[0] has this address already; give it another one"),
        (FILES + "http: tcp:7411:interface=127.0.0.1",
         "2: http: listen[0] has this address already; give it another one"),
        (FILES + "listen: [{endpoint: 'tcp:7412:interface=127.0.0.1'}]",
         "2: listen[0]: http has this address already; give it another one"),
        (FILES + "http: true", "2: http: expected an endpoint, false, or a list of endpoints and mappings, got true"),
        (FILES + "http: tls:7412", "2: http: 'tls:7412' needs a certificate and a key: write a list, [{endpoint: tls:7412, certificate: …, key: …}]"),
        (FILES + "http: []", "2: http: expected at least one endpoint; write false for none"),
        (FILES + "http: [{serve: [api]}]", "2: http[0].endpoint: missing; expected an endpoint"),
        (FILES + "http: [{endpoint: 'tcp:7412', serve: []}]",
         "2: http[0].serve: expected at least one of health, metrics, api, page, or leave the key out for all"),
        (FILES + "http: [{endpoint: 'tcp:7412', serve: [healthy]}]",
         "2: http[0].serve[0]: expected health, metrics, api or page, got 'healthy'"),
        (FILES + "http: [{endpoint: 'tcp:7412', hosts: ['http://a.example']}]",
         "2: http[0].hosts[0]: expected a name such as wafermon.example.org, without scheme and port, got 'http://a.example'"),
        (FILES + "http: [{endpoint: 'tcp:7412', key: a.pem}]",
         "2: http[0].key: only a tls: endpoint takes this, not 'tcp:7412'; write tls:PORT there"),
        (FILES + "http: ['tcp:7412', {endpoint: 'tcp:7412:interface=127.0.0.1'}]",
         "2: http[1]: http[0] takes this port on all addresses; give it another one"),
        (FILES + "http: ['tcp:7412', {endpoint: 'tcp:7411:interface=127.0.0.1'}]",
         "2: http[1]: listen[0] has this address already; give it another one"),
        # numbers
        (FILES + "journal: {segment_bytes: 512MiB}",
         "2: journal.max_bytes: 1GiB is under 4 segments of 512MiB; expected at least 2GiB, "
         "or a smaller segment_bytes"),
        (FILES + "journal: {segment_bytes: 0}", "2: journal.segment_bytes: expected 64KiB to 1GiB, got 0"),
        (FILES + "limits: {max_line_bytes: 65535}", "2: limits.max_line_bytes: expected 64KiB to 1MiB, got 65535"),
        (FILES + "limits: {max_line_bytes: 2MiB}", "2: limits.max_line_bytes: expected 64KiB to 1MiB, got 2MiB"),
        (FILES + "limits: {max_connections: 1.5}", "2: limits.max_connections: expected a whole number, got 1.5"),
        (FILES + "limits: {idle_timeout: -5}",
         "2: limits.idle_timeout: expected a time such as 30s (units ms s m h d; seconds without one), got -5"),
        (FILES + "limits: {idle_timeout: true}",
         "2: limits.idle_timeout: expected a time such as 30s (units ms s m h d; seconds without one), got True"),
        (FILES + "journal: {dir: ''}", "2: journal.dir: expected a path, got none"),
        # backends
        ("backends: {Files: {plugin: filesystem, path: x}}",
         "1: backends.Files: expected a name of 1 to 64 of a-z 0-9 _ -"),
        ("backends: {files: filesystem}",
         "1: backends.files: expected a mapping with a plugin and its options, got 'filesystem'"),
        ("backends:\n  files:\n    path: x",
         "2: backends.files.plugin: missing; expected one of broken, filesystem, history, timescaledb"),
        ("backends: {a: {plugin: kafka}}",
         "1: backends.a.plugin: no plugin 'kafka' is installed; expected one of broken, filesystem, history, timescaledb"),
        ("backends: {a: {plugin: broken}}",
         "1: backends.a: the plugin failed to check it: KeyError: 'oops'; report that to its author"),
        ("backends: {a: {plugin: timescaledb, dsn: x, retry: {initial: 0}}}",
         "1: backends.a.retry.initial: can't be 0 here; give a value above it"),
        ("backends: {a: {plugin: timescaledb, dsn: x, retry: {initial: 1m}}}",
         "1: backends.a.retry.max: expected at least as long as initial"),
        ("backends: {a: {plugin: timescaledb, dsn: x, batch: {messages: 0, bytes: 0}}}",
         "1: backends.a.batch.bytes: messages and bytes can't both be without limit; give one of them"),
        ("backends: {a: {plugin: timescaledb, dsn: x, when_full: drop}}",
         "1: backends.a.when_full: expected pause or skip, got 'drop'"),
        # paths
        ("backends:\n  a: {plugin: filesystem, path: '/l/{type}'}\n  b: {plugin: filesystem, path: '/l/b/{date}'}",
         "3: backends.b.path: overlaps with the path of 'a', which begins with /l/; "
         "give each backend a directory of its own"),
        (FILES + "journal: {dir: /data}\ndead_letters: {dir: /data/dead}",
         "3: dead_letters.dir: lies within journal.dir; give it a directory beside that"),
        ("backends: {a: {plugin: filesystem, path: '/data/{service}'}}\njournal: {dir: /x/../data}",
         "1: backends.a.path: lies within journal.dir; give it a directory beside that"),
        # routes
        (FILES + "routes: {to: [files]}", "2: routes: expected a list of rules, got a mapping"),
        (FILES + "routes: [files]", "2: routes[0]: expected a mapping, got 'files'"),
        (FILES + "routes: [{match: {}}]", "2: routes[0].to: missing; expected a list of backends"),
        (FILES + "routes: [{to: files}]", "2: routes[0].to: expected a list of backends, got 'files'"),
        (FILES + "routes: [{to: [db]}]", "2: routes[0].to[0]: no backend 'db'; expected files"),
        (FILES + "routes: [{to: [files], match: {level: loud}}]",
         "2: routes[0].match.level: 'loud' matches no level; the levels are debug, info, warning, error, critical, "
         "compared as in '>=warning'"),
        (FILES + "routes: [{to: [files], math: {}}]", "2: routes[0].math: unknown key; did you mean 'match'?"),
        # hooks
        (FILES + "hooks: {on: [dropped]}", "2: hooks.command: missing; expected a command"),
        (FILES + "hooks: {command: x, on: [job_stalls]}",
         "2: hooks.on[0]: expected job_stalled, gone, job_failed, span_abandoned, dropped, not_started, late, silent, "
         "too_long, too_fast, overlapping, failed or recovered, got 'job_stalls'"),
        (FILES + "hooks: {command: \"x 'y\"}", "2: hooks.command: not a command: no closing quotation"),
        (FILES + "hooks: {command: x, at_most: often}",
         "2: hooks.at_most: expected a rate such as 10/m (units ms s m h d), got 'often'"),
        # schedules
        (FILES + "schedules: [a]", "2: schedules: expected a mapping from names to schedules, got a list"),
        (FILES + "schedules: {a: 3}", "2: schedules.a: expected a mapping with match, and cron or every, got 3"),
        (FILES + "schedules: {'a b': {match: {job: x}, every: 1m}}",
         "2: schedules.a b: expected a name of 1 to 64 of a-z A-Z 0-9 _ - ."),
        (FILES + "schedules: {a: {match: {}, every: 10m}}",
         "2: schedules.a.match: expected at least one of job, service, host"),
        (FILES + "schedules: {a: {match: {jobs: x}, every: 10m}}",
         "2: schedules.a.match.jobs: unknown key; did you mean 'job'?"),
        (FILES + "schedules: {a: {match: {job: 4711}, every: 10m}}",
         "2: schedules.a.match.job: expected a glob in quotes or a list of such globs, got 4711"),
        (FILES + "schedules: {a: {match: {job: x}}}",
         "2: schedules.a.every: missing; expected a time such as 1h, or cron"),
        (FILES + "schedules: {a: {match: {job: x}, cron: '@daily', every: 1m}}",
         "2: schedules.a.every: can't stand beside cron; give one of the two"),
        (FILES + "schedules: {a: {match: {job: x}, every: 0}}",
         "2: schedules.a.every: can't be 0 here; give a value above it"),
        (FILES + "schedules: {a: {match: {service: x}, every: 1m, at_most: 3h}}",
         "2: schedules.a.at_most: only jobs have this; give match.job, or leave it out and give every"),
        (FILES + "schedules: {a: {match: {job: x}, every: 1m, timezone: Europe/Berlin}}",
         "2: schedules.a.timezone: only cron takes this, not every"),
        (FILES + "schedules: {a: {match: {job: x}, cron: '@daily', timezone: Europa/Berlin}}",
         "2: schedules.a.timezone: no time zone 'Europa/Berlin' is known here; expected one such as Europe/Berlin, or UTC"),
        (FILES + "schedules: {a: {match: {job: x}, cron: '* * * * * *'}}",
         "2: schedules.a.cron: expected five fields (minute, hour, day of the month, month, day of the week), got 6"),
        (FILES + "schedules: {a: {match: {job: x}, cron: '0 24 * * *'}}",
         "2: schedules.a.cron: '0 24 * * *': its hour can't be"),
        (FILES + "schedules: {a: {match: {job: x}, cron: '@daily', at_least: 5m, at_most: 5m}}",
         "2: schedules.a.at_most: expected more than at_least"),
        (FILES + "schedules: {a: {match: {job: x}, cron: '@daily', failures: 0}}",
         "2: schedules.a.failures: expected a whole number of at least 1, got 0"),
        # YAML
        ("a:\n\tb: 1", "2: not YAML: found character '\\t' that cannot start any token; indent with spaces"),
        ("a: [1\nb: 2", "2: not YAML: expected ',' or ']', but got ':' (while parsing a flow sequence of line 1)"),
        ("level: >=warning", "1: not YAML: expected chomping or indentation indicators, but found '=' (while scanning "
         "a block scalar of line 1); put a text that begins with > or | in quotes"),
        ("service: *x", "1: not YAML: found undefined alias 'x'; put a text that begins with * in quotes"),
        ("{path: {service}{date}}", "1: not YAML: expected ',' or '}', but got '{' (while parsing a flow mapping of "
         "line 1); put a text with braces in quotes"),
        ("a: 1\n---\nb: 2",
         "2: not YAML: expected a single document in the stream, but found another document; leave one"),
        (b"a: 1\nb: \xff", "2: not UTF-8: byte 0xff; save the file as UTF-8"),
        ("a: 1\nb: \x01", "2: not YAML: a control character; remove it"),
    ],
)  # fmt: skip
def test_faults(text: str, expected: str) -> None:
    assert faults(text) == [expected]


def test_a_config_can_not_nest_without_end() -> None:
    deep = "nested deeper than a config has any use for; nest at most 32 deep"
    assert faults("[" * 5000) == [f"1: {deep}"]
    assert faults(FILES + f"journal: {'[' * 40}{']' * 40}") == [
        f"2: journal{'[0]' * 32}: {deep}",
        "2: journal: expected a mapping, got a list",
    ]
    assert faults(FILES + "journal: &j {dir: *j}")[0].endswith(deep)


def test_aliases_can_not_repeat_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.config.source._NODES", 20_000)
    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert any(fault.endswith("aliases repeat too much; write less") for fault in faults(laughs))


@pytest.mark.parametrize("text", ["backends: {files: {plugin: filesystem, path: x}}", "backends: 3", "a: ["])
@pytest.mark.parametrize("collects", [True, False])
def test_a_check_leaves_the_search_for_cycles_as_it_was(text: str, collects: bool) -> None:
    was_on = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with contextlib.suppress(ConfigError):
            read(text)
        assert gc.isenabled() == collects
    finally:
        (gc.enable if was_on else gc.disable)()


def test_values_may_be_shared_by_aliases() -> None:
    config = read(
        "backends:\n"
        "  a: {plugin: timescaledb, dsn: x, batch: &b {messages: 7}}\n"
        "  c: {plugin: timescaledb, dsn: y, batch: *b}\n"
    )
    assert config.backends["a"].batch == config.backends["c"].batch == BatchLimits(messages=7)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    for path, why in [(tmp_path, "Is a directory"), (tmp_path / "none.yaml", "No such file or directory")]:
        with pytest.raises(ConfigError) as caught:
            load(path, plugins=PLUGINS, environ={})
        assert str(caught.value) == f"{path}: can't be read: {why}; name a readable YAML file"


def test_a_file_is_named_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("\ufeff" + FILES.replace("\n", "\r\n") + "reload: never\r\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}:2: reload: expected watch or signal, got 'never'$"):
        load(path, plugins=PLUGINS, environ={})
    path.write_text(FILES)
    assert load(path, plugins=PLUGINS, environ={}) == read(FILES)


@given(st.text("abeghilnorst:-{}[]*&!|>'\"%@#,? \n\t$7~", max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    for content in (text, FILES + text, FILES + f"journal: {{dir: {text}}}"):
        try:
            read(content)
        except ConfigError as error:
            assert error.faults
            assert all(fault.problem and "\n" not in str(fault) for fault in error.faults)


# Units


@given(st.integers(0, 2**62))
def test_sizes_read_back(size: int) -> None:
    assert parse_size(size) == parse_size(str(size)) == parse_size(format_size(size)) == size


@given(st.integers(0, 2**30), st.sampled_from(list(SIZE_UNITS.items())))
def test_sizes_have_units(count: int, unit: tuple[str, int]) -> None:
    assert parse_size(f"{count}{unit[0]}") == parse_size(f"{count} {unit[0]}") == count * unit[1]


@given(st.integers(0, 10**12))
def test_times_read_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(seconds) == parse_duration(format_duration(seconds)) == seconds
    assert parse_duration(f"{milliseconds}ms") == seconds


@given(st.integers(0, 36_500), st.sampled_from(list(TIME_UNITS.items())))
def test_times_have_units(count: int, unit: tuple[str, Any]) -> None:
    assert parse_duration(f"{count}{unit[0]}") == float(count * unit[1])


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_rates_read_back(count: int, milliseconds: int) -> None:
    rate = Rate(count, milliseconds / 1000) if count else Rate(0, 1.0)
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize(
    ("text", "rate"), [("10/m", (10, 60)), ("3 / 24h", (3, 86_400)), ("1/0.5s", (1, 0.5)), (0, (0, 1))]
)
def test_rates(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == Rate(*rate)


def test_parts_of_units() -> None:
    assert parse_size("1.5GiB") == 3 << 29
    assert parse_duration("1.5h") == 5400.0
    assert parse_duration("0.1s") == 0.1


@pytest.mark.parametrize(
    "value",
    ["", "x", "1KB", "1kib", "-1", "1 0", "1_000", "0x10", "1e3", "١", " 1", "1ms", "0.3", "9" * 40, True, -1, 0.5,
     float("nan"), float("inf"), None, [1]],
)  # fmt: skip
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(ValueError):
        parse_size(value)


@pytest.mark.parametrize(
    "value", ["", "x", "1M", "-1s", "1h30m", "1 minute", "1KiB", "99999d", True, -1, float("nan"), float("inf"), None]
)
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError):
        parse_duration(value)


@pytest.mark.parametrize(
    "value", ["", "10", "10/", "/m", "10/0s", "-1/m", "1.5/m", "1/.5s", "10/KiB", 10, True, False, None]
)
def test_what_is_no_rate(value: Any) -> None:
    with pytest.raises(ValueError):
        parse_rate(value)


# The manual


def test_the_manual_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    assert page.read_text() == document(find_plugins().factories, find_channels()), (
        "python -m wafermon.config.document > docs/configuration.md"
    )
    assert default_text() in document(find_plugins().factories, find_channels())


def test_every_example_of_the_manual_loads() -> None:
    examples = re.findall(
        r"^```yaml\n(.*?)^```$", document(find_plugins().factories, find_channels()), re.DOTALL | re.MULTILINE
    )
    assert len(examples) == 4
    assert read(examples[0]) == load(None, plugins=PLUGINS, environ={})
    larger = read(examples[1], DB_HOST="db1")
    assert larger.backends["db"].options.given == {"dsn": "postgresql://wafermon@db1/wafermon"}
    assert list(read(FILES + examples[2]).schedules) == ["nightly-load", "intake"]
    both = "backends:\n  db: {plugin: timescaledb, dsn: x}\n  files: {plugin: filesystem, path: x}\n"
    assert [rule.to for rule in read(both + examples[3]).routes] == [("db", "files"), ("files",), (), ("db", "files")]


# YAML as people write it


@pytest.mark.parametrize("word", ["off", "no", "Off", "none"])
def test_http_is_switched_off_by_false_alone(word: str) -> None:
    assert faults(FILES + f"http: {word}") == [f"2: http: '{word}' is text here; write false for none"]


def test_merge_keys_are_refused_in_words() -> None:
    text = (
        "backends:\n  a: &a {plugin: filesystem, path: '/l/{service}.jsonl'}\n  b: {<<: *a, path: '/m/{service}.jsonl'}"
    )
    assert "3: backends.b.<<: merge keys are not taken; write the keys out" in faults(text)


def test_twenty_thousand_rules_are_read() -> None:
    rules = "".join(f"  - {{match: {{service: s{number}}}, to: [files]}}\n" for number in range(20_000))
    assert len(read(f"{FILES}routes:\n{rules}").routes) == 20_000


@pytest.mark.parametrize(
    "text", ["{a: " * 5000, "- " * 5000, "\n".join(" " * n + "a:" for n in range(1500)), "[\n" * 100_000]
)
def test_what_nests_deeply_is_a_fault_and_no_crash(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize("text", [
    FILES, "backends:\n  # comment\n  a:\n    plugin: filesystem\n    path: '/l/{service}.jsonl'\n", "a: [1, 'two', \"three\", ~, {b: c}]", "a: |\n  text\nb: >\n  more",
])  # fmt: skip
def test_both_parsers_say_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from wafermon.config import source

    quick = source.read(text.encode(), "x", {})
    monkeypatch.setattr("yaml.__with_libyaml__", False)
    assert source.read(text.encode(), "x", {}) == quick


def test_schedules() -> None:
    """Those of the operator's contract, and what they are without the keys that have a default."""
    config = read(
        FILES
        + """
schedules:
  nightly-load: {match: {job: "load-*", service: nightly}, cron: "30 2 * * MON-FRI", timezone: Europe/Berlin, start_grace: 5m, early: 5m, at_least: 10m, at_most: 3h, silent: 15m, runs: 1, failures: 1}
  intake: {match: {service: file-receiver}, every: 10m, start_grace: 2m, per_host: false}
  hourly: {match: {job: [a, b]}, cron: "@hourly"}
"""
    )
    assert list(config.schedules) == ["nightly-load", "intake", "hourly"]
    nightly, intake, hourly = config.schedules.values()
    assert (nightly.match.job, nightly.match.service, nightly.cron) == (("load-*",), ("nightly",), "30 2 * * MON-FRI")
    assert (nightly.start_grace, nightly.early, nightly.at_least, nightly.at_most) == (300, 300, 600, 10_800)
    assert (intake.every, intake.start_grace, intake.of_jobs) == (600, 120, False)
    assert (hourly.match.job, hourly.cron, hourly.timezone, hourly.of_jobs) == (("a", "b"), "0 * * * *", "UTC", True)
    assert (hourly.early, hourly.runs, hourly.failures, hourly.silent) == (60, 1, 1, 0)
