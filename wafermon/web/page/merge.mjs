// What is known of a trace and what the sidecar's memory says of it later, as one answer. Pure.

const POINTS = { events: "event", metrics: "metric", progress: "progress", resources: "resource" };
export const MOST = 1_000; // messages of each type

// The answer of `later` (memory alone, `stored=no`), completed by what `known` has beside it; null where all has to be asked again: the trace
// is over, or another part of it goes on.
export function merged(known, later) {
  if (!known || later.status !== "running" || later.part !== known.part || later.trace_id !== known.trace_id) return null;
  const spans = mergedSpans(known.spans, later.spans);
  const whole = {
    ...later,
    first: Math.min(known.first, later.first),
    services: [...new Set([...known.services, ...later.services])],
    jobs: mergedJobs(known.jobs, later.jobs),
    spans,
    series: known.series,
    sources: known.sources,
    problems: known.problems,
    critical_path: later.critical_path.length ? later.critical_path : known.critical_path,
    left_out: { spans: Math.max(0, later.spans.length + later.left_out.spans - spans.length) },
  };
  for (const [name, type] of Object.entries(POINTS)) {
    whole[name] = mergedPoints(known[name], later[name], later.left_out[name]);
    whole.left_out[name] = Math.max(0, (later.counts[type] ?? 0) - whole[name].length);
  }
  return whole;
}

export function keyOf(point) {
  return point.seq === undefined ? `${point.service}-${point.ts}-${point.message ?? point.name}` : `${point.client}-${point.seq}`;
}

// The latest ones, without a gap: where none of the later ones was known, and some are left out before them, those known are dropped.
function mergedPoints(known, later, leftOut) {
  if (!later.length) return known;
  const keys = new Set(later.map(keyOf));
  const before = known.filter((point) => !keys.has(keyOf(point)));
  const gap = leftOut > known.length && before.length === known.length;
  const all = gap ? later : [...before, ...later].sort((one, other) => one.ts - other.ts);
  return all.slice(-MOST);
}

function mergedJobs(known, later) {
  const first = new Map(known.map((job) => [job.job_id, job]));
  for (const job of later) {
    const before = first.get(job.job_id);
    first.set(job.job_id, before ? { ...job, first: Math.min(before.first, job.first) } : job);
  }
  return [...first.values()];
}

// Parents before their children, earlier ones first, each with its depth.
function mergedSpans(known, later) {
  const found = new Map(known.map((span) => [span.span_id, span]));
  for (const span of later) {
    if (found.get(span.span_id)?.duration == null) found.set(span.span_id, span);
  }
  if (found.size === later.length) return later; // memory has all of them, in this order
  const children = new Map();
  for (const span of found.values()) {
    const parent = found.has(span.parent_id) && span.parent_id !== span.span_id ? span.parent_id : "";
    if (children.has(parent)) children.get(parent).push(span);
    else children.set(parent, [span]);
  }
  const ordered = [];
  const open = (children.get("") ?? []).sort(earlier).reverse().map((span) => ({ ...span, depth: 0 }));
  children.delete("");
  while (open.length) {
    const span = open.pop();
    ordered.push(span);
    const below = (children.get(span.span_id) ?? []).sort(earlier).reverse();
    children.delete(span.span_id);
    open.push(...below.map((one) => ({ ...one, depth: span.depth + 1 })));
  }
  // Those that are their own ancestors.
  for (const circle of children.values()) ordered.push(...circle.map((span) => ({ ...span, depth: 0 })));
  return ordered;
}

function earlier(one, other) {
  return one.start - other.start;
}
