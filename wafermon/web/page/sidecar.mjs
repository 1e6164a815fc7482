// The sidecar: what /api/status says, its clients, what it could not deliver, and its schedules.

import { copyButton, element, keep, row, setClass, setText, setTitle, show, table } from "./dom.mjs";
import { ago, bytes, count, counted, duration, language, moment } from "./format.mjs";
import { Refused } from "./poll.mjs";
import { inWords, setState } from "./states.mjs";

const BACKENDS = ["Backend", "State", "Waiting", ">Delivered", ">Retries", ">Dead letters", "Problem"];
const LISTENERS = ["Listener", "State", "Address", "What for"];
const CLIENTS = ["Service", "State", "SDK", "From", ">Messages", ">Dropped", ">Spill files", "-Last heard"];
const LETTERS = ["-When", "Why", "Backend", "-Service", "Line"];
const SCHEDULES = ["Schedule", "State", "Last run", "-Next due", "Alarms"];
const CLIENTS_SHOWN = 200;
const LETTERS_SHOWN = 50;
const LONGER_EVERY = 5_000;

export class Sidecar {
  constructor(route, root) {
    this.every = 5_000;
    this.longer = -Infinity; // when that was asked which is longer and changes less
    this.ready = element("span", { class: "state" });
    this.about = element("span", { class: "soft" });
    this.problems = element("ul", { class: "error" });
    this.refused = element("div", { class: "card bad-card hidden", role: "alert" }, element("h2", {}, "The config was refused"), element("p"), element("ul"));
    this.tiles = element("dl", { class: "tiles" });
    this.backends = table("Backends", BACKENDS);
    this.orphans = element("ul");
    this.listeners = table("Listeners", LISTENERS);
    this.schedules = { ...table("Schedules", SCHEDULES), section: null };
    this.schedules.section = element("section", { class: "card hidden" }, element("h2", {}, "Schedules"), this.schedules.whole);
    this.clients = table("Clients", CLIENTS);
    this.clientsNote = element("p", { class: "note" });
    this.letters = table("Dead letters", LETTERS);
    this.lettersNote = element("p", { class: "note" });
    this.hint = element("p", { class: "facts hidden" }, element("span", {}, "When the cause is gone, send them again:"), element("code"), copyButton("copy", () => this.hint.children[1].textContent, "the command"));
    root.replaceChildren(
      element("div", { class: "title" }, element("h1", {}, "Sidecar"), this.ready, this.about), this.problems, this.refused, this.tiles,
      this.schedules.section,
      element("section", { class: "card" }, element("h2", {}, "Backends"), this.backends.whole, this.orphans),
      element("section", { class: "card" }, element("h2", {}, "Dead letters"), this.lettersNote, this.hint, this.letters.whole),
      element("section", { class: "card" }, element("h2", {}, "Clients"), this.clientsNote, this.clients.whole),
      element("section", { class: "card" }, element("h2", {}, "Listeners"), this.listeners.whole),
    );
  }

  take() {}

  // Messages came: there is something new to count.
  changed() {
    return true;
  }

  async ask(get) {
    const status = await get("/api/status");
    this.show(status);
    if (performance.now() - this.longer < LONGER_EVERY) return;
    await Promise.all([this.askClients(get), this.askLetters(get, status.dead_letters), this.askSchedules(get)]);
    this.longer = performance.now();
  }

  show(status) {
    setState(this.ready, status.ready ? "ok" : "failing", status.ready ? "ready" : "not ready");
    setText(this.about, `wafermon ${status.version}, started ${ago(status.started, status.now)}`);
    lines(this.problems, status.problems);
    const refused = status.refused_config;
    show(this.refused, refused);
    if (refused) {
      setText(this.refused.children[1], `At ${moment(refused.at, status.now).text}; the one before is in force.`);
      lines(this.refused.children[2], refused.faults);
    }
    keep(this.tiles, factRows(status), ([name]) => name, ([name]) => element("div", {}, element("dt", {}, name), element("dd")), (tile, [, value, bad]) => {
      setText(tile.lastChild, value);
      setTitle(tile, String(bad || ""));
      setClass(tile, bad ? "bad" : "");
    });
    rows(this.backends.body, BACKENDS, backendRows(status));
    lines(this.orphans, Object.entries(status.cursors_without_backend).map(([name, held]) =>
      `The cursor ${name} has no backend and holds ${bytes(held.bytes)}: bring its backend back, or remove it with: wafermon journal forget ${name}`));
    rows(this.listeners.body, LISTENERS, listenerRows(status));
  }

  async askClients(get) {
    const answer = await get(`/api/clients?limit=${CLIENTS_SHOWN}`);
    rows(this.clients.body, CLIENTS, clientRows(answer));
    show(this.clients.whole, answer.clients.length);
    setText(this.clientsNote, answer.left_out ? `The latest ${count(answer.clients.length)} of ${count(answer.total)}.` : answer.clients.length ? "" : "Nobody has connected since the sidecar started.");
  }

  async askLetters(get, dead) {
    const { letters, now } = await get(`/api/dead-letters?limit=${LETTERS_SHOWN}`);
    setText(this.lettersNote, letters.length
      ? `${counted(dead.written, "letter")} since the start, ${bytes(dead.bytes)} in ${dead.dir}${dead.dropped_files ? `; ${counted(dead.dropped_files, "file")} went, since the quota was used up` : ""}. The latest are shown.`
      : "There are none: all that came could be delivered.");
    show(this.letters.whole, letters.length);
    show(this.hint, letters.length);
    if (letters.length) setText(this.hint.children[1], `wafermon replay ${letters[0].file}`);
    keep(this.letters.body, letters, (one) => `${one.file} ${one.id}`, () => {
      const made = row(LETTERS);
      made.children[4].append(element("code", { class: "line" }));
      return made;
    }, (made, one) => {
      const [when, why, backend, service, line] = made.children;
      const time = moment(one.time, now);
      setText(when, time.text);
      setTitle(when, time.utc);
      setText(why, `${one.code}: ${one.reason}`);
      setText(backend, one.backend ?? "never got to any");
      setText(service, one.service || serviceIn(one.line));
      setText(line.firstChild, one.line ?? "(not UTF-8)");
    });
  }

