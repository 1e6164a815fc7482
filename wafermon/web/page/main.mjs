// Which view is shown, whether it is live, and what the stream says to it.

import { Compare } from "./compare.mjs";
import { setClass, setText } from "./dom.mjs";
import { feed } from "./feed.mjs";
import { Jobs } from "./jobs.mjs";
import { Poller, Refused } from "./poll.mjs";
import { parse } from "./route.mjs";
import { Runs } from "./runs.mjs";
import { Sidecar } from "./sidecar.mjs";
import { Trace } from "./trace.mjs";

const VIEWS = { jobs: Jobs, trace: Trace, runs: Runs, compare: Compare, sidecar: Sidecar };
const TABS = { trace: "jobs", compare: "runs" };
const TICK = 250;
const main = document.getElementById("main");
const connection = document.getElementById("connection");
const logout = document.getElementById("logout");
const poller = new Poller(asked);
let shown = { key: "", view: null };
let state = { live: false, words: "connecting" };
let problem = null;
let version = "";

// -- what the header says

function say() {
  const words = problem === null ? (state.live ? "live" : state.words) : inWords(problem);
  setText(connection, words);
  setClass(connection, problem === null && state.live ? "live" : "bad");
}

function asked(error) {
  if (error instanceof Refused && error.status === 401) return login();
  problem = error;
  say();
}

function inWords(error) {
  if (error instanceof Refused) return `the sidecar says: ${error.message}`;
  if (error instanceof TypeError || error instanceof DOMException) return "no answer from the sidecar, trying again";
  console.error(error);
  return "this page failed to show an answer, trying again";
}

function login() {
  location.replace(`/login${location.hash}`);
}

// -- what the stream says

function told({ kind, data, ...rest }) {
  if (kind === "state") {
    if (rest.status === 401) return login();
    state = { live: false, words: `${rest.words}, trying again` };
    return say();
  }
  const again = !state.live;
  state = { live: true, words: "" };
  if (kind === "hello") {
    if (version && version !== data.version) return location.reload(); // another sidecar has another page
    version = data.version;
    logout.classList.toggle("hidden", !data.session);
  }
  if (kind === "changes") {
    if (shown.view.changed?.(data)) poller.nudge();
  } else if (kind === "missed" || (kind === "hello" && again)) {
    poller.nudge(); // something may have changed meanwhile
  }
  say();
}

// -- views

function show() {
  if (location.hash === "#main") return main.focus();
  const route = parse(location.hash);
  const key = `${route.view}/${route.id}`;
  if (key === shown.key) {
    shown.view.take(route);
  } else {
    shown.view?.close?.();
    shown = { key, view: new VIEWS[route.view](route, main) };
    document.title = `${route.id || { jobs: "Jobs", runs: "Runs", compare: "Compare", sidecar: "Sidecar" }[route.view]} · wafermon`;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === (TABS[route.view] ?? route.view)) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    scrollTo(0, 0);
  }
  poller.watch(shown.view);
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => poller.again());
setInterval(() => {
  if (!document.hidden) shown.view.tick?.();
}, TICK);
show();
feed(told);
