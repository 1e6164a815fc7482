// Where the bars of a trace's spans lie, and the marks of time above them. Pure.

export const MOST = 500;

// Rows of { span, left, width, duration, open, skewed, folded, unfolded }: left and width are percent of the whole time, `folded` is how many
// spans below it are not shown, `unfolded` whether some are that could be folded again. Beyond `most` spans only the upper levels are shown, and below spans whose ids are in `unfolded`
// their children. `left_out` is how many are shown nowhere, folded ones included.
export function layout(spans, now, unfolded = new Set(), most = MOST) {
  const shown = choose(spans, unfolded, most);
  const starts = spans.map((span) => span.start);
  const from = least(starts);
  const to = Math.max(from + 1, greatest(spans.map((span) => endOf(span, now))));
  const byId = new Map(spans.map((span) => [span.span_id, span]));
  const folded = foldedBelow(spans, shown, byId);
  const rows = spans
    .filter((span) => shown.has(span))
    .map((span) => ({
      span,
      ...place(span, now, from, to),
      skewed: startsBefore(span, byId.get(span.parent_id)),
      folded: folded.get(span) ?? 0,
      unfolded: unfolded.has(span.span_id),
    }));
  return { from, to, rows, left_out: spans.length - rows.length };
}

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500].flatMap((one) => [one, one * 1e3]).concat(
  [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200].map((one) => one * 1e6),
).sort((one, other) => one - other);
const DAY = 86_400e6;

// Marks of the time since the start, at most `most` of them: { left, after } in percent and microseconds.
export function marks(from, to, most = 8) {
  const whole = Math.max(1, to - from);
  const step = STEPS.find((one) => whole / one <= most) ?? DAY * Math.max(1, Math.ceil(whole / DAY / most));
  const found = [];
  for (let after = 0; after <= whole * 0.94; after += step) found.push({ left: (100 * after) / whole, after });
  return found;
}

// { left, width, duration, open } of one span.
export function place(span, now, from, to) {
  const open = isOpen(span);
  const end = endOf(span, now);
  const whole = Math.max(1, to - from);
  return {
    left: (100 * (span.start - from)) / whole,
    width: (100 * (end - span.start)) / whole,
    duration: open || span.duration !== null ? end - span.start : null,
    open,
  };
}

// A span that was given up has no duration and does not grow.
export function isOpen(span) {
  return span.duration === null && span.status === null;
}

function endOf(span, now) {
  if (span.duration !== null) return span.start + Math.max(0, span.duration);
  return isOpen(span) ? Math.max(span.start, now) : span.start;
}

// A child that seems to start before its parent has another clock.
function startsBefore(span, parent) {
  return parent !== undefined && span.start < parent.start;
}

function choose(spans, unfolded, most) {
  if (spans.length <= most) return new Set(spans);
  const perDepth = new Map();
  for (const span of spans) perDepth.set(span.depth, (perDepth.get(span.depth) ?? 0) + 1);
  let total = 0;
  let deepest = -1;
  for (const depth of [...perDepth.keys()].sort((one, other) => one - other)) {
    total += perDepth.get(depth);
    if (total > most) break;
    deepest = depth;
  }
  const shown = new Set(spans.filter((span) => span.depth <= deepest));
  if (!shown.size) for (const span of spans.slice(0, most)) shown.add(span);
  for (const span of spans) {
    if (shown.size < most && isOpen(span)) shown.add(span);
  }
  for (const span of spans) {
    if (unfolded.has(span.parent_id)) shown.add(span);
  }
  return shown;
}

// By the nearest span above that is shown.
function foldedBelow(spans, shown, byId) {
  const folded = new Map();
  for (const span of spans) {
    if (shown.has(span)) continue;
    let above = byId.get(span.parent_id);
    for (let steps = 0; above && !shown.has(above) && steps < 10_000; steps += 1) above = byId.get(above.parent_id);
    if (above && shown.has(above)) folded.set(above, (folded.get(above) ?? 0) + 1);
  }
  return folded;
}

// Math.min(...values) fails with very many values.
function least(values) {
  return values.reduce((one, other) => Math.min(one, other), Infinity);
}

function greatest(values) {
  return values.reduce((one, other) => Math.max(one, other), -Infinity);
}
