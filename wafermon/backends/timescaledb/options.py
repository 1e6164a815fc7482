"""The backend's own keys of a config, checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn
from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, field_validator

from wafermon.interfaces import Duration, FilePath, Kind, Options

DSN = "postgresql://wafermon@localhost/wafermon"
CONNECT_SECONDS = 10.0


def _dsn(value: Any) -> Mapping[str, str]:
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


def _schema(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value) or value.startswith("pg_"):
        raise ValueError("expected a schema's name of a-z 0-9 _")
    return value


def _above_zero(value: float) -> float:
    if not value:
        raise ValueError("can't be 0 here; give a time above it")
    return value


class TimescaleOptions(Options):
    """Messages as rows of PostgreSQL, with TimescaleDB's hypertables where the server has them."""

    dsn: Annotated[Mapping[str, str], PlainValidator(_dsn), Kind("a connection string")] = Field(
        description="Where it connects to: libpq's connection string or URL. It may name several hosts.", examples=[DSN]
    )
    password_file: FilePath | None = Field(
        default=None, description="Read at each connect, so that a password may change while the sidecar runs."
    )
    passfile: FilePath | None = Field(default=None, description="libpq's password file, instead of `~/.pgpass`.")
    schema_name: Annotated[str, PlainValidator(_schema), Kind("a name")] = Field(
        default="public", alias="schema", description="The schema of the tables."
    )
    keep: Duration = Field(
        default=0.0, description="After this time TimescaleDB drops rows, summaries of traces and jobs too; 0 never."
    )
    compress_after: Duration = Field(
        default=0.0, description="After this time TimescaleDB compresses rows; 0 never. Less than `keep`."
    )
    chunk: Annotated[Duration, AfterValidator(_above_zero)] = Field(
        default=7 * 86_400.0, description="How much time one chunk of a hypertable holds."
    )

    @field_validator("password_file")
    @classmethod
    def _one_password(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and "password" in info.data.get("dsn", {}):
            raise ValueError("the dsn has a password already; give one of them")
        return value

    @field_validator("compress_after")
    @classmethod
    def _before_it_goes(cls, value: float, info: ValidationInfo) -> float:
        if 0 < info.data.get("keep", 0.0) <= value:
            raise ValueError("expected less than keep: nothing would be left to compress")
        return value

    @property
    def parameters(self) -> Mapping[str, str]:
        """libpq's parameters by name."""
        return {**self.dsn, "passfile": str(self.passfile)} if self.passfile is not None else self.dsn

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
