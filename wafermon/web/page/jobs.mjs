// The jobs: those that go on first, then those that are over, page by page.

import { element, keep, row, setClass, setText, table } from "./dom.mjs";
import { ago, clock, count, duration, eta, percent } from "./format.mjs";
import { hashOf } from "./route.mjs";

const GOING_ON = ["running", "stalled"];
const OVER = ["gone", "failed", "cancelled", "unfinished", "done"];
const MOST_GOING_ON = 200;
const A_PAGE = 50;
const ENDED_EVERY = 5;
const HEADINGS = {
  going: ["Job", "State", "Progress", "Ends", "Services", "Errors", "Last heard"],
  over: ["Job", "State", "Progress", "Took", "Services", "Errors", "Last heard"],
};

export class Jobs {
  constructor(route, root) {
    this.every = 1_000;
    this.form = filterForm();
    this.problems = element("p", { class: "error", role: "alert" });
    this.going = section("Running", HEADINGS.going);
    this.over = section("Ended", HEADINGS.over);
    this.older = element("a", { class: "hidden" }, "Older jobs");
    this.newest = element("a", { class: "hidden" }, "Back to the latest");
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
    this.rounds = 0;
    for (const field of this.form.elements) {
      if (field.name && field !== document.activeElement) field.value = route.filters[field.name] ?? "";
    }
    this.newest.classList.toggle("hidden", !this.filters.after);
    this.newest.href = hashOf({ view: "jobs", filters: { ...this.filters, after: "" } });
  }

  filtered() {
    const filters = {};
    for (const field of this.form.elements) if (field.name) filters[field.name] = field.value.trim();
    location.hash = hashOf({ view: "jobs", filters });
  }

  // Both lists at first; then those that are over at every fifth round.
  async ask(get) {
    const round = this.rounds;
    const { after, ...filters } = this.filters;
    if (round === 0 || round % ENDED_EVERY !== 0) await this.askFor(get, this.going, filters, GOING_ON, MOST_GOING_ON, "");
    if (round % ENDED_EVERY === 0) await this.askFor(get, this.over, filters, OVER, A_PAGE, after ?? "");
    this.rounds = round + 1;
  }

  async askFor(get, list, filters, states, limit, after) {
    const wanted = filters.state ? states.filter((one) => one === filters.state) : states;
    list.whole.classList.toggle("hidden", !wanted.length);
    if (!wanted.length) return;
    const given = new URLSearchParams({ ...filters, state: wanted.join(","), limit, after });
    const answer = await get(`/api/jobs?${given}`);
    setText(this.problems, answer.problems.join("; "));
    const going = list === this.going;
    // By when they began: by when they were heard of they would change places all the time.
    const jobs = going ? [...answer.jobs].sort((one, other) => other.first - one.first) : answer.jobs;
    keep(list.body, jobs, (job) => `${job.trace_id} ${job.job_id}`, () => jobRow(going ? HEADINGS.going : HEADINGS.over),
      (cells, job) => fill(cells, job, answer.now, going));
    setText(list.note, noteOn(answer, going));
    if (!going) {
      this.older.classList.toggle("hidden", !answer.more);
      this.older.href = hashOf({ view: "jobs", filters: { ...this.filters, after: answer.next } });
    }
  }
}

function noteOn(answer, going) {
  if (!answer.jobs.length) return going ? "No such job is running." : "No such job has ended.";
  if (going && answer.more) return `The latest ${count(answer.jobs.length)} are shown; filter to see others.`;
  return Number.isFinite(answer.total) ? `${count(answer.total)} in all.` : "";
}

function section(heading, headings) {
  const { whole, body } = table(heading, headings);
  const note = element("p", { class: "note" });
  return { whole: element("section", {}, element("h2", {}, heading), whole, note), body, note };
}

function filterForm() {
  const states = element("select", { name: "state" }, element("option", { value: "" }, "any"));
  for (const state of [...GOING_ON, ...OVER]) states.append(element("option", { value: state }, state));
  return element("form", { "aria-label": "Filters" },
    labelled("Job (glob)", element("input", { name: "name", placeholder: "load-*" })),
    labelled("Service (glob)", element("input", { name: "service" })),
    labelled("State", states),
    labelled("Since", element("input", { name: "since", placeholder: "2h, 30d, 2026-11-28" })));
}

export function labelled(words, field) {
  return element("label", {}, words, field);
}

function jobRow(headings) {
  const made = row(headings);
  const [job, state, progress] = made.children;
  job.append(element("a"), element("div", { class: "soft" }));
  state.append(element("span", { class: "state" }));
  progress.append(element("progress", { max: "100" }), " ", element("span", { class: "number" }));
  return made;
}

function fill(made, job, now, going) {
  const [name, state, progress, time, services, errors, heard] = made.children;
  const link = name.firstChild;
  setText(link, job.job_id);
  link.href = hashOf({ view: "trace", id: job.trace_id });
  setText(name.lastChild, job.status && job.status !== job.state ? job.status : "");
  setText(state.firstChild, job.state);
  setClass(state.firstChild, `state ${job.state}`);
  showProgress(progress, job);
  setText(time, going ? eta(job.eta, now) || `for ${duration(now - job.first)}` : duration(job.last_progress - job.first));
  setText(services, (job.services ?? []).join(", "));
  setText(errors, job.errors ? count(job.errors) : "");
  setClass(errors, job.errors ? "error number" : "number");
  setText(heard, ago(job.last_progress, now));
  heard.title = clock(job.last_progress).utc;
}

// Into a cell that holds a bar, a space and words.
export function showProgress(cell, job) {
  const [bar, words] = cell.children;
  if (Number.isFinite(job.percent)) bar.value = job.percent;
  else bar.removeAttribute("value");
  bar.setAttribute("aria-label", `progress of ${job.job_id}`);
  setText(words, percent(job.percent));
}
