// The parts of the live page that compute: node --test tests/page/
import assert from "node:assert/strict";
import { test } from "node:test";

const at = (name) => import(new URL(`../../wafermon/web/page/${name}`, import.meta.url));
const { ago, bytes, change, clock, duration, eta, figure, language, moment, percent, receiptLine } = await at("format.mjs");
const { hashOf, parse } = await at("route.mjs");
const { layout, marks } = await at("waterfall.mjs");
const { MOST, merged } = await at("merge.mjs");
const { pause, wordsOf, IDLE, LATER, SOON } = await at("poll.mjs");
const { chosen, contextOf, isReceipt } = await at("logs.mjs");
const { backendRows, clientRows, factRows, scheduleRows } = await at("sidecar.mjs");
const { HUES, hue, huesOf } = await at("hues.mjs");
const { seriesOf } = await at("series.mjs");
const { pause: wait, reader } = await at("stream.mjs");

const span = (id, start, length, more = {}) => ({
  span_id: id, parent_id: null, name: id, service: "s", start, duration: length, status: length === null ? null : "ok", depth: 0, ...more,
});

test("durations carry into the next unit and never show sixty of one", () => {
  const said = [[0, "0 s"], [999, "999 µs"], [999_400, "999 ms"], [999_600, "1.0 s"], [59_400_000, "59 s"], [59_600_000, "1 min 0 s"],
    [3_599_700_000, "1 h 0 min"], [86_399_000_000, "1 d 0 h"], [NaN, ""], [null, ""]];
  for (const [value, words] of said) assert.equal(duration(value), words);
});

test("sizes, percents and ages are short", () => {
  assert.deepEqual([bytes(1023), bytes(1536), bytes(64 * 2 ** 20)], ["1023 B", "1.5 KiB", "64 MiB"]);
  assert.deepEqual([percent(33.333), percent(null)], ["33.3 %", ""]);
  assert.deepEqual([ago(5_000_000, 5_100_000), ago(0, 61_000_000), ago(null, 1)], ["now", "1 min 1 s ago", ""]);
  assert.equal(clock(1_795_908_042_368_637).utc, "2026-11-28T23:20:42.368Z");
  assert.deepEqual(clock(1e30), { text: "", utc: "" });
});

test("an end is told with its spread and where it comes from", () => {
  const estimate = { at: 70e6, earliest: 50e6, latest: 90e6, source: "runs", runs: 8 };
  assert.equal(eta(estimate, 10e6), "in 1 min 0 s (40 s to 1 min 20 s), by 8 runs");
  assert.match(eta({ at: 5e6, earliest: 0, latest: 0, source: "runs", runs: 1 }, 0), /by 1 run$/);
  assert.equal(eta({ at: 5e6, earliest: null, latest: null, source: "progress", runs: 0 }, 15e6), "10 s later than foreseen, by its own progress");
  assert.equal(eta(null, 0), "");
});

test("a receipt is one line that says complete only where it is", () => {
  const receipt = { complete: true, running: false, sent: 12403, received: 12403, gaps: [], unclosed: [],
    backends: { files: { routed: 12403, stored: 12403 }, db: { routed: 1210, stored: null } } };
  assert.equal(receiptLine(receipt), "12,403 sent, 12,403 stored in files, not yet all of 1,210 stored in db: none missing");
  const both = { files: { routed: 5, stored: 5 }, db: { routed: 5, stored: 5 }, nfs: { routed: 0, stored: 0 } };
  assert.equal(receiptLine({ ...receipt, sent: null, received: 5, backends: both }), "5 received, 5 stored in files and db: none missing");
  assert.match(receiptLine({ ...receipt, received: 12400 }), /^12,403 sent, 12,400 received, /);
  assert.match(receiptLine({ ...receipt, complete: false, gaps: [{}], more_gaps: 2, unclosed: ["a"] }), /3 gaps, 1 program not closed: not complete$/);
  assert.match(receiptLine({ ...receipt, complete: null }), /nobody can know/);
  assert.match(receiptLine({ ...receipt, complete: false, running: true }), /it still runs$/);
});

