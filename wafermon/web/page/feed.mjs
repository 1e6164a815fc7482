// What the sidecar says of changes, for one tab: by the browser's shared worker, or, where there is none, by a stream of its own.

import { Stream } from "./stream.mjs";

const HERE = 10_000;

export function feed(tell) {
  if (typeof SharedWorker === "undefined") return alone(tell);
  const { port } = new SharedWorker("/page/worker.mjs", { type: "module", name: "wafermon" });
  const say = () => port.postMessage({ visible: !document.hidden });
  port.onmessage = ({ data }) => tell(data);
  document.addEventListener("visibilitychange", say);
  addEventListener("pagehide", () => port.postMessage({ gone: true }));
  addEventListener("pageshow", say);
  setInterval(say, HERE);
  say();
}

function alone(tell) {
  const stream = new Stream(tell);
  const settle = () => stream.want(!document.hidden);
  document.addEventListener("visibilitychange", settle);
  settle();
}
