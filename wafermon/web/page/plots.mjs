// Metrics and resources of a trace, each as a small plot on the waterfall's time axis. Drawn by uPlot, which is loaded when there is
// something to draw.

import { element, keep, setClass, setText, setTitle, show } from "./dom.mjs";
import { bytes, counted, duration, figure, percent } from "./format.mjs";
import { MOST, seriesOf } from "./series.mjs";

const HEIGHT = 48;
const MOST_SINGLE = 60;
const FEW = 60; // so few points are shown as such
let loading = null;

function library() {
  loading ??= new Promise((done, failed) => {
    document.head.append(element("link", { rel: "stylesheet", href: "/page/uplot.min.css" }));
    const script = element("script", { src: "/page/uplot.min.js" });
    script.addEventListener("load", () => done(globalThis.uPlot));
    script.addEventListener("error", () => {
      loading = null;
      failed(new TypeError("a file of the page could not be loaded"));
    });
    document.head.append(script);
  });
  return loading;
}

export class Plots {
  constructor() {
    this.note = element("p", { class: "note" });
    this.singles = element("dl", { class: "singles" });
    this.list = element("div", { role: "list", "aria-label": "Metrics and resources" });
    this.whole = element("section", { class: "card hidden" }, element("h2", {}, "Metrics and resources"), this.note, element("div", { class: "waterfall plots" }, this.list), this.singles);
    this.plots = new Map(); // key -> { plot, one }
    this.sizes = new ResizeObserver(() => this.fit());
    this.sizes.observe(this.list);
  }

  async show(answer, from, to, hue) {
    const { series: all, single } = seriesOf(answer);
    this.hue = hue;
    show(this.whole, all.length || single.length);
    keep(this.singles, single.slice(0, MOST_SINGLE), (one) => one.key, () => element("div", {}, element("dt", {}), element("dd")), (made, one) => {
      setText(made.firstChild, one.name);
      setClass(made.firstChild, `service dot-${hue(one.service)}`);
      setTitle(made, one.service);
      setText(made.lastChild, shownValue(one.data[1][0], one.unit));
    });
    if (!all.length) return;
    this.from = from / 1e6;
    this.to = to / 1e6;
    const shown = all.slice(0, MOST);
    const left = (answer.left_out.metrics ?? 0) + (answer.left_out.resources ?? 0);
    const words = [all.length > MOST ? `${counted(all.length - MOST, "series")} more are not shown.` : "", left ? `The latest values; ${counted(left, "earlier one")} are not here.` : ""];
    setText(this.note, words.filter(Boolean).join(" "));
    const Plot = await library();
    keep(this.list, shown, (one) => one.key, (one) => plotLine(one, hue), (line, one) => this.fill(Plot, line, one));
    for (const [key, { plot }] of this.plots) {
      if (!shown.some((one) => one.key === key)) {
        plot.destroy();
        this.plots.delete(key);
      }
    }
  }

  fill(Plot, line, one) {
    const known = this.plots.get(one.key);
    const [name, track] = line.children;
    const values = one.data[1];
    const readout = name.querySelector(".took");
    const least = values.reduce((a, b) => Math.min(a, b), Infinity);
    const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
    setText(readout, least === most ? shownValue(values.at(-1), one.unit) : `${shownValue(least, one.unit)} to ${shownValue(most, one.unit)}`);
    setText(name.querySelector(".said"), "");
    if (known) {
      const same = known.one.data[0].length === one.data[0].length && known.from === this.from && known.to === this.to;
      Object.assign(known, { one, from: this.from, to: this.to });
      if (!same) known.plot.setData(one.data);
      return;
    }
    setClass(track, `track plot hue-${this.hue(one.service)}`);
    requestAnimationFrame(() => {
      if (!this.plots.has(one.key)) this.make(Plot, line, track, one);
    });
  }

  make(Plot, line, track, one) {
    const colour = getComputedStyle(track).getPropertyValue("--hue").trim() || "#1f5fa8";
    const said = line.querySelector(".said");
    const kept = { one, from: this.from, to: this.to };
    kept.plot = new Plot({
      width: Math.max(50, track.clientWidth),
      height: HEIGHT,
      padding: [4, 0, 4, 0],
      legend: { show: false },
      cursor: { y: false, sync: { key: "trace" }, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: false, range: () => [this.from, this.to] }, y: { range: (_, least, most) => roomy(least, most) } },
      axes: [{ show: false }, { show: false }],
      series: [{}, { stroke: colour, width: 1.5, fill: `${colour}22`, points: { show: one.data[0].length < FEW, size: 4, fill: colour } }],
      hooks: {
        setCursor: [(plot) => {
          const at = plot.cursor.idx;
          const { data, unit } = kept.one;
          setText(said, Number.isInteger(at) ? `${shownValue(data[1][at], unit)} at ${duration((data[0][at] - this.from) * 1e6)}` : "");
        }],
      },
    }, one.data, track);
    this.plots.set(one.key, kept);
  }

  fit() {
    for (const { plot } of this.plots.values()) {
      const width = Math.max(50, plot.root.parentElement?.clientWidth ?? 50);
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }

  close() {
    this.sizes.disconnect();
    for (const { plot } of this.plots.values()) plot.destroy();
    this.plots.clear();
  }
}

function plotLine(one, hue) {
  return element("div", { class: "span plot-line", role: "listitem" },
    element("div", { class: "name" }, element("strong", {}, one.name), element("span", { class: `service dot-${hue(one.service)}` }, one.service),
      element("span", { class: "took number" }), element("span", { class: "said number" })),
    element("div", { class: "track plot", "aria-hidden": "true" }));
}

// A flat line lies in the middle.
function roomy(least, most) {
  if (!Number.isFinite(least) || !Number.isFinite(most)) return [0, 1];
  if (least === most) return [least - Math.max(1, Math.abs(least) * 0.1), most + Math.max(1, Math.abs(most) * 0.1)];
  const room = (most - least) * 0.06;
  return [least - room, most + room];
}

export function shownValue(value, unit) {
  if (unit === "By") return bytes(value);
  if (unit === "%") return percent(value);
  if (unit === "s") return duration(value * 1e6);
  if (unit === "ms") return duration(value * 1e3);
  const plain = !unit || unit === "1";
  return plain ? figure(value) : `${figure(value)} ${unit.replace(/[{}]/g, "")}`;
}