test("one value beside another, figures, days and languages are in words", () => {
  assert.deepEqual([change(112, 100), change(97, 100), change(100, 100), change(350, 100), change(1, 0)], ["+12 %", "−3 %", "the same", "3.5 times", ""]);
  assert.deepEqual([figure(0.43321), figure(1234567.8), figure(3), figure(1e-9), figure("NaN"), figure(undefined)], ["0.4332", "1,234,568", "3", "1.00e-9", "NaN", ""]);
  assert.deepEqual(["python/2.0.0", "node/2", "constructor/1", "", undefined].map(language), ["Python", "Node.js", "", "", ""]);
  const now = Date.parse("2026-11-29T12:00:00Z") * 1e3;
  assert.match(moment(now - 400 * 86_400e6, now).text, / 2025 /);
  assert.equal(moment(now, now).utc, "2026-11-29 12:00:00 UTC");
  assert.deepEqual(moment(NaN, now), { text: "", utc: "" });
});

test("an address leads back to what it was made of, whatever the id holds", () => {
  for (const id of ["load-1", "a/b?c#d", "100%", "<script>", "ü x"]) {
    const route = { view: "trace", id, filters: { level: "error", text: "a&b=c", span: "ab", event: "c-1" } };
    assert.deepEqual(parse(hashOf(route)), route);
    const compared = { view: "compare", id: "", filters: { run: id, other: "x" } };
    assert.deepEqual(parse(hashOf(compared)), compared);
    const runs = { view: "runs", id, filters: {} };
    assert.deepEqual(parse(hashOf(runs)), runs);
  }
  const jobs = { view: "jobs", id: "", filters: { state: "failed", after: "1.a%20b" } };
  assert.deepEqual(parse(hashOf(jobs)), jobs);
});

test("an address that can't be read is the list of jobs", () => {
  for (const hash of ["", "#", "#nonsense", "#trace", "#trace/", "#trace/%E0%A4%A", "#constructor", "#jobs/x"]) {
    assert.deepEqual(parse(hash), { view: "jobs", id: "", filters: {} });
  }
});

test("open spans grow with the clock, and ended ones shrink beside them", () => {
  const spans = [span("a", 0, null), span("b", 10, 20)];
  const [early, late] = [100, 200].map((now) => layout(spans, now).rows);
  assert.deepEqual(early.map(({ left, width, open }) => [left, width, open]), [[0, 100, true], [10, 20, false]]);
  assert.deepEqual(late.map(({ left, width, duration: took }) => [left, width, took]), [[0, 100, 200], [5, 10, 20]]);
});

test("a span that was given up has no end and does not grow", () => {
  const [, gone] = layout([span("a", 0, 100), span("b", 50, null, { status: "gone" })], 1e9).rows;
  assert.deepEqual([gone.open, gone.width, gone.duration], [false, 0, null]);
});

test("bars stay within the whole, whatever the clocks say", () => {
  const spans = [span("a", 1_000, 10), span("b", 900, null, { parent_id: "a", depth: 1 }), span("c", 5_000, null)];
  const { rows } = layout(spans, 950);
  assert.deepEqual(rows.map((one) => one.skewed), [false, true, false]);
  for (const { left, width } of rows) assert.ok(left >= 0 && width >= 0 && left + width <= 100.0001, `${left} ${width}`);
});

test("beyond 500 spans the lower levels fold into those above, unfold, and open ones stay", () => {
  const spans = [span("root", 0, 1_000)];
  for (let number = 0; number < 600; number += 1) {
    spans.push(span(`c${number}`, number, number === 599 ? null : 1, { parent_id: "root", depth: 1 }));
  }
  const folded = layout(spans, 2_000);
  assert.deepEqual(folded.rows.map((one) => one.span.span_id), ["root", "c599"]);
  assert.equal(folded.rows[0].folded, 599);
  assert.equal(folded.left_out, 599);
  assert.equal(layout(spans, 2_000, new Set(["root"])).left_out, 0);
});

test("marks of time are round, few, and within the whole", () => {
  for (const whole of [1, 7, 5_000, 330_000, 12e6, 100e6, 4e9, 90e9, 3e12]) {
    const found = marks(5, 5 + whole);
    assert.ok(found.length >= 1 && found.length <= 9, `${whole}: ${found.length}`);
    assert.ok(found.every(({ left }) => left >= 0 && left <= 94.001));
  }
  assert.deepEqual(marks(0, 100e6).map(({ after }) => after / 1e6), [0, 15, 30, 45, 60, 75, 90]);
});

