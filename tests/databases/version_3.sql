-- A database as version 3 of the tables wrote it: pg_dump --inserts of the tests' story, a stalled job and a cursor.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE FUNCTION public.add_counts(jsonb, jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $_$
    SELECT coalesce(jsonb_object_agg(key, count), '{}')
    FROM (SELECT key, sum(value::bigint) AS count
          FROM (SELECT * FROM jsonb_each_text($1) UNION ALL SELECT * FROM jsonb_each_text($2)) AS given
          GROUP BY key) AS added
$_$;
CREATE FUNCTION public.add_services(text[], text[]) RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS $_$
    SELECT array_agg(service ORDER BY place)
    FROM (SELECT service, min(place) AS place
          FROM unnest($1 || $2) WITH ORDINALITY AS given (service, place) GROUP BY service) AS distinct_ones
$_$;
CREATE FUNCTION public.add_status(text, text) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $_$
    SELECT status FROM unnest(ARRAY['failed', 'cancelled', 'done', 'idle']) WITH ORDINALITY AS known (status, place)
    WHERE status IN ($1, $2) ORDER BY place LIMIT 1
$_$;
CREATE FUNCTION public.forget(older_than interval) RETURNS bigint
    LANGUAGE plpgsql
    AS $_$
DECLARE
    of_table text;
    forgotten bigint;
    total bigint := 0;
BEGIN
    FOREACH of_table IN ARRAY ARRAY['events', 'metrics', 'progress', 'resources', 'span_starts', 'spans', 'traces'] LOOP
        EXECUTE format('DELETE FROM %I WHERE time < now() - $1', of_table) USING older_than;
        GET DIAGNOSTICS forgotten = ROW_COUNT;
        total := total + forgotten;
    END LOOP;
    RETURN total;
END
$_$;
CREATE AGGREGATE public.sum_counts(jsonb) (
    SFUNC = public.add_counts,
    STYPE = jsonb,
    INITCOND = '{}'
);
CREATE AGGREGATE public.sum_services(text[]) (
    SFUNC = public.add_services,
    STYPE = text[],
    INITCOND = '{}'
);
CREATE AGGREGATE public.sum_status(text) (
    SFUNC = public.add_status,
    STYPE = text,
    INITCOND = 'idle'
);
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.events (
    "time" timestamp with time zone NOT NULL,
    service text NOT NULL,
    host text,
    pid bigint,
    trace_id text,
    span_id text,
    client text,
    seq bigint,
    truncated boolean,
    level text NOT NULL,
    message text NOT NULL,
    context jsonb
);
CREATE TABLE public.span_starts (
    "time" timestamp with time zone NOT NULL,
    service text NOT NULL,
    host text,
    pid bigint,
    trace_id text NOT NULL,
    span_id text NOT NULL,
    client text,
    seq bigint,
    truncated boolean,
    name text NOT NULL,
    parent_id text,
    tags jsonb
);
CREATE TABLE public.spans (
    "time" timestamp with time zone NOT NULL,
    service text NOT NULL,
    host text,
    pid bigint,
    trace_id text NOT NULL,
    span_id text NOT NULL,
    client text,
    seq bigint,
    truncated boolean,
    name text NOT NULL,
    parent_id text,
    status text NOT NULL,
    start timestamp with time zone NOT NULL,
    duration double precision NOT NULL,
    tags jsonb
);
CREATE VIEW public.all_spans AS
 SELECT spans.trace_id,
    spans.span_id,
    spans.parent_id,
    spans.name,
    spans.service,
    spans.host,
    spans.pid,
    spans.start,
    spans.duration,
    spans.status,
    spans.tags
   FROM public.spans
UNION ALL
 SELECT s.trace_id,
    s.span_id,
    s.parent_id,
    s.name,
    s.service,
    s.host,
    s.pid,
    s."time" AS start,
    NULL::double precision AS duration,
        CASE
            WHEN (EXISTS ( SELECT
               FROM public.events e
              WHERE ((e.trace_id = s.trace_id) AND (e.service = 'wafermon'::text) AND ((e.context ->> 'kind'::text) = 'span_abandoned'::text) AND ((e.context ->> 'span_id'::text) = s.span_id)))) THEN 'abandoned'::text
            ELSE NULL::text
        END AS status,
    s.tags
   FROM public.span_starts s
  WHERE (NOT (EXISTS ( SELECT
           FROM public.spans e
          WHERE ((e.trace_id = s.trace_id) AND (e.span_id = s.span_id)))));
