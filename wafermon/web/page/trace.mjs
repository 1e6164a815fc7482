// One trace: what its jobs say, its spans over time, its plots, its log.

import { bar, copyButton, element, keep, setClass, setHref, setText, setTitle, show } from "./dom.mjs";
import { change, counted, duration, eta, language, moment, receiptLine } from "./format.mjs";
import { huesOf } from "./hues.mjs";
import { showProgress } from "./jobs.mjs";
import { Logs } from "./logs.mjs";
import { MOST, merged } from "./merge.mjs";
import { Plots } from "./plots.mjs";
import { Refused } from "./poll.mjs";
import { hashOf } from "./route.mjs";
import { Spans } from "./spans.mjs";
import { setState } from "./states.mjs";

const LATEST = 300; // messages of each type that are asked of memory
const WHOLE_EVERY = 60_000; // between two answers with what is stored
const RECEIPT_EVERY = 4_000;
const BASELINE_RUNS = 10;
const STALE = 30_000;

export class Trace {
  constructor(route, root) {
    this.every = 10_000;
    this.id = route.id;
    this.answer = null;
    this.sdks = new Map(); // service -> what its SDK calls itself
    this.whole = -Infinity;
    this.asked = { receipt: -Infinity, clients: "", kind: "" };
    this.median = null;
    this.state = element("span", { class: "state" });
    this.title = element("h1", {}, route.id);
    this.numbers = element("span");
    this.beside = element("span", { class: "soft" });
    this.runs = element("a", { class: "hidden" }, "all runs");
    this.compare = element("a", { class: "hidden" }, "compare with the last runs");
    this.problems = element("p", { class: "error", role: "alert" });
    this.candidates = element("ul");
    this.jobs = element("div", { class: "jobs" });
    this.receipt = element("p", { class: "receipt" });
    this.services = element("p", { class: "chips", "aria-label": "Services" });
    this.spans = new Spans(route.id);
    this.plots = new Plots();
    this.logs = new Logs(route.id, (filters) => this.filtered(filters));
    this.inside = element("div", { class: "hidden" }, this.spans.whole, this.plots.whole, this.logs.whole);
    root.replaceChildren(
      element("div", { class: "title" }, this.title, this.state, copyButton("copy link", () => location.href, "to this page")),
      this.problems, this.candidates,
      element("section", { class: "card" }, this.jobs, element("p", { class: "facts" }, this.numbers, this.beside, this.runs, this.compare), this.receipt, this.services),
      this.inside,
    );
    this.take(route);
  }

  take(route) {
    this.filters = route.filters;
    if (this.answer) this.draw();
  }

  filtered(filters) {
    history.replaceState(null, "", hashOf({ view: "trace", id: this.id, filters }));
    this.filters = filters;
    this.draw();
  }

  close() {
    this.plots.close();
  }

  // What the stream says: bars of jobs move at once, the rest is asked.
  changed({ jobs, traces, more }) {
    for (const job of this.answer?.jobs ?? []) {
      const told = jobs.find((one) => one.trace_id === job.trace_id && one.job_id === job.job_id);
      if (told) Object.assign(job, { percent: told.percent, status: told.status, state: told.state });
    }
    if (this.answer) this.showJobs();
    return more || traces.includes(this.answer?.trace_id ?? this.id);
  }

