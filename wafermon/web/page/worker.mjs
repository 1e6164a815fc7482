// The shared worker of a browser: one stream for all tabs that are visible. Tabs say that they are here; one that is silent is gone.

import { Stream } from "./stream.mjs";

const GONE = 30_000;
const tabs = new Map(); // port -> { visible, heard }
let last = null;
let hello = null;

const stream = new Stream((told) => {
  if (told.kind === "hello") hello = told;
  if (told.kind === "state") hello = null;
  last = told;
  for (const [port, tab] of tabs) if (tab.visible) port.postMessage(told);
});

function settle() {
  const now = performance.now();
  for (const [port, tab] of tabs) if (now - tab.heard > GONE) tabs.delete(port);
  const wanted = [...tabs.values()].some((tab) => tab.visible);
  if (!wanted) hello = last = null;
  stream.want(wanted);
}

self.onconnect = ({ ports: [port] }) => {
  tabs.set(port, { visible: false, heard: performance.now() });
  port.onmessage = ({ data }) => {
    if (data.gone) {
      tabs.delete(port);
    } else {
      const shown = data.visible && !tabs.get(port)?.visible;
      tabs.set(port, { visible: data.visible, heard: performance.now() });
      // Who comes later is told how things are.
      if (shown && (hello ?? last)) port.postMessage(hello ?? last);
    }
    settle();
  };
};
setInterval(settle, 5_000);
