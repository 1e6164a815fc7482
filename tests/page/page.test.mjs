// The parts of the live page that compute: node --test tests/page/
import assert from "node:assert/strict";
import { test } from "node:test";

const at = (name) => import(new URL(`../../wafermon/web/page/${name}`, import.meta.url));
const { ago, bytes, clock, duration, eta, percent, receiptLine } = await at("format.mjs");
const { hashOf, parse } = await at("route.mjs");
const { layout } = await at("waterfall.mjs");
const { pause, wordsOf } = await at("poll.mjs");
const { chosen, isReceipt } = await at("trace.mjs");
const { backendRows } = await at("sidecar.mjs");

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
  assert.equal(eta({ at: 5e6, earliest: null, latest: null, source: "progress", runs: 0 }, 15e6), "due for 10 s, by its own progress");
  assert.equal(eta(null, 0), "");
});

test("a receipt is one line that says complete only where it is", () => {
  const receipt = { complete: true, running: false, sent: 12403, received: 12403, gaps: [], unclosed: [],
    backends: { files: { routed: 12403, stored: 12403 }, db: { routed: 1210, stored: null } } };
  assert.equal(receiptLine(receipt),
    "12,403 sent, 12,403 received, 12,403 of 12,403 stored in files, not yet all of 1,210 stored in db: complete");
  assert.match(receiptLine({ ...receipt, complete: false, gaps: [{}], more_gaps: 2, unclosed: ["a"] }), /3 gaps, 1 program not closed: not complete$/);
  assert.match(receiptLine({ ...receipt, complete: null }), /nobody can know/);
  assert.match(receiptLine({ ...receipt, complete: false, running: true }), /it still runs$/);
});

test("an address leads back to what it was made of, whatever the id holds", () => {
  for (const id of ["load-1", "a/b?c#d", "100%", "<script>", "ü x"]) {
    const route = { view: "trace", id, filters: { level: "error", text: "a&b=c" } };
    assert.deepEqual(parse(hashOf(route)), route);
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
});

test("requests are at least a second apart, and further after failures", () => {
  assert.deepEqual([0, 1, 2, 3, 9, 99].map((failures) => pause(failures)), [1_000, 1_000, 2_000, 4_000, 10_000, 10_000]);
  assert.equal(pause(0, 5), 1_000);
  assert.equal(pause(1, 2_000), 2_000);
});

test("an error is read whether it is JSON or text", () => {
  assert.deepEqual(['{"error": "no such job"}', "a token is wanted\n", "7"].map(wordsOf), ["no such job", "a token is wanted", "7"]);
});

test("a backend that fails says why and how far it is", () => {
  const backends = { db: { plugin: "timescaledb", state: "failing", lag_messages: 1200, lag_bytes: 2048, lag_seconds: 61,
    delivered: 5, retries: 2, dead_letters: 0, error: "refused", detail: "" } };
  assert.deepEqual(backendRows({ backends }), [["db (timescaledb)", "failing", "1,200 messages, 2.0 KiB, 1 min 1 s", "5", "2", "0", "refused"]]);
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
