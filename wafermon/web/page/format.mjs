// Values in words. Pure. Times and durations are microseconds, as the API has them.

const COUNT = new Intl.NumberFormat("en-US");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

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

// "in 4 min 0 s (3 min 0 s to 6 min 0 s), by 8 runs"; empty where nothing can be said.
export function eta(estimate, now) {
  if (!estimate) return "";
  const left = estimate.at - now;
  const when = left > 0 ? `in ${duration(left)}` : `due for ${duration(-left)}`;
  const spread =
    Number.isFinite(estimate.latest) && estimate.latest > estimate.earliest && estimate.latest > now
      ? ` (${duration(Math.max(0, estimate.earliest - now))} to ${duration(estimate.latest - now)})`
      : "";
  const source = estimate.source === "runs" ? `by ${count(estimate.runs)} runs` : "by its own progress";
  return `${when}${spread}, ${source}`;
}

// In the viewer's zone; `utc` is for a hover.
export function clock(microseconds) {
  if (!Number.isFinite(microseconds)) return { text: "", utc: "" };
  const time = new Date(microseconds / 1_000);
  if (Number.isNaN(time.getTime())) return { text: "", utc: "" };
  const two = (number) => String(number).padStart(2, "0");
  const thousandths = String(time.getMilliseconds()).padStart(3, "0");
  return {
    text: `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${thousandths}`,
    utc: time.toISOString(),
  };
}

// "12,403 sent, 12,403 stored in files and db: complete"
export function receiptLine(receipt) {
  const parts = [];
  if (Number.isFinite(receipt.sent)) parts.push(`${count(receipt.sent)} sent`);
  parts.push(`${count(receipt.received)} received`);
  for (const [name, one] of Object.entries(receipt.backends ?? {})) {
    const stored = Number.isFinite(one.stored) ? count(one.stored) : "not yet all";
    parts.push(`${stored} of ${count(one.routed)} stored in ${name}`);
  }
  const missing = (receipt.gaps ?? []).length + (receipt.more_gaps ?? 0);
  if (missing) parts.push(counted(missing, "gap"));
  if (receipt.dropped) parts.push(`${count(receipt.dropped)} dropped by its SDKs`);
  if (receipt.rejected) parts.push(`${count(receipt.rejected)} rejected`);
  const unclosed = (receipt.unclosed ?? []).length + (receipt.more_unclosed ?? 0);
  if (unclosed) parts.push(`${counted(unclosed, "program")} not closed`);
  return `${parts.join(", ")}: ${verdict(receipt)}`;
}

function verdict(receipt) {
  if (receipt.complete) return "complete";
  if (receipt.complete === null) return "nobody can know whether it is complete";
  return receipt.running ? "not complete yet, it still runs" : "not complete";
}
