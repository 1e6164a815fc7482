// One trace: what its jobs say, its spans over time, its latest events.

import { element, keep, setClass, setText } from "./dom.mjs";
import { clock, count, counted, duration, eta, receiptLine } from "./format.mjs";
import { labelled, showProgress } from "./jobs.mjs";
import { Refused } from "./poll.mjs";
import { hashOf } from "./route.mjs";
import { layout } from "./waterfall.mjs";

const MESSAGES = 1_000;
const RECEIPT_EVERY = 5;
const GOING_ON_EVERY = 2_000;
const SOON = 1_000;
const OVER_EVERY = 10_000;
const STALE = 12_000;
const LEVELS = ["debug", "info", "warning", "error", "critical"];

export class Trace {
  constructor(route, root) {
    this.every = GOING_ON_EVERY;
    this.id = route.id;
    this.rounds = 0;
    this.unfolded = new Set();
    this.answer = null;
    this.facts = element("p", { class: "facts" });
    this.state = element("span", { class: "state" });
    this.numbers = element("span");
    this.problems = element("p", { class: "error", role: "alert" });
    this.jobs = element("div");
    this.receipt = element("p");
    this.spans = element("div", { role: "list", "aria-label": "Spans" });
    this.spansNote = element("p", { class: "note" });
    this.events = element("div", { role: "list", "aria-label": "Events" });
    this.eventsNote = element("p", { class: "note" });
    this.form = eventForm();
    this.facts.append(this.state, this.numbers);
    root.replaceChildren(
      element("h1", {}, route.id), this.facts, this.problems, this.jobs, this.receipt,
      element("h2", {}, "Spans"), this.spansNote, this.spans,
      element("h2", {}, "Events"), this.form, this.eventsNote, this.events,
    );
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.filtered());
    this.take(route);
  }

  take(route) {
    this.filters = route.filters;
    for (const field of this.form.elements) {
      if (field !== document.activeElement) field.value = route.filters[field.name] ?? "";
    }
    this.showEvents();
  }

  // Each letter typed would be a step back in the browser's history.
  filtered() {
    const filters = {};
    for (const field of this.form.elements) filters[field.name] = field.value;
    history.replaceState(null, "", hashOf({ view: "trace", id: this.id, filters }));
    this.filters = filters;
    this.showEvents();
  }

  async ask(get) {
    const path = `/api/traces/${encodeURIComponent(this.id)}`;
    if (this.rounds % RECEIPT_EVERY === 1) await this.askReceipt(get, path);
    else this.show(await get(`${path}?limit=${MESSAGES}`));
    this.rounds += 1;
    const over = this.answer?.status !== "running";
    this.every = this.rounds === 1 ? SOON : over ? OVER_EVERY : GOING_ON_EVERY;
  }

  async askReceipt(get, path) {
    try {
      const receipt = await get(`${path}/receipt`);
      setText(this.receipt, `Receipt: ${receiptLine(receipt)}`);
      setClass(this.receipt, receipt.complete ? "ok" : receipt.complete === null || receipt.running ? "soft" : "warning");
    } catch (error) {
      if (!(error instanceof Refused) || ![404, 503].includes(error.status)) throw error;
      setText(this.receipt, `No receipt: ${error.message}`);
      setClass(this.receipt, "soft");
    }
  }

  show(answer) {
    this.answer = answer;
    this.received = performance.now();
    setText(this.problems, answer.problems.join("; "));
    setText(this.state, answer.status);
    setClass(this.state, `state ${answer.status}`);
    keep(this.jobs, answer.jobs, (job) => job.job_id, jobLine, (line, job) => fillJob(line, job, answer.now));
    this.showSpans();
    this.showEvents();
  }

  // The server's clock, as far as it can be told between two answers.
  now() {
    return this.answer.now + (performance.now() - this.received) * 1_000;
  }

  // Open spans grow between two answers too.
  // While there are none, nothing is known of them.
  tick() {
    if (!this.answer || performance.now() - this.received > STALE) return;
    this.showNumbers();
    if (this.answer.status !== "running") return;
    if (this.drawn.rows.some((one) => one.open)) this.showSpans();
  }

  showNumbers() {
    const { answer } = this;
    const end = answer.status === "running" ? this.now() : answer.last;
    const words = [
      `${answer.status === "running" ? "for" : "took"} ${duration(end - answer.first)}`,
      counted(answer.spans.length + (answer.left_out.spans ?? 0), "span"),
      counted(answer.errors, "error"),
      answer.services.join(", "),
    ];
    setText(this.numbers, words.filter(Boolean).join(" · "));
  }

  showSpans() {
    const { answer } = this;
    this.showNumbers();
    if (!answer.spans.length) {
      this.drawn = { rows: [] };
      keep(this.spans, []);
      setText(this.spansNote, "None.");
      return;
    }
    const now = answer.status === "running" ? this.now() : answer.last;
    this.drawn = layout(answer.spans, now, this.unfolded);
    const unsent = answer.left_out.spans ?? 0;
    const hidden = this.drawn.left_out + unsent;
    const whole = `${duration(this.drawn.to - this.drawn.from)} from left to right.`;
    setText(this.spansNote, hidden ? `${whole} ${count(hidden)} spans are folded or not shown.` : whole);
    keep(this.spans, this.drawn.rows, (one) => one.span.span_id, (one) => this.spanLine(one), fillSpan);
  }

  spanLine({ span }) {
    const unfold = element("button", { type: "button", class: "hidden" });
    unfold.addEventListener("click", () => {
      this.unfolded.add(span.span_id);
      this.showSpans();
    });
    return element("div", { class: "span", role: "listitem" },
      element("div", { class: "name" }, element("span"), " ", element("span", { class: "soft" }), " ", unfold),
      element("div", { class: "track", "aria-hidden": "true" }, element("div", { class: "bar" })));
  }

  showEvents() {
    if (!this.answer) return;
    const { left_out: leftOut } = this.answer;
    const events = this.answer.events.filter((event) => !isReceipt(event));
    const shown = chosen(events, this.filters).reverse();
    keep(this.events, shown, (event) => `${event.client} ${event.seq} ${event.ts}`, eventLine, () => {});
    const earlier = leftOut.events ? ` ${count(leftOut.events)} earlier ones are not here: wafermon events has them.` : "";
    setText(this.eventsNote, `${count(shown.length)} of the latest ${count(events.length)}, the latest first.${earlier}`);
  }
}

