// The sidecar: what /api/status says.

import { element, keep, row, setClass, setText, table } from "./dom.mjs";
import { ago, bytes, count, duration } from "./format.mjs";

const BACKENDS = ["Backend", "State", "Lag", "Delivered", "Retries", "Dead letters", "Problem"];
const LISTENERS = ["Listener", "State", "Address", "Problem"];

export class Sidecar {
  constructor(route, root) {
    this.every = 2_000;
    this.ready = element("span", { class: "state" });
    this.about = element("span");
    this.problems = element("ul", { class: "error" });
    this.refused = element("ul", { class: "error" });
    this.backends = table("Backends", BACKENDS);
    this.listeners = table("Listeners", LISTENERS);
    this.facts = table("Figures", ["What", "Value"]);
    root.replaceChildren(
      element("h1", {}, "Sidecar"), element("p", { class: "facts" }, this.ready, this.about), this.problems, this.refused,
      element("h2", {}, "Backends"), this.backends.whole,
      element("h2", {}, "Listeners"), this.listeners.whole,
      element("h2", {}, "Figures"), this.facts.whole,
    );
  }

  take() {}

  async ask(get) {
    this.show(await get("/api/status"));
  }

  show(status) {
    setText(this.ready, status.ready ? "ready" : "not ready");
    setClass(this.ready, `state ${status.ready ? "ok" : "failing"}`);
    setText(this.about, `wafermon ${status.version}, started ${ago(status.started, status.now)}`);
    lines(this.problems, status.problems);
    lines(this.refused, (status.refused_config?.faults ?? []).map((fault) => `the config is refused: ${fault}`));
    rows(this.backends.body, BACKENDS, backendRows(status));
    rows(this.listeners.body, LISTENERS, listenerRows(status));
    rows(this.facts.body, ["What", "Value"], factRows(status));
  }
}

function lines(list, texts) {
  keep(list, texts, (text) => text, (text) => element("li", {}, text), () => {});
}

// Each of [cell, …]; the second is a state, with its class.
function rows(body, headings, all) {
  const state = headings[1] === "State";
  keep(body, all, ([name]) => name, () => row(headings), (made, cells) => {
    cells.forEach((text, place) => setText(made.children[place], text));
    if (state) setClass(made.children[1], `state ${cells[1]}`);
  });
}

export function backendRows({ backends }) {
  return Object.entries(backends).map(([name, one]) => [
    one.plugin ? `${name} (${one.plugin})` : name,
    one.state,
    one.lag_messages ? `${count(one.lag_messages)} messages, ${bytes(one.lag_bytes)}, ${duration(one.lag_seconds * 1e6)}` : "none",
    count(one.delivered),
    count(one.retries),
    count(one.dead_letters),
    one.error || one.detail || "",
  ]);
}

export function listenerRows({ listeners, http }) {
  return [
    ...listeners.map((one) => [one.endpoint, one.listening ? "ok" : "failing", one.address, one.error]),
    ...http.map((one) => [one.endpoint, "ok", one.address, `HTTP: ${one.serve.join(", ")}`]),
  ];
}

export function factRows(status) {
  const { messages, journal, dead_letters: dead, correlation } = status;
  const rejected = Object.entries(messages.rejected).map(([why, times]) => `${count(times)} ${why}`).join(", ");
  return [
    ["Clients connected", count(status.connections)],
    ["Messages accepted", count(messages.accepted)],
    ["Duplicates", count(messages.duplicate)],
    ["Rejected", rejected || "0"],
    ["Gaps", count(messages.gaps)],
    ["Dropped by SDKs", count(messages.sdk_dropped)],
    ["Journal", `${bytes(journal.bytes)} of ${journal.max_bytes ? bytes(journal.max_bytes) : "any size"}${journal.full ? ", full" : ""}`],
    ["Dead letters", `${count(dead.written)} written, ${bytes(dead.bytes)} in ${dead.dir}`],
    ["Spill files", count(status.spill.files)],
    ["Live traces", count(correlation.live_traces)],
  ];
}