  async ask(get) {
    this.get = get;
    const path = `/api/traces/${encodeURIComponent(this.id)}`;
    try {
      this.taken((await this.later(get, path)) ?? (await this.all(get, path)));
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) throw error;
      setText(this.problems, error.message);
      return;
    }
    await Promise.all([this.askReceipt(get, path), this.askClients(get), this.askMedian(get)]);
  }

  // With what is stored.
  async all(get, path) {
    const answer = await get(`${path}?limit=${MOST}&stored=kept`);
    this.whole = performance.now();
    return answer;
  }

  // What came since, of a trace that goes on; null where all has to be asked.
  async later(get, path) {
    if (this.answer?.status !== "running" || performance.now() - this.whole > WHOLE_EVERY) return null;
    try {
      return merged(this.answer, await get(`${path}?limit=${LATEST}&stored=no`));
    } catch (error) {
      if (error instanceof Refused && error.status === 404) return null; // a sidecar that has begun anew
      throw error;
    }
  }

  taken(answer) {
    this.answer = answer;
    this.received = performance.now();
    setText(this.problems, answer.problems.join("; "));
    show(this.inside, true);
    this.draw();
  }

  async askReceipt(get, path) {
    if (performance.now() - this.asked.receipt < RECEIPT_EVERY) return;
    try {
      const receipt = await get(`${path}/receipt`);
      this.asked.receipt = performance.now();
      setText(this.receipt, `Receipt: ${receiptLine(receipt)}`);
      setClass(this.receipt, `receipt ${receipt.complete ? "ok" : receipt.complete === null || receipt.running ? "soft" : "warning"}`);
    } catch (error) {
      if (!(error instanceof Refused) || ![404, 503].includes(error.status)) throw error;
      setText(this.receipt, `No receipt: ${error.message}`);
      setClass(this.receipt, "receipt soft");
    }
  }

  // In which language a service is written: its SDK has said so when it connected.
  async askClients(get) {
    const services = this.answer.services.join(" ");
    if (this.asked.clients === services) return;
    const { clients } = await get("/api/clients?limit=2000");
    this.asked.clients = services;
    for (const { service, sdk } of clients) if (language(sdk) && !this.sdks.has(service)) this.sdks.set(service, sdk);
    this.draw();
  }

  async askMedian(get) {
    const kind = this.answer.jobs[0]?.kind;
    if (!kind || this.asked.kind === kind) return;
    const { median, runs } = await get(`/api/runs?${new URLSearchParams({ of: kind, state: "done", limit: BASELINE_RUNS })}`);
    this.asked.kind = kind;
    this.median = { median, runs: runs.length };
    this.draw();
  }

  // The sidecar's clock, as far as it can be told between two answers.
  now() {
    return this.answer.now + (performance.now() - this.received) * 1_000;
  }

  // The end of what is shown: of a trace that goes on, now.
  end() {
    const { answer } = this;
    return answer.status === "running" ? this.now() : answer.last;
  }

  draw() {
    const { answer } = this;
    const hue = huesOf(answer.services);
    setState(this.state, answer.status);
    this.showJobs();
    keep(this.services, answer.services, (service) => service, () => element("span"), (chip, service) => {
      setClass(chip, `service chip dot-${hue(service)}`);
      const lang = language(this.sdks.get(service));
      setText(chip, lang ? `${service} · ${lang}` : service);
    });
    this.showNumbers();
    this.spans.show(answer, this.end(), this.filters, this.sdks, hue);
    const { from, to } = this.spans.drawn;
    this.plots.show(answer, from, to, hue).catch((error) => setText(this.problems, error.message));
    this.logs.show(answer, this.filters, this.get, hue);
  }

  showJobs() {
    keep(this.jobs, this.answer.jobs, (job) => job.job_id, jobLine, (line, job) => this.fillJob(line, job));
  }

  // Open spans and times grow between two answers too. While there are none for long, nothing is known of them.
  tick() {
    if (this.answer?.status !== "running" || performance.now() - this.received > STALE) return;
    this.showNumbers();
    this.spans.tick(this.now());
  }

  showNumbers() {
    const { answer, median } = this;
    const took = this.end() - answer.first;
    const running = answer.status === "running";
    const began = moment(answer.first, answer.now);
    const words = [
      `${running ? "for" : "took"} ${duration(took)}`, `began ${began.text}`,
      counted(answer.spans.length + (answer.left_out.spans ?? 0), "span"), counted(answer.errors, "error"),
    ];
    setText(this.numbers, words.join(" · "));
    setTitle(this.numbers, began.utc);
    const kind = answer.jobs[0]?.kind;
    if (median && Number.isFinite(median.median)) {
      const differs = running ? "" : `: ${change(took, median.median)}`;
      setText(this.beside, `median of ${kind} ${duration(median.median)}, ${counted(median.runs, "run")}${differs}`);
    }
    show(this.runs, kind);
    show(this.compare, kind && median?.runs);
    setHref(this.runs, hashOf({ view: "runs", id: kind }));
    setHref(this.compare, hashOf({ view: "compare", filters: { run: answer.trace_id } }));
  }

  fillJob(line, job) {
    const [progress, name, state, ends] = line.children;
    showProgress(progress, job);
    setText(name, job.job_id === this.id ? job.status : job.status && job.status !== job.state ? `${job.job_id}: ${job.status}` : job.job_id);
    const alone = job.job_id === this.id && job.state === this.answer.status;
    if (job.job_id === this.id && job.status === job.state) setText(name, "");
    setState(state, alone ? "" : job.state);
    const words = eta(job.eta, this.answer.now);
    setText(ends, words && `ends ${words}`);
  }
}

function jobLine() {
  return element("p", { class: "facts job" },
    element("span", { class: "progress wide" }, bar("progress"), element("span", { class: "number" })),
    element("span"), element("span", { class: "state" }), element("span", { class: "soft" }));
}

