// Asks again and again, one request at a time, never while the page is hidden. Waits longer after each failure.

export const EVERY = 1_000;
export const SLOWEST = 10_000;
const TIMEOUT = 20_000;

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

// One answer of the API. Raises Refused where there is an answer that says no, TypeError or DOMException where there is none.
export async function get(path, signal) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT)]) });
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

// How long to wait after so many failures in a row, in ms.
export function pause(failures, every = EVERY) {
  return failures ? Math.max(every, Math.min(SLOWEST, EVERY * 2 ** (failures - 1))) : Math.max(EVERY, every);
}

export class Poller {
  // `told(error or null)` is called after each round.
  constructor(told) {
    this.told = told;
    this.view = null;
    this.timer = 0;
    this.failures = 0;
    this.current = new AbortController();
  }

  // Ask for this view from now on: `view.ask(get)` returns when it has shown what it got; `view.every` is in ms.
  watch(view) {
    this.view = view;
    this.failures = 0;
    this.again(0);
  }

  again(after) {
    clearTimeout(this.timer);
    this.current.abort();
    this.current = new AbortController();
    const { signal } = this.current;
    if (!document.hidden && this.view) this.timer = setTimeout(() => this.round(signal), after);
  }

  async round(signal) {
    const { view } = this;
    let problem = null;
    try {
      await view.ask((path) => get(path, signal));
    } catch (error) {
      problem = error;
    }
    if (signal.aborted) return;
    this.failures = problem ? this.failures + 1 : 0;
    this.told(problem);
    this.again(pause(this.failures, view.every));
  }

  // To be called when the page is shown or hidden.
  visible() {
    this.again(0);
  }
}
