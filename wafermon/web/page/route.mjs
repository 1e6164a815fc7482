// What the address says after its #: "#jobs?state=failed", "#trace/ID?level=error", "#runs/KIND", "#compare?run=ID&other=ID", "#sidecar". Pure.

const FILTERS = {
  jobs: ["name", "service", "state", "since", "after"],
  trace: ["level", "text", "span", "event", "at"],
  runs: ["since", "state", "after"],
  compare: ["run", "other"],
  sidecar: [],
};
const NAMED = { trace: true, runs: null, jobs: false, compare: false, sidecar: false }; // whether an id follows; null: may follow

// { view, id, filters }; anything that can't be read is the list of jobs.
export function parse(hash) {
  const [path, query = ""] = split(hash.replace(/^#/, ""), "?");
  const [view, rawId = ""] = split(path, "/");
  const id = decoded(rawId);
  if (!Object.hasOwn(FILTERS, view) || id === null || (NAMED[view] !== null && NAMED[view] !== (id !== ""))) {
    return { view: "jobs", id: "", filters: {} };
  }
  const given = new URLSearchParams(query);
  const filters = {};
  for (const name of FILTERS[view]) {
    if (given.get(name)) filters[name] = given.get(name);
  }
  return { view, id, filters };
}

export function hashOf({ view, id = "", filters = {} }) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) {
    if (value) given.set(name, value);
  }
  const query = given.toString();
  return `#${view}${id ? `/${encodeURIComponent(id)}` : ""}${query ? `?${query}` : ""}`;
}

function split(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
