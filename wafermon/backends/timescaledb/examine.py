"""Whether the database can be used, for `wafermon doctor`. Blocks; reads only."""

from __future__ import annotations

from typing import Any

import psycopg2

from wafermon.backends.timescaledb.connection import OLDEST
from wafermon.backends.timescaledb.options import TimescaleOptions
from wafermon.backends.timescaledb.schema import FAILING, told


def problems(options: TimescaleOptions) -> list[str]:
    """What is wrong, each with what to do; none where it can be used."""
    parameters: dict[str, Any] = {"connect_timeout": round(options.connect_seconds) or 1, **options.parameters}
    try:
        if options.password_file is not None:
            parameters["password"] = options.password_file.read_text().rstrip("\r\n")
        connection = psycopg2.connect(**parameters)
    except OSError as error:
        return [f"password_file can't be read: {error}; name a file that the sidecar's user can read"]
    except psycopg2.Error as error:
        return [f"can't connect to {options.target}: {' '.join(str(error).split())}; see docs/backends/timescaledb.md"]
    try:
        if connection.server_version < OLDEST:
            return ["the server is older than PostgreSQL 13; upgrade it"]
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            [replica] = cursor.fetchone()
            if replica:
                return ["the server is a replica, which can't be written to; name the primary in the dsn"]
            cursor.execute("SELECT to_regclass('timescaledb_information.job_stats') IS NOT NULL")
            if cursor.fetchone() != (True,):
                return []
            cursor.execute(FAILING, (options.schema_name,))
            trouble = told(cursor.fetchall())
            return [trouble] if trouble else []
    except psycopg2.Error as error:
        return [f"can't be asked: {' '.join(str(error).split())}"]
    finally:
        connection.close()
