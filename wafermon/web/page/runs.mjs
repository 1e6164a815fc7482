// The kinds of jobs; and the runs of one as a strip of durations with how they ended, of which two can be put side by side.

import { element, keep, row, setClass, setHref, setText, setTitle, show, table } from "./dom.mjs";
import { ago, change, count, counted, duration, moment } from "./format.mjs";
import { hashOf } from "./route.mjs";
import { setState } from "./states.mjs";

const KINDS = ["Kind", ">Runs", "How they ended", "Last heard"];
const RUNS = ["", "Run", "State", "Began", ">Took", ">Beside the median", ">Errors"];
const SHOWN = 60;

export class Runs {
  constructor(route, root) {
    this.every = 15_000;
    this.kind = route.id;
    this.chosen = new Set();
    this.problems = element("p", { class: "error", role: "alert" });
    this.note = element("p", { class: "note" });
    if (this.kind) this.makeRuns(root);
    else this.makeKinds(root);
    this.take(route);
  }

  makeKinds(root) {
    this.table = table("Kinds of jobs", KINDS);
    root.replaceChildren(element("h1", {}, "Runs"), element("p", { class: "note" }, "Jobs whose ids differ in digits and dates alone are runs of one kind."),
      this.problems, element("section", { class: "card" }, this.table.whole, this.note));
  }

  makeRuns(root) {
    this.table = table(`Runs of ${this.kind}`, RUNS);
    this.strip = element("div", { class: "strip", role: "list", "aria-label": "How long the runs took, the earliest first" });
    this.middle = element("div", { class: "middle hidden", "aria-hidden": "true" });
    this.compare = element("a", { class: "button hidden" }, "Compare the two");
    this.older = element("a", { class: "hidden" }, "Earlier runs");
    root.replaceChildren(
      element("h1", {}, this.kind), this.problems,
      element("section", { class: "card" }, element("h2", {}, "Durations"), element("div", { class: "strip-whole" }, this.strip, this.middle), this.note),
      element("section", { class: "card" }, element("h2", {}, "Runs"), element("p", { class: "facts" }, element("span", { class: "soft" }, "Choose two to see where the time went."), this.compare),
        this.table.whole, element("p", { class: "facts" }, this.older)),
    );
  }

  take(route) {
    this.filters = route.filters;
  }

  changed({ jobs }) {
    return this.kind ? jobs.some((job) => this.traces?.has(job.trace_id)) || (jobs.length > 0 && !this.traces?.size) : jobs.length > 0;
  }

  async ask(get) {
    if (this.kind) this.showRuns(await get(`/api/runs?${new URLSearchParams({ ...this.filters, of: this.kind, limit: SHOWN })}`));
    else this.showKinds(await get("/api/runs?limit=500"));
  }

  showKinds(answer) {
    setText(this.problems, answer.problems.join("; "));
    keep(this.table.body, answer.kinds, (one) => one.kind, (one) => {
      const made = row(KINDS);
      made.children[0].append(element("a", { class: "id", href: hashOf({ view: "runs", id: one.kind }) }, one.kind));
      return made;
    }, (made, one) => {
      const [, runs, states, last] = made.children;
      setText(runs, count(one.runs));
      keep(states, Object.entries(one.states).sort(), ([state]) => state, () => element("span"), (part, [state, number]) => {
        setState(part, state, `${count(number)} ${state}`);
      });
      setText(last, ago(one.last, answer.now));
      setTitle(last, moment(one.last, answer.now).utc);
    });
    setText(this.note, answer.kinds.length ? (answer.left_out ? `${count(answer.left_out)} more kinds are not shown.` : "") : "No job is known yet.");
  }

  showRuns(answer) {
    const { runs, median, now } = answer;
    this.traces = new Set(runs.map((run) => run.trace_id));
    setText(this.problems, answer.problems.join("; "));
    const took = (run) => (["running", "stalled"].includes(run.state) ? now : run.last_progress) - run.first;
    const longest = Math.max(1, median ?? 0, ...runs.map(took));
    keep(this.strip, [...runs].reverse(), keyOf, () => element("div", { role: "listitem" }, element("a", {}, element("div"))), (item, run) => {
      const words = `${run.job_id}: ${run.state}, ${duration(took(run))}, ${moment(run.first, now).text}`;
      const link = item.firstChild;
      setHref(link, hashOf({ view: "trace", id: run.trace_id }));
      setTitle(link, words);
      link.setAttribute("aria-label", words);
      setClass(link.firstChild, `fill-${run.state}`);
      link.firstChild.style.height = `${Math.max(3, (100 * took(run)) / longest)}%`;
    });
    const known = Number.isFinite(median);
    show(this.middle, known);
    if (known) this.middle.style.bottom = `${(100 * median) / longest}%`;
    const whole = Number.isFinite(answer.total) && answer.total > runs.length ? `The latest ${count(runs.length)} of ${counted(answer.total, "run")}.` : `${counted(runs.length, "run")}.`;
    setText(this.note, runs.length ? `${whole} The highest took ${duration(longest)}.${known ? ` The line is the median of those that are done, ${duration(median)}.` : ""}` : "No run of this kind is known.");
    keep(this.table.body, runs, keyOf, (run) => this.line(run), (made, run) => {
      const [box, name, state, began, time, beside, errors] = made.children;
      box.firstChild.checked = this.chosen.has(run.trace_id);
      setText(name.firstChild, run.job_id);
      setHref(name.firstChild, hashOf({ view: "trace", id: run.trace_id }));
      setState(state.firstChild, run.state);
      const when = moment(run.first, now);
      setText(began, when.text);
      setTitle(began, when.utc);
      setText(time, duration(took(run)));
      setText(beside, run.state === "done" && known ? change(took(run), median) : "");
      setText(errors, run.errors ? count(run.errors) : "");
      setClass(errors, run.errors ? "right number error" : "right number");
    });
    show(this.older, answer.more);
    setHref(this.older, hashOf({ view: "runs", id: this.kind, filters: { ...this.filters, after: answer.next } }));
    this.settle();
  }

  line(run) {
    const made = row(RUNS);
    const box = element("input", { type: "checkbox", "aria-label": `compare ${run.job_id}` });
    box.addEventListener("change", () => {
      if (box.checked) this.chosen.add(run.trace_id);
      else this.chosen.delete(run.trace_id);
      // Two are compared: the one that was chosen first makes room.
      if (this.chosen.size > 2) this.chosen.delete(this.chosen.values().next().value);
      for (const [, line] of this.table.body.kept) line.firstChild.firstChild.checked = this.chosen.has(line.dataset.trace);
      this.settle();
    });
    made.dataset.trace = run.trace_id;
    made.children[0].append(box);
    made.children[1].append(element("a", { class: "id" }));
    made.children[2].append(element("span", { class: "state" }));
    return made;
  }

  settle() {
    const [one, two] = this.chosen;
    show(this.compare, two);
    if (two) setHref(this.compare, hashOf({ view: "compare", filters: { run: one, other: two } }));
  }
}

function keyOf(run) {
  return `${run.trace_id} ${run.job_id}`;
}
