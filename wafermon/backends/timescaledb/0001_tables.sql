-- One table for each type of message, and the cursors of the sidecars. Migrations only ever add: an older sidecar goes
-- on working beside a newer one.

CREATE TABLE deliveries (
    sidecar   text NOT NULL,
    backend   text NOT NULL,
    position  text,                             -- journal:segment:offset; everything before it is in the tables
    writer    text NOT NULL,                    -- the connection that may move it
    messages  bigint NOT NULL DEFAULT 0,
    moved     timestamptz,
    PRIMARY KEY (sidecar, backend)
) WITH (fillfactor = 50);
COMMENT ON TABLE deliveries IS 'How far each sidecar has delivered; moved in the transaction that stores the rows';

CREATE TABLE events (
    time       timestamptz NOT NULL,
    service    text NOT NULL,
    host       text,
    pid        bigint,
    trace_id   text,
    span_id    text,
    client     text,
    seq        bigint,
    truncated  boolean,
    level      text NOT NULL,
    message    text NOT NULL,
    context    jsonb
);

CREATE TABLE metrics (
    time       timestamptz NOT NULL,
    service    text NOT NULL,
    host       text,
    pid        bigint,
    trace_id   text,
    span_id    text,
    client     text,
    seq        bigint,
    truncated  boolean,
    name       text NOT NULL,
    value      double precision NOT NULL,
    unit       text,
    kind       text NOT NULL,                   -- gauge or counter
    tags       jsonb
);

CREATE TABLE progress (
    time       timestamptz NOT NULL,
    service    text NOT NULL,
    host       text,
    pid        bigint,
    trace_id   text,
    span_id    text,
    client     text,
    seq        bigint,
    truncated  boolean,
    job_id     text NOT NULL,
    percent    double precision NOT NULL,
    status     text
);

CREATE TABLE resources (
    time       timestamptz NOT NULL,
    service    text NOT NULL,
    host       text,
    pid        bigint,
    trace_id   text,
    span_id    text,
    client     text,
    seq        bigint,
    truncated  boolean,
    cpu        double precision,                -- percent of one core
    mem        double precision,                -- bytes
    disk       double precision,                -- bytes since the process began
    net        double precision                 -- bytes since the process began
);

-- A span that began; once it has ended, `spans` has the whole of it.
CREATE TABLE span_starts (
    time       timestamptz NOT NULL,
    service    text NOT NULL,
    host       text,
    pid        bigint,
    trace_id   text NOT NULL,
    span_id    text NOT NULL,
    client     text,
    seq        bigint,
    truncated  boolean,
    name       text NOT NULL,
    parent_id  text,
    tags       jsonb
);

CREATE TABLE spans (
    time       timestamptz NOT NULL,            -- when it ended
    service    text NOT NULL,
    host       text,
    pid        bigint,
    trace_id   text NOT NULL,
    span_id    text NOT NULL,
    client     text,
    seq        bigint,
    truncated  boolean,
    name       text NOT NULL,
    parent_id  text,
    status     text NOT NULL,                   -- ok or error
    start      timestamptz NOT NULL,
    duration   double precision NOT NULL,       -- seconds
    tags       jsonb
);

-- One row a trace, summed up over its parts.
CREATE TABLE traces (
    time       timestamptz NOT NULL,            -- when its latest part was summed up
    service    text NOT NULL,                   -- wafermon: the sidecar itself says so
    client     text,                            -- the sidecar's journal
    seq        bigint,
    trace_id   text PRIMARY KEY,
    first      timestamptz NOT NULL,
    last       timestamptz NOT NULL,
    services   text[] NOT NULL,
    counts     jsonb NOT NULL,                  -- messages by type, and events by level
    errors     bigint NOT NULL,
    status     text NOT NULL,                   -- done, failed, cancelled, idle
    part       bigint NOT NULL                  -- the latest
);
CREATE INDEX traces_last ON traces (last);

-- By time: BRIN, which costs next to nothing where rows come in order of time. (TimescaleDB makes its own.)
CREATE INDEX events_time ON events USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX metrics_time ON metrics USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX progress_time ON progress USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX resources_time ON resources USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX span_starts_time ON span_starts USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX spans_time ON spans USING brin (time) WITH (pages_per_range = 32, autosummarize = on);

-- By what people look for.
CREATE INDEX events_trace ON events (trace_id, time) WHERE trace_id IS NOT NULL;
CREATE INDEX events_trouble ON events (time) WHERE level IN ('warning', 'error', 'critical');
CREATE INDEX metrics_trace ON metrics (trace_id, time) WHERE trace_id IS NOT NULL;
CREATE INDEX metrics_name ON metrics (name, time);
CREATE INDEX progress_job ON progress (job_id, time);
CREATE INDEX progress_trace ON progress (trace_id, time) WHERE trace_id IS NOT NULL;
CREATE INDEX resources_service ON resources (service, time);
CREATE INDEX resources_trace ON resources (trace_id, time) WHERE trace_id IS NOT NULL;
CREATE INDEX span_starts_trace ON span_starts (trace_id, span_id);
CREATE INDEX spans_trace ON spans (trace_id, span_id);
CREATE INDEX spans_name ON spans (service, name, time);

-- How the parts of a trace are added up.
CREATE FUNCTION add_services(text[], text[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(service ORDER BY place)
    FROM (SELECT service, min(place) AS place
          FROM unnest($1 || $2) WITH ORDINALITY AS given (service, place) GROUP BY service) AS distinct_ones
$$;

CREATE FUNCTION add_counts(jsonb, jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(key, count), '{}')
    FROM (SELECT key, sum(value::bigint) AS count
          FROM (SELECT * FROM jsonb_each_text($1) UNION ALL SELECT * FROM jsonb_each_text($2)) AS given
          GROUP BY key) AS added
$$;

-- A failure stays one, whatever comes after it; `idle` only says that nothing came any more.
CREATE FUNCTION add_status(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT status FROM unnest(ARRAY['failed', 'cancelled', 'done', 'idle']) WITH ORDINALITY AS known (status, place)
    WHERE status IN ($1, $2) ORDER BY place LIMIT 1
$$;

CREATE AGGREGATE sum_services(text[]) (sfunc = add_services, stype = text[], initcond = '{}');
CREATE AGGREGATE sum_counts(jsonb) (sfunc = add_counts, stype = jsonb, initcond = '{}');
CREATE AGGREGATE sum_status(text) (sfunc = add_status, stype = text, initcond = 'idle');
