"""The backend's own keys of a config, checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

from wafermon.model.errors import ConfigError, Fault
from wafermon.model.units import parse_duration

DSN = "postgresql://wafermon@localhost/wafermon"
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Options:
    """What the config says."""

    dsn: Mapping[str, str]
    """libpq's parameters by name."""
    password_file: Path | None = None
    """Read at each connect, so that a password may change while the sidecar runs."""
    schema: str = "public"
    keep: float = 0.0
    """Seconds after which TimescaleDB drops rows; 0 never."""
    compress_after: float = 0.0
    """Seconds after which TimescaleDB compresses rows; 0 never."""
    chunk: float = 86_400.0
    """How much time one chunk of a hypertable holds, in seconds."""
    timeout: float = 30.0
    """Seconds after which a statement without an answer is given up, by the server and by the sidecar."""

    @property
    def connect_seconds(self) -> float:
        """libpq ignores its `connect_timeout` for connections that do not block: it is kept here."""
        return float(self.dsn.get("connect_timeout", 0)) or CONNECT_SECONDS

    @property
    def target(self) -> str:
        """Where it connects to, for people; without a password."""
        known = self.dsn
        place = known.get("host") or known.get("hostaddr") or known.get("service") or "the local socket"
        port = f":{known['port']}" if "port" in known else ""
        return f"{known.get('dbname', 'the default database')} at {place}{port}"


def check(options: Mapping[str, Any]) -> Options:
    """Raises ConfigError with every fault."""
    faults: list[Fault] = []
    checked: dict[str, Any] = {}
    for key, value in options.items():
        if key not in _READERS:
            near = get_close_matches(str(key), _READERS, 1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(_READERS)}"
            faults.append(Fault(str(key), f"unknown key; {meant}"))
            continue
        try:
            checked[key] = _READERS[key](value)
        except ValueError as error:
            faults.append(Fault(key, str(error)))
    if "dsn" not in options:
        faults.append(Fault("dsn", f"missing; for example {DSN}"))
    if "password_file" in checked and "password" in checked.get("dsn", {}):
        faults.append(Fault("password_file", "the dsn has a password already; give one of them"))
    if 0 < checked.get("keep", 0.0) <= checked.get("compress_after", 0.0):
        faults.append(Fault("compress_after", "expected less than keep: nothing would be left to compress"))
    if faults:
        raise ConfigError(faults)
    passfile = checked.pop("passfile", None)
    if passfile is not None:
        checked["dsn"] = {**checked["dsn"], "passfile": str(passfile)}
    return Options(**checked)


def _dsn(value: Any) -> dict[str, str]:
    wanted = f"expected a connection string such as {DSN}"
    if not isinstance(value, str) or not value.strip():
        raise ValueError(wanted)
    try:
        known: dict[str, str] = parse_dsn(value)
    except ProgrammingError as error:
        raise ValueError(f"{wanted}: {' '.join(str(error).split())}") from None
    if not known.get("connect_timeout", "0").isdecimal():
        raise ValueError("connect_timeout: expected whole seconds")
    return known


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a path")
    return Path(value)


def _schema(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value) or value.startswith("pg_"):
        raise ValueError("expected a schema's name of a-z 0-9 _")
    return value


def _above_zero(value: Any) -> float:
    seconds = parse_duration(value)
    if not seconds:
        raise ValueError("can't be 0 here; give a time above it")
    return seconds


_READERS: dict[str, Callable[[Any], Any]] = {
    "dsn": _dsn, "password_file": _path, "passfile": _path, "schema": _schema, "keep": parse_duration,
    "compress_after": parse_duration, "chunk": _above_zero, "timeout": _above_zero,
}  # fmt: skip
