// Asks for the view that is shown: at once, when the stream says that something of it changed, and now and then all the same. One request at a
// time, never while the page is hidden, and never more than a share of the time.

export const SOON = 1_000; // between two rounds that changes ask for
export const LATER = 1_500; // after changes once more: what was asked may have been a little old
export const IDLE = 15_000;
export const SLOWEST = 10_000;
const SHARE = 4; // a round that took long is followed by a pause of so many times as long, at most IDLE
const TIMEOUT = 20_000;

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

// One answer of the API, perhaps a second old. Raises Refused where there is an answer that says no, TypeError or DOMException where there is none.
export async function get(path, signal) {
  const answer = await fetch(path, {
    cache: "no-store",
    headers: { "Cache-Control": "max-age=1" },
    signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT)]),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Refused(answer.status, wordsOf(text) || `the answer was ${answer.status}`);
  return JSON.parse(text);
}

// An error is JSON or one line of text.
export function wordsOf(text) {
  try {
    const { error } = JSON.parse(text);
    if (typeof error === "string") return error;
  } catch {
    // It is text.
  }
  return text.trim().slice(0, 500);
}

// How long to wait after a round, in ms: after so many failures in a row; where something has changed meanwhile (`changed`), or had
// before it (`because`); a round that took `took` ms is followed by a pause that is longer still.
export function pause({ failures = 0, changed = false, because = false, took = 0, every = IDLE }) {
  if (failures) return Math.min(SLOWEST, 1_000 * 2 ** (failures - 1));
  return Math.max(changed ? SOON : because ? LATER : every, Math.min(IDLE, SHARE * took));
}

export class Poller {
  // `told(error or null)` is called after each round.
  constructor(told) {
    this.told = told;
    this.view = null;
    this.timer = 0;
    this.current = new AbortController();
    this.again();
  }

  // Ask for this view from now on: `view.ask(get)` returns when it has shown what it got; `view.every` is in ms.
  watch(view) {
    this.view = view;
    this.again();
  }

  // Ask at once.
  again() {
    this.failures = 0;
    this.changed = this.asking = false;
    this.earliest = 0;
    this.current.abort();
    this.current = new AbortController();
    this.later(0);
  }

  // Something of the view has changed.
  nudge() {
    if (this.changed) return;
    this.changed = true;
    if (!this.asking && !this.failures) this.later(Math.max(0, this.earliest - performance.now()));
  }

  later(after) {
    clearTimeout(this.timer);
    const { signal } = this.current;
    if (!document.hidden && this.view) this.timer = setTimeout(() => this.round(signal), after);
  }

  async round(signal) {
    const { view } = this;
    const begun = performance.now();
    const because = this.changed;
    let problem = null;
    this.asking = true;
    this.changed = false;
    try {
      await view.ask((path) => get(path, signal));
    } catch (error) {
      problem = error;
    }
    if (signal.aborted) return;
    this.asking = false;
    this.failures = problem ? this.failures + 1 : 0;
    this.told(problem);
    const { failures, changed } = this;
    const now = performance.now();
    this.earliest = now + pause({ changed: true, took: now - begun });
    this.later(pause({ failures, changed, because, took: now - begun, every: view.every }));
  }
}