test("a parent that is its own ancestor ends nothing", () => {
  const spans = Array.from({ length: 3 }, (_, number) => span(`x${number}`, 0, 1, { parent_id: `x${(number + 1) % 3}`, depth: 5 }));
  assert.equal(layout(spans, 1, new Set(), 1).rows.length, 1);
});

test("a hundred thousand spans are laid out", () => {
  const spans = Array.from({ length: 100_000 }, (_, number) => span(`s${number}`, number, 1));
  assert.equal(layout(spans, 0).rows.length, 500);
});

test("events are chosen by level and by text anywhere in them", () => {
  const event = (level, message, context = {}) => ({ level, message, service: "loader", context });
  const events = [event("info", "lot done", { wafer: "W8" }), event("error", "Lot failed"), event("debug", "x")];
  assert.equal(chosen(events, {}).length, 3);
  assert.deepEqual(chosen(events, { level: "warning" }), [events[1]]);
  assert.deepEqual(chosen(events, { text: "LOT" }), events.slice(0, 2));
  assert.deepEqual(chosen(events, { text: "w8" }), [events[0]]);
  assert.deepEqual(chosen([{ ...events[0], span_id: "a" }, events[1]], { span: "a" }).length, 1);
  assert.equal(contextOf({ context: { lot: "N1", rows: 7, deep: { a: 1 } } }), 'lot=N1  rows=7  deep={"a":1}');
});

test("what changes is asked soon, once more later, else seldom; a slow answer is given time, a failure more", () => {
  assert.deepEqual([pause({ changed: true }), pause({ because: true }), pause({}), pause({ every: 2_000 })], [SOON, LATER, IDLE, 2_000]);
  assert.equal(pause({ changed: true, took: 1_000 }), 4_000);
  assert.equal(pause({ changed: true, took: 60_000 }), IDLE);
  assert.deepEqual([1, 2, 3, 9, 99].map((failures) => pause({ failures })), [1_000, 2_000, 4_000, 10_000, 10_000]);
});

test("a stream is opened again ever later, not by all at once", () => {
  assert.equal(wait(0), 0);
  assert.deepEqual([1, 2, 3, 50].map((failures) => wait(failures, 0.5)), [500, 1_000, 2_000, 10_000]);
  assert.deepEqual([wait(1, 0), wait(1, 1)], [375, 625]);
});

test("events are read out of any pieces, and what is none is passed over", () => {
  const text = 'event: hello\ndata: {"now":1}\n\n: alive\n\nevent: changes\ndata: {"jobs":["ü\\n"]}\n\ndata: {broken\n\nevent: alive\ndata: {}\n\n';
  for (const size of [1, 3, 7, 1_000]) {
    const told = [];
    const read = reader((name, data) => told.push([name, data]));
    for (let at = 0; at < text.length; at += size) read(text.slice(at, at + size));
    assert.deepEqual(told, [["hello", { now: 1 }], ["changes", { jobs: ["ü\n"] }], ["alive", {}]]);
  }
});

test("services that are seen together have colours of their own as long as there are some", () => {
  const names = Array.from({ length: HUES }, (_, number) => `service-${number}`);
  const of = huesOf(names);
  assert.equal(new Set(names.map(of)).size, HUES);
  assert.equal(of(names[0]), hue(names[0]));
  assert.ok(huesOf([...names, "one more"])("one more") < HUES);
});

test("metrics are series by their tags where these come again, counters are added up, and single values stand apart", () => {
  const metric = (ts, name, value, more = {}) => ({ ts, name, value, service: "s", unit: "1", ...more });
  const { series, single } = seriesOf({
    metrics: [
      metric(2e6, "yield", 2, { tags: { wafer: 2 } }), metric(1e6, "yield", 1, { tags: { wafer: 1 } }), metric(1e6, "alone", 7),
      metric(1e6, "rows", 5, { kind: "counter" }), metric(2e6, "rows", 6, { kind: "counter" }), metric(3e6, "bad", "NaN"),
      metric(1e6, "temp", 1, { tags: { at: "a" } }), metric(2e6, "temp", 2, { tags: { at: "a" } }), metric(3e6, "temp", 3, { tags: { at: "b" } }),
    ],
    resources: [{ ts: 1e6, service: "s", cpu: 5, mem: 10 }, { ts: 2e6, service: "s", cpu: 6 }],
  });
  assert.deepEqual(series.map((one) => [one.name, one.data]), [
    ["yield", [[1, 2], [1, 2]]], ["rows", [[1, 2], [5, 11]]], ["temp at=a", [[1, 2], [1, 2]]], ["CPU", [[1, 2], [5, 6]]],
  ]);
  assert.deepEqual(single.map((one) => one.name), ["alone", "temp at=b", "memory"]);
});