CREATE TABLE public.metrics (
    "time" timestamp with time zone NOT NULL,
    service text NOT NULL,
    host text,
    pid bigint,
    trace_id text,
    span_id text,
    client text,
    seq bigint,
    truncated boolean,
    name text NOT NULL,
    value double precision NOT NULL,
    unit text,
    kind text NOT NULL,
    tags jsonb
);
CREATE TABLE public.progress (
    "time" timestamp with time zone NOT NULL,
    service text NOT NULL,
    host text,
    pid bigint,
    trace_id text,
    span_id text,
    client text,
    seq bigint,
    truncated boolean,
    job_id text NOT NULL,
    percent double precision NOT NULL,
    status text
);
CREATE TABLE public.resources (
    "time" timestamp with time zone NOT NULL,
    service text NOT NULL,
    host text,
    pid bigint,
    trace_id text,
    span_id text,
    client text,
    seq bigint,
    truncated boolean,
    cpu double precision,
    mem double precision,
    disk double precision,
    net double precision
);
CREATE VIEW public.timeline AS
 SELECT events."time",
    events.trace_id,
    events.service,
    events.host,
    events.pid,
    'event'::text AS type,
    events.level,
    events.message AS text,
    events.context AS detail,
    events.span_id,
    events.client,
    events.seq
   FROM public.events
UNION ALL
 SELECT metrics."time",
    metrics.trace_id,
    metrics.service,
    metrics.host,
    metrics.pid,
    'metric'::text AS type,
    NULL::text AS level,
    concat_ws(' '::text, metrics.name, '=', metrics.value, metrics.unit) AS text,
    metrics.tags AS detail,
    metrics.span_id,
    metrics.client,
    metrics.seq
   FROM public.metrics
UNION ALL
 SELECT progress."time",
    progress.trace_id,
    progress.service,
    progress.host,
    progress.pid,
    'progress'::text AS type,
    NULL::text AS level,
    concat_ws(' '::text, progress.job_id, progress.percent, '%', progress.status) AS text,
    NULL::jsonb AS detail,
    progress.span_id,
    progress.client,
    progress.seq
   FROM public.progress
UNION ALL
 SELECT resources."time",
    resources.trace_id,
    resources.service,
    resources.host,
    resources.pid,
    'resource'::text AS type,
    NULL::text AS level,
    concat_ws(', '::text, (('cpu '::text || resources.cpu) || ' %'::text), ('mem '::text || resources.mem), ('disk '::text || resources.disk), ('net '::text || resources.net)) AS text,
    NULL::jsonb AS detail,
    resources.span_id,
    resources.client,
    resources.seq
   FROM public.resources
UNION ALL
 SELECT span_starts."time",
    span_starts.trace_id,
    span_starts.service,
    span_starts.host,
    span_starts.pid,
    'span_start'::text AS type,
    NULL::text AS level,
    span_starts.name AS text,
    span_starts.tags AS detail,
    span_starts.span_id,
    span_starts.client,
    span_starts.seq
   FROM public.span_starts
UNION ALL
 SELECT spans."time",
    spans.trace_id,
    spans.service,
    spans.host,
    spans.pid,
    'span_end'::text AS type,
        CASE spans.status
            WHEN 'error'::text THEN 'error'::text
            ELSE NULL::text
        END AS level,
    concat_ws(' '::text, spans.name, spans.status, 'after', spans.duration, 's') AS text,
    spans.tags AS detail,
    spans.span_id,
    spans.client,
    spans.seq
   FROM public.spans;
