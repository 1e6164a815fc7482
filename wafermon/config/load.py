"""A config file -> a checked, frozen Config, or every fault of it at once."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wafermon.config import addresses, paths
from wafermon.config.config import Config
from wafermon.config.sections import check_section
from wafermon.config.source import Source, read
from wafermon.interfaces import IBackendFactory, IChannelFactory, configure
from wafermon.model.alerts import AlertConfig, AlertKeys
from wafermon.model.checking import Path as KeyPath
from wafermon.model.checking import did_you_mean, shown
from wafermon.model.errors import ConfigError
from wafermon.model.schedules import NAME as SCHEDULE_NAME
from wafermon.model.schedules import Schedule
from wafermon.model.settings import (
    BackendConfig,
    BackendKeys,
    BatchLimits,
    KafkaListener,
    RouteKeys,
    Settings,
)
from wafermon.routing import Rule, only_apart, parse_match

DEFAULT = "default.yaml"
SPOOL = "/var/spool/wafermon"
BACKEND_NAME = re.compile(r"[a-z0-9_-]{1,64}")
Plugins = Mapping[str, IBackendFactory]
Channels = Mapping[str, IChannelFactory]
_NONE: Channels = MappingProxyType({})


def load(path: Path | None, *, plugins: Plugins, environ: Mapping[str, str], channels: Channels = _NONE) -> Config:
    """Read and check a config; None is the default one that comes with wafermon.

    `plugins` are the known kinds of backend by name, `channels` those of channel; `environ` fills in ``${VAR}``. No other file is opened.
    Raises ConfigError with all faults, in the order of the file's lines.
    """
    if path is None:
        return check(default_text().encode(), DEFAULT, plugins, environ, channels)
    try:
        data = path.read_bytes()
    except OSError as error:
        source = Source(str(path))
        source.fault((), f"can't be read: {error.strerror or error}; name a readable YAML file")
        raise ConfigError(source.faults) from None
    return check(data, str(path), plugins, environ, channels)


def default_text() -> str:
    """The default config, with its comments."""
    return resources.files("wafermon.config").joinpath(DEFAULT).read_text(encoding="utf-8")


def check(data: bytes, file: str, plugins: Plugins, environ: Mapping[str, str], channels: Channels = _NONE) -> Config:
    """As `load`, for the content of a file of that name."""
    with _no_collection():
        return _check(data, file, plugins, environ, channels)


@contextmanager
def _no_collection() -> Iterator[None]:
    """No search for cycles meanwhile: a large file makes a million objects and no cycle among them, and the searches take twice
    the time of the rest."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check(data: bytes, file: str, plugins: Plugins, environ: Mapping[str, str], channels: Channels) -> Config:
    source = read(data, file, environ)
    if source.faults and not source.value:
        raise ConfigError(source.faults)
    backends = _backends(source, plugins)
    routes = _routes(source, list(backends))
    _compare_types(source, routes, backends, plugins)
    schedules = _schedules(source)
    alerts = _alerts(source, channels)
    alone = {key: value for key, value in source.value.items() if key not in Settings.further_keys}
    settings = check_section(source, Settings, _with_places(alone, environ), ())
    _compare_endpoints(source)
    _compare_sources(source, settings)
    _compare_paths(source, settings, backends)
    if source.faults or not settings:
        raise ConfigError(sorted(source.faults, key=lambda fault: fault.line))
    checked = {name: backend for name, backend in backends.items() if backend}
    return Config.model_construct(
        **dict(settings),
        backends=MappingProxyType(checked),
        schedules=MappingProxyType(schedules),
        alerts=MappingProxyType({name: alert for name, alert in alerts.items() if alert}),
        routes=tuple(filter(None, routes)),
    )