  // Sidecars without schedules do not have the page.
  async askSchedules(get) {
    if (this.withoutSchedules) return;
    try {
      const answer = await get("/api/schedules");
      show(this.schedules.section, answer.schedules.length);
      rows(this.schedules.body, SCHEDULES, scheduleRows(answer));
    } catch (error) {
      if (!(error instanceof Refused) || ![404, 503].includes(error.status)) throw error;
      show(this.schedules.section, false);
      this.withoutSchedules = error.status === 404;
    }
  }
}

function lines(list, texts) {
  keep(list, texts, (text) => text, (text) => element("li", {}, text), () => {});
}

// Each of [cell, …]; the second is a state, with its class; a cell that is { text, title } has a hover.
function rows(body, headings, all) {
  keep(body, all, ([name]) => String(name), () => {
    const made = row(headings);
    made.children[1].append(element("span", { class: "state" }));
    return made;
  }, (made, cells) => {
    cells.forEach((cell, place) => {
      const { text = cell, title = "" } = cell ?? {};
      const node = place === 1 ? made.children[1].firstChild : made.children[place];
      if (place === 1) setState(node, text);
      else setText(node, String(text ?? ""));
      if (title) setTitle(node, title);
    });
  });
}

export function backendRows({ backends }) {
  return Object.entries(backends).map(([name, one]) => [
    one.plugin ? `${name} (${one.plugin})` : name,
    one.state,
    one.lag_messages ? `${count(one.lag_messages)} messages, ${bytes(one.lag_bytes)}, ${duration(one.lag_seconds * 1e6)}` : "nothing",
    count(one.delivered),
    count(one.retries),
    count(one.dead_letters),
    one.error || one.detail || "",
  ]);
}

export function listenerRows({ listeners, http }) {
  return [
    ...listeners.map((one) => [one.endpoint, one.listening ? "ok" : "failing", one.address, one.error || "messages"]),
    ...http.map((one) => [one.endpoint, "ok", one.address, `HTTP: ${one.serve.join(", ")}`]),
  ];
}

export function clientRows({ clients, now }) {
  return clients.map((one) => [
    one.service,
    one.connected ? "connected" : one.closed ? "closed" : one.called === null ? "left" : "broken off",
    [language(one.sdk), one.sdk].filter(Boolean).join(", "),
    [one.host, one.pid ? `process ${one.pid}` : "", one.user].filter(Boolean).join(", "),
    count(one.messages),
    one.dropped ? count(one.dropped) : "",
    one.spilled ? count(one.spilled) : "",
    { text: ago(one.last_heard, now), title: moment(one.last_heard, now).utc },
  ]);
}

export function scheduleRows({ schedules, now }) {
  const time = (given) => {
    if (!Number.isFinite(given) || given <= 0) return { text: "", title: "" };
    const { text, utc } = moment(given, now);
    return { text: given > now ? `${text}, in ${duration(given - now)}` : `${text}, ${ago(given, now)}`, title: utc };
  };
  return schedules.map((one) => {
    const run = one.runs?.at(-1) ?? one.last_run;
    const last = run ? `${run.run} ${inWords(run.state ?? "running")}${Number.isFinite(run.took) ? `, took ${duration(run.took)}` : ""}` : "";
    const began = time(run?.started ?? one.last);
    const alarms = (one.open ?? []).map((alarm) => [inWords(alarm.state), alarm.run].filter(Boolean).join(": "));
    return [
      [one.schedule, one.host].filter(Boolean).join(" on "),
      one.state,
      { text: [last, began.text].filter(Boolean).join("; "), title: began.title },
      one.paused ? `paused${one.paused_until ? ` until ${moment(one.paused_until, now).text}` : ""}` : time(one.next),
      alarms.join(", "),
    ];
  });
}

// [name, value, what is bad about it, for a hover]
export function factRows(status) {
  const { messages, journal, dead_letters: dead, correlation } = status;
  const rejected = Object.entries(messages.rejected).map(([why, times]) => `${count(times)} ${why}`).join(", ");
  return [
    ["Clients connected", count(status.connections)],
    ["Messages accepted", count(messages.accepted)],
    ["Rejected", count(Object.values(messages.rejected).reduce((sum, one) => sum + one, 0)), rejected],
    ["Dropped by SDKs", count(messages.sdk_dropped), messages.sdk_dropped && "lost before they came here"],
    ["Gaps", count(messages.gaps), messages.gaps && "numbers of a stream that never came"],
    ["Duplicates", count(messages.duplicate)],
    ["Journal", `${bytes(journal.bytes)} of ${journal.max_bytes ? bytes(journal.max_bytes) : "any size"}${journal.full ? ", full" : ""}`, journal.full && "the receivers pause"],
    ["Dead letters", count(dead.written), dead.written && "they are below"],
    ["Spill files", count(status.spill.files)],
    ["Live traces", count(correlation.live_traces)],
  ];
}

function serviceIn(line) {
  try {
    return String(JSON.parse(line).service ?? "");
  } catch {
    return "";
  }
}
