-- What people ask. A view is read like a table; a condition on `trace_id` reaches the indexes below it.

-- Everything of a trace in order: SELECT * FROM timeline WHERE trace_id = 'job-4711' ORDER BY time, seq
CREATE VIEW timeline AS
    SELECT time, trace_id, service, host, pid, 'event' AS type, level, message AS text, context AS detail, span_id,
        client, seq FROM events
    UNION ALL
    SELECT time, trace_id, service, host, pid, 'metric', NULL, concat_ws(' ', name, '=', value, unit), tags, span_id,
        client, seq FROM metrics
    UNION ALL
    SELECT time, trace_id, service, host, pid, 'progress', NULL, concat_ws(' ', job_id, percent, '%', status), NULL,
        span_id, client, seq FROM progress
    UNION ALL
    SELECT time, trace_id, service, host, pid, 'resource', NULL,
        concat_ws(', ', 'cpu ' || cpu || ' %', 'mem ' || mem, 'disk ' || disk, 'net ' || net), NULL, span_id,
        client, seq FROM resources
    UNION ALL
    SELECT time, trace_id, service, host, pid, 'span_start', NULL, name, tags, span_id, client, seq FROM span_starts
    UNION ALL
    SELECT time, trace_id, service, host, pid, 'span_end', CASE status WHEN 'error' THEN 'error' END,
        concat_ws(' ', name, status, 'after', duration, 's'), tags, span_id, client, seq FROM spans;

-- Spans that have ended, and those that only began: `duration` (seconds) and `status` are NULL while they are open.
CREATE VIEW all_spans AS
    SELECT trace_id, span_id, parent_id, name, service, host, pid, start, duration, status, tags FROM spans
    UNION ALL
    SELECT trace_id, span_id, parent_id, name, service, host, pid, time, NULL,
        CASE WHEN EXISTS (
            SELECT FROM events AS e WHERE e.trace_id = s.trace_id AND e.service = 'wafermon'
            AND e.context ->> 'kind' = 'span_abandoned' AND e.context ->> 'span_id' = s.span_id
        ) THEN 'abandoned' END, tags
    FROM span_starts AS s
    WHERE NOT EXISTS (SELECT FROM spans AS e WHERE e.trace_id = s.trace_id AND e.span_id = s.span_id);

-- The latest progress of each job. `stalled`: the sidecar has reported so, and nothing came since.
CREATE VIEW jobs AS
    SELECT job_id, trace_id, percent, status, service, first, last_progress, messages,
        coalesce(status, '') NOT IN ('done', 'failed', 'cancelled') AND EXISTS (
            SELECT FROM events AS e WHERE e.trace_id = j.trace_id AND e.service = 'wafermon'
            AND e.context ->> 'kind' = 'job_stalled' AND e.context ->> 'job_id' = j.job_id AND e.time > j.last_progress
        ) AS stalled
    FROM (
        SELECT job_id, trace_id, min(time) AS first, max(time) AS last_progress, count(*) AS messages,
            (array_agg(percent ORDER BY time DESC, seq DESC))[1] AS percent,
            (array_agg(status ORDER BY time DESC, seq DESC) FILTER (WHERE status IS NOT NULL))[1] AS status,
            (array_agg(service ORDER BY time DESC, seq DESC))[1] AS service
        FROM progress GROUP BY job_id, trace_id
    ) AS j;

-- Warnings and worse, by hour.
CREATE VIEW error_counts AS
    SELECT date_trunc('hour', time) AS hour, service, level, count(*) AS count,
        (array_agg(message ORDER BY time DESC))[1] AS latest
    FROM events WHERE level IN ('warning', 'error', 'critical') GROUP BY hour, service, level;

-- By minute and service. `cpu` is percent of one core, of all its processes together; `mem` is bytes, likewise.
CREATE VIEW resource_use AS
    SELECT minute, service, count(*) AS processes, sum(cpu) AS cpu, sum(mem) AS mem, max(mem) AS largest
    FROM (
        SELECT date_trunc('minute', time) AS minute, service, host, pid, avg(cpu) AS cpu, max(mem) AS mem
        FROM resources GROUP BY minute, service, host, pid
    ) AS each_process
    GROUP BY minute, service;

-- Where the time goes, by service and name of the span: seconds.
CREATE VIEW slow_spans AS
    SELECT service, name, count(*) AS calls, count(*) FILTER (WHERE status = 'error') AS failed, sum(duration) AS total,
        avg(duration) AS mean, percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) AS median,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY duration) AS p95, max(duration) AS longest,
        (array_agg(trace_id ORDER BY duration DESC))[1] AS longest_trace
    FROM spans GROUP BY service, name;

-- Whether what the sidecar counted of a trace is here: `missing` is above 0 where a route sends a part of it elsewhere,
-- or where a part was dropped by its age.
CREATE VIEW completeness AS
    SELECT t.trace_id, t.status, t.part, t.first, t.last, t.services, t.errors, announced.count AS announced,
        stored.count AS stored, announced.count - stored.count AS missing, open.count AS open_spans
    FROM traces AS t
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(value::bigint), 0)::bigint AS count FROM jsonb_each_text(t.counts) WHERE key NOT LIKE 'level.%'
    ) AS announced
    CROSS JOIN LATERAL (
        SELECT count(*) AS count FROM timeline AS l WHERE l.trace_id = t.trace_id AND l.service <> 'wafermon'
    ) AS stored
    CROSS JOIN LATERAL (
        SELECT count(*) AS count FROM all_spans AS s
        WHERE s.trace_id = t.trace_id AND s.duration IS NULL
    ) AS open;
