// Values in words. Pure. Times and durations are microseconds, as the API has them.

const COUNT = new Intl.NumberFormat("en-US");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const DAY = 86_400e6;

export function count(value) {
  return Number.isFinite(value) ? COUNT.format(value) : "";
}

// "1 span", "1,200 spans"
export function counted(value, what) {
  return `${count(value)} ${what}${value === 1 ? "" : "s"}`;
}

export function duration(microseconds) {
  if (!Number.isFinite(microseconds)) return "";
  if (microseconds <= 0) return "0 s";
  if (microseconds < 1_000) return `${Math.round(microseconds)} µs`;
  if (microseconds < 999_500) return `${Math.round(microseconds / 1_000)} ms`;
  if (microseconds < 9_950_000) return `${(microseconds / 1_000_000).toFixed(1)} s`;
  const seconds = Math.round(microseconds / 1_000_000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1_440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  const hours = Math.round(minutes / 60);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function ago(then, now) {
  if (!Number.isFinite(then) || !Number.isFinite(now)) return "";
  return now - then < 1_000_000 ? "now" : `${duration(now - then)} ago`;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return "";
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

export function percent(value) {
  return Number.isFinite(value) ? `${Math.round(value * 10) / 10} %` : "";
}

// A number with four figures, of any size.
export function figure(value) {
  if (!Number.isFinite(value)) return value === undefined || value === null ? "" : String(value);
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  if (Number.isInteger(value) || size >= 1_000) return COUNT.format(Math.round(value));
  return String(Number(value.toPrecision(4)));
}

// "+12 %", "−3 %", "as long", of one value beside another.
export function change(value, other) {
  if (!Number.isFinite(value) || !Number.isFinite(other) || other <= 0) return "";
  const share = Math.round((100 * (value - other)) / other);
  if (share === 0) return "the same";
  if (share >= 200) return `${(value / other).toFixed(1)} times`;
  return `${share > 0 ? "+" : "−"}${Math.abs(share)} %`;
}

// "in 4 min 0 s (3 min 0 s to 6 min 0 s), by 8 runs"; empty where nothing can be said.
export function eta(estimate, now) {
  if (!estimate) return "";
  const source = estimate.source === "runs" ? `by ${counted(estimate.runs, "run")}` : "by its own progress";
  return `${etaAlone(estimate, now)}, ${source}`;
}

// Without where it comes from.
export function etaAlone(estimate, now) {
  if (!estimate) return "";
  const left = estimate.at - now;
  const when = left > 1e6 ? `in ${duration(left)}` : left > -1e6 ? "about now" : `${duration(-left)} later than foreseen`;
  const spread =
    Number.isFinite(estimate.latest) && estimate.latest > estimate.earliest && estimate.latest > now
      ? ` (${duration(Math.max(0, estimate.earliest - now))} to ${duration(estimate.latest - now)})`
      : "";
  return `${when}${spread}`;
}

// In the viewer's zone; `utc` is for a hover.
export function clock(microseconds) {
  const time = dateOf(microseconds);
  if (!time) return { text: "", utc: "" };
  const thousandths = String(time.getMilliseconds()).padStart(3, "0");
  return { text: `${hours(time)}.${thousandths}`, utc: time.toISOString() };
}

// With the day where it is not today: "09:15:02", "28 Nov 09:15:02", "28 Nov 2025 09:15".
export function moment(microseconds, now) {
  const time = dateOf(microseconds);
  if (!time) return { text: "", utc: "" };
  const today = dateOf(now) ?? new Date();
  const utc = time.toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
  if (Math.abs(now - microseconds) < DAY && time.getDate() === today.getDate()) return { text: hours(time), utc };
  const month = time.toLocaleString("en", { month: "short" });
  const year = time.getFullYear() === today.getFullYear() ? "" : ` ${time.getFullYear()}`;
  return { text: `${time.getDate()} ${month}${year} ${hours(time).slice(0, year ? 5 : 8)}`, utc };
}

function dateOf(microseconds) {
  if (!Number.isFinite(microseconds)) return null;
  const time = new Date(microseconds / 1_000);
  return Number.isNaN(time.getTime()) ? null : time;
}

function hours(time) {
  const two = (number) => String(number).padStart(2, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

const LANGUAGES = { python: "Python", perl: "Perl", r: "R", c: "C", java: "Java", go: "Go", node: "Node.js" };

// What an SDK calls itself -> its language; empty for others.
export function language(sdk) {
  const name = String(sdk ?? "").split("/")[0].toLowerCase();
  return Object.hasOwn(LANGUAGES, name) ? LANGUAGES[name] : "";
}

// "12,403 sent, 12,403 stored in files and db, none missing"
export function receiptLine(receipt) {
  const parts = [Number.isFinite(receipt.sent) ? `${count(receipt.sent)} sent` : `${count(receipt.received)} received`];
  if (Number.isFinite(receipt.sent) && receipt.sent !== receipt.received) parts.push(`${count(receipt.received)} received`);
  const whole = new Map();
  for (const [name, one] of Object.entries(receipt.backends ?? {})) {
    if (!one.routed) continue;
    const stored = !Number.isFinite(one.stored)
      ? `not yet all of ${count(one.routed)} stored`
      : one.stored === one.routed
        ? `${count(one.stored)} stored`
        : `${count(one.stored)} of ${count(one.routed)} stored`;
    whole.set(stored, [...(whole.get(stored) ?? []), name]);
  }
  for (const [stored, names] of whole) parts.push(`${stored} in ${listed(names)}`);
  const missing = (receipt.gaps ?? []).length + (receipt.more_gaps ?? 0);
  if (missing) parts.push(counted(missing, "gap"));
  if (receipt.dropped) parts.push(`${count(receipt.dropped)} dropped by its SDKs`);
  if (receipt.rejected) parts.push(`${count(receipt.rejected)} rejected`);
  const unclosed = (receipt.unclosed ?? []).length + (receipt.more_unclosed ?? 0);
  if (unclosed) parts.push(`${counted(unclosed, "program")} not closed`);
  return `${parts.join(", ")}: ${verdict(receipt)}`;
}

function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

function verdict(receipt) {
  if (receipt.complete) return "none missing";
  if (receipt.complete === null) return "nobody can know whether some are missing";
  return receipt.running ? "not complete yet, it still runs" : "not complete";
}
