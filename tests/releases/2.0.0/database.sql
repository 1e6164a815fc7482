SELECT pg_catalog.set_config('search_path', '', false);
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
INSERT INTO public.deliveries VALUES ('2ff25e5815e0c4ba', 'db', 'f48fd4a48014c426:1:17603', 'a58434d14b218ad6', 104, '2026-11-29 07:14:49.513357+00');
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412452+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 5, NULL, 'info', 'delivered 0', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412453+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 6, NULL, 'info', 'delivered 1', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412454+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 7, NULL, 'info', 'delivered 2', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412455+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 8, NULL, 'info', 'delivered 3', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412456+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 9, NULL, 'info', 'delivered 4', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412457+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 10, NULL, 'info', 'delivered 5', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412458+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 11, NULL, 'info', 'delivered 6', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412459+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 12, NULL, 'info', 'delivered 7', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41246+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 13, NULL, 'info', 'delivered 8', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412461+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 14, NULL, 'info', 'delivered 9', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412462+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 15, NULL, 'info', 'delivered 10', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412463+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 16, NULL, 'info', 'delivered 11', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412464+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 17, NULL, 'info', 'delivered 12', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412465+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 18, NULL, 'info', 'delivered 13', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412466+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 19, NULL, 'info', 'delivered 14', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412467+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 20, NULL, 'info', 'delivered 15', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412468+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 21, NULL, 'info', 'delivered 16', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412469+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 22, NULL, 'info', 'delivered 17', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41247+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 23, NULL, 'info', 'delivered 18', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412471+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 24, NULL, 'info', 'delivered 19', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412472+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 25, NULL, 'info', 'delivered 20', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412473+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 26, NULL, 'info', 'delivered 21', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412474+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 27, NULL, 'info', 'delivered 22', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412475+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 28, NULL, 'info', 'delivered 23', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412476+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 29, NULL, 'info', 'delivered 24', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412477+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 30, NULL, 'info', 'delivered 25', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412478+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 31, NULL, 'info', 'delivered 26', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412479+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 32, NULL, 'info', 'delivered 27', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41248+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 33, NULL, 'info', 'delivered 28', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412481+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 34, NULL, 'info', 'delivered 29', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412482+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 35, NULL, 'info', 'delivered 30', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412483+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 36, NULL, 'info', 'delivered 31', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412484+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 37, NULL, 'info', 'delivered 32', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412485+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 38, NULL, 'info', 'delivered 33', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412486+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 39, NULL, 'info', 'delivered 34', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412487+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 40, NULL, 'info', 'delivered 35', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412488+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 41, NULL, 'info', 'delivered 36', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412489+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 42, NULL, 'info', 'delivered 37', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41249+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 43, NULL, 'info', 'delivered 38', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412491+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 44, NULL, 'info', 'delivered 39', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412492+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 45, NULL, 'info', 'delivered 40', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412493+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 46, NULL, 'info', 'delivered 41', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412494+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 47, NULL, 'info', 'delivered 42', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412495+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 48, NULL, 'info', 'delivered 43', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412496+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 49, NULL, 'info', 'delivered 44', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412497+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 50, NULL, 'info', 'delivered 45', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412498+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 51, NULL, 'info', 'delivered 46', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412499+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 52, NULL, 'info', 'delivered 47', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.4125+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 53, NULL, 'info', 'delivered 48', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412501+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 54, NULL, 'info', 'delivered 49', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412502+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 55, NULL, 'info', 'delivered 50', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412503+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 56, NULL, 'info', 'delivered 51', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412504+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 57, NULL, 'info', 'delivered 52', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412505+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 58, NULL, 'info', 'delivered 53', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412506+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 59, NULL, 'info', 'delivered 54', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412507+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 60, NULL, 'info', 'delivered 55', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412508+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 61, NULL, 'info', 'delivered 56', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412509+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 62, NULL, 'info', 'delivered 57', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41251+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 63, NULL, 'info', 'delivered 58', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412511+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 64, NULL, 'info', 'delivered 59', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412512+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 65, NULL, 'info', 'pending 0', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412513+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 66, NULL, 'info', 'pending 1', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412514+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 67, NULL, 'info', 'pending 2', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412515+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 68, NULL, 'info', 'pending 3', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412516+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 69, NULL, 'info', 'pending 4', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412517+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 70, NULL, 'info', 'pending 5', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412518+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 71, NULL, 'info', 'pending 6', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412519+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 72, NULL, 'info', 'pending 7', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41252+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 73, NULL, 'info', 'pending 8', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412521+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 74, NULL, 'info', 'pending 9', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412522+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 75, NULL, 'info', 'pending 10', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412523+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 76, NULL, 'info', 'pending 11', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412524+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 77, NULL, 'info', 'pending 12', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412525+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 78, NULL, 'info', 'pending 13', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412526+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 79, NULL, 'info', 'pending 14', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412527+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 80, NULL, 'info', 'pending 15', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412528+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 81, NULL, 'info', 'pending 16', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412529+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 82, NULL, 'info', 'pending 17', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41253+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 83, NULL, 'info', 'pending 18', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412531+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 84, NULL, 'info', 'pending 19', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412532+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 85, NULL, 'info', 'pending 20', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412533+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 86, NULL, 'info', 'pending 21', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412534+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 87, NULL, 'info', 'pending 22', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412535+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 88, NULL, 'info', 'pending 23', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412536+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 89, NULL, 'info', 'pending 24', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412537+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 90, NULL, 'info', 'pending 25', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412538+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 91, NULL, 'info', 'pending 26', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412539+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 92, NULL, 'info', 'pending 27', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41254+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 93, NULL, 'info', 'pending 28', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412541+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 94, NULL, 'info', 'pending 29', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412542+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 95, NULL, 'info', 'pending 30', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412543+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 96, NULL, 'info', 'pending 31', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412544+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 97, NULL, 'info', 'pending 32', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412545+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 98, NULL, 'info', 'pending 33', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412546+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 99, NULL, 'info', 'pending 34', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412547+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 100, NULL, 'info', 'pending 35', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412548+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 101, NULL, 'info', 'pending 36', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412549+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 102, NULL, 'info', 'pending 37', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.41255+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 103, NULL, 'info', 'pending 38', NULL);
INSERT INTO public.events VALUES ('2026-11-29 07:14:49.412551+00', 'pending', NULL, NULL, NULL, NULL, '00000000000a11ce', 104, NULL, 'info', 'pending 39', NULL);
INSERT INTO public.metrics VALUES ('2026-11-29 07:14:49.41245+00', 'delivered', NULL, NULL, 'load-4711', NULL, '00000000000a11ce', 3, NULL, 'rows', 7, NULL, 'gauge', NULL);
INSERT INTO public.progress VALUES ('2026-11-29 07:14:49.412448+00', 'delivered', NULL, NULL, 'load-4711', NULL, '00000000000a11ce', 1, NULL, 'load-4711', 40, 'running');
INSERT INTO public.resources VALUES ('2026-11-29 07:14:49.412451+00', 'delivered', NULL, NULL, NULL, NULL, '00000000000a11ce', 4, NULL, 12.5, 1024, NULL, NULL);
INSERT INTO public.schema_versions VALUES (1, '0001_tables.sql', '2026-11-29 07:14:49.426507+00');
INSERT INTO public.schema_versions VALUES (2, '0002_views.sql', '2026-11-29 07:14:49.426507+00');
INSERT INTO public.schema_versions VALUES (3, '0003_forget.sql', '2026-11-29 07:14:49.426507+00');
INSERT INTO public.span_starts VALUES ('2026-11-29 07:14:49.412449+00', 'delivered', NULL, NULL, 'load-4711', '0123456789abcdef', '00000000000a11ce', 2, NULL, 'load', NULL, NULL);
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