test("an error is read whether it is JSON or text", () => {
  assert.deepEqual(['{"error": "no such job"}', "a token is wanted\n", "7"].map(wordsOf), ["no such job", "a token is wanted", "7"]);
});

test("a backend that fails says why and how far it is", () => {
  const backends = { db: { plugin: "timescaledb", state: "failing", lag_messages: 1200, lag_bytes: 2048, lag_seconds: 61,
    delivered: 5, retries: 2, dead_letters: 0, error: "refused", detail: "" } };
  assert.deepEqual(backendRows({ backends }), [["db (timescaledb)", "failing", "1,200 messages, 2.0 KiB, 1 min 1 s", "5", "2", "0", "refused"]]);
});

test("clients say what they dropped and how they left, schedules when they are due", () => {
  const client = { service: "s", sdk: "perl/2.0.0", host: "fab1", pid: 7, user: "uid:1", connected: false, closed: false, called: 9, dropped: 3, spilled: 1, messages: 5, last_heard: 0 };
  const [row] = clientRows({ clients: [client], now: 2e6 });
  assert.deepEqual(row.slice(0, 7), ["s", "broken off", "Perl, perl/2.0.0", "fab1, process 7, uid:1", "5", "3", "1"]);
  assert.equal(row[7].text, "2.0 s ago");
  const states = [{ connected: true }, { closed: true }, { called: null }].map((more) => clientRows({ clients: [{ ...client, ...more }], now: 0 })[0][1]);
  assert.deepEqual(states, ["connected", "closed", "left"]);
  const now = Date.parse("2026-11-29T12:00:00Z") * 1e3;
  const one = { schedule: "nightly", host: "", state: "silent", last: now, next: now + 60e6, paused: false, open: [{ state: "too_long", run: "load-1" }],
    runs: [], last_run: { run: "load-0", state: "done", started: now - 60e6, took: 6e6 } };
  const [row1, row2, row3] = scheduleRows({ now, schedules: [one, { ...one, host: "fab1", paused: true, paused_until: null, open: [] }, { ...one, last: null, last_run: null, next: null }] });
  assert.deepEqual([row1[0], row1[1], row1[4]], ["nightly", "silent", "too long: load-1"]);
  assert.match(row1[2].text, /^load-0 done, took 6.0 s; .*, 1 min 0 s ago$/);
  assert.match(row1[3].text, /, in 1 min 0 s$/);
  assert.deepEqual([row2[0], row2[3], row2[4]], ["nightly on fab1", "paused", ""]);
  assert.deepEqual([row3[2].text, row3[3].text], ["", ""]);
});

test("figures of the sidecar say which of them are bad", () => {
  const status = { connections: 1, messages: { accepted: 5, rejected: { bad_message: 2, too_long: 1 }, sdk_dropped: 0, gaps: 0, duplicate: 0 },
    journal: { bytes: 1, max_bytes: 0, full: true }, dead_letters: { written: 3 }, spill: { files: 0 }, correlation: { live_traces: 2 } };
  const bad = factRows(status).filter(([, , why]) => why).map(([name, value]) => [name, value]);
  assert.deepEqual(bad, [["Rejected", "3"], ["Journal", "1 B of any size, full"], ["Dead letters", "3"]]);
});

test("elements are kept by key, removed, put in order, and equal keys stay apart", async () => {
  const { keep } = await at("dom.mjs");
  const parent = list();
  const put = (keys) => keep(parent, keys, (key) => key, (key) => ({ key, remove() { parent.take(this); }, get nextSibling() { return parent.after(this); } }), () => {});
  put(["a", "b", "c"]);
  const [, b, c] = parent.all;
  parent.moves = 0;
  put(["b", "c"]);
  assert.deepEqual([parent.all, parent.moves], [[b, c], 0]);
  put(["new", "b", "c"]);
  assert.deepEqual([parent.all.map((one) => one.key), parent.moves], [["new", "b", "c"], 1]);
  put(["c", "c", "b"]);
  assert.deepEqual(parent.all.map((one) => one.key), ["c", "c", "b"]);
  assert.ok(parent.all[0] === c && parent.all[2] === b);
});

