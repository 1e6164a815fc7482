// The jobs: those that go on first, then those that are over, page by page.

import { bar, element, keep, labelled, row, setBar, setClass, setHref, setText, setTitle, show, table } from "./dom.mjs";
import { ago, count, duration, eta, etaAlone, moment, percent } from "./format.mjs";
import { hashOf } from "./route.mjs";
import { setState } from "./states.mjs";

const GOING_ON = ["running", "stalled"];
const OVER = ["gone", "failed", "cancelled", "unfinished", "done"];
const MOST_GOING_ON = 1_000;
const A_PAGE = 50;
const HEADINGS = {
  going: ["Job", "State", "Progress", "Ends", "Services", ">Errors", "-Last heard"],
  over: ["Job", "State", "Progress", "Took", "Services", ">Errors", "-Last heard"],
};

export class Jobs {
  constructor(route, root) {
    this.every = 30_000; // what changes, the stream says
    this.form = filterForm();
    this.problems = element("p", { class: "error", role: "alert" });
    this.going = section("Running", HEADINGS.going);
    this.over = section("Ended", HEADINGS.over);
    this.older = element("a", { class: "hidden" }, "Older jobs");
    this.newest = element("a", { class: "hidden" }, "Back to the latest");
    this.rows = new Map(); // key -> { job, cells }, of those that go on
    root.replaceChildren(
      element("h1", {}, "Jobs"), this.form, this.problems, this.going.whole, this.over.whole,
      element("p", { class: "facts" }, this.older, this.newest),
    );
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", () => this.filtered());
    this.take(route);
  }

  // The filters of the address.
  take(route) {
    this.filters = route.filters;
    for (const field of this.form.elements) {
      if (field.name && field !== document.activeElement) field.value = route.filters[field.name] ?? "";
    }
    show(this.newest, this.filters.after);
    this.newest.href = hashOf({ view: "jobs", filters: { ...this.filters, after: "" } });
  }

  filtered() {
    const filters = {};
    for (const field of this.form.elements) if (field.name) filters[field.name] = field.value.trim();
    location.hash = hashOf({ view: "jobs", filters });
  }

  async ask(get) {
    const { after, ...filters } = this.filters;
    const answers = await Promise.all([
      this.askFor(get, this.going, filters, GOING_ON, MOST_GOING_ON, ""),
      this.askFor(get, this.over, filters, OVER, A_PAGE, after ?? ""),
    ]);
    setText(this.problems, [...new Set(answers.flatMap((answer) => answer?.problems ?? []))].join("; "));
    this.known = new Set(answers.flatMap((answer) => answer?.jobs ?? []).map(keyOf));
  }

  async askFor(get, list, filters, states, limit, after) {
    const wanted = filters.state ? states.filter((one) => one === filters.state) : states;
    show(list.whole, wanted.length);
    if (!wanted.length) return null;
    const given = new URLSearchParams({ ...filters, state: wanted.join(","), limit, after });
    const answer = await get(`/api/jobs?${given}`);
    const going = list === this.going;
    // By when they began: by when they were heard of they would change places all the time.
    const jobs = going ? [...answer.jobs].sort((one, other) => other.first - one.first) : answer.jobs;
    const rows = new Map();
    keep(list.body, jobs, keyOf, () => jobRow(going), (cells, job) => {
      fill(cells, job, answer.now, going);
      rows.set(keyOf(job), { job, cells });
    });
    show(list.table, jobs.length);
    setText(list.note, noteOn(answer, going));
    setText(list.number, Number.isFinite(answer.total) ? count(answer.total) : "");
    if (going) {
      this.rows = rows;
      this.clock = { now: answer.now, at: performance.now() };
    } else {
      show(this.older, answer.more);
      this.older.href = hashOf({ view: "jobs", filters: { ...this.filters, after: answer.next } });
    }
    return answer;
  }

