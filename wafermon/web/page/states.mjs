// The states of jobs, traces, schedules, backends and clients: a word, a colour (by its class in page.css), and what it means.

import { setClass, setText, setTitle } from "./dom.mjs";

const MEANS = {
  running: "goes on",
  stalled: "goes on, but has reported no progress for as long as correlation.stalled_after says",
  gone: "the program ended or lost its connection without an end",
  unfinished: "its trace ended, and it never said that it had",
  abandoned: "its program is gone, so nobody will end it",
  idle: "nothing came for as long as correlation.trace_idle says",
  waiting: "the next run is not due yet",
  not_started: "the run was due and has not begun",
  late: "the run began, but later than its start_grace allows",
  silent: "the run reports nothing",
  too_long: "the run takes longer than at_most",
  too_fast: "the run was done before at_least",
  overlapping: "a run began before the one before it had ended",
  recovered: "well again after an alarm",
  left: "its connection ended without a closing message; its SDK does not say when it closes",
  "broken off": "its connection ended, and its SDK had not closed",
};

export function inWords(state) {
  return String(state ?? "").replaceAll("_", " ");
}

export function setState(node, state, words = inWords(state)) {
  setText(node, words);
  setClass(node, `state ${String(state ?? "").replaceAll(" ", "-")}`);
  setTitle(node, Object.hasOwn(MEANS, state) ? MEANS[state] : "");
}
