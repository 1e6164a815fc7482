"""The tables: made and brought up to date by numbered SQL files, by whichever sidecar comes first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import psycopg2

from wafermon.backends.timescaledb.connection import Session
from wafermon.backends.timescaledb.options import TimescaleOptions

LOCK = 0x77616665726D6F6E
"""The advisory lock that schema work is done under, the same in every sidecar: "wafermon" in ASCII."""
SECONDS = 3600.0
"""How long schema work may take: an index on a large table, say."""
HYPERTABLES = ("events", "metrics", "progress", "resources", "span_starts", "spans")


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All of them, in order."""
    found = sorted(
        (entry for entry in files(__package__).iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name
    )
    return [Migration(int(entry.name.partition("_")[0]), entry.name, entry.read_text("utf-8")) for entry in found]


async def upgrade(session: Session, schema: str) -> list[str]:
    """Bring the tables up to date; answers with the files that were run. Where they are, nothing is locked, and no more
    rights are needed than to read and insert."""
    wanted = migrations()
    if await _version(session, schema) >= wanted[-1].version:
        return []
    await _begin(session)
    version = await _version(session, schema)
    todo = [migration for migration in wanted if migration.version > version]
    if version == 0:
        if schema != "public":
            await session.query(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        await session.query(
            f"CREATE TABLE {schema}.schema_versions (version integer PRIMARY KEY, name text NOT NULL,"
            " applied timestamptz NOT NULL DEFAULT now())"
        )
    for migration in todo:
        await session.query(migration.sql, seconds=SECONDS)
        await session.query(
            f"INSERT INTO {schema}.schema_versions (version, name) VALUES (%s, %s)", (migration.version, migration.name)
        )
    await session.query("COMMIT")
    return [migration.name for migration in todo]


async def _begin(session: Session) -> None:
    """A transaction that holds the lock. Where it fails, the caller closes the session, which rolls it back."""
    await session.query("BEGIN")
    await session.query(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {int(SECONDS * 1000)}")
    await session.query("SELECT pg_advisory_xact_lock(%s)", (LOCK,), seconds=SECONDS)


async def _version(session: Session, schema: str) -> int:
    # Not `to_regclass`: what that has looked for in vain, it does not see when another sidecar has just made it.
    there = await session.query(
        "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'schema_versions'",
        (schema,),
    )
    if not there:
        return 0
    [(version,)] = await session.query(f"SELECT coalesce(max(version), 0) FROM {schema}.schema_versions")
    return int(version)


async def arrange(session: Session, options: TimescaleOptions) -> str:
    """With the timescaledb extension: hypertables and their policies, as far as its build has them. Answers with what
    the operator should know of that; empty where all is as the config has it."""
    found = await session.query("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
    if not found:
        wishes = [key for key in ("keep", "compress_after") if getattr(options, key)]
        effect = "has no effect" if len(wishes) == 1 else "have no effect"
        return f"without the timescaledb extension {' and '.join(wishes)} {effect}" if wishes else ""
    await _begin(session)
    refused: list[str] = []
    for statement in hypertables(options):
        await session.query("SAVEPOINT arrange")
        try:
            await session.query(statement, seconds=SECONDS)
        except psycopg2.Error as error:
            if session.closed:
                raise
            refused.append((error.diag.message_primary or str(error)).strip())
            await session.query("ROLLBACK TO arrange")
    await session.query("COMMIT")
    if not refused:
        return ""
    return f"TimescaleDB {found[0][0]} does not do all that the config asks for: {'; '.join(dict.fromkeys(refused))}"


async def failing(session: Session, schema: str) -> str:
    """What of TimescaleDB's own work on the tables fails, for the operator; empty where nothing does."""
    [(known,)] = await session.query("SELECT to_regclass('timescaledb_information.job_stats') IS NOT NULL")
    return told(await session.query(FAILING, (schema,))) if known else ""


FAILING = """
    SELECT coalesce(j.hypertable_name, 'traces'), j.proc_name, s.total_failures
    FROM timescaledb_information.job_stats AS s JOIN timescaledb_information.jobs AS j USING (job_id)
    WHERE coalesce(j.hypertable_schema, j.proc_schema) = %s AND s.last_run_status = 'Failed'
    ORDER BY 1, 2
"""
"""The jobs of the tables in one schema whose last run failed; only where TimescaleDB is."""


def told(failed: Iterable[tuple[Any, ...]]) -> str:
    """Rows of `FAILING` in words."""
    jobs = ", ".join(f"{name} of {table} ({count} times)" for table, name, count in failed)
    advice = "see timescaledb_information.job_errors and the server's log"
    return f"TimescaleDB's own work fails: {jobs}; {advice}" if jobs else ""


async def catch_up(session: Session, sidecar: str, backend: str) -> None:
    """Make `jobs` whole: what this sidecar wrote in an older version, which did not keep them, is added."""
    await _begin(session)
    await session.query("SELECT refresh_jobs()", seconds=SECONDS)
    await session.query(
        "UPDATE deliveries SET keeps_jobs = true WHERE sidecar = %s AND backend = %s", (sidecar, backend)
    )
    await session.query("COMMIT")


def hypertables(options: TimescaleOptions) -> Iterator[str]:
    """The statements that make the tables what the config says. Each may be run again and again."""
    schema = options.schema_name
    for table in HYPERTABLES:
        name = f"{schema}.{table}"
        chunk = _interval(options.chunk)
        # BRIN is of no use for chunks that are compressed or small; and an index on time alone keeps TimescaleDB from making
        # its own. Looked up first, since even where there is nothing to do both statements would lock out the writers.
        yield (
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_indexes"
            f" WHERE schemaname = '{schema}' AND indexname = '{table}_latest') THEN"
            f" DROP INDEX IF EXISTS {schema}.{table}_time; CREATE INDEX {table}_latest ON {name} (time DESC); END IF; END $$"
        )
        yield (
            f"SELECT create_hypertable('{name}', 'time', chunk_time_interval => {chunk},"
            " if_not_exists => true, migrate_data => true)"
        )
        yield f"SELECT set_chunk_time_interval('{name}', {chunk})"
        if options.keep:
            yield _policy(schema, table, "retention", "drop_after", options.keep)
        if options.compress_after:
            # What is set can't be set again once there are compressed chunks.
            yield (
                "DO $$ BEGIN IF NOT (SELECT compression_enabled FROM timescaledb_information.hypertables"
                f" WHERE hypertable_schema = '{schema}' AND hypertable_name = '{table}') THEN"
                f" ALTER TABLE {name} SET (timescaledb.compress, timescaledb.compress_segmentby = 'service',"
                " timescaledb.compress_orderby = 'time'); END IF; END $$"
            )
            yield _policy(schema, table, "compression", "compress_after", options.compress_after)
    if options.keep:
        ours = f"timescaledb_information.jobs WHERE proc_schema = '{schema}' AND proc_name = 'forget_summaries'"
        keep = _interval(options.keep)
        yield f"SELECT delete_job(job_id) FROM {ours} AND (config ->> 'keep')::interval IS DISTINCT FROM {keep}"
        yield (
            f"SELECT add_job('{schema}.forget_summaries', interval '1 day', config => jsonb_build_object('keep', {keep}))"
            f" WHERE NOT EXISTS (SELECT FROM {ours})"
        )


def _policy(schema: str, table: str, kind: str, key: str, seconds: float) -> str:
    """Adding a policy does not change the interval of one that is there, and one that is made anew has no past: whether its last run
    failed would be forgotten at each start."""
    name = f"{schema}.{table}"
    return (
        f"SELECT remove_{kind}_policy('{name}', if_exists => true), add_{kind}_policy('{name}', {_interval(seconds)})"
        f" WHERE NOT EXISTS (SELECT FROM timescaledb_information.jobs WHERE hypertable_schema = '{schema}'"
        f" AND hypertable_name = '{table}' AND proc_name = 'policy_{kind}'"
        f" AND (config ->> '{key}')::interval = {_interval(seconds)})"
    )


def _interval(seconds: float) -> str:
    return f"interval '{seconds} seconds'"