  // What the stream says: rows that are shown move at once. Whether a job came, or went over, is asked.
  changed({ jobs, more, now }) {
    if (!this.clock) return false;
    this.clock = { now, at: performance.now() };
    let ask = more;
    for (const job of jobs) {
      const known = this.rows.get(keyOf(job));
      if (!known) {
        if (GOING_ON.includes(job.state) || !this.known.has(keyOf(job))) ask = true;
      } else if (!GOING_ON.includes(job.state)) {
        ask = true;
      } else {
        known.job = { ...known.job, ...job, first: Math.min(known.job.first, job.first) };
        fill(known.cells, known.job, now, true);
      }
    }
    return ask;
  }

  // Times go on between two answers, once a second.
  tick() {
    if (!this.clock) return;
    const now = this.clock.now + (performance.now() - this.clock.at) * 1_000;
    if (now - (this.ticked ?? 0) < 1e6) return;
    this.ticked = now;
    for (const { job, cells } of this.rows.values()) fillTimes(cells, job, now, true);
  }
}

function keyOf(job) {
  return `${job.trace_id} ${job.job_id}`;
}

function noteOn(answer, going) {
  if (!answer.jobs.length) return going ? "No job is running." : "No job has ended yet.";
  if (going && answer.more) return `The latest ${count(answer.jobs.length)} are shown; filter to see others.`;
  return "";
}

function section(heading, headings) {
  const { whole, body } = table(heading, headings);
  const note = element("p", { class: "note" });
  const number = element("span", { class: "badge" });
  return { whole: element("section", { class: "card jobs-list" }, element("h2", {}, heading, " ", number), whole, note), table: whole, body, note, number };
}

function filterForm() {
  const states = element("select", { name: "state" }, element("option", { value: "" }, "any"));
  for (const state of [...GOING_ON, ...OVER]) states.append(element("option", { value: state }, state));
  return element("form", { "aria-label": "Filters" },
    labelled("Job", element("input", { name: "name", placeholder: "load-*", size: "18" })),
    labelled("Service", element("input", { name: "service", placeholder: "db-*", size: "14" })),
    labelled("State", states),
    labelled("Since", element("input", { name: "since", placeholder: "2h, 30d, 2026-11-28", size: "19" })));
}

// What its schedules say of it: late, silent, …
function setTroubles(node, troubles) {
  const said = troubles.join(" ");
  if (node.dataset.said === said) return;
  node.dataset.said = said;
  node.replaceChildren(...troubles.flatMap((one) => {
    const shown = element("span");
    setState(shown, one);
    return [shown, " "];
  }));
}

function jobRow(going) {
  const made = row(going ? HEADINGS.going : HEADINGS.over);
  const [job, state, progress] = made.children;
  job.append(element("a", { class: "id" }), element("div", { class: "soft" }));
  state.append(element("span", { class: "state" }), " ", element("span"));
  progress.append(bar("progress"), element("span", { class: "number" }));
  progress.classList.add("progress");
  return made;
}

function fill(made, job, now, going) {
  const [name, state, progress, , services, errors] = made.children;
  const link = name.firstChild;
  setText(link, job.job_id);
  setHref(link, hashOf({ view: "trace", id: job.trace_id }));
  setText(name.lastChild, job.status && job.status !== job.state ? job.status : "");
  setState(state.firstChild, job.state);
  setTroubles(state.lastChild, job.troubles ?? []);
  showProgress(progress, job);
  setText(services, (job.services ?? []).join(", "));
  setText(errors, job.errors ? count(job.errors) : "");
  setClass(errors, job.errors ? "error right number" : "right number");
  fillTimes(made, job, now, going);
}

function fillTimes(made, job, now, going) {
  const time = made.children[3];
  const heard = made.children[6];
  setText(time, going ? etaAlone(job.eta, now) || `for ${duration(now - job.first)}` : duration(job.last_progress - job.first));
  if (going) setTitle(time, eta(job.eta, now));
  setText(heard, ago(job.last_progress, now));
  setTitle(heard, moment(job.last_progress, now).utc);
}

// Into a cell that holds a bar and words.
export function showProgress(cell, job) {
  const [whole, words] = cell.children;
  setBar(whole, job.percent, job.state);
  whole.setAttribute("aria-label", `progress of ${job.job_id}`);
  setText(words, percent(job.percent));
}