CREATE TABLE public.traces (
    "time" timestamp with time zone NOT NULL,
    service text NOT NULL,
    client text,
    seq bigint,
    trace_id text NOT NULL,
    first timestamp with time zone NOT NULL,
    last timestamp with time zone NOT NULL,
    services text[] NOT NULL,
    counts jsonb NOT NULL,
    errors bigint NOT NULL,
    status text NOT NULL,
    part bigint NOT NULL
);
CREATE VIEW public.completeness AS
 SELECT t.trace_id,
    t.status,
    t.part,
    t.first,
    t.last,
    t.services,
    t.errors,
    announced.count AS announced,
    stored.count AS stored,
    (announced.count - stored.count) AS missing,
    open.count AS open_spans
   FROM (((public.traces t
     CROSS JOIN LATERAL ( SELECT (COALESCE(sum((jsonb_each_text.value)::bigint), (0)::numeric))::bigint AS count
           FROM jsonb_each_text(t.counts) jsonb_each_text(key, value)
          WHERE (jsonb_each_text.key !~~ 'level.%'::text)) announced)
     CROSS JOIN LATERAL ( SELECT count(*) AS count
           FROM public.timeline l
          WHERE ((l.trace_id = t.trace_id) AND (l.service <> 'wafermon'::text))) stored)
     CROSS JOIN LATERAL ( SELECT count(*) AS count
           FROM public.all_spans s
          WHERE ((s.trace_id = t.trace_id) AND (s.duration IS NULL))) open);
CREATE TABLE public.deliveries (
    sidecar text NOT NULL,
    backend text NOT NULL,
    "position" text,
    writer text NOT NULL,
    messages bigint DEFAULT 0 NOT NULL,
    moved timestamp with time zone
)
WITH (fillfactor='50');
COMMENT ON TABLE public.deliveries IS 'How far each sidecar has delivered; moved in the transaction that stores the rows';
CREATE VIEW public.error_counts AS
 SELECT date_trunc('hour'::text, events."time") AS hour,
    events.service,
    events.level,
    count(*) AS count,
    (array_agg(events.message ORDER BY events."time" DESC))[1] AS latest
   FROM public.events
  WHERE (events.level = ANY (ARRAY['warning'::text, 'error'::text, 'critical'::text]))
  GROUP BY (date_trunc('hour'::text, events."time")), events.service, events.level;
CREATE VIEW public.jobs AS
 SELECT j.job_id,
    j.trace_id,
    j.percent,
    j.status,
    j.service,
    j.first,
    j.last_progress,
    j.messages,
    ((COALESCE(j.status, ''::text) <> ALL (ARRAY['done'::text, 'failed'::text, 'cancelled'::text])) AND (EXISTS ( SELECT
           FROM public.events e
          WHERE ((e.trace_id = j.trace_id) AND (e.service = 'wafermon'::text) AND ((e.context ->> 'kind'::text) = 'job_stalled'::text) AND ((e.context ->> 'job_id'::text) = j.job_id) AND (e."time" > j.last_progress))))) AS stalled
   FROM ( SELECT progress.job_id,
            progress.trace_id,
            min(progress."time") AS first,
            max(progress."time") AS last_progress,
            count(*) AS messages,
            (array_agg(progress.percent ORDER BY progress."time" DESC, progress.seq DESC))[1] AS percent,
            (array_agg(progress.status ORDER BY progress."time" DESC, progress.seq DESC) FILTER (WHERE (progress.status IS NOT NULL)))[1] AS status,
            (array_agg(progress.service ORDER BY progress."time" DESC, progress.seq DESC))[1] AS service
           FROM public.progress
          GROUP BY progress.job_id, progress.trace_id) j;
CREATE VIEW public.resource_use AS
 SELECT each_process.minute,
    each_process.service,
    count(*) AS processes,
    sum(each_process.cpu) AS cpu,
    sum(each_process.mem) AS mem,
    max(each_process.mem) AS largest
   FROM ( SELECT date_trunc('minute'::text, resources."time") AS minute,
            resources.service,
            resources.host,
            resources.pid,
            avg(resources.cpu) AS cpu,
            max(resources.mem) AS mem
           FROM public.resources
          GROUP BY (date_trunc('minute'::text, resources."time")), resources.service, resources.host, resources.pid) each_process
  GROUP BY each_process.minute, each_process.service;
