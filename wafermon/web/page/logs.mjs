// The events of a trace as a log: filtered by level, text and span, followed to its end while the trace goes on.

import { copyButton, element, keep, labelled, setClass, setText, show } from "./dom.mjs";
import { clock, count } from "./format.mjs";
import { keyOf } from "./merge.mjs";
import { Refused } from "./poll.mjs";
import { hashOf } from "./route.mjs";

const LEVELS = ["debug", "info", "warning", "error", "critical"];
const SEARCHED = 500;
const AROUND = 250; // lines before the one that the address names, and as many after it
const AFTER = 60_000_000; // microseconds in which those after it are looked for
const FRAMES = 3; // until a line stands where it was scrolled to
const END = 40; // pixels from its end that still count as its end

export class Logs {
  constructor(id, filtered) {
    this.id = id;
    this.filtered = filtered; // told the filters that a person has chosen
    this.follow = element("input", { type: "checkbox", checked: "" });
    this.follow.checked = true;
    this.form = eventForm(this.follow);
    this.note = element("p", { class: "note" });
    this.all = element("button", { type: "button", class: "hidden" }, "Search all that is stored");
    this.list = element("div", { class: "log", role: "list", tabindex: "0", "aria-label": "Events" });
    this.whole = element("section", { class: "card" }, element("h2", {}, "Log"), this.form, element("p", { class: "facts" }, this.note, this.all), this.list);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.take());
    this.all.addEventListener("click", () => this.searchAll());
    // Who scrolls up reads; who comes back to the end follows again.
    this.list.addEventListener("scroll", () => {
      this.follow.checked = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < END;
    });
    this.follow.addEventListener("change", () => this.toEnd());
    this.jumped = "";
    this.looked = ""; // which line was looked for in what is stored
    this.found = null;
    this.around = false; // whether what was found is what stands around that line
  }

  // Each letter typed would be a step back in the browser's history.
  take() {
    const filters = { ...this.filters, level: this.form.elements.level.value, text: this.form.elements.text.value };
    this.filtered(filters);
  }

  show(answer, filters, get, hue) {
    // What stands around a line is shown as long as the address names that one.
    if (filters !== this.filters && !(this.found && this.around && filters.event === this.filters.event)) Object.assign(this, { found: null, looked: "" });
    Object.assign(this, { answer, filters, get, hue });
    for (const name of ["level", "text"]) {
      const field = this.form.elements[name];
      if (field !== document.activeElement) field.value = filters[name] ?? "";
    }
    const names = new Map(answer.spans.map((span) => [span.span_id, span.name]));
    const events = (this.found ?? answer.events).filter((event) => !isReceipt(event));
    const shown = chosen(events, filters);
    keep(this.list, shown, keyOf, (event) => this.line(event, names), (line, event) => {
      setClass(line, `event${this.filters.event === keyOf(event) ? " is-chosen" : ""}`);
      const link = line.children[4];
      if (event.span_id) link.setAttribute("href", this.hash({ span: event.span_id, event: "", at: "" }));
    });
    const earlier = answer.left_out.events ?? 0;
    const words = this.found ? `${count(shown.length)} ${this.around ? "around the line that the address names" : "found in all that is stored"}.` : `${count(shown.length)} of ${earlier ? "the latest " : ""}${count(events.length)}.`;
    const lost = filters.event && !shown.some((event) => keyOf(event) === filters.event) ? " The line that the address names is not among them." : "";
    setText(this.note, `${words}${earlier && !this.found ? ` ${count(earlier)} earlier ones are not here.` : ""}${lost}`);
    show(this.all, earlier && !(this.found && !this.around));
    this.toEnd();
    this.jump();
    if (lost && earlier && !this.found && filters.at && this.looked !== filters.event) this.lookAround();
  }

  hash(filters) {
    return hashOf({ view: "trace", id: this.id, filters: { ...this.filters, ...filters } });
  }

  toEnd() {
    if (this.follow.checked && !this.filters.event) this.list.scrollTop = this.list.scrollHeight;
  }

  // To the line that the address names, once.
  jump() {
    const { event } = this.filters;
    if (!event || this.jumped === event) return;
    const line = this.list.kept?.get(event);
    if (!line) return;
    this.jumped = event;
    this.follow.checked = false;
    toMiddle(line, FRAMES);
  }

  async searchAll() {
    const { level = "", text = "" } = this.filters;
    await this.search(false, async () => (await this.stored({ level, text, limit: SEARCHED })).events.reverse());
  }

  // The line that the address names, and its neighbours, of a trace that has more lines than are shown.
  async lookAround() {
    const at = Number(this.filters.at);
    this.looked = this.filters.event;
    if (!Number.isSafeInteger(at)) return;
    await this.search(true, async () => {
      const [before, after] = await Promise.all([
        this.stored({ until: at + 1, limit: AROUND }),
        this.stored({ since: at + 1, until: at + 1 + AFTER, limit: AROUND }),
      ]);
      return [...(after.more ? [] : after.events), ...before.events].reverse(); // no gap after the line
    });
  }

  stored(wanted) {
    return this.get(`/api/events/search?${new URLSearchParams({ trace: this.answer.trace_id, ...wanted })}`);
  }

  async search(around, ask) {
    const { filters } = this;
    try {
      const found = await ask();
      if (this.filters !== filters) return; // a person has chosen others meanwhile
      Object.assign(this, { found, around });
      this.show(this.answer, this.filters, this.get, this.hue);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setText(this.note, error.message);
    }
  }

  line(event, names) {
    const time = clock(event.ts);
    const key = keyOf(event);
    const span = event.span_id ? names.get(event.span_id) ?? event.span_id : "";
    return element("div", { class: "event", role: "listitem" },
      element("a", { class: "number time", title: `${time.utc}, copy this link to point at the line`, href: this.hash({ event: key, at: event.ts }) }, element("time", { datetime: time.utc }, time.text)),
      element("span", { class: `level ${LEVELS.includes(event.level) ? event.level : ""}` }, String(event.level)),
      element("span", { class: `service dot-${this.hue(event.service)}` }, String(event.service)),
      element("span", { class: "message" }, String(event.message ?? ""), " ", element("span", { class: "context" }, contextOf(event))),
      span ? element("a", { class: "of" }, span) : element("span"),
      copyButton("copy", () => `${time.utc} ${event.level} ${event.service} ${event.message ?? ""} ${contextOf(event)}`.trim(), "this line"));
  }
}