// As much of an element as `keep` needs.
function list() {
  return {
    all: [],
    moves: 0,
    get firstChild() { return this.all[0] ?? null; },
    after(one) { return this.all[this.all.indexOf(one) + 1] ?? null; },
    take(one) { this.all = this.all.filter((other) => other !== one); },
    insertBefore(one, place) {
      this.moves += 1;
      this.take(one);
      this.all.splice(place ? this.all.indexOf(place) : this.all.length, 0, one);
    },
  };
}

test("what the sidecar keeps for receipts is no event to show", () => {
  assert.equal(isReceipt({ service: "wafermon", context: { kind: "receipt" } }), true);
  assert.equal(isReceipt({ service: "wafermon", context: { kind: "gone" } }), false);
  assert.equal(isReceipt({ service: "loader", context: { kind: "receipt" } }), false);
  assert.equal(isReceipt({ service: "wafermon" }), false);
});

const trace = (more = {}) => ({
  trace_id: "t", part: 1, status: "running", first: 5, services: ["s"], jobs: [], spans: [], events: [], metrics: [], progress: [], resources: [],
  series: [], counts: {}, critical_path: [], left_out: { spans: 0, events: 0, metrics: 0, progress: 0, resources: 0 }, sources: ["live"], problems: [], ...more,
});
const events = (from, to) => Array.from({ length: to - from }, (_, place) => ({ client: "c", seq: from + place, ts: from + place }));

test("what came later is put to what is known, each message once", () => {
  const known = trace({ first: 1, events: events(0, 5), series: ["sum"], sources: ["live", "history"], counts: { event: 5 } });
  const found = merged(known, trace({ events: events(3, 8), counts: { event: 8 }, left_out: { ...trace().left_out, events: 3 } }));
  assert.deepEqual(found.events.map((one) => one.seq), [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual([found.first, found.series, found.sources, found.left_out.events], [1, ["sum"], ["live", "history"], 0]);
  assert.deepEqual(known.events.length, 5);
});

test("a log has no gap, and an end", () => {
  const known = trace({ events: events(0, 5), counts: { event: 5 } });
  const apart = merged(known, trace({ events: events(90, 100), counts: { event: 100 }, left_out: { ...trace().left_out, events: 90 } }));
  assert.deepEqual([apart.events[0].seq, apart.events.length, apart.left_out.events], [90, 10, 90]);
  const next = merged(known, trace({ events: events(5, 10), counts: { event: 10 }, left_out: { ...trace().left_out, events: 5 } }));
  assert.equal(next.events.length, 10);
  assert.equal(merged(known, trace({ events: events(2, 3_000), counts: { event: 3_000 } })).events.length, MOST);
});

test("spans that memory has no more stay, below their parents", () => {
  const known = trace({ spans: [span("a", 0, null), span("b", 1, 5, { parent_id: "a", depth: 1 }), span("c", 2, 1, { parent_id: "b", depth: 2 })] });
  const later = trace({ spans: [span("a", 0, 20), span("d", 9, null, { parent_id: "a", depth: 1 })] });
  assert.deepEqual(merged(known, later).spans.map((one) => [one.span_id, one.depth, one.duration]), [["a", 0, 20], ["b", 1, 5], ["c", 2, 1], ["d", 1, null]]);
  assert.equal(merged(trace({ spans: [span("a", 0, null)] }), later).spans, later.spans);
  const circle = [span("a", 0, 1, { parent_id: "b" }), span("b", 0, 1, { parent_id: "a" })];
  assert.equal(merged(trace({ spans: circle }), trace({ spans: [span("e", 1, 1)] })).spans.length, 3);
});

test("what is over, or has begun anew, is asked whole", () => {
  assert.equal(merged(trace(), trace({ status: "done" })), null);
  assert.equal(merged(trace(), trace({ part: 2 })), null);
  assert.equal(merged(null, trace()), null);
});
