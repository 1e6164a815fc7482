"""What a config says once its defaults are filled in, as plain values in the words of the file, and where two of them differ. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from wafermon.config.document import default_of
from wafermon.config.source import read
from wafermon.interfaces import IBackendFactory
from wafermon.model.describe import declared, keys
from wafermon.model.settings import BackendKeys, Section, Settings
from wafermon.model.units import parse_duration, parse_size

_PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/@\s]+(@)|(\bpassword\s*=\s*)('[^']*'|\S+)")
_SECRET = re.compile(r"(^|_)(password|secret|token|key)$")
HIDDEN = "(hidden)"
ABSENT = "(not there)"


class _Unexpanded(dict[str, str]):
    """An environment in which each variable stands for itself, so that no secret of it is shown."""

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]

    def __contains__(self, name: object) -> bool:
        return True


def effective(data: bytes, plugins: Mapping[str, IBackendFactory]) -> dict[str, Any]:
    """A file's content that `check` takes -> all its values, with the defaults of what it leaves out. Variables stay as they are
    written, without their defaults; passwords are hidden."""
    given = read(data, "", _Unexpanded()).value
    found = _filled(Settings, {key: value for key, value in given.items() if key not in ("backends", "routes")})
    found["backends"] = {
        name: _backend(value, plugins) for name, value in given.get("backends", {}).items() if isinstance(value, dict)
    }
    found["routes"] = given.get("routes", [{"to": list(found["backends"])}])
    return dict(_without_secrets(found))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where two of these differ: (path, value, value); a value that is not there is `ABSENT`. A mapping that only one has is one
    difference."""
    return list(_differences(one, other, ""))


def _differences(one: Mapping[str, Any], other: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any, Any]]:
    for key in [*one, *(key for key in other if key not in one)]:
        first, second = one.get(key, ABSENT), other.get(key, ABSENT)
        at = f"{path}.{key}".removeprefix(".")
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from _differences(first, second, at)
        elif not _same(first, second):
            yield at, first, second


def _same(one: Any, other: Any) -> bool:
    """Whether two values say the same: `24h` is `1d`."""
    if one == other and isinstance(one, bool) is isinstance(other, bool):
        return True
    if any(isinstance(value, bool) or not isinstance(value, (str, int, float)) for value in (one, other)):
        return False
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            if parse(one) == parse(other):
                return True
    return False


def _backend(given: Mapping[str, Any], plugins: Mapping[str, IBackendFactory]) -> dict[str, Any]:
    factory = plugins.get(str(given.get("plugin")))
    own = getattr(factory, "batch", None)
    batch = dict(given.get("batch", {}))
    found = _filled(BackendKeys, {key: value for key, value in given.items() if key in keys(BackendKeys)})
    if isinstance(own, Section):
        found["batch"] = {**found["batch"], **_written(own), **batch}
    options: type[Section] | None = getattr(factory, "options", None)
    rest = {key: value for key, value in given.items() if key not in keys(BackendKeys)}
    return {**found, **(_filled(options, rest) if options else rest)}


def _written(section: Section) -> dict[str, Any]:
    """A section's values as a config would write them."""
    made = type(section)
    text = {key: default_of(made, key, getattr(section, key)) for key in keys(made)}
    return {key: _plain(value) for key, value in text.items()}


def _filled(section: type[Section], given: Any) -> dict[str, Any]:
    """A mapping in the order of its section, with defaults."""
    if not isinstance(given, dict):
        return {}
    found: dict[str, Any] = {}
    for key, info in keys(section).items():
        inner = declared(section, key)
        bare = inner if isinstance(inner, type) else None
        if bare is not None and issubclass(bare, Section):
            found[key] = _filled(bare, given.get(key, {}))
        elif key in given:
            found[key] = given[key]
        elif key == "listen" or key == "http":
            ends = [str(getattr(entry, "endpoint", entry)) for entry in info.default or ()]
            found[key] = ends if key == "listen" else ends[0]
        elif (default := default_of(section, key)) not in ("required", "none", ""):
            found[key] = _plain(default)
    return found | {key: value for key, value in given.items() if key not in found}


def _plain(text: str) -> Any:
    """A default in Markdown, or its description, as a plain value."""
    if not re.fullmatch(r"`[^`]*`", text):
        return f"({text})".replace("`", "")
    return read(f"v: {text[1:-1]}".encode(), "", {}).value.get("v", text[1:-1])


def _without_secrets(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(inner, key) for inner in value]
    if not isinstance(value, str) or value.startswith("${"):
        return value
    if _SECRET.search(key) and key != "key":
        return HIDDEN
    return _PASSWORD.sub(lambda found: f"{found[1] or found[3]}{HIDDEN}{found[2] or ''}", value)
