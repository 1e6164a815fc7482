// The waterfall: spans over time, across services and hosts. What is open grows by the sidecar's clock.

import { copyButton, element, keep, setClass, setHref, setText, setTitle, show } from "./dom.mjs";
import { count, duration, language, moment } from "./format.mjs";
import { hashOf } from "./route.mjs";
import { isOpen, layout, marks } from "./waterfall.mjs";

export class Spans {
  constructor(id) {
    this.id = id;
    this.unfolded = new Set();
    this.drawn = { rows: [], from: 0, to: 1 };
    this.note = element("p", { class: "note" });
    this.axis = element("div", { class: "track axis" });
    this.head = element("div", { class: "span head", "aria-hidden": "true" }, element("div"), this.axis);
    this.list = element("div", { role: "list", "aria-label": "Spans" });
    this.chosen = element("div", { class: "chosen hidden" });
    this.whole = element("section", { class: "card" }, element("h2", {}, "Spans"), this.note, element("div", { class: "waterfall" }, this.head, this.list), this.chosen);
  }

  // `answer` is the trace's, `now` the time that open spans reach.
  show(answer, now, filters, sdks, hue) {
    Object.assign(this, { answer, filters, sdks, hue });
    this.critical = new Set(answer.critical_path ?? []);
    this.draw(now);
    this.showChosen(now);
  }

  draw(now) {
    const { answer } = this;
    show(this.head, answer.spans.length);
    if (!answer.spans.length) {
      this.drawn = { rows: [], from: answer.first, to: Math.max(answer.first + 1, now) };
      keep(this.list, []);
      setText(this.note, "There are none.");
      return;
    }
    this.drawn = layout(answer.spans, now, this.unfolded);
    const { from, to, rows } = this.drawn;
    const hidden = this.drawn.left_out + (answer.left_out.spans ?? 0);
    const words = [this.critical.size ? "Underlined: the critical path, which the end waited for." : ""];
    if (hidden) words.push(`${count(hidden)} spans are folded or not shown.`);
    setText(this.note, words.filter(Boolean).join(" "));
    keep(this.axis, marks(from, to), ({ after }) => String(after), () => element("span"), (mark, { left, after }) => {
      mark.style.left = `${left}%`;
      setText(mark, after ? duration(after) : "0");
    });
    keep(this.list, rows, (one) => one.span.span_id, (one) => this.line(one), (line, one) => this.fill(line, one));
  }

  // Open spans grow between two answers too.
  tick(now) {
    if (this.answer && this.drawn.rows.some((one) => one.open)) this.draw(now);
  }

  line({ span }) {
    const unfold = element("button", { type: "button", class: "hidden" });
    unfold.addEventListener("click", () => {
      if (!this.unfolded.delete(span.span_id)) this.unfolded.add(span.span_id);
      this.draw(this.drawn.to);
    });
    return element("div", { class: "span", role: "listitem" },
      element("div", { class: "name" }, element("a"), element("span", { class: "service" }), element("span", { class: "lang" }),
        element("span", { class: "took number" }), element("span", { class: "said" }), element("span", { class: "aside" }), unfold),
      element("div", { class: "track", "aria-hidden": "true" }, element("div", { class: "bar" })));
  }

  fill(line, { span, left, width, duration: took, open, skewed, folded, unfolded }) {
    const [name, track] = line.children;
    const [title, service, lang, time, said, path, unfold] = name.children;
    const chosen = this.filters.span === span.span_id;
    const critical = this.critical.has(span.span_id);
    setClass(line, `span${chosen ? " is-chosen" : ""}${critical ? " critical-path" : ""}`);
    name.style.paddingLeft = `${Math.min(span.depth, 14) * 0.9}rem`;
    setText(title, span.name);
    setHref(title, hashOf({ view: "trace", id: this.id, filters: { ...this.filters, event: "", span: chosen ? "" : span.span_id } }));
    title.setAttribute("aria-current", String(chosen));
    setText(service, span.service);
    setClass(service, `service dot-${this.hue(span.service)}`);
    setText(lang, language(this.sdks.get(span.service)));
    setText(time, took === null ? "" : duration(took));
    const words = [open ? "open" : ["ok", null].includes(span.status) ? "" : span.status, skewed ? "clocks differ" : ""];
    setText(said, words.filter(Boolean).join(", "));
    setTitle(said, skewed ? "It seems to start before its parent: the clocks of their hosts differ." : "");
    setText(path, critical ? "on the critical path" : "");
    setText(unfold, folded ? `show ${count(folded)} below` : unfolded ? "fold" : "");
    show(unfold, folded || unfolded);
    const bar = track.firstChild;
    const bad = !open && !["ok", "cancelled"].includes(span.status);
    setClass(bar, `bar hue-${this.hue(span.service)}${open ? " open" : ""}${bad ? " bad" : ""}`);
    bar.style.left = `${left}%`;
    bar.style.width = `${width}%`;
    setTitle(track, `${span.name} (${span.service}): ${took === null ? span.status : duration(took)}`);
  }

  showChosen(now) {
    const span = this.answer.spans.find((one) => one.span_id === this.filters.span);
    show(this.chosen, this.filters.span);
    if (!this.filters.span) return;
    const facts = span ? [
      ["Span", span.name], ["Service", `${span.service}${language(this.sdks.get(span.service)) ? ` (${language(this.sdks.get(span.service))})` : ""}`],
      ["State", isOpen(span) ? "open" : span.status], ["Began", moment(span.start, now).text], ["After", duration(span.start - this.answer.first)],
      ["Took", isOpen(span) ? `${duration(now - span.start)} so far` : duration(span.duration ?? NaN)], ["Id", span.span_id],
    ] : [["Span", `${this.filters.span} is not here`]];
    if (!this.chosen.firstChild) {
      this.chosen.append(element("dl"), element("p", { class: "facts" }, copyButton("copy link", () => location.href, "to this span"), element("a", {}, "show all again")));
    }
    keep(this.chosen.firstChild, facts, ([name]) => name, ([name]) => element("div", {}, element("dt", {}, name), element("dd")), (line, [, value]) => setText(line.lastChild, value));
    setHref(this.chosen.lastChild.lastChild, hashOf({ view: "trace", id: this.id, filters: { ...this.filters, span: "", event: "" } }));
  }
}
