// The messages of a trace -> series to draw. Pure.

export const MOST = 24;
const RESOURCES = [["cpu", "CPU", "%"], ["mem", "memory", "By"], ["disk", "disk", "By"], ["net", "network", "By"]];

// Of { key, name, service, unit, data: [seconds, values] }: `series` of several values and `single` ones; metrics first, then resources. Counters
// are added up. Values that differ in their tags are series apart where a tag has several; else they are the values of one.
export function seriesOf({ metrics = [], resources = [] }) {
  const groups = new Map();
  const put = (group, tags, point) => {
    if (!Number.isFinite(point.value) || !Number.isFinite(point.ts)) return;
    const all = groups.get(group) ?? new Map();
    groups.set(group, all);
    if (all.has(tags)) all.get(tags).push(point);
    else all.set(tags, [point]);
  };
  for (const { ts, name, service, unit = "", value, kind, tags } of metrics) {
    const told = Object.entries(tags ?? {}).map(([tag, said]) => `${tag}=${said}`).sort().join(" ");
    put(JSON.stringify(["metric", service, name]), told, { ts, value, name: String(name), service: String(service), unit: String(unit), sum: kind === "counter" });
  }
  for (const message of resources) {
    for (const [field, name, unit] of RESOURCES) {
      const { ts, service, pid } = message;
      put(JSON.stringify(["resource", service, field]), pid ? `process ${pid}` : "", { ts, value: message[field], name, service: String(service), unit, sum: false });
    }
  }
  const found = [...groups].flatMap(([group, byTags]) => parts(group, byTags));
  return { series: found.filter(isSeveral), single: found.filter((one) => !isSeveral(one)) };
}

function isSeveral(one) {
  return one.data[0].length > 1;
}

function parts(group, byTags) {
  const split = byTags.size > 1 && [...byTags.values()].some((points) => points.length > 1);
  const apart = split ? [...byTags] : [["", [...byTags.values()].flat()]];
  return apart.map(([tags, points]) => {
    points.sort((one, other) => one.ts - other.ts);
    const [{ name, service, unit, sum }] = points;
    let total = 0;
    const values = points.map(({ value }) => (sum ? (total += value) : value));
    return { key: `${group} ${tags}`, name: tags ? `${name} ${tags}` : name, service, unit, data: [points.map(({ ts }) => ts / 1e6), values] };
  });
}