def _with_places(given: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """What is given, with the defaults that depend on the machine or on another key."""
    journal, dead_letters = given.get("journal", {}), given.get("dead_letters", {})
    if not isinstance(journal, dict):
        return given
    given = {**given, "journal": {"spill_dir": _spill_dir(environ), **journal}}
    if isinstance(dead_letters, dict) and isinstance(journal.get("dir"), str):
        beside = os.path.normpath(os.path.join(journal["dir"], "..", "dead-letters"))
        given["dead_letters"] = {"dir": beside, **dead_letters}
    return given


def _spill_dir(environ: Mapping[str, str]) -> str:
    """Where the SDKs of this user spill."""
    if given := environ.get("WAFERMON_SPILL_DIR"):
        return given
    return SPOOL if os.access(SPOOL, os.W_OK | os.X_OK) else f"/tmp/wafermon-{os.getuid()}"


def _backends(source: Source, plugins: Plugins) -> dict[str, BackendConfig | None]:
    """The backends by name; None where one has faults."""
    given = source.value.get("backends", {})
    if not isinstance(given, dict) or not given:
        source.fault(("backends",), f"expected at least one backend, such as {_SUCH_AS}")
        return {}
    for name in given:
        if not BACKEND_NAME.fullmatch(name):
            source.fault(("backends", name), "expected a name of 1 to 64 of a-z 0-9 _ -")
    return {name: _backend(source, name, value, plugins) for name, value in given.items()}


_SUCH_AS = "files: {plugin: filesystem, path: 'wafermon-data/files/{service}/{date}.jsonl'}"


def _backend(source: Source, name: str, given: Any, plugins: Plugins) -> BackendConfig | None:
    path: KeyPath = ("backends", name)
    if not isinstance(given, dict):
        source.fault(path, f"expected a mapping with a plugin and its options, got {shown(given)}")
        return None
    known = len(source.faults)
    common = {key: value for key, value in given.items() if key in BackendKeys.model_fields}
    plugin, options = common.get("plugin"), None
    if "plugin" not in given:
        source.fault((*path, "plugin"), f"missing; expected one of {', '.join(sorted(plugins))}")
    own_batch = getattr(plugins.get(plugin), "batch", None) if isinstance(plugin, str) else None
    if isinstance(own_batch, BatchLimits) and isinstance(common.get("batch", {}), dict):
        common["batch"] = {**own_batch.model_dump(), **common.get("batch", {})}
    keys = check_section(source, BackendKeys, common, path)
    if isinstance(plugin, str) and plugin in plugins:
        own = {key: value for key, value in given.items() if key not in common and value is not None}
        options = _configure(source, path, plugins[plugin], own)
    elif isinstance(plugin, str) and plugin:
        source.fault((*path, "plugin"), _unknown_plugin(plugin, plugins))
    if keys is None or len(source.faults) > known:
        return None
    return BackendConfig.model_construct(**dict(keys), name=name, options=options)


def _unknown_plugin(plugin: str, plugins: Plugins) -> str:
    hint = f" {did_you_mean(plugin, plugins)}" if get_close_matches(plugin, plugins) else ""
    return f"no plugin {plugin!r} is installed;{hint} expected one of {', '.join(sorted(plugins))}"


def _configure(
    source: Source, path: KeyPath, factory: IBackendFactory | IChannelFactory, options: dict[str, Any]
) -> Any:
    """What the plugin makes of its own keys."""
    try:
        return configure(factory, options)
    except ConfigError as error:
        for fault in error.faults:
            source.fault((*path, *_steps(fault.path)), _common_key_meant(fault.path, fault.problem) or fault.problem)
    except Exception as error:  # noqa: BLE001  # a third party's code: its defect must not hide the other faults
        source.fault(path, f"the plugin failed to check it: {type(error).__name__}: {error}; report that to its author")
    return None


def _common_key_meant(key: str, problem: str) -> str:
    """A plugin does not know the keys that every backend takes, so their misspellings end up there."""
    close = get_close_matches(key, BackendKeys.model_fields, n=1, cutoff=0.8)
    return f"unknown key; did you mean {close[0]!r}?" if close and problem.startswith("unknown") else ""


def _steps(path: str) -> KeyPath:
    """``a.b[0]`` -> ("a", "b", 0)"""
    return tuple(int(index) if index else key for key, index in re.findall(r"([^.\[\]]+)|\[([0-9]+)\]", path))


def _alerts(source: Source, channels: Channels) -> dict[str, AlertConfig | None]:
    """The channels by name; None where one has faults."""
    given = source.value.get("alerts", {})
    if not isinstance(given, dict):
        source.fault(("alerts",), f"expected a mapping from names to channels, got {shown(given)}")
        return {}
    for name in given:
        if not BACKEND_NAME.fullmatch(name):
            source.fault(("alerts", name), "expected a name of 1 to 64 of a-z 0-9 _ -")
    return {name: _alert(source, name, value, channels) for name, value in given.items()}


def _alert(source: Source, name: str, given: Any, channels: Channels) -> AlertConfig | None:
    path: KeyPath = ("alerts", name)
    if not isinstance(given, dict):
        source.fault(path, f"expected a mapping with a plugin and its options, got {shown(given)}")
        return None
    known = len(source.faults)
    common = {key: value for key, value in given.items() if key in AlertKeys.model_fields}
    plugin, options = common.get("plugin"), None
    keys = check_section(source, AlertKeys, common, path)
    if isinstance(plugin, str) and plugin in channels:
        own = {key: value for key, value in given.items() if key not in common and value is not None}
        options = _configure(source, path, channels[plugin], own)
        problem = getattr(channels[plugin], "check", lambda _: "")(options) if options is not None else ""
        if problem:
            source.fault(path, problem)
    elif isinstance(plugin, str) and plugin:
        hint = f" {did_you_mean(plugin, channels)}" if get_close_matches(plugin, channels) else ""
        known_ones = ", ".join(sorted(channels))
        source.fault((*path, "plugin"), f"no channel {plugin!r} is installed;{hint} expected one of {known_ones}")
    if keys is None or len(source.faults) > known:
        return None
    return AlertConfig.model_construct(**dict(keys), name=name, options=options)


def _routes(source: Source, backends: list[str]) -> list[Rule | None]:
    given = source.value.get("routes", [{"to": backends}])
    if not isinstance(given, list):
        source.fault(("routes",), f"expected a list of rules, got {shown(given)}")
        return []
    rules = [_rule(source, value, ("routes", index), backends) for index, value in enumerate(given)]
    first = next((index for index, rule in enumerate(rules) if rule and rule.catches_all), len(rules))
    for index in range(first + 1, len(rules)):
        rule = rules[index]
        if rule is not None and only_apart(rule):
            continue
        line = source.line(("routes", first))
        source.fault(
            ("routes", index), f"never reached: the rule in line {line} takes everything; move this one above it"
        )
    return rules


def _compare_types(
    source: Source, routes: list[Rule | None], backends: Mapping[str, BackendConfig | None], plugins: Plugins
) -> None:
    """What a rule names, its backends must have a place for. A factory's `without`, if it has one, are the types for which
    it has none."""
    for index, rule in enumerate(routes):
        for place, name in enumerate(rule.to if rule is not None else ()):
            backend = backends.get(name)
            factory = plugins.get(backend.plugin) if backend is not None else None
            for kind in getattr(factory, "without", ()):
                if rule is not None and kind in rule.type:
                    problem = f"{name!r} has no place for messages of type {kind}; send them to another backend"
                    source.fault(("routes", index, "to", place), problem)


def _rule(source: Source, given: Any, path: KeyPath, backends: list[str]) -> Rule | None:
    keys = check_section(source, RouteKeys, given, path)
    for index, name in enumerate(keys.to if keys else ()):
        if name not in backends and backends:
            source.fault((*path, "to", index), f"no backend {name!r}; {did_you_mean(name, backends)}")
    match = source.at((*path, "match"))
    try:
        conditions = parse_match(match if isinstance(match, dict) else {})
    except ConfigError as error:
        for fault in error.faults:
            source.fault((*path, "match", fault.path), fault.problem)
        return None
    return Rule(keys.to, **conditions) if keys else None


def _schedules(source: Source) -> dict[str, Schedule]:
    """The schedules by name, without those that have faults."""
    given = source.value.get("schedules", {})
    if not isinstance(given, dict):
        source.fault(("schedules",), f"expected a mapping from names to schedules, got {shown(given)}")
        return {}
    found = {}
    for name, value in given.items():
        if not SCHEDULE_NAME.fullmatch(name):
            source.fault(("schedules", name), "expected a name of 1 to 64 of a-z A-Z 0-9 _ - .")
        if not isinstance(value, dict):
            source.fault(("schedules", name), f"expected a mapping with match, and cron or every, got {shown(value)}")
            continue
        schedule = check_section(source, Schedule, value, ("schedules", name))
        if schedule is not None:
            found[name] = schedule
    return found


def _compare_endpoints(source: Source) -> None:
    """Two listeners can't have one address, unless the system chooses their ports."""
    default = Settings()
    listen = source.value.get("listen", [listener.endpoint for listener in default.ports])
    http = source.value.get("http", default.http[0].endpoint)
    listeners = [(("listen", index), given) for index, given in enumerate(listen if isinstance(listen, list) else [])]
    served: list[tuple[KeyPath, Any]] = [(("http",), http)]
    if isinstance(http, list):
        served = [(("http", index), given) for index, given in enumerate(http)]
    # A fault shows a line that is there.
    endpoints: list[tuple[KeyPath, Any]] = [*listeners, *served] if "http" in source.value else [*served, *listeners]
    for path, problem in addresses.meetings(
        (path, given.get("endpoint", given.get("otlp")) if isinstance(given, dict) else given)
        for path, given in endpoints
        if not (isinstance(given, dict) and "kafka" in given)
    ):
        source.fault(path, problem)


def _compare_sources(source: Source, settings: Settings | None) -> None:
    """A partition has one reader in a journal."""
    entries = [
        (index, entry.kafka)
        for index, entry in enumerate(settings.listen if settings else ())
        if isinstance(entry, KafkaListener)
    ]
    for number, (index, one) in enumerate(entries):
        for before, other in entries[:number]:
            if one.overlaps(other):
                problem = f"reads partitions that listen[{before}] reads as well; name those of each, or leave one out"
                source.fault(("listen", index, "kafka"), problem)


def _compare_paths(source: Source, settings: Settings | None, backends: Mapping[str, BackendConfig | None]) -> None:
    directories: dict[KeyPath, str] = {}
    if settings is not None:
        directories = {
            ("journal", "dir"): str(settings.journal.dir),
            ("dead_letters", "dir"): str(settings.dead_letters.dir),
        }
        if settings.journal.spill_dir is not None:
            directories["journal", "spill_dir"] = str(settings.journal.spill_dir)
    options = {name: backend.options for name, backend in backends.items() if backend}
    for path, problem in paths.meetings(directories, options):
        source.fault(path, problem)
