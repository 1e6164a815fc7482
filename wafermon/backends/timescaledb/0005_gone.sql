-- Jobs whose program ended without a word: what the sidecar said of it last is kept beside `stalled`.
ALTER TABLE job_states ADD COLUMN gone timestamptz;

DO $migration$
DECLARE
    own text := quote_ident(current_schema());
    statement text;
BEGIN
    FOREACH statement IN ARRAY ARRAY[
    $sql$
    CREATE OR REPLACE FUNCTION @.refresh_jobs() RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        refreshed bigint;
    BEGIN
        LOCK TABLE @.job_states IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO @.job_states AS j (
            job_id, trace_id, first, last, last_seq, percent, service, status, status_time, status_seq, messages, stalled, gone
        )
        SELECT p.*, said.stalled, said.gone
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
        CROSS JOIN LATERAL (
            SELECT max(e.time) FILTER (WHERE e.context ->> 'kind' = 'job_stalled') AS stalled,
                max(e.time) FILTER (WHERE e.context ->> 'kind' = 'gone') AS gone
            FROM @.events AS e
            WHERE e.trace_id = p.trace_id AND e.service = 'wafermon' AND e.context ->> 'job_id' = p.job_id
            AND e.context ->> 'kind' IN ('job_stalled', 'gone') AND e.time > p.last
        ) AS said
        ON CONFLICT (job_id, (coalesce(trace_id, ''))) DO UPDATE SET
            first = excluded.first, last = excluded.last, last_seq = excluded.last_seq, percent = excluded.percent,
            service = excluded.service, status = excluded.status, status_time = excluded.status_time,
            status_seq = excluded.status_seq, messages = excluded.messages, stalled = excluded.stalled, gone = excluded.gone;
        GET DIAGNOSTICS refreshed = ROW_COUNT;
        RETURN refreshed;
    END
    $$
    $sql$,

    -- The latest progress of each job. `stalled` and `gone`: the sidecar has reported so, and nothing came since.
    $sql$
    CREATE OR REPLACE VIEW @.jobs AS
        SELECT job_id, trace_id, percent, status, service, first, last AS last_progress, messages,
            coalesce(status, '') NOT IN ('done', 'failed', 'cancelled') AND coalesce(stalled > last, false)
                AND NOT coalesce(gone > last, false) AS stalled,
            coalesce(status, '') NOT IN ('done', 'failed', 'cancelled') AND coalesce(gone > last, false) AS gone
        FROM @.job_states WHERE last IS NOT NULL
    $sql$
    ] LOOP
        EXECUTE replace(statement, '@.', own || '.');
    END LOOP;
    EXECUTE 'SELECT ' || own || '.refresh_jobs()';
END
$migration$;
