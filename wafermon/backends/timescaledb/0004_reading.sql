-- Answers in milliseconds, whatever the size: the state of each job is kept, and what goes over many rows takes a range
-- of time as constants, so that the planner leaves out what lies beyond it.

-- The latest of each job, kept by the statement that stores its progress. `first` and `last` are NULL where only a
-- `stalled` has come: its progress goes elsewhere.
CREATE TABLE job_states (
    job_id      text NOT NULL,
    trace_id    text,
    first       timestamptz,
    last        timestamptz,
    last_seq    bigint,                         -- of the latest progress, or 0
    percent     double precision,
    service     text,
    status      text,                           -- the latest that there was
    status_time timestamptz,
    status_seq  bigint,
    messages    bigint NOT NULL DEFAULT 0,
    stalled     timestamptz                     -- when the sidecar last said so
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX job_states_job ON job_states (job_id, coalesce(trace_id, ''));
CREATE INDEX job_states_trace ON job_states (trace_id);
CREATE INDEX job_states_last ON job_states (last DESC);
COMMENT ON TABLE job_states IS 'The latest of each job; read by the view `jobs`';

-- Whether the sidecar keeps them: one of an older version does not, and what it wrote is added at its first new start.
ALTER TABLE deliveries ADD COLUMN keeps_jobs boolean NOT NULL DEFAULT false;

DO $migration$
DECLARE
    own text := quote_ident(current_schema());
    of_table text;
    statement text;
BEGIN
    -- An index by time that is BRIN. With `autosummarize` the server writes the statement that it comes with, which is a
    -- whole batch, into its log; a vacuum summarizes as well, and is made to come often. With TimescaleDB it goes: a
    -- sidecar's start makes the one that is wanted there.
    FOREACH of_table IN ARRAY ARRAY['events', 'metrics', 'progress', 'resources', 'span_starts', 'spans'] LOOP
        IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
            EXECUTE format('DROP INDEX IF EXISTS %s.%I', own, of_table || '_time');
        ELSE
            EXECUTE format('ALTER INDEX IF EXISTS %s.%I SET (autosummarize = off)', own, of_table || '_time');
            EXECUTE format(
                'ALTER TABLE %s.%I SET (autovacuum_vacuum_insert_scale_factor = 0,'
                ' autovacuum_vacuum_insert_threshold = 100000)', own, of_table
            );
        END IF;
    END LOOP;

    FOREACH statement IN ARRAY ARRAY[
    -- The jobs as `progress` and `events` have them, all of them again. Sidecars wait while it runs.
    $sql$
    CREATE FUNCTION @.refresh_jobs() RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        refreshed bigint;
    BEGIN
        LOCK TABLE @.job_states IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO @.job_states AS j (
            job_id, trace_id, first, last, last_seq, percent, service, status, status_time, status_seq, messages, stalled
        )
        SELECT job_id, trace_id, first, last, last_seq, percent, service, status, status_time, status_seq, messages, (
            SELECT max(e.time) FROM @.events AS e
            WHERE e.trace_id = p.trace_id AND e.service = 'wafermon' AND e.context ->> 'kind' = 'job_stalled'
            AND e.context ->> 'job_id' = p.job_id AND e.time > p.last
        )
        FROM (
            SELECT job_id, trace_id, min(time) AS first, max(time) AS last,
                (array_agg(coalesce(seq, 0) ORDER BY time DESC, coalesce(seq, 0) DESC))[1] AS last_seq,
                (array_agg(percent ORDER BY time DESC, coalesce(seq, 0) DESC))[1] AS percent,
                (array_agg(service ORDER BY time DESC, coalesce(seq, 0) DESC))[1] AS service,
                (array_agg(status ORDER BY time DESC, coalesce(seq, 0) DESC) FILTER (WHERE status IS NOT NULL))[1] AS status,
                max(time) FILTER (WHERE status IS NOT NULL) AS status_time,
                (array_agg(coalesce(seq, 0) ORDER BY time DESC, coalesce(seq, 0) DESC)
                    FILTER (WHERE status IS NOT NULL))[1] AS status_seq,
                count(*) AS messages
            FROM @.progress GROUP BY job_id, trace_id
        ) AS p
        ON CONFLICT (job_id, (coalesce(trace_id, ''))) DO UPDATE SET
            first = excluded.first, last = excluded.last, last_seq = excluded.last_seq, percent = excluded.percent,
            service = excluded.service, status = excluded.status, status_time = excluded.status_time,
            status_seq = excluded.status_seq, messages = excluded.messages, stalled = excluded.stalled;
        GET DIAGNOSTICS refreshed = ROW_COUNT;
        RETURN refreshed;
    END
    $$
    $sql$,

    -- The latest progress of each job. `stalled`: the sidecar has reported so, and nothing came since.
    $sql$
    CREATE OR REPLACE VIEW @.jobs AS
        SELECT job_id, trace_id, percent, status, service, first, last AS last_progress, messages,
            coalesce(status, '') NOT IN ('done', 'failed', 'cancelled') AND coalesce(stalled > last, false) AS stalled
        FROM @.job_states WHERE last IS NOT NULL
    $sql$,

    -- Warnings and worse, by hour.
    $sql$
    CREATE FUNCTION @.error_counts_between(since timestamptz, until timestamptz)
    RETURNS TABLE (hour timestamptz, service text, level text, count bigint, latest text) LANGUAGE sql STABLE AS $$
        SELECT date_trunc('hour', e.time), e.service, e.level, count(*), (array_agg(e.message ORDER BY e.time DESC))[1]
        FROM @.events AS e
        WHERE e.level IN ('warning', 'error', 'critical') AND e.time >= since AND e.time < until
        GROUP BY 1, e.service, e.level
    $$
    $sql$,
    $sql$
    CREATE OR REPLACE VIEW @.error_counts AS SELECT * FROM @.error_counts_between('-infinity', 'infinity')
    $sql$,

    -- By minute and service. `cpu` is percent of one core, of all its processes together; `mem` is bytes, likewise.
    $sql$
    CREATE FUNCTION @.resource_use_between(since timestamptz, until timestamptz)
    RETURNS TABLE (
        minute timestamptz, service text, processes bigint, cpu double precision, mem double precision,
        largest double precision
    ) LANGUAGE sql STABLE AS $$
        SELECT p.minute, p.service, count(*), sum(p.cpu), sum(p.mem), max(p.mem)
        FROM (
            SELECT date_trunc('minute', r.time) AS minute, r.service, avg(r.cpu) AS cpu, max(r.mem) AS mem
            FROM @.resources AS r WHERE r.time >= since AND r.time < until
            GROUP BY 1, r.service, r.host, r.pid
        ) AS p
        GROUP BY p.minute, p.service
    $$
    $sql$,
    $sql$
    CREATE OR REPLACE VIEW @.resource_use AS SELECT * FROM @.resource_use_between('-infinity', 'infinity')
    $sql$,

    -- Where the time goes, by service and name of the spans that ended: seconds.
    $sql$
    CREATE FUNCTION @.slow_spans_between(since timestamptz, until timestamptz)
    RETURNS TABLE (
        service text, name text, calls bigint, failed bigint, total double precision, mean double precision,
        median double precision, p95 double precision, longest double precision, longest_trace text
    ) LANGUAGE sql STABLE AS $$
        SELECT s.service, s.name, count(*), count(*) FILTER (WHERE s.status = 'error'), sum(s.duration), avg(s.duration),
            percentile_cont(0.5) WITHIN GROUP (ORDER BY s.duration),
            percentile_cont(0.95) WITHIN GROUP (ORDER BY s.duration), max(s.duration),
            (array_agg(s.trace_id ORDER BY s.duration DESC))[1]
        FROM @.spans AS s WHERE s.time >= since AND s.time < until GROUP BY s.service, s.name
    $$
    $sql$,
    $sql$
    CREATE OR REPLACE VIEW @.slow_spans AS SELECT * FROM @.slow_spans_between('-infinity', 'infinity')
    $sql$,

    -- Spans of a stretch of time: `time` is when they ended, or began where they have not ended in it; then `duration`
    -- (seconds) and `status` are NULL, or the status is `abandoned`.
    $sql$
    CREATE FUNCTION @.spans_between(since timestamptz, until timestamptz)
    RETURNS TABLE (
        trace_id text, span_id text, parent_id text, name text, service text, host text, pid bigint, start timestamptz,
        duration double precision, status text, tags jsonb, "time" timestamptz
    ) LANGUAGE sql STABLE AS $$
        SELECT d.trace_id, d.span_id, d.parent_id, d.name, d.service, d.host, d.pid, d.start, d.duration, d.status, d.tags,
            d.time
        FROM @.spans AS d WHERE d.time >= since AND d.time < until
        UNION ALL
        SELECT s.trace_id, s.span_id, s.parent_id, s.name, s.service, s.host, s.pid, s.time, NULL,
            CASE WHEN EXISTS (
                SELECT FROM @.events AS e WHERE e.trace_id = s.trace_id AND e.service = 'wafermon'
                AND e.context ->> 'kind' = 'span_abandoned' AND e.context ->> 'span_id' = s.span_id
                AND e.time >= since AND e.time < until
            ) THEN 'abandoned' END, s.tags, s.time
        FROM @.span_starts AS s
        WHERE s.time >= since AND s.time < until AND NOT EXISTS (
            SELECT FROM @.spans AS e WHERE e.trace_id = s.trace_id AND e.span_id = s.span_id
            AND e.time >= since AND e.time < until
        )
    $$
    $sql$,
    $sql$
    CREATE OR REPLACE VIEW @.all_spans AS SELECT * FROM @.spans_between('-infinity', 'infinity')
    $sql$,

    -- Whether what the sidecar counted of a trace is here: `missing` is above 0 where a route sends a part of it
    -- elsewhere, or where a part was dropped by its age. What was counted lies between `first` and `last`.
    $sql$
    CREATE OR REPLACE VIEW @.completeness AS
        SELECT t.trace_id, t.status, t.part, t.first, t.last, t.services, t.errors, announced.count AS announced,
            stored.count AS stored, announced.count - stored.count AS missing, open.count AS open_spans
        FROM @.traces AS t
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(value::bigint), 0)::bigint AS count FROM jsonb_each_text(t.counts)
            WHERE key NOT LIKE 'level.%'
        ) AS announced
        CROSS JOIN LATERAL (
            SELECT count(*) AS count FROM @.timeline AS l
            WHERE l.trace_id = t.trace_id AND l.time BETWEEN t.first AND t.last AND l.service <> 'wafermon'
        ) AS stored
        CROSS JOIN LATERAL (
            SELECT count(*) AS count FROM @.span_starts AS s
            WHERE s.trace_id = t.trace_id AND s.time BETWEEN t.first AND t.last AND NOT EXISTS (
                SELECT FROM @.spans AS e
                WHERE e.trace_id = t.trace_id AND e.time BETWEEN t.first AND t.last AND e.span_id = s.span_id
            )
        ) AS open
    $sql$,

    -- What `keep` does for the tables that are no hypertables: a job of TimescaleDB, with {"keep": "90 days"}.
    $sql$
    CREATE PROCEDURE @.forget_summaries(job_id integer, config jsonb) LANGUAGE plpgsql AS $$
    DECLARE
        oldest timestamptz := now() - (config ->> 'keep')::interval;
    BEGIN
        DELETE FROM @.traces AS t WHERE greatest(t.last, t.time) < oldest;
        DELETE FROM @.job_states AS j WHERE greatest(j.last, j.stalled) < oldest;
    END
    $$
    $sql$,

    -- Where TimescaleDB does not drop what is old: SELECT forget('90 days'), once a day by cron. Answers with the number
    -- of rows.
    $sql$
    CREATE OR REPLACE FUNCTION @.forget(older_than interval) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        of_table text;
        forgotten bigint;
        total bigint := 0;
    BEGIN
        FOREACH of_table IN ARRAY ARRAY['events', 'metrics', 'progress', 'resources', 'span_starts', 'spans', 'traces'] LOOP
            EXECUTE format('DELETE FROM @.%I WHERE time < now() - $1', of_table) USING older_than;
            GET DIAGNOSTICS forgotten = ROW_COUNT;
            total := total + forgotten;
        END LOOP;
        DELETE FROM @.job_states AS j WHERE greatest(j.last, j.stalled) < now() - older_than;
        RETURN total;
    END
    $$
    $sql$
    ] LOOP
        EXECUTE replace(statement, '@.', own || '.');
    END LOOP;
    EXECUTE 'SELECT ' || own || '.refresh_jobs()';
END
$migration$;