// How high the lines around it are is known once they have been drawn.
function toMiddle(line, times) {
  line.scrollIntoView({ block: "center" });
  if (times) requestAnimationFrame(() => toMiddle(line, times - 1));
}

// What the sidecar keeps for receipts; the line at the top says it in words.
export function isReceipt(event) {
  return event.service === "wafermon" && event.context?.kind === "receipt";
}

// Events of at least a level, of a span, with a text somewhere in their message, service or context. The array is a new one.
export function chosen(events, { level = "", text = "", span = "" }) {
  const least = LEVELS.indexOf(level);
  const wanted = text.toLowerCase();
  return events.filter(
    (event) =>
      LEVELS.indexOf(event.level) >= least &&
      (!span || event.span_id === span) &&
      (!wanted || `${event.service} ${event.message} ${contextOf(event)}`.toLowerCase().includes(wanted)),
  );
}

// "lot=N26A002 wafers=3"
export function contextOf(event) {
  if (!event.context || typeof event.context !== "object") return "";
  return Object.entries(event.context).map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("  ");
}

function eventForm(follow) {
  const levels = element("select", { name: "level" });
  for (const level of LEVELS) levels.append(element("option", { value: level === "debug" ? "" : level }, level));
  return element("form", { "aria-label": "Filter events" },
    labelled("At least", levels), labelled("Text", element("input", { name: "text", type: "search", size: "24" })),
    element("label", { class: "check" }, follow, "Follow"));
}