CREATE TABLE public.schema_versions (
    version integer NOT NULL,
    name text NOT NULL,
    applied timestamp with time zone DEFAULT now() NOT NULL
);
CREATE VIEW public.slow_spans AS
 SELECT spans.service,
    spans.name,
    count(*) AS calls,
    count(*) FILTER (WHERE (spans.status = 'error'::text)) AS failed,
    sum(spans.duration) AS total,
    avg(spans.duration) AS mean,
    percentile_cont((0.5)::double precision) WITHIN GROUP (ORDER BY spans.duration) AS median,
    percentile_cont((0.95)::double precision) WITHIN GROUP (ORDER BY spans.duration) AS p95,
    max(spans.duration) AS longest,
    (array_agg(spans.trace_id ORDER BY spans.duration DESC))[1] AS longest_trace
   FROM public.spans
  GROUP BY spans.service, spans.name;
INSERT INTO public.deliveries VALUES ('09372850328d7364', 'db', '5af1c0de5af1c0de:1:4535', '8bb26ce3efb149c0', 22, '2026-11-28 22:37:04.282325+00');
INSERT INTO public.events VALUES ('2026-11-24 06:00:00.5+00', 'receiver', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 7, NULL, 'info', 'received', '{"file": "a.csv"}');
INSERT INTO public.events VALUES ('2026-11-24 06:00:01.5+00', 'parser', 'fab1', 1, 'job-1', '0000000000000002', '9f2c6b1d00e4a873', 8, NULL, 'warning', 'odd line', NULL);
INSERT INTO public.events VALUES ('2026-11-24 06:00:08+00', 'loader', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 9, NULL, 'error', 'no room', NULL);
INSERT INTO public.events VALUES ('2026-11-24 06:00:08.5+00', 'loader', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 10, NULL, 'error', 'gave up', NULL);
INSERT INTO public.events VALUES ('2026-11-24 06:06:40+00', 'wafermon', 'fab1', 1, 'job-2', NULL, '9f2c6b1d00e4a873', 22, NULL, 'warning', 'no progress', '{"kind": "job_stalled", "job_id": "job-2"}');
INSERT INTO public.metrics VALUES ('2026-11-24 06:00:02+00', 'parser', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 11, NULL, 'rows', 117, '1', 'gauge', NULL);
INSERT INTO public.progress VALUES ('2026-11-24 06:00:01+00', 'parser', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 12, NULL, 'job-1', 10, 'parsing');
INSERT INTO public.progress VALUES ('2026-11-24 06:00:05+00', 'loader', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 13, NULL, 'job-1', 60, 'loading');
INSERT INTO public.progress VALUES ('2026-11-24 06:00:09+00', 'loader', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 14, NULL, 'job-1', 60, 'failed');
INSERT INTO public.progress VALUES ('2026-11-24 06:00:03+00', 'b', 'fab1', 1, 'job-2', NULL, '9f2c6b1d00e4a873', 19, NULL, 'job-2', 20, 'running');
INSERT INTO public.progress VALUES ('2026-11-24 06:00:02+00', 'a', 'fab1', 1, 'job-2', NULL, '9f2c6b1d00e4a873', 20, NULL, 'job-2', 10, 'begun');
INSERT INTO public.progress VALUES ('2026-11-24 06:00:04+00', 'c', 'fab1', 1, 'job-2', NULL, '9f2c6b1d00e4a873', 21, NULL, 'job-2', 30.5, NULL);
INSERT INTO public.resources VALUES ('2026-11-24 06:00:03+00', 'parser', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 15, NULL, 50, 1000, NULL, NULL);
INSERT INTO public.resources VALUES ('2026-11-24 06:00:04+00', 'parser', 'fab1', 1, 'job-1', NULL, '9f2c6b1d00e4a873', 16, NULL, 150, 3000, NULL, NULL);
INSERT INTO public.resources VALUES ('2026-11-24 06:00:04+00', 'parser', 'fab1', 2, 'job-1', NULL, '9f2c6b1d00e4a873', 17, NULL, 10, 500, NULL, NULL);
INSERT INTO public.schema_versions VALUES (1, '0001_tables.sql', '2026-11-28 22:37:04.180802+00');
INSERT INTO public.schema_versions VALUES (2, '0002_views.sql', '2026-11-28 22:37:04.180802+00');
INSERT INTO public.schema_versions VALUES (3, '0003_forget.sql', '2026-11-28 22:37:04.180802+00');
INSERT INTO public.span_starts VALUES ('2026-11-24 06:00:00+00', 'receiver', 'fab1', 1, 'job-1', '0000000000000001', '9f2c6b1d00e4a873', 1, NULL, 'receive', NULL, NULL);
INSERT INTO public.span_starts VALUES ('2026-11-24 06:00:01+00', 'parser', 'fab1', 1, 'job-1', '0000000000000002', '9f2c6b1d00e4a873', 3, NULL, 'parse', '0000000000000001', NULL);
INSERT INTO public.span_starts VALUES ('2026-11-24 06:00:04+00', 'loader', 'fab1', 1, 'job-1', '0000000000000003', '9f2c6b1d00e4a873', 5, NULL, 'load', '0000000000000001', NULL);
INSERT INTO public.spans VALUES ('2026-11-24 06:00:10+00', 'receiver', 'fab1', 1, 'job-1', '0000000000000001', '9f2c6b1d00e4a873', 2, NULL, 'receive', NULL, 'ok', '2026-11-24 06:00:00+00', 10, NULL);
INSERT INTO public.spans VALUES ('2026-11-24 06:00:03+00', 'parser', 'fab1', 1, 'job-1', '0000000000000002', '9f2c6b1d00e4a873', 4, NULL, 'parse', '0000000000000001', 'ok', '2026-11-24 06:00:01+00', 2, NULL);
INSERT INTO public.spans VALUES ('2026-11-24 06:00:09+00', 'loader', 'fab1', 1, 'job-1', '0000000000000003', '9f2c6b1d00e4a873', 6, NULL, 'load', '0000000000000001', 'error', '2026-11-24 06:00:04+00', 5, NULL);
INSERT INTO public.traces VALUES ('2026-11-24 06:00:15+00', 'wafermon', '9f2c6b1d00e4a873', 18, 'job-1', '2026-11-24 06:00:00+00', '2026-11-24 06:00:10+00', '{receiver,parser,loader}', '{"event": 4, "metric": 1, "progress": 3, "resource": 3, "span_end": 3, "level.info": 1, "span_start": 3, "level.error": 2, "level.warning": 1}', 3, 'failed', 1);
ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (sidecar, backend);
ALTER TABLE ONLY public.schema_versions
    ADD CONSTRAINT schema_versions_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.traces
    ADD CONSTRAINT traces_pkey PRIMARY KEY (trace_id);