// What the sidecar keeps for receipts; the line at the top says it in words.
export function isReceipt(event) {
  return event.service === "wafermon" && event.context?.kind === "receipt";
}

// Events of at least a level, with a text somewhere in their message, service or context. The array is a new one.
export function chosen(events, { level = "", text = "" }) {
  const least = LEVELS.indexOf(level);
  const wanted = text.toLowerCase();
  return events.filter(
    (event) =>
      LEVELS.indexOf(event.level) >= least &&
      (!wanted || `${event.service} ${event.message} ${contextOf(event)}`.toLowerCase().includes(wanted)),
  );
}

function contextOf(event) {
  return event.context && Object.keys(event.context).length ? JSON.stringify(event.context) : "";
}

function eventForm() {
  const levels = element("select", { name: "level" });
  for (const level of LEVELS) levels.append(element("option", { value: level === "debug" ? "" : level }, level));
  return element("form", { "aria-label": "Filter events" },
    labelled("At least", levels), labelled("Text", element("input", { name: "text", type: "search" })));
}

function eventLine(event) {
  const time = clock(event.ts);
  return element("div", { class: "event", role: "listitem" },
    element("time", { datetime: time.utc, title: time.utc, class: "number" }, time.text),
    element("span", { class: event.level === "error" ? "error" : LEVELS.includes(event.level) ? event.level : "" }, String(event.level)),
    element("span", { class: "soft" }, String(event.service)),
    element("span", { class: "message" }, String(event.message ?? ""), " ", element("span", { class: "context" }, contextOf(event))));
}

function jobLine() {
  return element("p", { class: "facts" },
    element("span", {}, element("progress", { max: "100" }), " ", element("span", { class: "number" })),
    element("span"), element("span", { class: "state" }), element("span", { class: "soft" }));
}

function fillJob(line, job, now) {
  const [progress, name, state, ends] = line.children;
  showProgress(progress, job);
  setText(name, job.status && job.status !== job.state ? `${job.job_id}: ${job.status}` : job.job_id);
  setText(state, job.state);
  setClass(state, `state ${job.state}`);
  const words = eta(job.eta, now);
  setText(ends, words && `ends ${words}`);
}

function fillSpan(line, { span, left, width, duration: took, open, skewed, folded }) {
  const [name, track] = line.children;
  const [title, about, unfold] = name.children;
  name.style.paddingLeft = `${Math.min(span.depth, 12)}rem`;
  setText(title, span.name);
  const words = [span.service, took === null ? "" : duration(took), open ? "open" : span.status];
  if (skewed) words.push("starts before its parent: the clocks differ");
  setText(about, words.filter(Boolean).join(" · "));
  setText(unfold, folded ? `show ${count(folded)} below` : "");
  setClass(unfold, folded ? "" : "hidden");
  const bar = track.firstChild;
  setClass(bar, open ? "bar open" : ["ok", "cancelled"].includes(span.status) ? "bar" : "bar bad");
  bar.style.left = `${left}%`;
  bar.style.width = `${width}%`;
}
