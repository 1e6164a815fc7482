// Which view is shown, and whether the sidecar answers.

import { setClass, setText } from "./dom.mjs";
import { Jobs } from "./jobs.mjs";
import { Poller, Refused } from "./poll.mjs";
import { parse } from "./route.mjs";
import { Sidecar } from "./sidecar.mjs";
import { Trace } from "./trace.mjs";

const VIEWS = { jobs: Jobs, trace: Trace, sidecar: Sidecar };
const TICK = 250;
const main = document.getElementById("main");
const connection = document.getElementById("connection");
const poller = new Poller(told);
let shown = { key: "", view: null };

function told(problem) {
  const words = problem === null ? "live" : inWords(problem);
  setText(connection, words);
  setClass(connection, problem === null ? "live" : "bad");
}

function inWords(problem) {
  if (problem instanceof Refused) return `the sidecar says: ${problem.message}`;
  if (problem instanceof TypeError || problem instanceof DOMException) return "no answer from the sidecar, trying again";
  console.error(problem);
  return "this page failed to show an answer, trying again";
}

function show() {
  const route = parse(location.hash);
  const key = `${route.view}/${route.id}`;
  if (key === shown.key) {
    shown.view.take(route);
  } else {
    shown = { key, view: new VIEWS[route.view](route, main) };
    document.title = route.id ? `${route.id} · wafermon` : "wafermon";
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === route.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }
  poller.watch(shown.view);
}

addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => poller.visible());
setInterval(() => {
  if (!document.hidden) shown.view.tick?.();
}, TICK);
show();