CREATE INDEX events_time ON public.events USING brin ("time") WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX events_trace ON public.events USING btree (trace_id, "time") WHERE (trace_id IS NOT NULL);
CREATE INDEX events_trouble ON public.events USING btree ("time") WHERE (level = ANY (ARRAY['warning'::text, 'error'::text, 'critical'::text]));
CREATE INDEX metrics_name ON public.metrics USING btree (name, "time");
CREATE INDEX metrics_time ON public.metrics USING brin ("time") WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX metrics_trace ON public.metrics USING btree (trace_id, "time") WHERE (trace_id IS NOT NULL);
CREATE INDEX progress_job ON public.progress USING btree (job_id, "time");
CREATE INDEX progress_time ON public.progress USING brin ("time") WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX progress_trace ON public.progress USING btree (trace_id, "time") WHERE (trace_id IS NOT NULL);
CREATE INDEX resources_service ON public.resources USING btree (service, "time");
CREATE INDEX resources_time ON public.resources USING brin ("time") WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX resources_trace ON public.resources USING btree (trace_id, "time") WHERE (trace_id IS NOT NULL);
CREATE INDEX span_starts_time ON public.span_starts USING brin ("time") WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX span_starts_trace ON public.span_starts USING btree (trace_id, span_id);
CREATE INDEX spans_name ON public.spans USING btree (service, name, "time");
CREATE INDEX spans_time ON public.spans USING brin ("time") WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX spans_trace ON public.spans USING btree (trace_id, span_id);
CREATE INDEX traces_last ON public.traces USING btree (last);
