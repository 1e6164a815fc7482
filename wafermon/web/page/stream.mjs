// One stream of changes from the sidecar: read, watched, and opened again after it broke. Runs in a shared worker or in the page itself.

export const SILENT = 8_000; // the sidecar says something every 2 s
export const SLOWEST = 10_000;

// How long to wait after so many failures in a row, in ms. Some chance in it, so that many browsers do not come back at once.
export function pause(failures, chance = Math.random()) {
  return failures ? Math.min(SLOWEST, 500 * 2 ** (failures - 1)) * (0.75 + chance / 2) : 0;
}

// Server-sent events out of pieces of text: feed it, and it calls `told(name, data)`. What can't be read is passed over.
export function reader(told) {
  let rest = "";
  return (text) => {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "message";
      let data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (!data) continue;
      try {
        told(name, JSON.parse(data));
      } catch {
        // Half an event, or none of ours.
      }
    }
  };
}

export class Stream {
  // `tell({ kind, ... })`: kind is an event's name with its `data`, or "state" with `state` (connecting, live, lost, refused), `words`, `status`.
  constructor(tell) {
    this.tell = tell;
    this.failures = 0;
    this.wanted = false;
    this.current = null;
    this.timer = 0;
  }

  want(wanted) {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    clearTimeout(this.timer);
    this.current?.abort();
    this.current = null;
    this.failures = 0;
    if (wanted) this.open();
  }

  async open() {
    const mine = new AbortController();
    this.current = mine;
    let silence = 0;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => mine.abort(), SILENT);
    };
    let words = "no answer from the sidecar";
    let status = 0;
    try {
      heard();
      const answer = await fetch("/api/stream", { signal: mine.signal, cache: "no-store" });
      status = answer.status;
      if (answer.ok) {
        const read = reader((kind, data) => {
          this.failures = 0;
          this.tell({ kind, data });
        });
        const pieces = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (;;) {
          heard();
          const { done, value } = await pieces.read();
          if (done) break;
          read(value);
        }
      } else {
        words = `the sidecar says: ${(await answer.text()).trim().slice(0, 300)}`;
      }
    } catch {
      // No connection, or silence: it is tried again.
    }
    clearTimeout(silence);
    if (this.current !== mine) return;
    this.failures += 1;
    const wait = pause(this.failures);
    this.tell({ kind: "state", state: status && status !== 200 ? "refused" : "lost", status, words, wait });
    this.timer = setTimeout(() => this.open(), wait);
  }
}
