// Two runs side by side, or one beside the median of the last ones of its kind: where the time went, step by step, and what else differs.

import { element, keep, row, setClass, setHref, setText, setTitle, show, table } from "./dom.mjs";
import { change, count, counted, duration, figure, moment, percent } from "./format.mjs";
import { Refused } from "./poll.mjs";
import { hashOf } from "./route.mjs";
import { hue } from "./hues.mjs";
import { setState } from "./states.mjs";

const STEPS = ["Step", "Time of its own", ">This run", ">The other", ">Difference"];
const NUMBERS = ["What", "Service", ">This run", ">The other", ">Difference"];

export class Compare {
  constructor(route, root) {
    this.every = 60_000;
    this.problems = element("p", { class: "error", role: "alert" });
    this.sides = element("div", { class: "sides" }, side(), side());
    this.swap = element("a", {}, "swap the two");
    this.steps = table("Steps", STEPS);
    this.numbers = table("Counts and metrics", NUMBERS);
    this.note = element("p", { class: "note" });
    this.nothing = element("p", { class: "note" });
    this.whole = element("div", { class: "hidden" },
      element("section", { class: "card" }, this.sides, element("p", { class: "facts" }, this.swap)),
      element("section", { class: "card" }, element("h2", {}, "Steps"), this.note, this.steps.whole),
      element("section", { class: "card" }, element("h2", {}, "What else differs"), this.numbers.whole, this.nothing));
    root.replaceChildren(element("h1", {}, "Two runs compared"), this.problems, this.whole);
    this.take(route);
  }

  take(route) {
    this.filters = route.filters;
  }

  changed({ traces }) {
    return traces.includes(this.filters.run) || traces.includes(this.filters.other);
  }

  async ask(get) {
    const { run, other } = this.filters;
    if (!run) {
      setText(this.problems, "Choose two runs of a kind under Runs.");
      return;
    }
    try {
      this.show(await get(`/api/compare?${new URLSearchParams({ run, ...(other ? { other } : {}) })}`));
    } catch (error) {
      if (!(error instanceof Refused) || ![400, 404].includes(error.status)) throw error;
      show(this.whole, false);
      setText(this.problems, error.message);
    }
  }

  show(answer) {
    show(this.whole, true);
    setText(this.problems, answer.problems.join("; "));
    const [left, right] = this.sides.children;
    fillSide(left, answer.run, "", answer, answer.other.duration);
    fillSide(right, answer.other, `median of ${counted(answer.runs, "run")}`, answer, NaN);
    show(this.swap, answer.other.trace_id);
    setHref(this.swap, hashOf({ view: "compare", filters: { run: answer.other.trace_id, other: answer.run.trace_id } }));
    const longest = Math.max(1, ...answer.steps.flatMap((step) => [step.own, step.other_own]));
    setText(this.note, answer.steps.length ? "What none of a step's children covers is its own. Underlined: on the critical path." : "Neither has a span.");
    keep(this.steps.body, answer.steps, (step) => JSON.stringify(step.place), stepRow, (made, step) => fillStep(made, step, longest));
    const differs = [...answer.counts, ...answer.metrics].filter((one) => one.change !== 0);
    show(this.numbers.whole, differs.length);
    setText(this.nothing, differs.length ? "" : "Nothing more than it always does.");
    keep(this.numbers.body, differs, (one) => `${one.service} ${one.name}`, () => row(NUMBERS), (made, one) => {
      const [name, service, value, other, differ] = made.children;
      setText(name, one.service ? one.name : `${one.name} messages`);
      setText(service, one.service);
      setText(value, figure(one.value));
      setText(other, figure(one.other));
      setText(differ, one.change === null ? "new" : `${one.change > 0 ? "+" : "−"}${percent(Math.abs(one.change) * 100)}`);
    });
  }
}

function side() {
  return element("div", { class: "side" }, element("a", { class: "id" }), element("strong"), element("span", { class: "state" }),
    element("div", { class: "long number" }), element("div", { class: "soft" }), element("div", { class: "path" }));
}

function fillSide(node, one, words, answer, other) {
  const [link, plain, state, long, about, path] = node.children;
  show(link, one.trace_id);
  show(plain, !one.trace_id);
  setText(link, one.trace_id);
  setHref(link, hashOf({ view: "trace", id: one.trace_id }));
  setText(plain, words);
  setState(state, one.trace_id ? one.status : "");
  const differs = change(one.duration, other);
  setText(long, `${duration(one.duration)}${differs ? ` (${differs})` : ""}`);
  const when = moment(one.first, answer.now);
  setText(about, `${one.trace_id ? `began ${when.text}, ` : ""}${counted(one.errors, "error")}`);
  setTitle(about, when.utc);
  setText(path, one.critical_path.length ? `critical path: ${folded(one.critical_path).join(" › ")}` : "");
}

// Steps that come several times one after the other are named once.
function folded(path) {
  const found = [];
  for (const step of path) {
    const name = step.slice(step.indexOf("/") + 1);
    const last = found.at(-1);
    if (last?.name === name) last.times += 1;
    else found.push({ name, times: 1 });
  }
  return found.map(({ name, times }) => (times > 1 ? `${name} ×${times}` : name));
}

function stepRow() {
  const made = row(STEPS);
  made.children[0].append(element("span", { class: "step" }), " ", element("span", { class: "service" }));
  made.children[1].append(element("div", { class: "pair", "aria-hidden": "true" }, element("div"), element("div")));
  return made;
}

function fillStep(made, step, longest) {
  const [name, bars, one, two, lost] = made.children;
  name.style.paddingLeft = `${step.depth * 0.9}rem`;
  setText(name.firstChild, step.name);
  setClass(name.firstChild, step.critical || step.other_critical ? "step critical-step" : "step");
  setText(name.lastChild, step.service);
  setClass(name.lastChild, `service dot-${hue(step.service)}`);
  const [mine, other] = bars.firstChild.children;
  setClass(mine, `hue-${hue(step.service)}`);
  setClass(other, "other");
  mine.style.width = `${(100 * step.own) / longest}%`;
  other.style.width = `${(100 * step.other_own) / longest}%`;
  setText(one, inWords(step.own, step.count, step.failed));
  setText(two, inWords(step.other_own, step.other_count, step.other_failed));
  setText(lost, step.lost ? `${step.lost > 0 ? "+" : "−"}${duration(Math.abs(step.lost))}` : "");
  setClass(lost, `right number${step.lost > longest / 20 ? " error" : step.lost < -longest / 20 ? " ok" : ""}`);
}

function inWords(own, times, failed) {
  if (times === null) return "not there";
  return [duration(own), times === 1 ? "" : `${count(times)} times`, failed ? `${count(failed)} failed` : ""].filter(Boolean).join(", ");
}
